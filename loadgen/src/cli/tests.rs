//! What a command line means, and which ones mean nothing.

use std::io::Write;

use clap::CommandFactory;

use super::*;

fn parsed(line: &str) -> ProduceArguments {
    let words = ["loadgen", "produce", "--group", "load"].into_iter().chain(line.split_whitespace());
    match Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}")).profile {
        Profile::Produce(arguments) => arguments,
        _ => panic!("{line}: another profile"),
    }
}

fn planned(line: &str) -> Result<Plan, UsageError> {
    parsed(line).plan()
}

#[test]
fn the_command_is_sound_and_its_help_has_examples() {
    Cli::command().debug_assert();
    let mut command = Cli::command();
    for profile in ["produce", "consume", "e2e", "catchup", "mixed"] {
        let help = command.find_subcommand_mut(profile).unwrap().render_long_help().to_string();
        assert!(help.contains("Examples:") && help.contains("EDDYLINE_URL"), "{help}");
        for of_many_runs in ["--groups ", "--find-max\n"] {
            assert_eq!(help.contains(of_many_runs), profile == "produce", "{of_many_runs}: {help}");
        }
    }
}

#[test]
fn defaults_are_those_of_the_help() {
    let plan = planned("").unwrap();
    assert_eq!((plan.connections, plan.threads, plan.pipeline, plan.batch), (64, 1, 1, 1));
    assert_eq!((plan.extent, plan.framing), (Extent::Time(Duration::from_secs(30)), Framing::Single));
    assert_eq!(plan.payload.fixed_length(), Some(256));
    assert!(plan.create && plan.verify && !plan.full_answers && plan.producer.is_none());
    assert_eq!(plan.groups, ["load"]);
}

#[test]
fn every_option_reaches_the_plan() {
    let plan = planned(
        "-c 3 -n 10k -s 64B..1KiB -b 10 --format binary --pipeline 4 --threads 8 --groups 2 --create=false \
         --producer-id p --producer-epoch 7 --full-answers --seed 5 --no-verify --timeout 2s --warmup 500ms",
    )
    .unwrap();
    assert_eq!((plan.connections, plan.threads, plan.pipeline, plan.batch), (3, 3, 4, 10));
    assert_eq!((plan.extent, plan.framing, plan.seed), (Extent::Events(10_000), Framing::Binary, 5));
    assert_eq!(plan.groups, ["load-0", "load-1"]);
    assert!(!plan.create && !plan.verify && plan.full_answers);
    assert_eq!(plan.producer.map(|producer| (producer.name, producer.epoch)), Some(("p".into(), 7)));
    assert_eq!((plan.timeout, plan.warmup), (Duration::from_secs(2), Duration::from_millis(500)));
    assert!(planned("--create").unwrap().create);
}

#[test]
fn a_rate_is_in_events_and_stages_take_their_time() {
    assert_eq!(planned("").unwrap().open_loop, None);
    let open = planned("--rate 50k -b 10 --arrivals constant").unwrap().open_loop.unwrap();
    let stage = |seconds, requests_per_second| Stage { length: Duration::from_secs(seconds), requests_per_second };
    assert_eq!((open.stages, open.arrivals), (vec![stage(0, 5_000.0)], Arrivals::Constant));
    let plan = planned("--stages 30s:10k,1m:20k -b 100 --slo p99<5ms --slo max<1s").unwrap();
    assert_eq!(plan.extent, Extent::Time(Duration::from_secs(90)));
    assert_eq!(plan.stage_ends().collect::<Vec<_>>(), [Duration::from_secs(30)]);
    assert_eq!(plan.objectives.len(), 2);
    let open = plan.open_loop.unwrap();
    assert_eq!((open.stages, open.arrivals), (vec![stage(30, 100.0), stage(60, 200.0)], Arrivals::Poisson));
}

#[test]
fn browsers_are_paced_named_and_ask_for_nothing_that_needs_a_preflight() {
    let plan = planned("--browser-like -c 20").unwrap();
    assert!(plan.full_answers && plan.producer.as_ref().unwrap().name.starts_with("tab-"));
    assert_eq!(plan.browser.as_deref(), Some("http://127.0.0.1:4437"), "a page that the broker serves itself");
    assert_eq!((plan.framing, plan.batch), (Framing::Text, 10));
    assert_eq!(plan.open_loop.as_ref().unwrap().stages[0].requests_per_second, 20.0);
    let plan = planned("--browser-like -c 20 -b 1 --rate 5 --producer-id me --origin https://a.example").unwrap();
    assert_eq!(plan.browser.as_deref(), Some("https://a.example"));
    assert_eq!((plan.framing, plan.producer.unwrap().name), (Framing::Text, "me".into()));
    assert_eq!(plan.open_loop.unwrap().stages[0].requests_per_second, 5.0);
}

