//! What can be wrong before anything is sent is exit code 2, says why, and leaves stdout empty.

use crate::runs::run;

#[test]
fn wrong_options_are_exit_code_two() {
    for (options, part) in [
        ("", "--group"),
        ("--group load --bogus", "--bogus"),
        ("--group load -s 10B", "--payload"),
        ("--group a/b", "is no group name"),
        ("--group load --url https://x", "http://"),
        ("--group load --payload /nowhere --once", "/nowhere"),
        ("--group load -d soon", "`soon` is no time: write 30s"),
        ("--group load -d 10", "`10` is no time: write 30s"),
        ("--group load -d 1d", "`1d` is no time: write 30s"),
    ] {
        let ran = run(options);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{options}: {ran:?}");
        assert!(ran.stderr.contains(part), "{options}: {}", ran.stderr);
    }
}

#[test]
fn help_is_data_and_shows_examples() {
    let ran = run("--help");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for part in ["Examples:", "--producer-id", "EDDYLINE_URL", "Exit codes:"] {
        assert!(ran.stdout.contains(part), "{part} is not in {}", ran.stdout);
    }
}
