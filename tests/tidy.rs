//! House rules, kept by a machine: who may import whom, how long files and functions may be, which words stay out,
//! that no file is dead and every dependency has a reason. The checker itself is tested at the end.
//!
//! It reads text, not syntax trees: comments and literals are blanked, and what is left is searched. That is enough for
//! the rules here, and it takes no time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Every room of the crate and what it may import; a path behind a room opens that part of it alone.
const ROOMS: &[(&str, &str)] = &[
    ("main", "cli"),
    ("cli", "server shard::verify shard::repair config limits units"),
    ("server", "api shard auth group log http io config limits stats units"),
    ("api", "shard query auth group log http io config limits stats units"),
    ("shard", "auth group log io limits stats units"),
    ("query", "log limits units"),
    ("auth", "log limits"),
    ("group", "log io limits units"),
    ("log", "io limits"),
    ("http", "limits"),
    ("io", "limits"),
    ("config", "limits units"),
    ("stats", ""),
    ("limits", ""),
    ("units", ""),
];

/// Lines of a file; at 400 there is usually a second idea in it.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function, from `fn` to its closing brace; the same holds at 70.
const FUNCTION_LINES_MAX: usize = 90;
/// Where `unsafe` may stand, each time with its proof.
const UNSAFE_IN: &str = "src/io/";
/// Names that say nothing about what is in a room.
const EMPTY_NAMES: [&str; 10] =
    ["common", "helper", "helpers", "impl", "manager", "misc", "shared", "types", "util", "utils"];
/// Trees with code of ours.
const TREES: [&str; 5] = ["src", "tests", "benches", "loadgen", "fuzz"];
/// Directories in them that others fill.
const NOT_OURS: [&str; 4] = ["node_modules", "target", "corpus", "artifacts"];

/// A file of the tree, and its text without comments and literals.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }
}

// ---- reading text

/// The text with comments, strings and characters as spaces; lines stay where they are.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    while out.len() < bytes.len() {
        let at = out.len();
        let before = at.checked_sub(1).map_or(b' ', |at| bytes[at]);
        match skipped(&text[at..], before) {
            0 => out.extend_from_slice(&bytes[at..at + text[at..].chars().next().map_or(1, char::len_utf8)]),
            length => out.extend(bytes[at..at + length].iter().map(|&byte| if byte == b'\n' { byte } else { b' ' })),
        }
    }
    String::from_utf8(out).expect("whole characters were copied")
}

