//! Tells the compiler which commit is built, for the reports of runs. Without git it is not told.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn main() {
    println!("cargo::rerun-if-changed=src");
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        let changed = git(&["status", "--porcelain", "--", "src"]).is_none_or(|changes| !changes.is_empty());
        println!("cargo::rustc-env=LOADGEN_COMMIT={commit}{}", if changed { "-changed" } else { "" });
    }
}
