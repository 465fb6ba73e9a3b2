//! Tokens to a syntax tree, clause by clause. A fault says what was expected at the place where it was not found.

use super::fault::Fault;
use super::lex::{Kind, Token, lex};
use super::syntax::{Align, Column, Expression, Fill, Function, Item, Query, Sample, Select};
use super::time;
use super::value::{Path, Step};
use crate::limits::{QUERY_BYTES_MAX, QUERY_ITEMS_MAX, QUERY_PATH_STEPS_MAX};
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::ops::Range;

/// Reads a query; `now()` in it is `now_us`.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse(text: &str, now_us: u64) -> Result<Query, Fault> {
    if text.len() > QUERY_BYTES_MAX {
        let detail = format!("a query is at most {} long", crate::units::print_size(QUERY_BYTES_MAX as u64));
        return Err(Fault::new("query_too_long", detail, 0..1));
    }
    let tokens = lex(text)?;
    Parser { text, tokens: &tokens, at: 0, passed: 0, now_us }.query()
}

/// Reads tokens from left to right.
pub(super) struct Parser<'t, 'p> {
    text: &'t str,
    tokens: &'p [Token<'t>],
    at: usize,
    /// How many clauses were passed, of those that there may be.
    passed: usize,
    now_us: u64,
}

type Parsed<T> = Result<T, Fault>;

impl<'t, 'p> Parser<'t, 'p> {
    // ---- tokens

    pub(super) fn peek(&self) -> Option<&'p Kind<'t>> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    /// Where the next token stands; behind the last one it is the end of the text.
    pub(super) fn place(&self) -> Range<usize> {
        let end = self.text.trim_end().len();
        self.tokens.get(self.at).map_or(end..end, |token| token.place.clone())
    }

    pub(super) fn step(&mut self) {
        self.at += 1;
    }

    /// What was expected where the next token stands.
    pub(super) fn expected<T>(&self, what: &str) -> Parsed<T> {
        let place = self.place();
        let found = match self.text.get(place.clone()).unwrap_or_default() {
            "" => "the end".to_owned(),
            found => format!("`{}`", found.chars().take(40).collect::<String>()),
        };
        Err(Fault::new("bad_query", format!("expected {what}, found {found}"), place))
    }

    fn is_keyword(&self, ahead: usize, keyword: &str) -> bool {
        let token = self.tokens.get(self.at + ahead).map(|token| &token.kind);
        matches!(token, Some(Kind::Word(word)) if word.eq_ignore_ascii_case(keyword))
    }

    /// Takes these keywords, if all of them are next.
    pub(super) fn keywords(&mut self, keywords: &[&str]) -> bool {
        let all = keywords.iter().enumerate().all(|(ahead, keyword)| self.is_keyword(ahead, keyword));
        self.at += if all { keywords.len() } else { 0 };
        all
    }

    fn expect_keywords(&mut self, keywords: &[&str]) -> Parsed<()> {
        for keyword in keywords {
            if !self.keywords(&[keyword]) {
                return self.expected(keyword);
            }
        }
        Ok(())
    }

    /// Takes what this clause begins with, if that is next.
    fn clause(&mut self, clause: &str) -> Parsed<bool> {
        let mut words = clause.split(' ');
        if !words.next().is_some_and(|word| self.keywords(&[word])) {
            return Ok(false);
        }
        words.try_for_each(|word| self.expect_keywords(&[word]))?;
        self.passed = CLAUSES.iter().position(|known| *known == clause).map_or(0, |place| place + 1);
        Ok(true)
    }

    /// What may still come.
    fn following(&self) -> String {
        let (predicate, sampled) = (self.passed == 3, self.passed > 3);
        let clauses =
            CLAUSES.iter().skip(self.passed).filter(|clause| sampled || !matches!(**clause, "FILL" | "ALIGN TO"));
        let all: Vec<&str> = ["AND", "OR"].iter().filter(|_| predicate).chain(clauses).copied().collect();
        if all.is_empty() { "the end".to_owned() } else { format!("{} or the end", all.join(", ")) }
    }

