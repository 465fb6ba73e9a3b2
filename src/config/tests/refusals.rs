//! Tables of what is refused, and how it is said.

use std::net::SocketAddr;

use super::*;

/// What is said of a bad file.
fn refusal(file: &str) -> String {
    load_with(Some(file), &[], &[]).expect_err(file).to_string()
}

/// A file, and how the first line about it begins.
const BAD_FILES: &[(&str, &str)] = &[
    ("cors = 1", "eddyline.toml:1:1: unknown key `cors` at the top; did you mean `cores`?"),
    (
        "\n[http]\nkeepalive = \"1s\"",
        "eddyline.toml:3:1: unknown key `keepalive` in [http]; did you mean `keep_alive`?",
    ),
    ("[htp]\nhead = \"1s\"", "eddyline.toml:1:2: unknown key `htp` at the top; did you mean `http`?"),
    ("keep_alive = \"1s\"", "eddyline.toml:1:1: unknown key `keep_alive` at the top; `keep_alive` belongs in [http]"),
    (
        "[http]\nlisten = \"127.0.0.1:1\"",
        "eddyline.toml:2:1: unknown key `listen` in [http]; `listen` belongs at the top, above all tables",
    ),
    ("http.nonsense = 1", "eddyline.toml:1:6: unknown key `nonsense` in [http]"),
    ("http = 1", "eddyline.toml:1:8: http: expected a table [http], not a value of type integer"),
    (
        "listen = {}",
        "eddyline.toml:1:10: listen: expected an address such as \"127.0.0.1:4437\" or a list of them, not a table",
    ),
    (
        "listen = [\"127.0.0.1:1\", 2]",
        "eddyline.toml:1:10: listen: expected an address such as \"127.0.0.1:4437\" or a list of them, not an integer",
    ),
    (
        "listen = \"4437\"",
        "eddyline.toml:1:10: listen: `4437` is not an address with a port: expected for example 127.0.0.1:4437 or [::1]:4437",
    ),
    ("drain = 10", "eddyline.toml:1:9: drain: expected a duration with a unit such as \"20s\", not an integer"),
    (
        "drain = \"10\"",
        "eddyline.toml:1:9: drain: `10` has no unit: expected a duration such as 20s, 15m (minutes) or 7d",
    ),
    ("cores = \"two\"", "eddyline.toml:1:9: cores: expected a whole number such as 8, not a string"),
    ("cores = -1", "eddyline.toml:1:9: cores: `-1` is not a count: expected a whole number such as 8"),
    ("cores = 1.5", "eddyline.toml:1:9: cores: expected a whole number such as 8, not a float"),
    ("auto_create = \"yes\"", "eddyline.toml:1:15: auto_create: expected `true` or `false`, not a string"),
    (
        "[http]\nbody_rate = \"1 x\"",
        "eddyline.toml:2:13: http.body_rate: `1 x` is not a size: expected a number of bytes with a unit, such as 256B, 10k or 64MiB",
    ),
    (
        "[http]\nbody_rate = true",
        "eddyline.toml:2:13: http.body_rate: expected a size such as \"64MiB\", not a boolean",
    ),
    (
        "[log]\nlevel = \"loud\"",
        "eddyline.toml:2:9: log.level: `loud` is not one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
    ),
    (
        "[log]\nformat = 3",
        "eddyline.toml:2:10: log.format: expected one of \"auto\", \"text\", \"json\", not an integer",
    ),
    ("data = 3", "eddyline.toml:1:8: data: expected a path, not an integer"),
    ("cores = 1\ncores = 2", "eddyline.toml:2:1: not TOML: duplicate key"),
    ("cores = ", "eddyline.toml:1:9: not TOML: "),
];

#[test]
fn a_file_is_refused_with_place_cause_and_what_was_meant() {
    // (file, what the first line must say)
    for (file, expected) in BAD_FILES {
        let said = refusal(file);
        assert!(said.lines().next().unwrap().starts_with(expected), "{file:?}\n{said}\n{expected}");
    }
}

