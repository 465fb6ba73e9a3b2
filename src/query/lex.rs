//! Text to tokens. A word is whatever may stand bare: a keyword, a name with dots and hyphens, a number, a time. What it
//! is depends on where it stands, so that is left to the parser.

use super::fault::Fault;
use std::borrow::Cow;
use std::ops::Range;
use winnow::combinator::{alt, delimited, repeat};
use winnow::error::{ContextError, ErrMode};
use winnow::prelude::*;
use winnow::stream::LocatingSlice;
use winnow::token::{one_of, take_while};

/// One token and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind<'t>,
    pub(super) place: Range<usize>,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind<'t> {
    /// Bare.
    Word(&'t str),
    /// A name in double quotes.
    Name(Cow<'t, str>),
    /// A text in single quotes.
    Text(Cow<'t, str>),
    /// `( ) , ; * [ ] = != < <= > >=`; `<>` and `==` are read as `!=` and `=`.
    Sign(&'static str),
}

type Input<'t> = LocatingSlice<&'t str>;
type Parsed<O> = Result<O, ErrMode<ContextError>>;

/// Takes a text apart.
///
/// # Errors
/// At a character that no token begins with, or a quote that is not closed.
pub(super) fn lex(text: &str) -> Result<Vec<Token<'_>>, Fault> {
    let mut input = LocatingSlice::new(text);
    let mut tokens = Vec::new();
    loop {
        space(&mut input).map_err(|_| Fault::new("bad_query", "not readable", 0..0))?;
        if input.is_empty() {
            return Ok(tokens);
        }
        let at = text.len() - input.len();
        match token.with_span().parse_next(&mut input) {
            Ok((kind, place)) => tokens.push(Token { kind, place }),
            Err(_) => return Err(unreadable(text, at)),
        }
    }
}

fn unreadable(text: &str, at: usize) -> Fault {
    let sign = text[at..].chars().next().unwrap_or_default();
    match sign {
        '\'' => Fault::new("bad_query", "this text is not closed: expected another '", at..text.len()),
        '"' => Fault::new("bad_query", "this name is not closed: expected another \"", at..text.len()),
        _ => {
            let detail = format!("{sign:?} is not expected here (odd names stand in double quotes)");
            Fault::new("bad_query", detail, at..at + sign.len_utf8())
        }
    }
}

fn space<'t>(input: &mut Input<'t>) -> Parsed<&'t str> {
    take_while(0.., char::is_whitespace).parse_next(input)
}

fn token<'t>(input: &mut Input<'t>) -> Parsed<Kind<'t>> {
    alt((word.map(Kind::Word), quoted('\'').map(Kind::Text), quoted('"').map(Kind::Name), sign.map(Kind::Sign)))
        .parse_next(input)
}

fn word<'t>(input: &mut Input<'t>) -> Parsed<&'t str> {
    let first = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+');
    (one_of(first), take_while(0.., |c: char| first(c) || c == ':')).take().parse_next(input)
}

/// What stands between two `quote`s; a doubled one inside is one of them.
fn quoted<'t>(quote: char) -> impl FnMut(&mut Input<'t>) -> Parsed<Cow<'t, str>> {
    move |input| {
        let plain = take_while(1.., |c: char| c != quote).void();
        let doubled = (quote, quote).void();
        let inside = repeat::<_, (), (), _, _>(0.., alt((plain, doubled))).take();
        let text = delimited(quote, inside, quote).parse_next(input)?;
        Ok(if text.contains(quote) {
            let mut twice = String::new();
            twice.extend([quote, quote]);
            Cow::Owned(text.replace(&twice, &quote.to_string()))
        } else {
            Cow::Borrowed(text)
        })
    }
}

fn sign(input: &mut Input<'_>) -> Parsed<&'static str> {
    alt((
        alt(("<=".value("<="), ">=".value(">="), "<>".value("!="), "!=".value("!="), "==".value("="))),
        alt(("<".value("<"), ">".value(">"), "=".value("="))),
        alt((
            "(".value("("),
            ")".value(")"),
            ",".value(","),
            ";".value(";"),
            "*".value("*"),
            "[".value("["),
            "]".value("]"),
        )),
    ))
    .parse_next(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stand_where_they_are() {
        let tokens = lex(" a.b-c>='it''s' \"odd \"\"name\"[0]<>-1.5e+3").unwrap();
        let kinds: Vec<_> = tokens.iter().map(|token| token.kind.clone()).collect();
        let expected = [
            Kind::Word("a.b-c"),
            Kind::Sign(">="),
            Kind::Text("it's".into()),
            Kind::Name("odd \"name".into()),
            Kind::Sign("["),
            Kind::Word("0"),
            Kind::Sign("]"),
            Kind::Sign("!="),
            Kind::Word("-1.5e+3"),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(tokens[1].place, 6..8);
        assert_eq!(lex("2026-11-23T10:00:00.5+01:00").unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_token_is_pointed_at() {
        for (text, at, word) in
            [("a ? b", 2, "'?'"), ("a 'b", 2, "not closed"), ("\"", 0, "not closed"), ("é§", 2, "§")]
        {
            let fault = lex(text).unwrap_err();
            assert_eq!(fault.place.start, at, "{text}");
            assert!(fault.detail.contains(word), "{text}: {fault}");
        }
    }
}
