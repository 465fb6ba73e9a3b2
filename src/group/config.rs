//! A group's configuration, as JSON on the wire and on disk, as numbers in memory.

use super::name;
use crate::limits::{BATCH_BYTES_LIMIT, PROTECTED_MAX, SEGMENT_BYTES_LIMIT, SEGMENT_BYTES_MIN};
use crate::log::group_log::SegmentLimits;
use crate::units::{Size, Span};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::time::Duration;
use thiserror::Error;

/// How a group is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// How long its events are kept.
    pub retention: Retention,
    /// Bytes at which a segment is sealed.
    pub segment_max_bytes: u64,
    /// Age of a segment's first event at which it is sealed.
    pub segment_max_age: Duration,
    /// Largest event.
    pub max_event_bytes: u64,
    /// Largest request body of a batch.
    pub max_batch_bytes: u64,
}

/// Which events are removed; none if nothing is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Whole segments whose last event is older than this.
    pub max_age: Option<Duration>,
    /// The oldest whole segments, as long as this many bytes are left.
    pub max_bytes: Option<u64>,
    /// Consumers whose unacked events are kept all the same.
    pub protect: Box<[Box<str>]>,
    /// Bytes beyond which nothing is protected.
    pub max_bytes_hard: Option<u64>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            segment_max_bytes: 256 << 20,
            segment_max_age: Duration::from_secs(3600),
            max_event_bytes: 1 << 20,
            max_batch_bytes: 8 << 20,
        }
    }
}

/// Why a configuration is not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadConfig {
    /// No JSON object, an unknown key, or a value of the wrong shape.
    #[error("{0}")]
    Malformed(String),
    /// A key of a feature that this version does not have.
    #[error("`{0}` is not available in this version")]
    NotAvailable(&'static str),
    /// A value that is not allowed.
    #[error("{0}")]
    OutOfRange(String),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default)]
    retention: WireRetention,
    #[serde(default)]
    segment: WireSegment,
    max_event_bytes: Option<Size>,
    max_batch_bytes: Option<Size>,
    #[serde(default, skip_serializing)]
    compact: Option<String>,
}

/// A member that is left out stays as it is; `null` takes it away.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WireRetention {
    #[serde(default, deserialize_with = "given")]
    max_age: Option<Option<Span>>,
    #[serde(default, deserialize_with = "given")]
    max_bytes: Option<Option<Size>>,
    protect: Option<Box<[Box<str>]>>,
    #[serde(default, deserialize_with = "given")]
    max_bytes_hard: Option<Option<Size>>,
}

fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WireSegment {
    max_bytes: Option<Size>,
    max_age: Option<Span>,
}

/// Keys of features that are not built yet.
const NOT_AVAILABLE: [&str; 2] = ["min_lag", "tombstone_ttl"];

impl GroupConfig {
    /// Reads a configuration; what it does not name stays as in `base`. No bytes at all mean `base` itself.
    ///
    /// # Errors
    /// What is wrong with it, in words for whoever wrote it.
    pub fn parse(json: &[u8], base: &Self) -> Result<Self, BadConfig> {
        if json.trim_ascii().is_empty() {
            return Ok(base.clone());
        }
        let malformed = |error: serde_json::Error| BadConfig::Malformed(error.to_string());
        let object: Map<String, Value> = serde_json::from_slice(json).map_err(malformed)?;
        if let Some(key) = NOT_AVAILABLE.into_iter().find(|key| object.contains_key(*key)) {
            return Err(BadConfig::NotAvailable(key));
        }
        let wire: Wire = serde_json::from_value(Value::Object(object)).map_err(malformed)?;
        match wire.compact.as_deref() {
            None | Some("none") => {}
            Some("key") => return Err(BadConfig::NotAvailable("compact")),
            Some(other) => {
                return Err(BadConfig::Malformed(format!("`compact` is \"none\" or \"key\", not {other:?}")));
            }
        }
        let Wire { retention: wanted, .. } = &wire;
        let known = &base.retention;
        let size = |wanted: Option<Option<Size>>, known| wanted.map_or(known, |given| given.map(|size| size.0));
        let config = Self {
            retention: Retention {
                max_age: wanted.max_age.map_or(known.max_age, |given| given.map(|span| span.0)),
                max_bytes: size(wanted.max_bytes, known.max_bytes),
                protect: wanted.protect.as_ref().unwrap_or(&known.protect).clone(),
                max_bytes_hard: size(wanted.max_bytes_hard, known.max_bytes_hard),
            },
            segment_max_bytes: wire.segment.max_bytes.map_or(base.segment_max_bytes, |size| size.0),
            segment_max_age: wire.segment.max_age.map_or(base.segment_max_age, |span| span.0),
            max_event_bytes: wire.max_event_bytes.map_or(base.max_event_bytes, |size| size.0),
            max_batch_bytes: wire.max_batch_bytes.map_or(base.max_batch_bytes, |size| size.0),
        };
        config.check()
    }

