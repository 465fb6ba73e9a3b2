//! The predicate behind WHERE: OR binds weaker than AND, AND weaker than NOT.

use super::fault::Fault;
use super::lex::Kind;
use super::like::Pattern;
use super::parse::Parser;
use super::syntax::{Column, Comparison, Constant, Predicate, Test};
use crate::limits::{QUERY_DEPTH_MAX, QUERY_ITEMS_MAX, QUERY_LIKE_PIECE_MAX};

type Parsed<T> = Result<T, Fault>;

impl Parser<'_, '_> {
    pub(super) fn predicate(&mut self) -> Parsed<Predicate> {
        self.any_of(0)
    }

    fn any_of(&mut self, depth: usize) -> Parsed<Predicate> {
        if depth > QUERY_DEPTH_MAX {
            let detail = format!("parentheses may be {QUERY_DEPTH_MAX} deep");
            return Err(Fault::new("query_too_long", detail, self.place()));
        }
        let mut parts = vec![self.all_of(depth)?];
        while self.keywords(&["OR"]) {
            parts.push(self.all_of(depth)?);
        }
        Ok(one_or(parts, Predicate::Or))
    }

    fn all_of(&mut self, depth: usize) -> Parsed<Predicate> {
        let mut parts = vec![self.part(depth)?];
        while self.keywords(&["AND"]) {
            parts.push(self.part(depth)?);
        }
        Ok(one_or(parts, Predicate::And))
    }

    fn part(&mut self, depth: usize) -> Parsed<Predicate> {
        let mut negated = false;
        while self.keywords(&["NOT"]) {
            negated = !negated;
        }
        let part = if self.sign("(") {
            let inside = self.any_of(depth + 1)?;
            self.expect_sign(")")?;
            inside
        } else {
            self.test()?
        };
        Ok(if negated { Predicate::Not(Box::new(part)) } else { part })
    }

    fn test(&mut self) -> Parsed<Predicate> {
        let place = self.place();
        let column = self.column("a column, NOT or `(`")?;
        let comparisons = [
            ("=", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            ("<", Comparison::Less),
            (">=", Comparison::GreaterOrEqual),
            (">", Comparison::Greater),
        ];
        for (sign, comparison) in comparisons {
            if self.sign(sign) {
                let constant = self.constant(&column)?;
                return Ok(Predicate::Test(column, Test::Compare(comparison, constant)));
            }
        }
        if self.keywords(&["IS"]) {
            let negated = self.keywords(&["NOT"]);
            if !self.keywords(&["NULL"]) {
                return self.expected(if negated { "NULL" } else { "NULL or NOT NULL" });
            }
            return Ok(maybe_not(negated, Predicate::Test(column, Test::IsNull)));
        }
        let negated = self.keywords(&["NOT"]);
        if self.keywords(&["IN"]) {
            let list = self.list(&column)?;
            return Ok(maybe_not(negated, Predicate::Test(column, Test::In(list))));
        }
        if self.keywords(&["LIKE"]) {
            if !matches!(column, Column::Id | Column::Key | Column::Data | Column::Path(_)) {
                return Err(Fault::new("wrong_type", "LIKE is for text: id, key, data and paths", place));
            }
            let Some(Kind::Text(pattern)) = self.peek() else {
                return self.expected("a pattern in single quotes, such as 'web-%'");
            };
            let Some(pattern) = Pattern::new(pattern) else {
                let detail = format!("between two `%`, what has `_` is at most {QUERY_LIKE_PIECE_MAX} characters long");
                return Err(Fault::new("query_too_long", detail, self.place()));
            };
            self.step();
            return Ok(maybe_not(negated, Predicate::Test(column, Test::Like(pattern))));
        }
        if negated {
            return self.expected("IN or LIKE");
        }
        if matches!(column, Column::Path(_)) {
            return Ok(Predicate::Test(column, Test::Truth));
        }
        self.expected("a comparison, IN, IS NULL or LIKE")
    }

    fn list(&mut self, column: &Column) -> Parsed<Vec<Constant>> {
        self.expect_sign("(")?;
        let mut list = vec![self.constant(column)?];
        while self.sign(",") {
            list.push(self.constant(column)?);
            if list.len() > QUERY_ITEMS_MAX {
                return Err(Fault::new(
                    "query_too_long",
                    format!("IN takes at most {QUERY_ITEMS_MAX} values"),
                    self.place(),
                ));
            }
        }
        self.expect_sign(")")?;
        Ok(list)
    }

    /// A constant that the column can be compared with.
    fn constant(&mut self, column: &Column) -> Parsed<Constant> {
        let place = self.place();
        if *column == Column::Received {
            return self.time().map(Constant::Time);
        }
        let constant = match self.peek() {
            Some(Kind::Text(text)) => Constant::Text(text.as_ref().into()),
            Some(Kind::Word(word)) => match word.to_ascii_lowercase().as_str() {
                "true" => Constant::Bool(true),
                "false" => Constant::Bool(false),
                "null" => {
                    return Err(Fault::new("bad_query", "nothing equals NULL: use IS NULL or IS NOT NULL", place));
                }
                _ => match number(word) {
                    Some(number) => number,
                    None => return self.expected("a number, a text in single quotes, true or false"),
                },
            },
            _ => return self.expected("a number, a text in single quotes, true or false"),
        };
        let fits = match column {
            Column::Offset | Column::Length => matches!(constant, Constant::Integer(_) | Constant::Number(_)),
            Column::Id | Column::Key => matches!(constant, Constant::Text(_)),
            Column::Received | Column::Data | Column::Path(_) => true,
        };
        if !fits {
            let kind =
                if matches!(column, Column::Offset | Column::Length) { "a number" } else { "a text in single quotes" };
            return Err(Fault::new("wrong_type", format!("this column is compared with {kind}"), place));
        }
        self.step();
        Ok(constant)
    }
}

fn one_or(mut parts: Vec<Predicate>, all: impl FnOnce(Vec<Predicate>) -> Predicate) -> Predicate {
    if parts.len() == 1 { parts.remove(0) } else { all(parts) }
}

fn maybe_not(negated: bool, predicate: Predicate) -> Predicate {
    if negated { Predicate::Not(Box::new(predicate)) } else { predicate }
}

fn number(word: &str) -> Option<Constant> {
    let digits = word.trim_start_matches(['-', '+']);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let number = word.parse::<f64>().ok().filter(|number| number.is_finite())?;
    Some(word.parse::<i64>().map_or(Constant::Number(number), Constant::Integer))
}
