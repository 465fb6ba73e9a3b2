//! The README and the page on loadgen do what they say: every block of shell is run as it stands there, against this build, and what it shows
//! as output is what comes.

use crate::broker::{eventually, own_address};
use crate::program::loadgen;
use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A block of shell, and the output that is shown right behind it.
struct Block {
    line: usize,
    script: String,
    output: Option<String>,
}

fn blocks(readme: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = readme.lines().enumerate();
    // Whether nothing but empty lines stands behind the last block of shell.
    let mut directly = false;
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            directly &= line.trim().is_empty();
            continue;
        };
        let body: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .map(|line| format!("{line}\n"))
            .collect();
        match (language, blocks.last_mut()) {
            ("sh", _) => blocks.push(Block { line: number + 1, script: body, output: None }),
            ("text", Some(block)) if directly => block.output = Some(body),
            _ => {}
        }
        directly = language == "sh";
    }
    blocks
}

/// Whether `text` is `pattern`, in which `…` stands for anything within a line, and a line of only that for any lines.
/// Empty lines and blanks at the ends of lines do not count.
fn matches(pattern: &str, text: &str) -> bool {
    fn lines(pattern: &[&str], text: &[&str]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((&"…", rest)), _) => (0..=text.len()).any(|skipped| lines(rest, &text[skipped..])),
            (Some((first, rest)), Some((line, more))) => within(first, line) && lines(rest, more),
            _ => false,
        }
    }
    fn within(pattern: &str, line: &str) -> bool {
        let Some((before, rest)) = pattern.split_once('…') else { return pattern == line };
        let Some(line) = line.strip_prefix(before) else { return false };
        line.char_indices().map(|(place, _)| place).chain([line.len()]).any(|place| within(rest, &line[place..]))
    }
    let told = |text: &'_ str| -> Vec<String> {
        text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    };
    let (pattern, text) = (told(pattern), told(text));
    let [pattern, text] = [&pattern, &text].map(|lines| lines.iter().map(String::as_str).collect::<Vec<_>>());
    lines(&pattern, &text)
}

/// A reader of a page: a directory to work in, a port, and the broker that was started last.
struct Reader {
    page: &'static str,
    directory: tempfile::TempDir,
    port: u16,
    broker: Option<Child>,
}

impl Reader {
    fn new(page: &'static str) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let port = own_address().port();
        // Off a terminal curl would draw a progress meter, and end no line.
        std::fs::write(directory.path().join(".curlrc"), "silent\nshow-error\nwrite-out = \"\\n\"\n").unwrap();
        Self { page, directory, port, broker: None }
    }

    /// The block with this build's programs and this test's port.
    fn adapted(&self, script: &str) -> String {
        let programs = Path::new(env!("CARGO_BIN_EXE_eddyline")).parent().unwrap().display().to_string();
        script
            .replace("cargo run --release -p loadgen --", "loadgen")
            .replace("cargo run --release --", "eddyline")
            .replace("./target/release", &programs)
            .replace("target/release", &programs)
            // Long enough to see that it works.
            .replace(" -d 10s", " -d 500ms")
            .replace("4437", &self.port.to_string())
            .lines()
            // Building was done before this test ran.
            .map(|line| {
                if ["cargo build", "git clone", "cd "].iter().any(|build| line.starts_with(build)) { ":" } else { line }
            })
            .map(|line| format!("{line}\n"))
            .collect()
    }

