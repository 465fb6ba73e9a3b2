//! A query as a tree, as it was written: names are known, types and bounds are not checked yet.

use super::like::Pattern;
use super::value::Path;
use jiff::tz::TimeZone;
use std::ops::Range;

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Whether to show the plan instead of carrying it out.
    pub explain: bool,
    /// What is asked of each event or slice.
    pub select: Select,
    /// Name of the group.
    pub group: Box<str>,
    /// Where the name stands.
    pub group_place: Range<usize>,
    /// Beginning of the range, µs since 1970.
    pub from: Option<u64>,
    /// End of the range: it is not part of it.
    pub to: Option<u64>,
    /// What an event must meet.
    pub predicate: Option<Predicate>,
    /// How time is cut.
    pub sample: Option<Sample>,
    /// Newest first.
    pub descending: bool,
    /// Rows at most.
    pub limit: Option<u64>,
    /// Whether to go on with what comes.
    pub follow: bool,
    /// Where `FOLLOW` stands, or would.
    pub follow_place: Range<usize>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Select {
    /// `*`
    All,
    /// A list.
    Items(Vec<Item>),
}

/// One column of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What it is made of.
    pub expression: Expression,
    /// What it is called.
    pub name: Box<str>,
    /// Where it stands.
    pub place: Range<usize>,
}

/// What a column is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// Of each event.
    Column(Column),
    /// Of all events of a slice.
    Aggregate(Function, Option<Column>),
}

/// What an event can be asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Its place in the group.
    Offset,
    /// Its id.
    Id,
    /// When it was received.
    Received,
    /// Its key.
    Key,
    /// Bytes of its data.
    Length,
    /// All of its data.
    Data,
    /// What stands at a path in its data.
    Path(Path),
}

/// What events can be brought together to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    /// How many.
    Count,
    /// Bytes of data.
    Bytes,
    /// Events a second.
    Rate,
    /// The first that is not NULL.
    First,
    /// The last that is not NULL.
    Last,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The sum of numbers.
    Sum,
    /// The mean of numbers.
    Average,
    /// How many different ones.
    CountDistinct,
    /// The value that this part of all numbers does not exceed.
    Quantile(f64),
}

/// What an event must meet.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    /// All of them.
    And(Vec<Predicate>),
    /// Any of them.
    Or(Vec<Predicate>),
    /// The opposite.
    Not(Box<Predicate>),
    /// A test of one column.
    Test(Column, Test),
}

/// A test of one value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Against a constant.
    Compare(Comparison, Constant),
    /// Equal to one of them.
    In(Vec<Constant>),
    /// Not there, or JSON's null.
    IsNull,
    /// Like a pattern.
    Like(Pattern),
    /// True.
    Truth,
}

/// How a value is compared with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Number(f64),
    /// A text.
    Text(Box<str>),
    /// A time, µs since 1970.
    Time(u64),
}

/// How time is cut, and what is done about empty slices.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Length of a slice.
    pub length: Length,
    /// Where slices begin.
    pub align: Align,
    /// What stands for an empty slice.
    pub fill: Fill,
    /// Where `SAMPLE BY` stands.
    pub place: Range<usize>,
}

/// Length of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Always the same, µs.
    Fixed(u64),
    /// By the calendar.
    Days(u32),
    /// By the calendar.
    Months(u32),
}

/// Where slices begin.
#[derive(Clone, Debug, PartialEq)]
pub enum Align {
    /// Where clock and calendar of this zone have round times.
    Calendar(TimeZone),
    /// At the first event.
    FirstObservation,
}

/// What stands for an empty slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// No row.
    None,
    /// A row of NULL.
    Null,
    /// The values of the slice before.
    Previous,
    /// Values on a line between the slices around.
    Linear,
    /// This whole number.
    Whole(i64),
    /// This number.
    Number(f64),
}
