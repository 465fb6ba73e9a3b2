//! Query parameters as values, with bounds. A name that nobody knows is a mistake worth telling.

use super::problem::Problem;
use crate::http::Query;
use std::time::Duration;

/// A request's query parameters.
#[derive(Clone, Copy)]
pub struct Parameters<'b>(Query<'b>);

impl<'b> Parameters<'b> {
    /// Parameters of a resource that knows these names.
    ///
    /// # Errors
    /// `unknown_parameter`, `bad_escape`.
    pub fn new(query: &'b str, known: &[&str]) -> Result<Self, Problem> {
        let query = Query::new(query);
        query.allow_only(known).map_err(|fault| Problem::new(fault.status, fault.code, fault.detail))?;
        Ok(Self(query))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The parameter as text.
    ///
    /// # Errors
    /// `duplicate_parameter`, `bad_escape`.
    pub fn text(&self, name: &str) -> Result<Option<std::borrow::Cow<'b, str>>, Problem> {
        self.0.get(name).map_err(|fault| Problem::new(fault.status, fault.code, fault.detail))
    }

    /// A whole number from 1 on; a larger one than `most` counts as `most`.
    ///
    /// # Errors
    /// `bad_parameter`.
    pub fn count(&self, name: &str, default: u64, most: u64) -> Result<u64, Problem> {
        let Some(text) = self.text(name)? else { return Ok(default) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<u64>() {
            Ok(0) => Err(Problem::bad_parameter(name, "1 or more")),
            Ok(count) => Ok(count.min(most)),
            // More digits than fit are still a number.
            Err(_) if digits => Ok(most),
            Err(_) => Err(Problem::bad_parameter(name, "a whole number")),
        }
    }

    /// A size with a unit; a larger one than `most` counts as `most`.
    ///
    /// # Errors
    /// `bad_parameter`.
    pub fn size(&self, name: &str, default: u64, most: u64) -> Result<u64, Problem> {
        let Some(text) = self.text(name)? else { return Ok(default) };
        match crate::units::parse_size(&text) {
            Ok(0) => Err(Problem::bad_parameter(name, "1B or more")),
            Ok(size) => Ok(size.min(most)),
            Err(error) => Err(Problem::new(400, "bad_parameter", format!("`{name}`: {error}"))),
        }
    }

    /// A switch: `1` or `true`, `0` or `false`.
    ///
    /// # Errors
    /// `bad_parameter`.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name)?.as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(Problem::bad_parameter(name, "1 or 0")),
        }
    }

    /// A duration with a unit; a longer one than `most` counts as `most`.
    ///
    /// # Errors
    /// `bad_parameter`.
    pub fn duration(&self, name: &str, most: Duration) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match crate::units::parse_span(&text) {
            Ok(duration) => Ok(Some(duration.min(most))),
            Err(error) => Err(Problem::new(400, "bad_parameter", format!("`{name}`: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bounded_and_mistakes_told() {
        let count = |query: &'static str| {
            Parameters::new(query, &["limit"]).and_then(|parameters| parameters.count("limit", 7, 10))
        };
        for (query, expected) in [
            ("", Ok(7)),
            ("limit=3", Ok(3)),
            ("limit=11", Ok(10)),
            ("limit=99999999999999999999999", Ok(10)),
            ("limit=0", Err("bad_parameter")),
            ("limit=-1", Err("bad_parameter")),
            ("limit=", Err("bad_parameter")),
            ("limit=1&limit=2", Err("duplicate_parameter")),
            ("limits=1", Err("unknown_parameter")),
        ] {
            assert_eq!(count(query).map_err(|problem| problem.code), expected, "{query}");
        }
        let parameters = Parameters::new("wait=20s&max=2m", &["wait", "max"]).unwrap();
        let minute = Duration::from_secs(60);
        assert_eq!(parameters.duration("wait", minute).unwrap(), Some(Duration::from_secs(20)));
        assert_eq!(parameters.duration("max", minute).unwrap(), Some(minute));
        let parameters = Parameters::new("wait=20", &["wait"]).unwrap();
        assert!(parameters.duration("wait", minute).unwrap_err().detail.contains("20s"), "a hint");
    }
}