    fn check(self) -> Result<Self, BadConfig> {
        let within = |name: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let (least, most) = (crate::units::print_size(least), crate::units::print_size(most));
            Err(BadConfig::OutOfRange(format!("`{name}` must be from {least} to {most}")))
        };
        within("segment.max_bytes", self.segment_max_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_LIMIT)?;
        within("max_event_bytes", self.max_event_bytes, 1, BATCH_BYTES_LIMIT)?;
        within("max_batch_bytes", self.max_batch_bytes, 1, BATCH_BYTES_LIMIT)?;
        if self.segment_max_age < Duration::from_secs(1) {
            return Err(BadConfig::OutOfRange("`segment.max_age` must be at least 1s".into()));
        }
        self.retention.check()?;
        Ok(self)
    }

    /// The configuration as JSON, every key shown.
    #[must_use]
    pub fn to_json(&self) -> String {
        let segment =
            WireSegment { max_bytes: Some(Size(self.segment_max_bytes)), max_age: Some(Span(self.segment_max_age)) };
        let retention = WireRetention {
            max_age: Some(self.retention.max_age.map(Span)),
            max_bytes: Some(self.retention.max_bytes.map(Size)),
            protect: Some(self.retention.protect.clone()),
            max_bytes_hard: Some(self.retention.max_bytes_hard.map(Size)),
        };
        let wire = Wire {
            retention,
            segment,
            max_event_bytes: Some(Size(self.max_event_bytes)),
            max_batch_bytes: Some(Size(self.max_batch_bytes)),
            compact: None,
        };
        serde_json::to_string(&wire).expect("a configuration is plain data")
    }

    /// How large segments may become.
    #[must_use]
    pub fn segment_limits(&self) -> SegmentLimits {
        SegmentLimits { bytes_max: self.segment_max_bytes, age_us_max: self.segment_max_age.as_micros() as u64 }
    }
}

impl Retention {
    /// Whether anything is ever removed.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.max_age.is_none() && self.max_bytes.is_none()
    }

    fn check(&self) -> Result<(), BadConfig> {
        let refuse = |cause: String| Err(BadConfig::OutOfRange(cause));
        if self.max_age.is_some_and(|age| age < Duration::from_secs(1)) {
            return refuse("`retention.max_age` must be at least 1s".into());
        }
        if self.max_bytes_hard.is_some_and(|hard| self.max_bytes.is_some_and(|most| hard < most)) {
            return refuse("`retention.max_bytes_hard` must not be below `retention.max_bytes`".into());
        }
        if self.max_bytes_hard.is_some() && self.protect.is_empty() {
            return refuse(
                "`retention.max_bytes_hard` bounds what `retention.protect` keeps: name consumers there".into(),
            );
        }
        if !self.protect.is_empty() && self.is_unlimited() {
            return refuse("`retention.protect` needs a limit to protect from: `max_age` or `max_bytes`".into());
        }
        if self.protect.len() > PROTECTED_MAX {
            return refuse(format!("`retention.protect` names at most {PROTECTED_MAX} consumers"));
        }
        match self.protect.iter().find(|consumer| name::check_consumer(consumer).is_err()) {
            Some(bad) => refuse(format!("`retention.protect` names consumers, which {bad:?} cannot be")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<GroupConfig, BadConfig> {
        GroupConfig::parse(json.as_bytes(), &GroupConfig::default())
    }

    #[test]
    fn what_is_not_named_stays_and_everything_comes_back() {
        let config = parse(r#"{"segment":{"max_bytes":"1MiB"},"max_event_bytes":"10KiB"}"#).unwrap();
        assert_eq!((config.segment_max_bytes, config.max_event_bytes), (1 << 20, 10 << 10));
        assert_eq!(config.segment_max_age, GroupConfig::default().segment_max_age);
        assert_eq!(parse(&config.to_json()), Ok(config));
        assert_eq!(parse(" "), Ok(GroupConfig::default()));
        assert_eq!(parse(r#"{"compact":"none"}"#), Ok(GroupConfig::default()));
    }

    #[test]
    fn retention_is_changed_member_by_member_and_null_takes_one_away() {
        let first =
            parse(r#"{"retention":{"max_age":"7d","max_bytes":"1GiB","protect":["billing"],"max_bytes_hard":"2GiB"}}"#);
        let first = first.unwrap();
        assert_eq!(parse(&first.to_json()), Ok(first.clone()));
        let second =
            GroupConfig::parse(br#"{"retention":{"max_age":null,"protect":[],"max_bytes_hard":null}}"#, &first);
        let Retention { max_age, max_bytes, protect, max_bytes_hard } = second.unwrap().retention;
        assert_eq!((max_age, max_bytes, protect.len(), max_bytes_hard), (None, Some(1 << 30), 0, None));
    }

    #[test]
    fn what_is_unknown_not_built_or_out_of_range_is_refused() {
        for (json, expected) in [
            (r#"{"segmnet":{}}"#, "unknown field"),
            (r#"{"segment":{"bytes":"1MiB"}}"#, "unknown field"),
            (r#"[]"#, "invalid type"),
            (r#"{"max_event_bytes":"many"}"#, "many"),
            (r#"{"retention":{"age":"1d"}}"#, "unknown field"),
            (r#"{"retention":{"max_age":"1ms"}}"#, "`retention.max_age` must be at least 1s"),
            (r#"{"retention":{"max_bytes":"2MiB","max_bytes_hard":"1MiB","protect":["a"]}}"#, "must not be below"),
            (r#"{"retention":{"max_bytes":"2MiB","max_bytes_hard":"3MiB"}}"#, "name consumers there"),
            (r#"{"retention":{"protect":["a"]}}"#, "needs a limit"),
            (r#"{"retention":{"max_age":"1d","protect":["a b"]}}"#, "cannot be"),
            (r#"{"min_lag":"1d"}"#, "`min_lag` is not available"),
            (r#"{"compact":"key"}"#, "`compact` is not available"),
            (r#"{"compact":"all"}"#, "\"none\" or \"key\""),
            (r#"{"segment":{"max_bytes":"1KiB"}}"#, "must be from"),
            (r#"{"segment":{"max_age":"1ms"}}"#, "at least 1s"),
            (r#"{"max_batch_bytes":"1GiB"}"#, "must be from"),
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
