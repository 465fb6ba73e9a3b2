//! Stories about configurations: who wins, what is refused and how it is said, and that the example is the truth.

use std::path::{Path, PathBuf};
use std::time::Duration;

mod refusals;

use super::*;

/// Loads `file` (if any) with `variables` and `flags` over the defaults.
fn load_with(
    file: Option<&str>,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Loaded, Problems> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("eddyline.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    let loaded = load(&Sources {
        base: Config::default(),
        data: Some(PathBuf::from("/home/somebody/eddyline")),
        file: file.map(|_| path.clone()),
        variables: variables.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect(),
        flags: flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect(),
    });
    // The directory's name differs in each run; what is said of the file does not.
    loaded.map_err(|Problems(problems)| Problems(problems.into_iter().map(|problem| renamed(problem, &path)).collect()))
}

fn renamed(mut problem: Problem, path: &Path) -> Problem {
    if let Place::File(spot) = &mut problem.place
        && spot.path == path
    {
        spot.path = PathBuf::from("eddyline.toml");
    }
    problem
}

#[test]
fn flag_wins_over_variable_over_file_over_default() {
    const FILE: &str = "cores = 1\n[journal]\nfile_bytes = \"1MiB\"\n";
    // (file, variables, flags, cores)
    type Row =
        (Option<&'static str>, &'static [(&'static str, &'static str)], &'static [(&'static str, &'static str)], usize);
    let table: &[Row] = &[
        (None, &[], &[], 0),
        (Some(FILE), &[], &[], 1),
        (None, &[("EDDYLINE_CORES", "2")], &[], 2),
        (Some(FILE), &[("EDDYLINE_CORES", "2")], &[], 2),
        (None, &[], &[("cores", "3")], 3),
        (Some(FILE), &[], &[("cores", "3")], 3),
        (None, &[("EDDYLINE_CORES", "2")], &[("cores", "3")], 3),
        (Some(FILE), &[("EDDYLINE_CORES", "2")], &[("cores", "3")], 3),
    ];
    for (file, variables, flags, cores) in table {
        let loaded = load_with(*file, variables, flags).unwrap();
        assert_eq!(loaded.config.cores, *cores, "{file:?} {variables:?} {flags:?}");
        let file_bytes = if file.is_some() { 1 << 20 } else { 32 << 20 };
        assert_eq!(loaded.config.journal.file_bytes, file_bytes, "the other keys of a file still count");
        assert_eq!(loaded.config.journal.fixed, file.is_some());
    }
}

/// Another good value for each setting: as text, and as TOML where that is not the text in quotes.
const OTHERS: &[(&str, &str, &str)] = &[
    ("listen", "127.0.0.2:1,[::1]:2", "[\"127.0.0.2:1\", \"[::1]:2\"]"),
    ("data", "/srv/eddyline", ""),
    ("cores", "2", "2"),
    ("shards", "3", "3"),
    ("auto_create", "true", "true"),
    ("drain", "0s", ""),
    ("insecure_no_auth", "true", "true"),
    ("http.keep_alive", "1m", ""),
    ("http.head", "3s", ""),
    ("http.body_grace", "0s", ""),
    ("http.body_rate", "2KiB", ""),
    ("http.send", "1s", ""),
    ("http.connections", "5", "5"),
    ("http.cors", "https://a.example,http://b.example:8080", "[\"https://a.example\", \"http://b.example:8080\"]"),
    ("http.hosts", "events.example.org", ""),
    ("http.heartbeat", "1s", ""),
    ("http.body_memory", "8MiB", ""),
    ("journal.file_bytes", "4100KiB", ""),
    ("journal.files", "4", "4"),
    ("storage.reserve", "0", "0"),
    ("storage.tail_memory", "16MiB", ""),
    ("storage.segment_files", "16", "16"),
    ("storage.retention_every", "1m", ""),
    ("limits.max_event_bytes", "512KiB", ""),
    ("limits.max_batch_bytes", "2MiB", ""),
    ("limits.groups", "7", "7"),
    ("limits.consumers", "9", "9"),
    ("limits.tokens", "7", "7"),
    ("limits.queue", "16", "16"),
    ("limits.waiting", "0s", ""),
    ("consumers.lease", "5s", ""),
    ("consumers.stuck_after", "1h", ""),
    ("query.time", "5s", ""),
    ("query.memory", "2MiB", ""),
    ("query.rows", "500", "500"),
    ("query.span", "7d", ""),
    ("query.running", "3", "3"),
    ("query.running_per_token", "2", "2"),
    ("metrics.groups", "7", "7"),
    ("metrics.consumers", "0", "0"),
    ("log.format", "json", ""),
    ("log.level", "trace", ""),
    ("auth.enabled", "true", "true"),
];

#[test]
fn every_setting_can_be_set_by_every_source_to_the_same_effect() {
    let defaults = load_with(None, &[], &[]).unwrap().config;
    for setting in SETTINGS {
        let (_, text, toml) = OTHERS.iter().find(|(key, ..)| *key == setting.key).expect(setting.key);
        let toml = if toml.is_empty() { format!("\"{text}\"") } else { (*toml).to_owned() };
        let header = if setting.table().is_empty() { String::new() } else { format!("[{}]\n", setting.table()) };
        let file = format!("{header}{} = {toml}\n", setting.name());
        let by_file = load_with(Some(&file), &[], &[]).unwrap().config;
        let by_variable = load_with(None, &[(&setting.variable(), text)], &[]).unwrap().config;
        let by_flag = load_with(None, &[], &[(setting.key, text)]).unwrap().config;
        assert_ne!(by_file, defaults, "{} changes nothing", setting.key);
        assert_eq!(by_file, by_variable, "{}", setting.key);
        assert_eq!(by_file, by_flag, "{}", setting.key);
        let shown = setting.toml(&by_file);
        let again = load_with(Some(&format!("{header}{} = {shown}\n", setting.name())), &[], &[]).unwrap();
        assert_eq!(again.config, by_file, "{} does not survive being printed as {shown}", setting.key);
    }
}

#[test]
fn the_names_of_a_setting_are_one_name() {
    let setting = SETTINGS.iter().find(|setting| setting.key == "journal.file_bytes").unwrap();
    assert_eq!(setting.variable(), "EDDYLINE_JOURNAL_FILE_BYTES");
    assert_eq!(setting.flag(), "journal-file-bytes");
    for (index, setting) in SETTINGS.iter().enumerate() {
        let earlier = &SETTINGS[..index];
        assert!(earlier.iter().all(|other| other.flag() != setting.flag()), "{} twice", setting.flag());
    }
}

#[test]
fn the_example_is_the_defaults() {
    let example = Config::example_toml();
    let untouched = load_with(Some(&example), &[], &[]).unwrap();
    assert!(untouched.origins.is_empty(), "everything is commented out");

    let active: String = example
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let loaded = load_with(Some(&active), &[], &[]).unwrap();
    assert_eq!(loaded.origins.len(), SETTINGS.len(), "every setting is in it");
    let mut expected = untouched.config;
    expected.journal.fixed = true;
    assert_eq!(loaded.config, expected);
    insta::assert_snapshot!("example", example);
}

#[test]
fn what_is_in_force_is_printed_with_its_origin_and_loads_again() {
    let loaded = load_with(
        None,
        &[("EDDYLINE_HTTP_HEARTBEAT", "1s"), ("EDDYLINE_DATA", "/srv/a\"b")],
        &[("log.level", "debug")],
    )
    .unwrap();
    let text = loaded.to_toml();
    assert!(text.contains("heartbeat = \"1s\"                         # EDDYLINE_HTTP_HEARTBEAT\n"), "{text}");
    assert!(text.contains("# --log-level\n"), "{text}");
    let mut again = load_with(Some(&text), &[], &[]).unwrap().config;
    again.journal.fixed = false;
    assert_eq!(again, loaded.config);
}

#[test]
fn data_lives_where_the_platform_keeps_it() {
    let path = |text: &'static str| Some(Path::new(text));
    let table = [
        (true, path("/x"), path("/root"), Some("/var/lib/eddyline")),
        (false, path("/x"), path("/home/a"), Some("/x/eddyline")),
        (false, path("x"), path("/home/a"), Some("/home/a/.local/share/eddyline")),
        (false, None, path("/home/a"), Some("/home/a/.local/share/eddyline")),
        (false, path(""), None, None),
        (false, None, None, None),
    ];
    for (root, xdg, home, expected) in table {
        assert_eq!(default_data(root, xdg, home), expected.map(PathBuf::from), "{root} {xdg:?} {home:?}");
    }
}

#[test]
fn the_default_ring_shrinks_with_the_disk_and_an_asked_one_does_not() {
    const GIB: u64 = 1 << 30;
    // (disk, shards, file bytes, files)
    let table = [
        (64 * GIB, 4, 32 << 20, 8),
        (64 * GIB, 8, 16 << 20, 8),
        (10 * GIB, 2, 10 << 20, 8),
        (GIB, 2, 1 << 20, 8),
        (GIB / 2, 1, 1 << 20, 8),
        (GIB / 2, 2, 1 << 20, 4),
        (12 << 20, 1, 1 << 20, 4),
        (0, 0, 1 << 20, 4),
    ];
    let mut journal = Config::default().journal;
    for (disk, shards, file_bytes, files) in table {
        let ring = journal.ring(shards, disk);
        assert_eq!(ring, Ring { file_bytes, files }, "{disk} {shards}");
        assert!(ring.file_bytes.is_multiple_of(BLOCK_BYTES as u64));
    }
    let odd = journal.ring(3, 3 * GIB + 12_345);
    assert!(odd.file_bytes.is_multiple_of(BLOCK_BYTES as u64), "{odd:?}");
    assert!(odd.file_bytes * odd.files as u64 * 3 <= (3 * GIB + 12_345) / 64, "{odd:?}");
    journal.fixed = true;
    assert_eq!(journal.ring(100, 0), Ring { file_bytes: 32 << 20, files: 8 });
}

#[test]
fn log_levels_have_names() {
    assert_eq!(LogLevel::Info.name(), "info");
    assert_eq!(Config::default().http.heartbeat, Duration::from_secs(15));
}
