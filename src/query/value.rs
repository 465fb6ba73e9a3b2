//! What an event is asked for, and cells of rows.

use super::syntax::{Column, Constant};
use super::watch::STEP;
use crate::log::event::{Encoding, Event};
use sonic_rs::{JsonType, JsonValueTrait, LazyValue, PointerNode};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::str::from_utf8;
use uuid::Uuid;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Member of an object.
    Member(Box<str>),
    /// Element of an array, from 0.
    Element(usize),
}

/// Where in a JSON value another one stands.
#[derive(Clone, Debug)]
pub struct Path {
    steps: Vec<Step>,
    nodes: Vec<PointerNode>,
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        self.steps == other.steps
    }
}

impl Path {
    /// A path of these steps.
    #[must_use]
    pub fn new(steps: Vec<Step>) -> Self {
        let node = |step: &Step| match step {
            Step::Member(name) => PointerNode::Key(name.to_string().into()),
            Step::Element(place) => PointerNode::Index(*place),
        };
        let nodes = steps.iter().map(node).collect();
        Self { steps, nodes }
    }

    /// What stands there; NULL if nothing does.
    fn read<'e>(&self, json: &'e str) -> Value<'e> {
        sonic_rs::get(json, &self.nodes).map_or(Value::Null, |found| Value::of_json(&found))
    }
}