    fn shell(&self, script: &str, output: &Path) -> Command {
        let programs = Path::new(env!("CARGO_BIN_EXE_eddyline")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        let out = File::create(output).unwrap();
        let mut command = Command::new("bash");
        command.args(["-e", "-o", "pipefail", "-c", script]).current_dir(self.directory.path()).env_clear();
        command.env("PATH", path).env("HOME", self.directory.path()).env("TMPDIR", self.directory.path());
        command.env("EDDYLINE_URL", format!("http://127.0.0.1:{}", self.port));
        command.env("EDDYLINE_JOURNAL_FILE_BYTES", "1MiB").env("EDDYLINE_JOURNAL_FILES", "4");
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        command
    }

    fn run(&mut self, block: &Block) {
        let script = self.adapted(&block.script);
        let starts = |line: &str| line.starts_with("eddyline dev") || line.starts_with("eddyline serve");
        let output = self.directory.path().join(format!("block-{}", block.line));
        if script.lines().any(starts) {
            self.start(&script, &output);
        } else {
            let script = format!("timeout 60 bash -e -o pipefail -c {}", quoted(&script));
            let status = self.shell(&script, &output).status().expect("bash");
            assert!(status.success(), "{}, line {}: {status}\n{script}\n{}", self.page, block.line, said(&output));
        }
        if let Some(expected) = &block.output {
            let expected = expected.replace("4437", &self.port.to_string());
            if script.lines().any(starts) {
                eventually("the broker says what the page shows", || matches(&expected, &said(&output)));
            }
            let said = said(&output);
            let (page, line) = (self.page, block.line);
            assert!(matches(&expected, &said), "{page}, line {line}: expected\n{expected}\ncame\n{said}");
        }
    }

    /// Starts the broker that a block starts, small and on this test's port; one that still runs is ended.
    fn start(&mut self, script: &str, output: &Path) {
        self.stop();
        let mut command = self.shell(&script.replacen("eddyline ", "exec eddyline ", 1), output);
        command.env("EDDYLINE_LISTEN", format!("127.0.0.1:{}", self.port)).env("EDDYLINE_LOG_FORMAT", "text");
        if script.contains("eddyline serve") && !script.contains("--data") {
            command.env("EDDYLINE_DATA", self.directory.path().join("data"));
        }
        self.broker = Some(command.spawn().expect("bash"));
        let broker = self.broker.as_mut().expect("it was just started");
        eventually("the broker of the page listens", || {
            assert_eq!(broker.try_wait().unwrap(), None, "it ended: {}", said(output));
            TcpStream::connect(("127.0.0.1", self.port)).is_ok() && said(output).contains("ready in")
        });
    }

    fn stop(&mut self) {
        if let Some(mut broker) = self.broker.take() {
            let _ =
                rustix::process::kill_process(rustix::process::Pid::from_child(&broker), rustix::process::Signal::TERM);
            eventually("the broker of the page ends", || broker.try_wait().unwrap().is_some());
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(mut broker) = self.broker.take() {
            let _ = broker.kill();
            let _ = broker.wait();
        }
    }
}

fn said(output: &Path) -> String {
    std::fs::read_to_string(output).unwrap_or_default()
}

fn quoted(script: &str) -> String {
    format!("'{}'", script.replace('\'', "'\\''"))
}

/// Runs every block of a page, which shows what comes somewhere.
fn follow(page: &'static str) {
    let text = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(page)).expect("a page");
    let blocks = blocks(&text);
    assert!(blocks.iter().any(|block| block.output.is_some()), "{page} shows what comes, somewhere");
    // It is beside the broker, and blocks may use it.
    loadgen();
    let mut reader = Reader::new(page);
    blocks.iter().for_each(|block| reader.run(block));
    reader.stop();
}

#[test]
fn every_block_of_the_readme_works_and_shows_what_comes() {
    follow("README.md");
}

#[test]
fn every_block_of_the_page_on_loadgen_works_and_shows_what_comes() {
    follow("docs/LOADGEN.md");
}

#[test]
fn blocks_and_wildcards() {
    let readme =
        "a\n```sh\none\n```\n\n```text\nout …\n```\n```sh\ntwo\n```\nand\n```text\nnot its\n```\n```rust\nx\n```\n";
    let found: Vec<_> = blocks(readme).into_iter().map(|block| (block.line, block.script, block.output)).collect();
    assert_eq!(found, [(2, "one\n".to_owned(), Some("out …\n".to_owned())), (9, "two\n".to_owned(), None)]);
    for (pattern, text, expected) in [
        ("a\nb\n", "a\nb", true),
        ("a…c", "abbc", true),
        ("a…c", "abb", false),
        ("{\"id\":\"…\",\"n\":1}", "{\"id\":\"xy\",\"n\":1}", true),
        ("a\n…\nd", "a\nb\nc\nd", true),
        ("a\n…\nd", "a\nb\nc", false),
        ("a", "a\nb", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
    }
}