#[test]
fn keys_and_entropy_are_bounded() {
    assert!(planned("--keys 10M --key-spread uniform").unwrap().keys.is_some());
    assert!(matches!(planned("--keys 11M"), Err(UsageError::Keys(_))));
    for bits in ["-1", "6.1", "nan"] {
        assert!(matches!(planned(&format!("--entropy={bits}")), Err(UsageError::Entropy)), "{bits}");
    }
}

#[test]
fn a_file_is_sent_once_a_number_of_times_or_for_a_time() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"{}\r\n[1]\n\"x\"").unwrap();
    let path = file.path().display();
    assert_eq!(planned(&format!("--payload {path} --once")).unwrap().extent, Extent::Events(3));
    assert_eq!(planned(&format!("--payload {path} -n 7")).unwrap().extent, Extent::Events(7));
    let plan = planned(&format!("--payload {path} -d 1s -b 2")).unwrap();
    assert_eq!(plan.extent, Extent::Time(Duration::from_secs(1)));
    let first = |plan: &Plan| {
        let mut bytes = Vec::new();
        plan.payload.append(plan.event(crate::plan::RequestKey { connection: 0, request: 0 }, 0), &mut bytes);
        bytes
    };
    assert_eq!(first(&plan), b"{}", "in lines a carriage return ends the line");
    assert_eq!(first(&planned(&format!("--payload {path}")).unwrap()), b"{}\r", "alone it belongs to the event");
}

#[test]
fn what_means_nothing_is_refused_with_its_reason() {
    let file = |bytes: &[u8]| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    };
    let (empty, text, blanks, binary) = (file(b"\n\n"), file(b"1\nno json"), file(b" 1 \n"), file(b"\xff"));
    let of = |file: &tempfile::NamedTempFile, rest: &str| format!("--payload {} {rest}", file.path().display());
    for (line, part) in [
        ("-s 47B".to_owned(), "needs 48 B"),
        ("-d 0s".to_owned(), "--duration must be more"),
        ("--timeout 0s".to_owned(), "--timeout must be more"),
        ("--producer-id p --pipeline 65".to_owned(), "at most 64"),
        ("--producer-id é".to_owned(), "--producer-id: only visible ASCII"),
        ("--origin https://a.example".to_owned(), "--origin is for pages: --browser-like"),
        ("--payload /nowhere".to_owned(), "--payload /nowhere: "),
        ("--token-file /nowhere".to_owned(), "--token-file /nowhere: "),
        (of(&empty, ""), "holds no event"),
        (of(&text, "-b 2 --format ndjson"), "event 2 is not JSON, which --format ndjson needs"),
        (of(&blanks, "-b 2 --format json"), "has blanks"),
        (of(&binary, "-b 2 --format text"), "is not UTF-8"),
    ] {
        let error = planned(&line).expect_err(&line).to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
    for (sound, line) in [(&text, "-b 2 --format text"), (&binary, "-b 2 --format binary"), (&blanks, "-b 2")] {
        planned(&of(sound, line)).unwrap();
    }
    for group in ["", "-a", "a/b", "a b", "x.dead", &"g".repeat(121)] {
        let arguments = ProduceArguments { group: group.into(), ..parsed("") };
        assert!(matches!(arguments.plan(), Err(UsageError::Group(_))), "{group}");
    }
}

#[test]
fn options_that_contradict_each_other_are_refused_by_the_parser() {
    for line in [
        "--stages 1s:5 -d 1s",
        "--stages 1s:5 --rate 5",
        "--find-max",
        "--slo p99",
        "-d 1s -n 5",
        "--once",
        "--producer-epoch 1",
        "-c 0",
        "--url ftp://x",
        "--payload f -s 64B",
        "--bogus",
    ] {
        let words = ["loadgen", "produce", "--group", "load"].into_iter().chain(line.split_whitespace());
        assert_eq!(Cli::try_parse_from(words).expect_err(line).exit_code(), 2, "{line}");
    }
}