    pub(super) fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Kind::Sign(found)) if *found == sign);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_sign(&mut self, sign: &str) -> Parsed<()> {
        if self.sign(sign) { Ok(()) } else { self.expected(&format!("`{sign}`")) }
    }

    fn fault<T>(&self, code: &'static str, detail: impl Into<String>, place: Range<usize>) -> Parsed<T> {
        Err(Fault::new(code, detail, place))
    }

    // ---- clauses

    fn query(&mut self) -> Parsed<Query> {
        let explain = self.keywords(&["EXPLAIN"]);
        self.expect_keywords(&["SELECT"])?;
        let select = self.select()?;
        if self.is_keyword(0, "FROM") {
            let detail = "expected IN: the group stands behind it, a time behind FROM: SELECT … IN group FROM time";
            return self.fault("bad_query", detail, self.place());
        }
        self.expect_keywords(&["IN"])?;
        let group_place = self.place();
        let group = self.name("the name of a group")?;
        let from_place = self.place();
        let from = if self.clause("FROM")? { Some(self.time()?) } else { None };
        let to = if self.clause("TO")? { Some(self.time()?) } else { None };
        if from.zip(to).is_some_and(|(from, to)| from >= to) {
            let place = from_place.start..self.tokens[self.at - 1].place.end;
            return self.fault("bad_range", "FROM must be before TO", place);
        }
        let predicate = if self.clause("WHERE")? { Some(self.predicate()?) } else { None };
        let sample = self.sample()?;
        let descending = self.order()?;
        let limit = if self.clause("LIMIT")? { Some(self.count()?) } else { None };
        let follow_place = self.place();
        let follow = self.clause("FOLLOW")?;
        if self.is_keyword(0, "GROUP") {
            let detail = "no GROUP BY is needed: the columns that stand beside aggregates group them";
            return self.fault("bad_query", detail, self.place());
        }
        if self.sign(";") && self.peek().is_some() {
            return self.expected("the end");
        }
        if self.peek().is_some() {
            return self.expected(&self.following());
        }
        Ok(Query {
            explain,
            select,
            group,
            group_place,
            from,
            to,
            predicate,
            sample,
            descending,
            limit,
            follow,
            follow_place,
        })
    }

    fn select(&mut self) -> Parsed<Select> {
        if self.sign("*") {
            return Ok(Select::All);
        }
        let mut items = vec![self.item("*, a column or an aggregate such as count()")?];
        while self.sign(",") {
            items.push(self.item("a column or an aggregate such as count()")?);
            if items.len() > QUERY_ITEMS_MAX {
                let detail = format!("at most {QUERY_ITEMS_MAX} items may be selected");
                return self.fault("query_too_long", detail, self.place());
            }
        }
        Ok(Select::Items(items))
    }

    fn item(&mut self, expected: &str) -> Parsed<Item> {
        let start = self.place().start;
        let function = match (self.peek(), self.tokens.get(self.at + 1).map(|token| &token.kind)) {
            (Some(Kind::Word(word)), Some(Kind::Sign("("))) => Some(self.function(word)?),
            _ => None,
        };
        let expression = match function {
            None => Expression::Column(self.column(expected)?),
            Some(function) => {
                self.at += 2;
                let bare = matches!(function, Function::Count | Function::Bytes | Function::Rate);
                // As elsewhere.
                let _ = function == Function::Count && self.sign("*");
                let column = if bare { None } else { Some(self.column("a column, such as data.delay")?) };
                if bare && self.peek() != Some(&Kind::Sign(")")) {
                    return self.expected("`)`, for this is of events and not of a column");
                }
                self.expect_sign(")")?;
                Expression::Aggregate(function, column)
            }
        };
        let place = start..self.tokens[self.at - 1].place.end;
        let name = match self.keywords(&["AS"]) {
            true => self.name("a name for the column")?,
            false => self.text[place.clone()].into(),
        };
        Ok(Item { expression, name, place })
    }

    fn function(&self, word: &str) -> Parsed<Function> {
        const NAMES: [(&str, Function); 13] = [
            ("count", Function::Count),
            ("bytes", Function::Bytes),
            ("rate", Function::Rate),
            ("first", Function::First),
            ("last", Function::Last),
            ("min", Function::Min),
            ("max", Function::Max),
            ("sum", Function::Sum),
            ("avg", Function::Average),
            ("count_distinct", Function::CountDistinct),
            ("p50", Function::Quantile(0.50)),
            ("p95", Function::Quantile(0.95)),
            ("p99", Function::Quantile(0.99)),
        ];
        if let Some((_, function)) = NAMES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)) {
            return Ok(*function);
        }
        let names: Vec<String> = NAMES.iter().map(|(name, _)| format!("{name}()")).collect();
        let detail = format!("there is no function `{word}`: expected one of {}", names.join(" "));
        self.fault("unknown_name", detail, self.place())
    }

    /// A column: one of an event's own, or a path in its data.
    pub(super) fn column(&mut self, expected: &str) -> Parsed<Column> {
        let place = self.place();
        let Some(Kind::Word(word)) = self.peek() else { return self.expected(expected) };
        let (first, rest) = word.split_once('.').map_or((*word, None), |(first, rest)| (first, Some(rest)));
        let own = match first.to_ascii_lowercase().as_str() {
            "offset" => Column::Offset,
            "id" => Column::Id,
            "received" => Column::Received,
            "key" => Column::Key,
            "length" => Column::Length,
            "data" => Column::Data,
            _ => {
                let known = "offset, id, received, key, length, data or a path such as data.delay";
                let time = matches!(&*word.to_ascii_lowercase(), "time" | "_time" | "timestamp" | "ts");
                let hint = if time { " (an event's time is `received`)" } else { "" };
                let detail = format!("there is no column `{word}`: expected {known}{hint}");
                return self.fault("unknown_name", detail, place);
            }
        };
        self.step();
        match rest {
            None if own == Column::Data && matches!(self.adjacent(), Some(Kind::Sign("["))) => {
                self.path(String::new(), place)
            }
            None => Ok(own),
            Some(rest) if own == Column::Data => self.path(format!(".{rest}"), place),
            Some(_) => self.fault("unknown_name", format!("`{first}` has no parts: only data has"), place),
        }
    }

    /// The next token, if nothing stands before it.
    fn adjacent(&self) -> Option<&'p Kind<'t>> {
        let before = self.tokens.get(self.at.checked_sub(1)?)?;
        self.tokens.get(self.at).filter(|token| token.place.start == before.place.end).map(|token| &token.kind)
    }

    /// The rest of a path, of which `bare` was read.
    fn path(&mut self, bare: String, start: Range<usize>) -> Parsed<Column> {
        let mut steps = Vec::new();
        let mut bare = bare;
        loop {
            let mut names: Vec<&str> = bare.split('.').collect();
            // The first one is what stood before the first dot: nothing. An open end belongs to a quoted name.
            let open = names.len() > 1 && names.last().is_some_and(|name| name.is_empty());
            if open {
                names.pop();
            }
            if names.iter().skip(1).any(|name| name.is_empty()) || !names[0].is_empty() {
                return self.fault("bad_query", "expected names with one dot between them", start);
            }
            if let Some(odd) = names.iter().find(|name| name.contains(['+', '-', ':'])) {
                let detail = format!("a name with signs stands in double quotes: \"{odd}\"; there is no arithmetic");
                return self.fault("bad_query", detail, start);
            }
            steps.extend(names[1..].iter().map(|name| Step::Member((*name).into())));
            match (self.adjacent(), open) {
                (Some(Kind::Name(name)), true) => {
                    steps.push(Step::Member(name.as_ref().into()));
                    self.step();
                }
                (_, true) => return self.expected("a name behind the dot"),
                (Some(Kind::Sign("[")), false) => {
                    self.step();
                    steps.push(Step::Element(self.count()? as usize));
                    self.expect_sign("]")?;
                }
                _ => break,
            }
            bare.clear();
            if let Some(Kind::Word(word)) =
                self.adjacent().filter(|kind| matches!(kind, Kind::Word(w) if w.starts_with('.')))
            {
                bare.push_str(word);
                self.step();
            }
        }
        if steps.len() > QUERY_PATH_STEPS_MAX {
            let detail = format!("a path has at most {QUERY_PATH_STEPS_MAX} steps");
            return self.fault("query_too_long", detail, start);
        }
        Ok(Column::Path(Path::new(steps)))
    }

    fn name(&mut self, expected: &str) -> Parsed<Box<str>> {
        let name = match self.peek() {
            Some(Kind::Word(word)) => Box::from(*word),
            Some(Kind::Name(name)) => Box::from(name.as_ref()),
            _ => return self.expected(expected),
        };
        self.step();
        Ok(name)
    }

    /// A whole number.
    fn count(&mut self) -> Parsed<u64> {
        let number = match self.peek() {
            Some(Kind::Word(word)) if word.bytes().all(|byte| byte.is_ascii_digit()) => word.parse().ok(),
            _ => None,
        };
        let Some(number) = number else { return self.expected("a whole number") };
        self.step();
        Ok(number)
    }

    /// A time, which may be so long before or behind another one.
    pub(super) fn time(&mut self) -> Parsed<u64> {
        let place = self.place();
        if self.keywords(&["now"]) {
            self.expect_sign("(")?;
            self.expect_sign(")")?;
            return self.moved(self.now_us, place);
        }
        let time = match self.peek() {
            Some(Kind::Word(word)) => time::time(word),
            Some(Kind::Text(text)) => time::time(text),
            _ => None,
        };
        match time {
            Some(time) => {
                self.step();
                Ok(time)
            }
            None => self.expected(time::EXPECTED),
        }
    }

    /// What `now()` is moved by, if it is.
    fn moved(&mut self, now_us: u64, place: Range<usize>) -> Parsed<u64> {
        let Some(Kind::Word(word)) =
            self.peek().filter(|kind| matches!(kind, Kind::Word(w) if w.starts_with(['-', '+'])))
        else {
            return Ok(now_us);
        };
        let (sign, mut length) = word.split_at(1);
        self.step();
        if length.is_empty() {
            let Some(Kind::Word(word)) = self.peek() else { return self.expected("a duration, such as 15m") };
            length = word;
            self.step();
        }
        let moved = time::duration(length).and_then(|length| time::moved(now_us, sign, length));
        moved.ok_or_else(|| {
            let place = place.start..self.tokens[self.at - 1].place.end;
            let detail = "expected now() with a duration such as 15m or 7d, between 1970 and the year 9999";
            Fault::new("bad_query", detail, place)
        })
    }

    // ---- slices and order

    fn sample(&mut self) -> Parsed<Option<Sample>> {
        let start = self.place().start;
        if !self.clause("SAMPLE BY")? {
            return Ok(None);
        }
        let length = match self.peek() {
            Some(Kind::Word(word)) => time::length(word),
            _ => None,
        };
        let Some(length) = length else {
            return self.expected("the length of a slice, such as 5m: U T s m h d w M y are µs, ms, s, min, h, d …");
        };
        self.step();
        let fill = if self.clause("FILL")? { self.fill()? } else { Fill::None };
        let align = self.align()?;
        Ok(Some(Sample { length, align, fill, place: start..self.tokens[self.at - 1].place.end }))
    }

    fn fill(&mut self) -> Parsed<Fill> {
        self.expect_sign("(")?;
        let Some(Kind::Word(word)) = self.peek() else { return self.expected(FILL) };
        let fill = match word.to_ascii_uppercase().as_str() {
            "NONE" => Fill::None,
            "NULL" => Fill::Null,
            "PREV" => Fill::Previous,
            "LINEAR" => Fill::Linear,
            _ => match (word.parse(), word.parse::<f64>()) {
                (Ok(whole), _) => Fill::Whole(whole),
                (_, Ok(number)) if number.fract() == 0.0 && number.abs() < 1e15 => Fill::Whole(number as i64),
                (_, Ok(number)) if number.is_finite() => Fill::Number(number),
                _ => return self.expected(FILL),
            },
        };
        self.step();
        self.expect_sign(")")?;
        Ok(fill)
    }

    fn align(&mut self) -> Parsed<Align> {
        if !self.clause("ALIGN TO")? {
            return Ok(Align::Calendar(TimeZone::UTC));
        }
        if self.keywords(&["FIRST"]) {
            self.expect_keywords(&["OBSERVATION"])?;
            return Ok(Align::FirstObservation);
        }
        if !self.keywords(&["CALENDAR"]) {
            return self.expected("CALENDAR or FIRST OBSERVATION");
        }
        if !self.keywords(&["TIME"]) {
            return Ok(Align::Calendar(TimeZone::UTC));
        }
        self.expect_keywords(&["ZONE"])?;
        let place = self.place();
        let Some(Kind::Text(name)) = self.peek() else {
            return self.expected("a time zone in quotes, such as 'Europe/Berlin'");
        };
        self.step();
        // The data that is part of the program: the host's would be searched for in files, here and now, and slices would be
        // other ones on another host.
        match TimeZoneDatabase::bundled().get(name).ok().filter(|zone| !zone.is_unknown()) {
            // UTC has many names.
            Some(zone) if is_always_utc(&zone) => Ok(Align::Calendar(TimeZone::UTC)),
            Some(zone) => Ok(Align::Calendar(zone)),
            None => self.fault("unknown_name", format!("there is no time zone {name:?}"), place),
        }
    }

    fn order(&mut self) -> Parsed<bool> {
        if !self.clause("ORDER BY")? {
            return Ok(false);
        }
        if !self.keywords(&["received"]) && !self.keywords(&["ts"]) {
            return self.expected("received");
        }
        if self.keywords(&["DESC"]) {
            return Ok(true);
        }
        self.keywords(&["ASC"]);
        Ok(false)
    }
}

fn is_always_utc(zone: &TimeZone) -> bool {
    zone.following(Timestamp::MIN).next().is_none() && zone.to_offset(Timestamp::UNIX_EPOCH).is_zero()
}

/// What may stand behind the name of the group, in this order.
const CLAUSES: [&str; 9] = ["FROM", "TO", "WHERE", "SAMPLE BY", "FILL", "ALIGN TO", "ORDER BY", "LIMIT", "FOLLOW"];

const FILL: &str = "NONE, NULL, PREV, LINEAR or a number";
