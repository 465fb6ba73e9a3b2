//! Programs that tests run to their end: Eddyline's own commands, loadgen, curl. How they ended and what they said.

use assert_cmd::Command;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest run of one program.
const TIME_MAX: Duration = Duration::from_secs(600);

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code; `None` when a signal or the time limit ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    /// It ended with that exit code.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout.escape_ascii(), self.stderr);
        self
    }

    /// What it wrote to stdout, as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }

    /// It said why on stderr.
    #[track_caller]
    pub(crate) fn saying(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "no {part:?} in: {}", self.stderr);
        self
    }
}

/// Runs a program with nothing of this process's environment but the way to programs.
pub(crate) fn run(program: impl AsRef<Path>, arguments: &[&str], stdin: impl Into<Vec<u8>>) -> Ended {
    let program = program.as_ref();
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let output = command.args(arguments).write_stdin(stdin).timeout(TIME_MAX).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    Ended {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).expect("talk is text"),
    }
}

/// Runs a command of Eddyline.
pub(crate) fn eddyline(arguments: &[&str]) -> Ended {
    run(env!("CARGO_BIN_EXE_eddyline"), arguments, "")
}

/// The load generator, built beside the broker. Another package's program is not built by itself.
pub(crate) fn loadgen() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_eddyline")).with_file_name("loadgen");
    assert!(path.exists(), "{} is missing: build it with `cargo build -p loadgen` first", path.display());
    path
}
