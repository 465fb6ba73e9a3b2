//! Names of groups.

use crate::limits::GROUP_NAME_BYTES_MAX;
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
    let first = own.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = own.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if first && rest && own.len() <= GROUP_NAME_BYTES_MAX { Ok(()) } else { Err(BadName::Malformed) }
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
