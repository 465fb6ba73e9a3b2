//! Runs the binary and says what came of it.

use std::process::{Command, Stdio};

use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;

use crate::fake::Broker;

/// What a run left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// A number of the JSON summary.
    pub(crate) fn number(&self, pointer: &str) -> u64 {
        self.value(pointer).as_u64().unwrap_or_else(|| panic!("{pointer} is no count in {self:?}"))
    }

    /// A value of the JSON summary.
    pub(crate) fn value(&self, pointer: &str) -> Value {
        let summary: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        summary.pointer(pointer).cloned().unwrap_or_else(|| panic!("no {pointer} in {self:?}"))
    }

    /// A count of the verification.
    pub(crate) fn verify(&self, name: &str) -> u64 {
        self.number(&format!("/verify/{name}"))
    }
}

/// `loadgen` with nothing from the environment.
pub(crate) fn loadgen() -> Command {
    let mut command = Command::cargo_bin("loadgen").unwrap();
    command.env_remove("EDDYLINE_URL").env_remove("EDDYLINE_TOKEN_FILE").stdin(Stdio::null());
    command
}

/// `loadgen produce` with these options.
pub(crate) fn command(options: &str) -> Command {
    let mut command = loadgen();
    command.arg("produce").args(options.split_whitespace());
    command
}

/// Runs it to its end.
pub(crate) fn run(options: &str) -> Ran {
    ran(command(options))
}

/// Runs a command to its end.
pub(crate) fn ran(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Ran { code: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Runs it against a broker, with a JSON summary.
pub(crate) fn against(broker: &Broker, options: &str) -> Ran {
    run(&format!("--url {} --group load -o json {options}", broker.url()))
}
