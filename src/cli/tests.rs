//! The command line as a whole: it holds together, and its help is what is documented.

use super::*;
use std::fmt::Write;

#[test]
fn the_command_line_holds_together() {
    CommandLine::command().debug_assert();
}

/// The command and all commands below it, with the words that lead there.
fn commands(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
    let path = format!("{path} {}", command.get_name()).trim().to_owned();
    found.push((path.clone(), command.clone()));
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        commands(inner, &path, found);
    }
}

fn all_commands() -> Vec<(String, clap::Command)> {
    let mut found = Vec::new();
    let mut all = CommandLine::command();
    all.build();
    commands(&all, "", &mut found);
    found
}

#[test]
fn every_help_has_examples_and_the_examples_are_accepted() {
    for (path, command) in all_commands() {
        let help = command.term_width(0).render_long_help().to_string();
        let (_, examples) = help.split_once("EXAMPLES\n").unwrap_or_else(|| panic!("`{path} --help` has no examples"));
        let calls = examples.lines().filter(|line| line.starts_with("  eddyline "));
        for call in calls.filter(|line| !line.contains(['\'', '|', '$'])) {
            // What is told of a call stands two blanks behind it.
            let call = call.trim().split("  ").next().unwrap_or_default();
            let words = call.split_whitespace().take_while(|word| !word.starts_with(['<', '>']));
            assert!(CommandLine::try_parse_from(words).is_ok(), "`{call}` of `{path} --help`");
        }
    }
}

#[test]
fn the_short_help_of_every_command_is_as_documented() {
    let mut text = String::new();
    for (path, command) in all_commands().into_iter().filter(|(path, _)| path != "eddyline dev") {
        // Values of variables of whoever runs the test do not belong into it.
        let mut command = command.term_width(100).mut_args(|arg| arg.hide_env_values(true));
        let _ = writeln!(text, "==== {path} -h\n{}", command.render_help());
    }
    insta::assert_snapshot!("help", text);
}

#[test]
fn version_and_usage_errors_have_their_exit_codes() {
    let table: [(&[&str], i32); 5] = [
        (&["eddyline", "--version"], 0),
        (&["eddyline", "tail", "--help"], 0),
        (&["eddyline"], 2),
        (&["eddyline", "tale"], 2),
        (&["eddyline", "tail"], 2),
    ];
    for (line, code) in table {
        assert_eq!(CommandLine::try_parse_from(line).unwrap_err().exit_code(), code, "{line:?}");
    }
}