/// What an event has.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'e> {
    /// Nothing, or JSON's null.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number that fits 64 bits.
    Integer(i64),
    /// Another number.
    Number(f64),
    /// Text.
    Text(Cow<'e, str>),
    /// A time, µs since 1970.
    Time(u64),
    /// An array or an object, as it stands in the data; for all of the data, any JSON.
    Json(Cow<'e, str>),
    /// Data that is no text.
    Bytes(&'e [u8]),
}

impl<'e> Value<'e> {
    /// What the event has in that column.
    #[must_use]
    pub fn of(event: &Event<'e>, column: &Column) -> Self {
        match column {
            Column::Offset => Self::Integer(event.offset as i64),
            Column::Id => Self::Text(Uuid::from_u128(event.id).to_string().into()),
            Column::Received => Self::Time(event.received_us),
            Column::Key => event.key.map_or(Self::Null, |key| Self::Text(String::from_utf8_lossy(key))),
            Column::Length => Self::Integer(event.data.len() as i64),
            Column::Data => match (event.encoding, from_utf8(event.data)) {
                (Encoding::Json, Ok(json)) => Self::Json(json.into()),
                (Encoding::Text, Ok(text)) => Self::Text(text.into()),
                _ => Self::Bytes(event.data),
            },
            Column::Path(path) => match (event.encoding, from_utf8(event.data)) {
                (Encoding::Json, Ok(json)) => path.read(json),
                _ => Self::Null,
            },
        }
    }

    /// What that takes, in bytes that are looked at.
    pub(super) fn cost(event: &Event<'_>, column: &Column) -> usize {
        match column {
            Column::Data | Column::Path(_) => STEP + event.data.len(),
            Column::Offset | Column::Id | Column::Received | Column::Key | Column::Length => STEP,
        }
    }

    fn of_json(found: &LazyValue<'e>) -> Self {
        let raw = found.as_raw_cow();
        match found.get_type() {
            JsonType::Null => Self::Null,
            JsonType::Boolean => Self::Bool(raw == "true"),
            JsonType::Number => match (raw.parse(), raw.parse::<f64>()) {
                (Ok(integer), _) => Self::Integer(integer),
                (_, Ok(number)) if number.is_finite() => Self::Number(number),
                // More than 64 bits can hold.
                _ => Self::Null,
            },
            JsonType::String => match raw.contains('\\') {
                false => Self::Text(trimmed(raw)),
                true => found.as_str().map_or(Self::Null, |text| Self::Text(text.to_owned().into())),
            },
            JsonType::Object | JsonType::Array => Self::Json(raw),
        }
    }

    /// The number it is.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(integer) => Some(*integer as f64),
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// How it compares with a constant of its own kind; `None` for others.
    #[must_use]
    pub fn compare(&self, constant: &Constant) -> Option<Ordering> {
        match (self, constant) {
            (Self::Bool(value), Constant::Bool(constant)) => Some(value.cmp(constant)),
            (Self::Integer(value), Constant::Integer(constant)) => Some(value.cmp(constant)),
            (Self::Integer(value), Constant::Number(constant)) => order(*value, *constant),
            (Self::Number(value), Constant::Integer(constant)) => order(*constant, *value).map(Ordering::reverse),
            (Self::Number(value), Constant::Number(constant)) => value.partial_cmp(constant),
            (Self::Text(value) | Self::Json(value), Constant::Text(constant)) => Some(value.as_ref().cmp(constant)),
            (Self::Time(value), Constant::Time(constant)) => Some(value.cmp(constant)),
            _ => None,
        }
    }

    /// As a cell of a row.
    #[must_use]
    pub fn into_cell(self) -> Cell {
        match self {
            Self::Null => Cell::Null,
            Self::Bool(value) => Cell::Bool(value),
            Self::Integer(value) => Cell::Integer(value),
            Self::Number(value) => Cell::Number(value),
            Self::Text(text) => Cell::Text(text.into()),
            Self::Time(time) => Cell::Time(time),
            Self::Json(json) => Cell::Json(json.into()),
            Self::Bytes(bytes) => Cell::Bytes(bytes.into()),
        }
    }
}

/// How a whole number compares with another number, exactly: not every whole number is a double.
fn order(whole: i64, number: f64) -> Option<Ordering> {
    match number {
        _ if number.is_nan() => None,
        // Both ends of what 64 bits hold are doubles, or next to one.
        _ if number >= i64::MAX as f64 => Some(Ordering::Less),
        _ if number < i64::MIN as f64 => Some(Ordering::Greater),
        _ => Some(whole.cmp(&(number as i64)).then(0.0_f64.total_cmp(&(number.fract() + 0.0)))),
    }
}

/// What stands between the quotes.
fn trimmed(raw: Cow<'_, str>) -> Cow<'_, str> {
    match raw {
        Cow::Borrowed(raw) => raw[1..raw.len() - 1].into(),
        Cow::Owned(raw) => raw[1..raw.len() - 1].to_owned().into(),
    }
}

/// One cell of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Number(f64),
    /// Text.
    Text(Box<str>),
    /// A time, µs since 1970.
    Time(u64),
    /// JSON, as it stands in an event.
    Json(Box<str>),
    /// Data that is no text.
    Bytes(Box<[u8]>),
    /// A whole event in stored form.
    Event(u64, Box<[u8]>),
}

impl Cell {
    /// The event as a cell.
    #[must_use]
    pub fn event(event: &Event<'_>) -> Self {
        let mut stored = Vec::new();
        event.encode(&mut stored);
        Self::Event(event.offset, stored.into())
    }

    /// The number, or NULL where a computation went beyond all that there are.
    #[must_use]
    pub fn finite(number: f64) -> Self {
        if number.is_finite() { Self::Number(number) } else { Self::Null }
    }

    /// Bytes of memory that it holds, itself included.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Text(text) | Self::Json(text) => text.len(),
                Self::Bytes(bytes) | Self::Event(_, bytes) => bytes.len(),
                _ => 0,
            }
    }

    /// The number it is.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(integer) => Some(*integer as f64),
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// An order of everything that can be ordered: false, true, numbers, texts, times. NULL and JSON have no place in it.
    #[must_use]
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        let rank = |cell: &Self| match cell {
            Self::Bool(_) => Some(0),
            Self::Integer(_) | Self::Number(_) => Some(1),
            Self::Text(_) => Some(2),
            Self::Time(_) => Some(3),
            _ => None,
        };
        match (self, other) {
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Integer(one), Self::Integer(other)) => Some(one.cmp(other)),
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            (Self::Time(one), Self::Time(other)) => Some(one.cmp(other)),
            (Self::Number(one), Self::Number(other)) => one.partial_cmp(other),
            (Self::Integer(one), Self::Number(other)) => order(*one, *other),
            (Self::Number(one), Self::Integer(other)) => order(*other, *one).map(Ordering::reverse),
            _ => Some(rank(self)?.cmp(&rank(other)?)),
        }
    }

    /// Appends bytes that are the same for equal values, whatever kind of number they are.
    pub fn identify(&self, out: &mut Vec<u8>) {
        let mut put = |kind: u8, bytes: &[u8]| {
            out.push(kind);
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Self::Null => put(0, &[]),
            Self::Bool(value) => put(1, &[u8::from(*value)]),
            // A double, if there is one that is equal to it.
            Self::Integer(value) if order(*value, *value as f64) == Some(Ordering::Equal) => {
                put(2, &(*value as f64).to_le_bytes());
            }
            Self::Integer(value) => put(3, &value.to_le_bytes()),
            // There is one zero.
            Self::Number(value) => put(2, &(value + 0.0).to_le_bytes()),
            Self::Text(text) => put(4, text.as_bytes()),
            Self::Time(time) => put(5, &time.to_le_bytes()),
            Self::Json(json) => put(6, json.as_bytes()),
            Self::Bytes(bytes) => put(7, bytes),
            Self::Event(offset, _) => put(8, &offset.to_le_bytes()),
        }
    }
}
