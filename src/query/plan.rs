//! A query that was checked: what a row is made of, and what events are asked for.

use super::fault::Fault;
use super::syntax::{Align, Column, Expression, Fill, Function, Item, Length, Query, Select};

/// How a column's values are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Text.
    Text,
    /// RFC 3339.
    Time,
    /// True or false.
    Boolean,
    /// Whatever stands in the data.
    Json,
    /// An event.
    Event,
}

impl Kind {
    /// Its name in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Text => "text",
            Self::Time => "time",
            Self::Boolean => "boolean",
            Self::Json => "json",
            Self::Event => "event",
        }
    }
}

/// One column of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Heading {
    /// Its name.
    pub name: Box<str>,
    /// What is in it.
    pub kind: Kind,
}

/// Where a cell of a row comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The slice's start.
    Start,
    /// That key of the group.
    Key(usize),
    /// That aggregate.
    State(usize),
    /// The slice's first event.
    FirstEvent,
    /// And its last.
    LastEvent,
    /// Whether the slice may still grow.
    Partial,
}

/// What becomes of events.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Each is a row as it is.
    Events,
    /// Each is a row of these columns.
    Columns(Vec<Column>),
    /// They are brought together.
    Groups,
}

/// A query that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The query.
    pub query: Query,
    /// Columns of the result.
    pub headings: Vec<Heading>,
    /// What becomes of events.
    pub shape: Shape,
    pub(super) sources: Vec<Source>,
    pub(super) keys: Vec<Column>,
    pub(super) functions: Vec<Function>,
    /// Columns that aggregates are made of, each with those.
    pub(super) inputs: Vec<(Column, Vec<usize>)>,
}

impl Plan {
    /// Checks a query.
    ///
    /// # Errors
    /// What it asks for and cannot have, and where.
    pub fn new(query: Query) -> Result<Self, Fault> {
        check_slices(&query)?;
        let mut plan = Self {
            headings: Vec::new(),
            shape: Shape::Groups,
            sources: Vec::new(),
            keys: Vec::new(),
            functions: Vec::new(),
            inputs: Vec::new(),
            query,
        };
        let sampled = plan.query.sample.is_some();
        if sampled {
            plan.add("ts", Kind::Time, Source::Start);
        }
        match plan.query.select.clone() {
            Select::All if sampled => plan.whole_slices(),
            Select::All => plan.whole_events(),
            Select::Items(items) => plan.items(&items)?,
        }
        if sampled {
            plan.add("partial", Kind::Boolean, Source::Partial);
        }
        plan.check()?;
        Ok(plan)
    }

    fn add(&mut self, name: &str, kind: Kind, source: Source) {
        let fill = self.query.sample.as_ref().map(|sample| sample.fill);
        let kind = match (kind, source, fill) {
            // What is filled in need not be whole.
            (Kind::Integer, Source::State(_), Some(Fill::Linear | Fill::Number(_))) => Kind::Number,
            _ => kind,
        };
        self.headings.push(Heading { name: name.into(), kind });
        self.sources.push(source);
    }

    fn whole_events(&mut self) {
        self.shape = Shape::Events;
        let columns = [
            ("offset", Kind::Integer),
            ("id", Kind::Text),
            ("received", Kind::Time),
            ("length", Kind::Integer),
            ("content_type", Kind::Text),
            ("key", Kind::Text),
            ("headers", Kind::Json),
            ("encoding", Kind::Text),
            ("data", Kind::Json),
        ];
        self.headings = columns.map(|(name, kind)| Heading { name: name.into(), kind }).into();
    }

    fn whole_slices(&mut self) {
        for (place, (name, function)) in
            [("count", Function::Count), ("bytes", Function::Bytes)].into_iter().enumerate()
        {
            self.functions.push(function);
            self.add(name, Kind::Integer, Source::State(place));
        }
        self.add("first", Kind::Event, Source::FirstEvent);
        self.add("last", Kind::Event, Source::LastEvent);
    }

    fn items(&mut self, items: &[Item]) -> Result<(), Fault> {
        let grouped = self.query.sample.is_some()
            || items.iter().any(|item| matches!(item.expression, Expression::Aggregate(..)));
        let mut columns = Vec::new();
        for item in items {
            match &item.expression {
                Expression::Column(column) if grouped => {
                    self.add(&item.name, kind_of(column), Source::Key(self.keys.len()));
                    self.keys.push(column.clone());
                }
                Expression::Column(column) => {
                    self.headings.push(Heading { name: item.name.clone(), kind: kind_of(column) });
                    columns.push(column.clone());
                }
                Expression::Aggregate(function, column) => self.aggregate(item, *function, column.as_ref())?,
            }
        }
        if !grouped {
            self.shape = Shape::Columns(columns);
        }
        Ok(())
    }

