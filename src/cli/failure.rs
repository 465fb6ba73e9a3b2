//! How a command fails: exit code, what went wrong, and what to do next. Everything that may go wrong in a command
//! ends here, and is said once.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use super::escape::printable;

/// What the exit code of the process tells a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done = 0,
    /// 1: failed.
    Failed = 1,
    /// 2: the command line or the configuration is wrong.
    Usage = 2,
    /// 3: no answer from the broker.
    Unreachable = 3,
    /// 4: the broker said no.
    Refused = 4,
}

/// Exit code of a command that was interrupted (128 + SIGINT).
pub const INTERRUPTED: i32 = 130;

/// Why a command did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// Cause and place. Empty: there is nothing to say.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// Something failed on this side.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into(), hint: None }
    }

    /// The command line or the configuration is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), hint: None }
    }

    /// The same with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Writing to stdout failed. A reader who has seen enough (`| head`) is no failure.
    #[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
    pub(super) fn stdout(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self { exit: Exit::Done, message: String::new(), hint: None },
            _ => Self::failed(format!("cannot write to stdout: {error}")),
        }
    }

    /// Says it on stderr, and gives the code to exit with.
    pub(super) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            // When stderr is gone there is nobody left to tell.
            let _ = writeln!(io::stderr().lock(), "{}", self.text());
        }
        ExitCode::from(self.exit as u8)
    }

    fn text(&self) -> String {
        let mut text = format!("error: {}", printable(&self.message));
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\n hint: {}", printable(hint)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_cause_and_next_step_and_no_terminal_codes() {
        let failure = Failure::failed("no \u{1b}[31mgroup\u{9b}\u{7f}").hint("make it\nthen try again");
        assert_eq!(failure.text(), "error: no \\u{1b}[31mgroup\\u{9b}\\u{7f}\n hint: make it\nthen try again");
    }

    #[test]
    fn a_reader_who_has_seen_enough_is_no_failure() {
        let quiet = Failure::stdout(ErrorKind::BrokenPipe.into());
        assert_eq!((quiet.exit, quiet.message.as_str()), (Exit::Done, ""));
        let full = Failure::stdout(ErrorKind::StorageFull.into());
        assert_eq!(full.exit, Exit::Failed);
        assert!(full.message.contains("stdout"));
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Unreachable, Exit::Refused];
        assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3, 4]);
    }
}