/// A file, and what must be said of it.
const BAD_VALUES: &[(&str, &str)] = &[
    ("listen = []", "listen: must name at least one address"),
    ("listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "listen: 127.0.0.1:1 is named twice"),
    ("listen = \"0.0.0.0:4437\"", "listen: 0.0.0.0:4437 can be reached from other machines"),
    ("listen = \"0.0.0.0:4437\"", "turn tokens on with --auth-enabled"),
    ("listen = \"[::]:4437\"", "allow it with --insecure-no-auth (key `insecure_no_auth`)"),
    ("listen = [\"127.0.0.1:1\", \"192.168.0.1:1\"]", "listen: 192.168.0.1:1 can be reached"),
    ("cores = 2000", "cores: must be from 0 to 1024, and is 2000"),
    ("shards = 2000", "shards: must be from 0 to 1024, and is 2000"),
    ("drain = \"2h\"", "drain: must be from 0s to 1h, and is 2h"),
    ("[http]\nkeep_alive = \"0s\"", "http.keep_alive: must be from 100ms to 1d, and is 0s"),
    ("[http]\nhead = \"0s\"", "http.head: must be from 100ms"),
    ("[http]\nbody_grace = \"2d\"", "http.body_grace: must be from 0s to 1d"),
    ("[http]\nsend = \"0s\"", "http.send: must be from"),
    ("[http]\nheartbeat = \"1ms\"", "http.heartbeat: must be from"),
    ("[http]\nconnections = 0", "http.connections: must be from 1 to"),
    (
        "[http]\nbody_memory = \"1MiB\"",
        "http.body_memory: must hold a largest batch, which is 8MiB (limits.max_batch_bytes), and is 1MiB",
    ),
    ("[http]\ncors = [\"*\", \"https://a.example\"]", "http.cors: \"*\" lets every page call, so it stands alone"),
    ("[http]\ncors = \"a.example\"", "http.cors: `a.example` has no scheme"),
    ("[http]\ncors = \"https://a.example/\"", "has a path"),
    ("[http]\ncors = \"https://a.example:443\"", "names the port that its scheme implies"),
    ("[http]\ncors = \"https://a.example:99999\"", "has a bad port"),
    ("[http]\ncors = \"https://*.example\"", "has a bad host"),
    ("[http]\ncors = \"http://[::zz]:80\"", "names the port"),
    ("[http]\ncors = \"http://[::zz]\"", "has a bad host"),
    ("[http]\nhosts = \"https://a.example\"", "http.hosts: `https://a.example` is not a host name"),
    ("[http]\nhosts = \"a.example:80\"", "is not a host name"),
    ("[journal]\nfile_bytes = \"512KiB\"", "journal.file_bytes: must be at least 1MiB, and is 512KiB"),
    ("[journal]\nfile_bytes = \"1500kB\"", "journal.file_bytes: must be a multiple of 4KiB, and is 1500kB"),
    ("[journal]\nfile_bytes = \"2TiB\"", "journal.file_bytes: must be at most 1TiB"),
    ("[journal]\nfiles = 3", "journal.files: must be from 4 to 65536, and is 3"),
    ("[storage]\ntail_memory = \"1MiB\"", "storage.tail_memory: must hold a largest batch"),
    ("[storage]\nsegment_files = 1", "storage.segment_files: must be from 8"),
    ("[limits]\nmax_event_bytes = 0", "limits.max_event_bytes: must be at least 1B"),
    (
        "[limits]\nmax_event_bytes = \"9MiB\"",
        "limits.max_event_bytes: is 9MiB, but a batch, which holds at least one event, may only be 8MiB",
    ),
    ("[limits]\nmax_batch_bytes = \"17MiB\"", "limits.max_batch_bytes: must be at most 16MiB"),
    ("[limits]\ngroups = 0", "limits.groups: must be from 1"),
    ("[limits]\ntokens = 0", "limits.tokens: must be from 1"),
    ("[limits]\nqueue = 0", "limits.queue: must be from 1"),
    ("[limits]\nwaiting = \"2h\"", "limits.waiting: must be from 0s to 1h"),
];

#[test]
fn values_that_cannot_work_are_refused_by_name() {
    // (file, what must be said)
    for (file, expected) in BAD_VALUES {
        let said = refusal(file);
        assert!(said.contains(expected) && said.starts_with("eddyline.toml:"), "{file:?}\n{said}\n{expected}");
    }
}

#[test]
fn what_only_looks_dangerous_is_taken() {
    let table: &[(&str, &str)] = &[
        ("other addresses when allowed", "insecure_no_auth = true\nlisten = \"0.0.0.0:4437\""),
        ("other addresses with tokens", "listen = \"0.0.0.0:4437\"\n[auth]\nenabled = true"),
        ("all of loopback", "listen = [\"127.1.2.3:0\", \"127.1.2.3:0\", \"[::1]:0\", \"[::ffff:127.0.0.1]:0\"]"),
        ("localhost as an address", "listen = \"localhost:4437\""),
        ("any page", "[http]\ncors = [\"*\"]"),
        (
            "pages of this machine and another",
            "[http]\ncors = [\"localhost\", \"http://[::1]:8080\", \"https://app.example.org\"]",
        ),
        ("names in capitals", "[http]\nhosts = [\"Events.Example.ORG\"]"),
    ];
    for (what, file) in table {
        assert!(load_with(Some(file), &[], &[]).is_ok(), "{what}: {}", refusal(file));
    }
    let loaded = load_with(Some(table[6].1), &[], &[]).unwrap();
    assert_eq!(loaded.config.http.hosts, ["events.example.org"]);
    let listen: SocketAddr = "127.0.0.1:4437".parse().unwrap();
    assert_eq!(load_with(Some(table[3].1), &[], &[]).unwrap().config.listen, [listen]);
}

#[test]
fn all_mistakes_are_reported_together_in_the_order_of_the_sources() {
    let file =
        "cores = 2000\n\n[http]\n\tkeepalive = \"75s\"\nbody_rate = \"fast\" # too vague\n[journal]\nfiles = 1\n";
    let variables = [("EDDYLINE_CORE", "1"), ("EDDYLINE_LIMITS_QUEUE", "many")];
    let problems = load_with(Some(file), &variables, &[("log.format", "xml")]).unwrap_err();
    insta::assert_snapshot!("problems", problems.to_string());
}

#[test]
fn nothing_is_concluded_from_a_value_that_could_not_be_read() {
    let said = refusal("[limits]\nmax_batch_bytes = \"big\"\nmax_event_bytes = \"20MiB\"");
    assert!(said.contains("max_batch_bytes: `big`") && !said.contains("max_event_bytes: is"), "{said}");
}

#[test]
fn variables_are_known_or_refused() {
    let table = [
        (
            "EDDYLINE_LISTEM",
            "x",
            Some("EDDYLINE_LISTEM: no setting has this variable; did you mean `EDDYLINE_LISTEN`?"),
        ),
        ("EDDYLINE_TOKENFILE", "x", Some("did you mean `EDDYLINE_TOKEN_FILE`?")),
        ("EDDYLINE_SOMETHING_ELSE", "x", Some("EDDYLINE_SOMETHING_ELSE: no setting has this variable")),
        ("EDDYLINE_CORES", "", Some("EDDYLINE_CORES: cores: `` is not a count")),
        ("EDDYLINE_AUTO_CREATE", "yes", Some("`yes` is neither `true` nor `false`")),
        ("EDDYLINE_PORT", "4437", Some("no setting has this variable")),
        ("EDDYLINE_URL", "x", None),
        ("EDDYLINE_TOKEN_FILE", "x", None),
        ("EDDYLINE_TOKEN", "x", None),
        ("EDDYLINE_LOG", "x", None),
        ("EDDYLINE_CONFIG", "x", None),
        ("EDDYLINE_PORT", "tcp://10.0.0.1:4437", None),
        ("EDDYLINE_PORT_4437_TCP_ADDR", "10.0.0.1", None),
        ("EDDYLINE_SERVICE_HOST", "10.0.0.1", None),
        ("EDDYLINE_SERVICE_PORT_HTTP", "4437", None),
    ];
    for (name, value, expected) in table {
        let said = load_with(None, &[(name, value)], &[]).err().map(|problems| problems.to_string());
        match (&said, expected) {
            (None, None) => {}
            (Some(said), Some(expected)) => assert!(said.contains(expected), "{name}: {said}"),
            _ => panic!("{name}={value}: {said:?}"),
        }
    }
}

#[test]
fn a_variable_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = std::ffi::OsString::from_vec(vec![b'/', 0xff]);
    let sources = Sources {
        data: Some(PathBuf::from("/d")),
        variables: vec![("EDDYLINE_DATA".to_owned(), bytes)],
        ..Sources::default()
    };
    assert_eq!(load(&sources).unwrap_err().to_string(), "EDDYLINE_DATA: the value is not UTF-8");
}

#[test]
fn a_missing_file_or_home_is_said() {
    let sources = Sources { file: Some(PathBuf::from("/nowhere/eddyline.toml")), ..Sources::default() };
    let said = load(&sources).unwrap_err().to_string();
    assert!(said.contains("/nowhere/eddyline.toml: cannot read the configuration file: No such file"), "{said}");
    assert!(said.contains("\ndata: there is no home directory"), "{said}");
}

#[test]
fn spans_of_a_long_line_end_with_it() {
    let said = refusal("x = \"\"\"a\nb\"\"\"\n");
    assert_eq!(said, "eddyline.toml:1:1: unknown key `x` at the top\n    |\n  1 | x = \"\"\"a\n    | ^");
    let said = refusal("data = 'ä'\ncores = [1,\n2]");
    assert!(
        said.ends_with("\n    | cores = [1,\n    |         ^^^")
            || said.contains("  2 | cores = [1,\n    |         ^^^"),
        "{said}"
    );
}