    fn aggregate(&mut self, item: &Item, function: Function, column: Option<&Column>) -> Result<(), Fault> {
        let numbers = matches!(function, Function::Sum | Function::Average | Function::Quantile(_));
        let kind = column.map_or(Kind::Integer, kind_of);
        let countable = matches!(kind, Kind::Integer | Kind::Json) && column != Some(&Column::Data);
        if numbers && !countable {
            let detail = "this is made of numbers: offset, length, or a path such as data.delay";
            return Err(Fault::new("wrong_type", detail, item.place.clone()));
        }
        let kind = match function {
            Function::Count | Function::Bytes | Function::CountDistinct => Kind::Integer,
            Function::Rate | Function::Sum | Function::Average | Function::Quantile(_) => Kind::Number,
            Function::First | Function::Last | Function::Min | Function::Max => kind,
        };
        let place = self.functions.len();
        self.functions.push(function);
        self.add(&item.name, kind, Source::State(place));
        if let Some(column) = column {
            match self.inputs.iter_mut().find(|(known, _)| known == column) {
                Some((_, places)) => places.push(place),
                None => self.inputs.push((column.clone(), vec![place])),
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Fault> {
        for (number, heading) in self.headings.iter().enumerate() {
            if self.headings[..number].iter().any(|other| other.name == heading.name) {
                let detail = format!("two columns are called `{}`: name one with AS", heading.name);
                return Err(Fault::new("bad_query", detail, self.item_place(&heading.name)));
            }
        }
        if !self.query.follow {
            return Ok(());
        }
        let detail = match () {
            () if self.query.descending || self.query.to.is_some() => "FOLLOW has no TO and goes on in ascending order",
            () if self.shape == Shape::Groups && self.query.sample.is_none() => {
                "aggregates of a log that goes on have no end: cut it with SAMPLE BY"
            }
            () if self.fills_keys() => {
                "which values of a plain column are missing is known at the end: FILL them without FOLLOW"
            }
            () if self.headings.iter().any(|heading| &*heading.name == "frame") => {
                "lines with `frame` are those that control what follows: name the column with AS"
            }
            () => return Ok(()),
        };
        Err(Fault::new("bad_query", detail, self.query.follow_place.clone()))
    }

    /// Where the last item of that name stands.
    fn item_place(&self, name: &str) -> std::ops::Range<usize> {
        let items = match &self.query.select {
            Select::Items(items) => items.as_slice(),
            Select::All => &[],
        };
        let item = items.iter().rev().find(|item| &*item.name == name);
        item.map_or(self.query.group_place.clone(), |item| item.place.clone())
    }

    /// Whether a row needs no more of events than how many there were, and how many bytes their data.
    #[must_use]
    pub fn counts_only(&self) -> bool {
        let counts = |function: &Function| matches!(function, Function::Count | Function::Bytes | Function::Rate);
        let plain = self.keys.is_empty() && self.query.predicate.is_none() && self.shape == Shape::Groups;
        let sampled = !self.sources.iter().any(|source| matches!(source, Source::FirstEvent | Source::LastEvent));
        plain && sampled && self.functions.iter().all(counts)
    }

    /// The same, for the slice before the range: what FILL(PREV) begins with.
    #[must_use]
    pub fn of_slice_before(&self) -> Self {
        let mut plan = self.clone();
        (plan.query.descending, plan.query.follow) = (false, false);
        if let Some(sample) = &mut plan.query.sample {
            sample.fill = Fill::None;
        }
        plan
    }

    /// When the last event was received that the query is about: one row of that time, or NULL.
    #[must_use]
    pub fn of_last_time(&self) -> Self {
        let (sources, functions, inputs) =
            (vec![Source::State(0)], vec![Function::Last], vec![(Column::Received, vec![0])]);
        let query = Query { sample: None, descending: false, follow: false, ..self.query.clone() };
        let headings = vec![Heading { name: "received".into(), kind: Kind::Time }];
        Self { query, headings, shape: Shape::Groups, sources, keys: Vec::new(), functions, inputs }
    }

    /// What EXPLAIN answers with: lines of text that no event becomes.
    #[must_use]
    pub fn of_explanation(&self) -> Self {
        let query = Query { sample: None, descending: false, limit: None, follow: false, ..self.query.clone() };
        let headings = ["step", "detail"].map(|name| Heading { name: name.into(), kind: Kind::Text }).into();
        let (sources, keys, functions, inputs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { query, headings, shape: Shape::Columns(Vec::new()), sources, keys, functions, inputs }
    }

    /// Whether slices are filled for each combination of plain columns, which are known at the end.
    #[must_use]
    pub fn fills_keys(&self) -> bool {
        !self.keys.is_empty() && self.query.sample.as_ref().is_some_and(|sample| sample.fill != Fill::None)
    }

    /// Whether no row is complete before all are.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.query.descending && self.query.sample.is_some() || self.fills_keys()
    }
}

/// Days of 10 000 years.
const DAYS_MAX: u32 = 3_652_425;

fn check_slices(query: &Query) -> Result<(), Fault> {
    let Some(sample) = &query.sample else { return Ok(()) };
    let nothing = matches!(sample.length, Length::Fixed(0) | Length::Days(0) | Length::Months(0));
    if nothing {
        return Err(Fault::new("bad_query", "a slice must be longer than nothing", sample.place.clone()));
    }
    let too_long = match sample.length {
        Length::Fixed(length) => length > u64::from(DAYS_MAX) * 86_400_000_000,
        Length::Days(days) => days > DAYS_MAX,
        Length::Months(months) => months > 120_000,
    };
    if too_long {
        return Err(Fault::new("bad_query", "a slice is at most 10000 years long", sample.place.clone()));
    }
    if sample.align == Align::FirstObservation && sample.fill == Fill::Previous {
        let detail = "FILL(PREV) looks before the first event, ALIGN TO FIRST OBSERVATION begins at it: choose one";
        return Err(Fault::new("bad_query", detail, sample.place.clone()));
    }
    Ok(())
}

fn kind_of(column: &Column) -> Kind {
    match column {
        Column::Offset | Column::Length => Kind::Integer,
        Column::Id | Column::Key => Kind::Text,
        Column::Received => Kind::Time,
        Column::Data | Column::Path(_) => Kind::Json,
    }
}
