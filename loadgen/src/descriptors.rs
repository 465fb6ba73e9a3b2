//! Room for many connections: the process's limit of open files.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are no connection's.
const BESIDE: u64 = 64;

/// Raises the limit so that so many connections fit; where the hard limit is below that, only root can.
///
/// # Errors
/// When it may not be raised that far.
pub fn make_room(connections: u64) -> io::Result<()> {
    let needed = connections + BESIDE;
    let limits = getrlimit(Resource::Nofile);
    if limits.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(needed), maximum: limits.maximum.map(|most| most.max(needed)) };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_grows_and_never_shrinks() {
        let current = || getrlimit(Resource::Nofile).current;
        let before = current().unwrap_or(u64::MAX);
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        make_room(0).unwrap();
        assert_eq!(current().unwrap_or(u64::MAX), before);
        if before < hard {
            make_room(before + 1 - BESIDE.min(before + 1)).unwrap();
            assert_eq!(current(), Some(before + 1));
        }
    }
}
