//! Names of groups and of consumers.

use crate::limits::{CONSUMER_NAME_BYTES_MAX, GROUP_NAME_BYTES_MAX};
use thiserror::Error;

/// Why a name is not taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadName {
    /// Wrong characters or length.
    #[error("a group's name is 1 to {GROUP_NAME_BYTES_MAX} of A-Z a-z 0-9 . _ - and begins with a letter or digit")]
    Malformed,
    /// The broker's own.
    #[error("names that begin with _ or end in .dead belong to the broker")]
    Reserved,
    /// Wrong characters or length.
    #[error(
        "a consumer's name is 1 to {CONSUMER_NAME_BYTES_MAX} of A-Z a-z 0-9 . _ - and begins with a letter or digit"
    )]
    Consumer,
}

/// Whether a caller may use this name for a group of its own.
///
/// # Errors
/// What is wrong with it.
pub fn check(name: &str) -> Result<(), BadName> {
    check_readable(name)?;
    if is_reserved(name) { Err(BadName::Reserved) } else { Ok(()) }
}

/// Whether such a name belongs to the broker.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name.starts_with('_') || name.ends_with(".dead")
}

/// Whether this can be the name of a group, the broker's own included.
///
/// # Errors
/// What is wrong with it.
pub fn check_readable(name: &str) -> Result<(), BadName> {
    let own = name.strip_prefix('_').or(name.strip_suffix(".dead")).unwrap_or(name);
    if is_plain(own, GROUP_NAME_BYTES_MAX) { Ok(()) } else { Err(BadName::Malformed) }
}

/// Whether this can be the name of a consumer.
///
/// # Errors
/// What is wrong with it.
pub fn check_consumer(name: &str) -> Result<(), BadName> {
    if is_plain(name, CONSUMER_NAME_BYTES_MAX) { Ok(()) } else { Err(BadName::Consumer) }
}

fn is_plain(name: &str, most: usize) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    first && rest && name.len() <= most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let longest = "a".repeat(120);
        for good in ["a", "orders", "Orders.v2_x-1", "0", longest.as_str()] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let too_long = "a".repeat(121);
        for bad in ["", ".", "..", "-a", ".a", "a/b", "a b", "a%2e", "ä", "a\0", too_long.as_str()] {
            assert_eq!(check(bad), Err(BadName::Malformed), "{bad}");
        }
        for own in ["_audit", "orders.dead"] {
            assert_eq!(check(own), Err(BadName::Reserved), "{own}");
            assert_eq!(check_readable(own), Ok(()), "{own}");
        }
    }
}
