//! What is asked: a text, or JSON with `q` and `next`, or the same as parameters; and where a cut result goes on.

use super::super::parameters::Parameters;
use super::super::problem::Problem;
use super::Range;
use crate::http::{Head, Known, Method};
use crate::query::Fault;
use crate::query::run::Span;
use crate::query::time;
use serde::Deserialize;
use uuid::Uuid;

/// A query as it was asked.
pub(super) struct Ask {
    pub(super) text: String,
    pub(super) next: Option<String>,
    /// What it is to be called while it runs.
    pub(super) id: Option<Uuid>,
}

impl Ask {
    pub(super) fn read(head: &Head<'_>, body: &[u8]) -> Result<Self, Problem> {
        let parameters = Parameters::new(head.query, &["q", "next", "id", "token"])?;
        let next = parameters.text("next")?.map(Into::into);
        let id = parameters.text("id")?.map(|id| id.parse().map_err(|_| Problem::bad_parameter("id", "a UUID")));
        let id = id.transpose()?;
        let text = parameters.text("q")?;
        if head.method != Method::Post {
            let text = text.ok_or_else(|| Problem::bad_parameter("q", "a query"))?;
            return Ok(Self { text: text.into(), next, id });
        }
        if text.is_some() {
            return Err(Problem::bad_parameter("q", "nothing: with POST the query is the body"));
        }
        let utf8 = std::str::from_utf8(body).map_err(|error| {
            Problem::new(400, "not_utf8", format!("a query is UTF-8: byte {} is not", error.valid_up_to()))
        })?;
        let content_type = head.get(Known::ContentType).unwrap_or_default();
        let media_type = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        let object = utf8.trim_start().starts_with('{');
        match (media_type.eq_ignore_ascii_case(b"application/json"), object) {
            (true, true) => {}
            (true, false) => return Err(Problem::new(400, "bad_body", "expected an object with `q`: a query")),
            (false, true) => {
                let detail = "JSON is sent as Content-Type: application/json; a query begins with SELECT";
                return Err(Problem::new(400, "bad_body", detail));
            }
            (false, false) => return Ok(Self { text: utf8.to_owned(), next, id }),
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            q: String,
            next: Option<String>,
        }
        let body: Body =
            serde_json::from_str(utf8).map_err(|error| Problem::new(400, "bad_body", error.to_string()))?;
        Ok(Self { text: body.q, next: body.next.or(next), id })
    }
}

/// What is wrong with a query, as an answer: with its place.
pub(super) fn refusal(fault: &Fault, text: &str) -> Problem {
    let (line, column) = fault.line_and_column(text);
    let mut problem = Problem::new(400, fault.code, fault.detail.clone());
    problem.members.push(("line", line.into()));
    problem.members.push(("column", column.into()));
    problem.members.push(("drawn", fault.drawn(text).into()));
    problem
}

/// How a cut result goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In a range that became smaller.
    Offset,
    /// Behind so many rows.
    Skip,
}

/// Where a cut result goes on. It holds for the query that it was given for, and for the range as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) range: Range,
}

impl Next {
    pub(super) fn write(&self, text: &str) -> String {
        let kind = match self.kind {
            Kind::Offset => 'o',
            Kind::Skip => 's',
        };
        let Range { from, upto, span, now_us } = self.range;
        let fields = [self.number, from, upto, span.from, span.to, span.settled, now_us].map(|field| field.to_string());
        format!("{kind}-{}-{:08x}", fields.join("-"), crc32fast::hash(text.as_bytes()))
    }

    pub(super) fn read(next: &str, text: &str) -> Result<Self, Problem> {
        let bad = || Problem::new(400, "bad_next", "`next` is what the answer before gave, for the very same query");
        let mut fields = next.split('-');
        let kind = match fields.next() {
            Some("o") => Kind::Offset,
            Some("s") => Kind::Skip,
            _ => return Err(bad()),
        };
        let mut number = || fields.next().and_then(|field| field.parse::<u64>().ok()).ok_or_else(bad);
        let (count, from, upto) = (number()?, number()?, number()?);
        let span = Span { from: number()?, to: number()?, settled: number()? };
        let now_us = number()?;
        let same = fields.next() == Some(&*format!("{:08x}", crc32fast::hash(text.as_bytes())));
        let known = [span.from, span.to, span.settled, now_us].into_iter().all(time::is_known);
        if !same || fields.next().is_some() || from > upto || span.from > span.to || !known {
            return Err(bad());
        }
        Ok(Self { kind, number: count, range: Range { from, upto, span, now_us } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_comes_back_and_holds_for_its_query_alone() {
        let range = Range { from: 3, upto: 9, span: Span { from: 10, to: 20, settled: 15 }, now_us: 30 };
        for kind in [Kind::Offset, Kind::Skip] {
            let next = Next { kind, number: 7, range };
            let text = next.write("SELECT");
            assert_eq!(Next::read(&text, "SELECT").unwrap(), next);
            assert_eq!(Next::read(&text, "SELECT ").unwrap_err().code, "bad_next");
            for cut in 0..text.len() {
                assert!(Next::read(&text[..cut], "SELECT").is_err());
            }
        }
    }

    #[test]
    fn a_next_that_nobody_gave_is_refused() {
        let last = 253_402_207_200_000_000_u64;
        for (fields, sound) in [
            (["0", "3", "9", "10", "20", "15", "30"], true),
            (["0", "3", "9", "10", "20", "25", "30"], true),
            (["0", "3", "9", "10", &last.to_string(), "15", "30"], true),
            (["0", "9", "3", "10", "20", "15", "30"], false),
            (["0", "3", "9", "20", "10", "15", "30"], false),
            (["0", "3", "9", "10", &(last + 1).to_string(), "15", "30"], false),
            (["0", "3", "9", "10", "20", "18446744073709551615", "30"], false),
            (["0", "3", "9", "10", "20", "15", "18446744073709551615"], false),
            (["0", "3", "9", "10", "20", "15", "18446744073709551616"], false),
            (["0", "3", "9", "10", "20", "15", "-30"], false),
        ] {
            let next = format!("o-{}-{:08x}", fields.join("-"), crc32fast::hash(b"SELECT"));
            assert_eq!(Next::read(&next, "SELECT").is_ok(), sound, "{next}");
        }
    }
}
