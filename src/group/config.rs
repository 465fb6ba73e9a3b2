//! A group's configuration, as JSON on the wire and on disk, as numbers in memory.

use crate::limits::{BATCH_BYTES_LIMIT, SEGMENT_BYTES_LIMIT, SEGMENT_BYTES_MIN};
use crate::log::group_log::SegmentLimits;
use crate::units::{Size, Span};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Duration;
use thiserror::Error;

/// How a group is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Bytes at which a segment is sealed.
    pub segment_max_bytes: u64,
    /// Age of a segment's first event at which it is sealed.
    pub segment_max_age: Duration,
    /// Largest event.
    pub max_event_bytes: u64,
    /// Largest request body of a batch.
    pub max_batch_bytes: u64,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
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
    segment: WireSegment,
    max_event_bytes: Option<Size>,
    max_batch_bytes: Option<Size>,
    #[serde(default, skip_serializing)]
    compact: Option<String>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WireSegment {
    max_bytes: Option<Size>,
    max_age: Option<Span>,
}

/// Keys of features that are not built yet.
const NOT_AVAILABLE: [&str; 3] = ["retention", "min_lag", "tombstone_ttl"];

impl GroupConfig {
    /// Reads a configuration; what it does not name stays as in `base`. No bytes at all mean `base` itself.
    ///
    /// # Errors
    /// What is wrong with it, in words for whoever wrote it.
    pub fn parse(json: &[u8], base: &Self) -> Result<Self, BadConfig> {
        if json.trim_ascii().is_empty() {
            return Ok(*base);
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
        let config = Self {
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
        Ok(self)
    }

    /// The configuration as JSON, every key shown.
    #[must_use]
    pub fn to_json(&self) -> String {
        let segment =
            WireSegment { max_bytes: Some(Size(self.segment_max_bytes)), max_age: Some(Span(self.segment_max_age)) };
        let wire = Wire {
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
    fn what_is_unknown_not_built_or_out_of_range_is_refused() {
        for (json, expected) in [
            (r#"{"segmnet":{}}"#, "unknown field"),
            (r#"{"segment":{"bytes":"1MiB"}}"#, "unknown field"),
            (r#"[]"#, "invalid type"),
            (r#"{"max_event_bytes":"many"}"#, "many"),
            (r#"{"retention":{"max_age":"1d"}}"#, "`retention` is not available"),
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
