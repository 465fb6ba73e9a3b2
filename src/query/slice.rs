//! Slices of time: which one a time is in, and which one comes next.
//!
//! In UTC, slices of fixed length are multiples of it since 1970. In another zone those shorter than a day begin anew at each
//! local midnight, so that each day has the same ones, and a day on which clocks change has one more or less. Days count
//! from 1970-01-01, weeks from a Monday, months from January of year 0.

use super::syntax::{Align, Length, Sample};
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

const DAY_US: u64 = 86_400_000_000;

/// One slice of time: `[start, end)`, µs since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its first microsecond.
    pub start: u64,
    /// The one behind its last.
    pub end: u64,
}

/// Cuts time.
#[derive(Clone, Debug)]
pub struct Slicer {
    length: Length,
    zone: Option<TimeZone>,
    /// First event, when slices begin there.
    origin: Option<u64>,
}

impl Slicer {
    /// What the query asks for.
    #[must_use]
    pub fn new(sample: &Sample) -> Self {
        let zone = match &sample.align {
            Align::Calendar(zone) => Some(zone.clone()),
            Align::FirstObservation => None,
        };
        Self { length: sample.length, zone, origin: None }
    }

    /// Whether slices begin at a first event that is not known yet.
    #[must_use]
    pub fn wants_origin(&self) -> bool {
        self.zone.is_none() && self.origin.is_none()
    }

    /// The first event was received then.
    pub fn begin_at(&mut self, received_us: u64) {
        if self.wants_origin() {
            self.origin = Some(received_us);
        }
    }

    /// The slice that a time is in; not before the origin. The last one that the calendar knows has no end.
    #[must_use]
    pub fn of(&self, time: u64) -> Slice {
        let Slice { start, end } = self.cut(time);
        Slice { start, end: if end > time { end } else { u64::MAX } }
    }

    fn cut(&self, time: u64) -> Slice {
        match (&self.zone, self.length) {
            (None, length) => from_origin(self.origin.unwrap_or(time), length, time),
            (Some(zone), Length::Fixed(length)) if *zone == TimeZone::UTC => multiple(0, length, time),
            (Some(zone), Length::Fixed(length)) => {
                let date = date_of(zone, time);
                let (midnight, next) = (start_of(zone, date), start_of(zone, day_behind(date)));
                if length >= DAY_US {
                    return multiple(0, length, time);
                }
                let Slice { start, end } = multiple(midnight, length, time);
                Slice { start, end: end.min(next.max(start + 1)) }
            }
            (Some(zone), Length::Days(days)) => {
                let date = date_of(zone, time);
                let first = if days % 7 == 0 { Date::constant(1969, 12, 29) } else { Date::constant(1970, 1, 1) };
                debug_assert!(days % 7 != 0 || first.weekday() == Weekday::Monday);
                let since = (date - first).get_days();
                let begun = first.saturating_add(Span::new().days(since - since.rem_euclid(days as i32)));
                dates(zone, begun, begun.saturating_add(Span::new().days(days as i32)))
            }
            (Some(zone), Length::Months(months)) => {
                let date = date_of(zone, time);
                let month = i32::from(date.year()) * 12 + i32::from(date.month()) - 1;
                let begun = month - month.rem_euclid(months as i32);
                let date = |month: i32| Date::new((month / 12) as i16, (month % 12) as i8 + 1, 1).unwrap_or(Date::MAX);
                dates(zone, date(begun), date(begun.saturating_add(months as i32)))
            }
        }
    }

    /// About how many slices there are between two times.
    #[must_use]
    pub fn count(&self, from: u64, to: u64) -> u64 {
        let length = match self.length {
            Length::Fixed(length) => length,
            Length::Days(days) => u64::from(days) * DAY_US,
            Length::Months(months) => u64::from(months) * 28 * DAY_US,
        };
        to.saturating_sub(from) / length.max(1)
    }
}

fn multiple(origin: u64, length: u64, time: u64) -> Slice {
    let start = time - time.saturating_sub(origin) % length;
    Slice { start, end: start.saturating_add(length) }
}

fn from_origin(origin: u64, length: Length, time: u64) -> Slice {
    let at = |number: i64| {
        let span = match length {
            Length::Fixed(_) => Ok(Span::new()),
            Length::Days(days) => Span::new().try_days(number * i64::from(days)),
            Length::Months(months) => Span::new().try_months(number * i64::from(months)),
        };
        let begun = instant(origin).to_zoned_datetime(TimeZone::UTC);
        let begun = span.and_then(|span| begun.checked_add(span));
        begun.map_or(u64::MAX, |zoned| zoned.timestamp().as_microsecond() as u64)
    };
    let mut number = match length {
        Length::Fixed(length) => return multiple(origin, length, time.max(origin)),
        Length::Days(days) => (time.max(origin) - origin) / (u64::from(days) * DAY_US),
        Length::Months(months) => (time.max(origin) - origin) / (u64::from(months) * 31 * DAY_US),
    } as i64;
    while at(number + 1) <= time.min(u64::MAX - 1) {
        number += 1;
    }
    Slice { start: at(number), end: at(number + 1) }
}

fn instant(time: u64) -> Timestamp {
    i64::try_from(time).ok().and_then(|time| Timestamp::from_microsecond(time).ok()).unwrap_or(Timestamp::MAX)
}

/// The day that a time is in. Where clocks are put back over midnight, the end of the old day comes again within the new one,
/// and belongs to it: one day ends where the next one begins.
fn date_of(zone: &TimeZone, time: u64) -> Date {
    let date = zone.to_datetime(instant(time)).date();
    let behind = day_behind(date);
    if behind > date && start_of(zone, behind) <= time { behind } else { date }
}

fn day_behind(date: Date) -> Date {
    date.saturating_add(Span::new().days(1))
}

/// The first instant of a day; before 1970 it counts as 1970.
fn start_of(zone: &TimeZone, date: Date) -> u64 {
    let zoned = date.to_zoned_datetime(zone.clone());
    zoned.map_or(u64::MAX, |zoned| u64::try_from(zoned.timestamp().as_microsecond()).unwrap_or(0))
}

fn dates(zone: &TimeZone, from: Date, to: Date) -> Slice {
    let start = start_of(zone, from);
    Slice { start, end: start_of(zone, to).max(start + 1) }
}