/// Bytes of the comment or literal that `rest` begins with, 0 for neither.
fn skipped(rest: &str, before: u8) -> usize {
    let until = |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    let hashes = rest.bytes().skip(1).take_while(|&byte| byte == b'#').count();
    if rest.starts_with("//") {
        until(0, "\n") - usize::from(rest.contains('\n'))
    } else if rest.starts_with("/*") {
        block_comment(rest)
    } else if rest.starts_with('r') && !is_word(before) && rest[1 + hashes..].starts_with('"') {
        until(2 + hashes, &format!("\"{}", "#".repeat(hashes)))
    } else if rest.starts_with('"') {
        string(rest)
    } else if rest.starts_with("'\\") {
        until(3, "'")
    } else if let Some(rest) = rest.strip_prefix('\'') {
        let quoted = rest.chars().next().map_or(0, char::len_utf8);
        if rest[quoted..].starts_with('\'') { quoted + 2 } else { 0 }
    } else {
        0
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

fn string(rest: &str) -> usize {
    let mut bytes = rest.bytes().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Places where `word` stands alone in `code`.
fn places<'c>(code: &'c str, word: &'c str) -> impl Iterator<Item = usize> + use<'c> {
    let alone = move |at: usize| {
        let bytes = code.as_bytes();
        let behind = bytes.get(at + word.len()).copied().unwrap_or(b' ');
        !(at > 0 && is_word(bytes[at - 1]) || is_word(behind) && word.bytes().all(is_word))
    };
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| alone(at))
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The identifier at the front, and what stands behind it and its spaces.
fn identifier(code: &str) -> (&str, &str) {
    let code = code.trim_start();
    let (name, rest) = code.split_at(code.bytes().take_while(|&byte| is_word(byte)).count());
    (name, rest.trim_start())
}

/// What stands between the bracket at the front of `code` and the one that closes it.
fn inside(code: &str) -> &str {
    let mut depth = 0;
    let end = code.char_indices().find(|(_, sign)| {
        depth += match sign {
            '{' | '[' | '(' => 1,
            '}' | ']' | ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    end.map_or("", |(at, _)| &code[1..at])
}

// ---- imports

/// Paths of at most two names that `path` (what stands behind `crate::`) leads to.
fn expand(path: &str, prefix: &str, found: &mut Vec<String>) {
    let (name, rest) = identifier(path);
    if path.trim_start().starts_with('{') {
        let mut depth = 0;
        let elements = inside(path.trim_start()).split(|sign: char| {
            depth += i32::from(sign == '{') - i32::from(sign == '}');
            sign == ',' && depth == 0
        });
        elements.filter(|element| !element.trim().is_empty()).for_each(|element| expand(element, prefix, found));
    } else if let (true, Some(rest)) = (prefix.is_empty(), rest.strip_prefix("::")) {
        expand(rest, &format!("{name}::"), found);
    } else {
        found.push(format!("{prefix}{name}"));
    }
}

/// Lines and paths of what a file takes from the root of its crate, by `crate::`, `eddyline::` or enough `super::`.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut add = |at: usize, path: &str| {
        let mut paths = Vec::new();
        expand(path, "", &mut paths);
        found.extend(paths.into_iter().map(|path| (line_of(&source.code, at), path)));
    };
    for root in ["crate::", "eddyline::"] {
        places(&source.code, root).for_each(|at| add(at, &source.code[at + root.len()..]));
    }
    let names = source.path.trim_end_matches("/mod.rs").split('/').count() - 1;
    for at in places(&source.code, "super::").filter(|&at| !source.code[..at].ends_with("super::")) {
        let path = source.code[at..].trim_start_matches("super::");
        let levels = (source.code.len() - at - path.len()) / "super::".len();
        let known = ROOMS.iter().any(|(room, _)| *room == identifier(path).0);
        if levels >= names && known {
            add(at, path);
        }
    }
    found
}

fn upward_imports(source: &Source) -> Vec<String> {
    let Some(inner) = source.path.strip_prefix("src/").filter(|inner| *inner != "lib.rs") else { return Vec::new() };
    let own = inner.split(['/', '.']).next().unwrap_or_default();
    let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == own) else {
        return vec![format!("{}: `{own}` is no room that tests/tidy.rs knows", source.path)];
    };
    let may = |path: &str| {
        let room = path.split("::").next().unwrap_or_default();
        room == own || allowed.split(' ').any(|allowed| allowed == room || allowed == path)
    };
    let wrong = imports(source).into_iter().filter(|(_, path)| !may(path));
    wrong.map(|(line, path)| format!("{}:{line}: {own} must not import {path}", source.path)).collect()
}

// ---- sizes and words

fn long_file(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= FILE_LINES_MAX { Vec::new() } else { vec![format!("{}: {lines} lines", source.path)] }
}

/// Line, name and number of lines of every function that has a body.
fn functions(code: &str) -> Vec<(usize, &str, usize)> {
    let measure = |at: usize| {
        let (name, rest) = identifier(&code[at + 2..]);
        let end = rest.find(['{', ';']).filter(|&end| rest.as_bytes()[end] == b'{')?;
        let body = inside(&rest[end..]);
        let header = rest[..end].matches('\n').count();
        (!name.is_empty()).then(|| (line_of(code, at), name, header + body.matches('\n').count() + 1))
    };
    places(code, "fn").filter_map(measure).collect()
}

fn long_functions(source: &Source) -> Vec<String> {
    let long = functions(&source.code).into_iter().filter(|(_, _, lines)| *lines > FUNCTION_LINES_MAX);
    long.map(|(line, name, lines)| format!("{}:{line}: `{name}` has {lines} lines", source.path)).collect()
}

fn stray_unsafe(source: &Source) -> Vec<String> {
    let places = places(&source.code, "unsafe").filter(|_| !source.path.starts_with(UNSAFE_IN));
    places.map(|at| format!("{}:{}: unsafe", source.path, line_of(&source.code, at))).collect()
}

fn allowed_lints(source: &Source) -> Vec<String> {
    let attributes = ["#[", "#!["].into_iter().flat_map(|mark| source.code.match_indices(mark));
    let allows = attributes.filter(|(at, mark)| {
        let attribute = inside(&source.code[at + mark.len() - 1..]);
        places(attribute, "allow").next().is_some()
    });
    let line = |at| line_of(&source.code, at);
    allows.map(|(at, _)| format!("{}:{}: a lint is allowed: expect it, with a reason", source.path, line(at))).collect()
}

/// Notes to oneself, and what stands in for code that is not there.
fn unfinished(source: &Source) -> Vec<String> {
    let notes = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    let noted = notes.iter().flat_map(|note| places(&source.text, note));
    let calls = ["todo!", "unimplemented!", "dbg!"].into_iter().flat_map(|call| places(&source.code, call));
    let found = noted.chain(calls);
    found.map(|at| format!("{}:{}: unfinished", source.path, line_of(&source.text, at))).collect()
}

fn no_opening(source: &Source) -> Vec<String> {
    let opens = source.text.starts_with("//! ");
    if opens { Vec::new() } else { vec![format!("{}: does not open with what it is for (`//!`)", source.path)] }
}

fn empty_room_names(source: &Source) -> Vec<String> {
    let mut rooms = source.path.split('/').rev().skip(1).collect::<Vec<_>>();
    rooms.extend(
        source.path.strip_prefix("src/").and_then(|file| file.strip_suffix(".rs")).filter(|f| !f.contains('/')),
    );
    let empty = rooms.into_iter().filter(|room| EMPTY_NAMES.contains(room));
    empty.map(|room| format!("{}: `{room}` says nothing about what is in it", source.path)).collect()
}

// ---- the tree as a whole

/// Files that no root leads to by `mod` lines.
fn dead_files(sources: &[Source]) -> Vec<String> {
    let files: BTreeMap<&str, &Source> = sources.iter().map(|source| (source.path.as_str(), source)).collect();
    let is_root = |path: &str| {
        let parts: Vec<&str> = path.split('/').collect();
        matches!(
            parts.as_slice(),
            [.., "src", "lib.rs" | "main.rs"]
                | [.., "tests", _, "main.rs"]
                | ["tests" | "benches", _]
                | [_, "build.rs"]
                | [_, "tests" | "benches" | "examples" | "fuzz_targets", _]
        )
    };
    let mut open: Vec<&str> = files.keys().copied().filter(|path| is_root(path)).collect();
    let mut reached: BTreeSet<&str> = open.iter().copied().collect();
    while let Some(path) = open.pop() {
        let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
        let base = match file.trim_end_matches(".rs") {
            "mod" | "lib" | "main" => directory.to_owned(),
            _ if is_root(path) => directory.to_owned(),
            stem => format!("{directory}/{stem}"),
        };
        let code = &files[path].code;
        for at in places(code, "mod") {
            let (name, rest) = identifier(&code[at + 3..]);
            let candidates = [format!("{base}/{name}.rs"), format!("{base}/{name}/mod.rs")];
            let found = candidates.iter().filter_map(|candidate| files.get_key_value(candidate.as_str()));
            let found = found.map(|(path, _)| *path).filter(|_| rest.starts_with(';'));
            open.extend(found.filter(|path| reached.insert(path)));
        }
    }
    files
        .keys()
        .filter(|path| !reached.contains(*path))
        .map(|path| format!("{path}: no `mod` line leads here"))
        .collect()
}

/// Dependencies of a manifest that `page` has no row for: `` | `name` | reason | ``.
fn unexplained(manifest: &str, page: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let names = ["dependencies", "dev-dependencies"].into_iter();
    let names = names.filter_map(|section| manifest.get(section)?.as_table()).flat_map(toml::Table::keys);
    let explained = |name: &str| {
        page.lines().any(|line| {
            let reason = line.strip_prefix(&format!("| `{name}` |")).unwrap_or_default();
            reason.trim_matches(['|', ' ']).len() > 10
        })
    };
    names.filter(|name| !explained(name)).map(|name| format!("{name}: no reason for it is given")).collect()
}

fn collect(root: &Path, directory: &str, into: &mut Vec<Source>) {
    for entry in fs::read_dir(root.join(directory)).expect("a directory of the tree").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{directory}/{name}");
        if entry.path().is_dir() {
            if !NOT_OURS.contains(&name.as_str()) {
                collect(root, &path, into);
            }
        } else if name.ends_with(".rs") {
            into.push(Source::new(&path, &fs::read_to_string(entry.path()).expect("a source file is text")));
        }
    }
}

fn tree() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    TREES.iter().filter(|tree| root.join(tree).is_dir()).for_each(|tree| collect(root, tree, &mut sources));
    assert!(sources.len() > 100, "the tree was not found");
    sources
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file of the tree")
}

#[track_caller]
fn holds(broken: &[String]) {
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Error codes in what was written for callers: the first literal behind a call that makes a problem.
fn error_codes(source: &Source) -> BTreeSet<&str> {
    let code = source.code.split("#[cfg(test)]").next().unwrap_or_default();
    let calls =
        ["Problem::new(", "Problem::passing(", "Self::new(", "Self::passing(", "Fault::new(", "malformed(", "fault("];
    let behind = calls.into_iter().flat_map(|call| places(code, call).map(move |at| at + call.len()));
    let codes = behind.filter_map(|at| {
        let behind_status = |sign: char| sign.is_whitespace() || sign.is_ascii_digit() || sign == ',';
        let name = source.text[at..].trim_start_matches(behind_status).strip_prefix('"')?.split('"').next()?;
        (!name.is_empty() && name.bytes().all(is_word)).then_some(name)
    });
    codes.collect()
}

type Rule = fn(&Source) -> Vec<String>;

const RULES: [(&str, Rule); 8] = [
    ("imports only point down", upward_imports),
    ("files are short", long_file),
    ("functions are short", long_functions),
    ("unsafe stays in its place", stray_unsafe),
    ("lints are expected, never allowed", allowed_lints),
    ("nothing is unfinished", unfinished),
    ("every file says what it is for", no_opening),
    ("rooms have names that say something", empty_room_names),
];

#[test]
fn every_file_keeps_the_house_rules() {
    let sources = tree();
    let rules =
        RULES.iter().flat_map(|(name, rule)| sources.iter().flat_map(rule).map(move |at| format!("{name}: {at}")));
    holds(&rules.collect::<Vec<_>>());
}

#[test]
fn no_file_is_dead() {
    holds(&dead_files(&tree()));
}

#[test]
fn every_dependency_has_a_reason() {
    let page = read("docs/ARCHITECTURE.md");
    for manifest in ["Cargo.toml", "loadgen/Cargo.toml"] {
        holds(&unexplained(&read(manifest), &page));
    }
}

#[test]
fn the_pages_name_every_error_and_every_setting() {
    let (errors, settings) = (read("docs/HTTP.md"), read("docs/OPERATIONS.md"));
    let rooms = ["src/api/", "src/http/", "src/server/"];
    let sources: Vec<Source> =
        tree().into_iter().filter(|source| rooms.iter().any(|room| source.path.starts_with(room))).collect();
    let codes: BTreeSet<&str> = sources.iter().flat_map(error_codes).collect();
    assert!(codes.len() > 50 && codes.contains("no_group"), "codes were not found: {codes:?}");
    holds(&codes.iter().map(|code| format!("`{code}`")).filter(|code| !errors.contains(code)).collect::<Vec<_>>());
    let rows = eddyline::config::SETTINGS.iter().map(|set| format!("| `{}` | `{}` |", set.key, set.default_toml()));
    holds(&rows.filter(|row| !settings.contains(row)).collect::<Vec<_>>());
}

// ---- the checker

#[test]
fn comments_and_literals_are_blanked_and_lines_stay() {
    for (text, expected) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ \n */ d", "a              \n    d"),
        (r#"a("b\"c") d"#, "a(      ) d"),
        ("a(r#\"b\"c\"#) d", "a(        ) d"),
        (r"a('\'') b('x') &'c d", "a(    ) b(   ) &'c d"),
        ("for 'ä' in x", "for      in x"),
    ] {
        assert_eq!(blank(text), expected, "{text}");
    }
}

#[test]
fn broken_rules_are_found() {
    let long = format!("//! x\nfn short() {{}}\nfn long() {{\n{}}}\n", "    f();\n".repeat(FUNCTION_LINES_MAX));
    let lines = format!("//! x\n{}", "\n".repeat(FILE_LINES_MAX));
    let note = format!("//! x\n// {}{} later\n", "TO", "DO");
    for (rule, path, text, expected) in [
        (upward_imports as Rule, "src/log/a.rs", "use crate::group::Group;", 1),
        (upward_imports, "src/log/a.rs", "use crate::{io::ring, shard::{self, read}, limits};", 2),
        (upward_imports, "src/log/a.rs", "// crate::api\nfn a() -> crate::io::X { \"crate::api\" }", 0),
        (upward_imports, "src/log/a.rs", "use super::super::shard::X;", 1),
        (upward_imports, "src/log/mod.rs", "use super::shard::X;", 1),
        (upward_imports, "src/log/a.rs", "use super::group_log::X; use super::shard::Y;", 0),
        (upward_imports, "src/cli/a.rs", "use crate::shard::verify::verify;", 0),
        (upward_imports, "src/cli/a.rs", "use crate::shard::{read::X, verify};", 1),
        (upward_imports, "src/units.rs", "use crate::limits;", 1),
        (upward_imports, "src/main.rs", "use eddyline::{cli, io};", 1),
        (upward_imports, "src/attic/a.rs", "", 1),
        (long_file, "src/a.rs", &lines, 1),
        (long_file, "src/a.rs", &lines[6..], 0),
        (long_functions, "src/a.rs", &long, 1),
        (long_functions, "src/a.rs", "fn a() { \"}\" } trait T { fn b(); } type F = fn();", 0),
        (stray_unsafe, "src/log/a.rs", "unsafe { f() } // unsafe\n#[expect(unsafe_code)]", 1),
        (stray_unsafe, "src/io/a.rs", "unsafe { f() }", 0),
        (allowed_lints, "src/a.rs", "#![allow(dead_code)]\n#[cfg_attr(test, allow(x))]", 2),
        (allowed_lints, "src/a.rs", "#[expect(x)] fn allow() { self.allow(); }", 0),
        (unfinished, "src/a.rs", &note, 1),
        (unfinished, "src/a.rs", "fn a() { todo!() }\nfn b() { dbg!(1); }\nfn c() { \"todo!\" }", 2),
        (no_opening, "src/a.rs", "use x;\n//! late", 1),
        (empty_room_names, "src/utils/a.rs", "", 1),
        (empty_room_names, "src/common.rs", "", 1),
        (empty_room_names, "src/log/frame.rs", "", 0),
    ] {
        let found = rule(&Source::new(path, text));
        assert_eq!(found.len(), expected, "{path}: {} found {found:?}", &text[..text.len().min(80)]);
    }
}

#[test]
fn dead_files_and_unexplained_dependencies_are_found() {
    let tree = |files: &[(&str, &str)]| files.iter().map(|(path, text)| Source::new(path, text)).collect::<Vec<_>>();
    let alive = [("src/lib.rs", "pub mod a;\n// mod dead;"), ("src/a.rs", "mod b;"), ("src/a/b.rs", "mod c { }")];
    assert!(dead_files(&tree(&alive)).is_empty());
    let dead = [&alive[..], &[("src/dead.rs", ""), ("src/a/c.rs", ""), ("tests/it/main.rs", "")]].concat();
    assert_eq!(dead_files(&tree(&dead)).len(), 2);
    let manifest = "[dependencies]\na = \"1\"\nb = \"1\"\n[dev-dependencies]\nc = \"1\"";
    assert_eq!(unexplained(manifest, "| `a` | does this and that |\n| `b` | |\nc").len(), 2);
}
