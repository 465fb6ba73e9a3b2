//! `eddyline query` as a person sees it: how far a query is, drawn on a terminal that is made here, and never among rows;
//! the list of those that run, and how one is stopped.

use crate::broker::{Broker, PATIENCE, eventually};
use crate::http::Client;
use crate::program::eddyline;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const FOLLOW: &str = "SELECT * IN flights FROM now() FOLLOW";
const ID: &str = "0199c0de-0000-4000-8000-00000000000a";
const EVENTS: u64 = 20_000;

/// Both ends of a terminal, and what is written to it.
struct Terminal {
    /// It is there as long as somebody has it.
    end: File,
    drawn: Receiver<Vec<u8>>,
    text: String,
}

impl Terminal {
    fn open() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let end = OpenOptions::new().read(true).write(true).open(OsStr::from_bytes(name.as_bytes())).expect("its end");
        tcsetwinsize(&end, Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
        let (sender, drawn) = channel();
        let mut master = File::from(master);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(bytes @ 1..) = master.read(&mut piece) {
                if sender.send(piece[..bytes].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { end, drawn, text: String::new() }
    }

    fn end(&self) -> Stdio {
        self.end.try_clone().expect("another").into()
    }

    fn wait_for(&mut self, part: &str) {
        while !self.text.contains(part) {
            let more = self.drawn.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {part:?} in {:?}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&more));
        }
    }
}

fn broker() -> Broker {
    let broker = Broker::start(&[]);
    broker.create("flights", "{}");
    let event = format!(r#"{{"o":"{}"}}"#, "x".repeat(2000));
    for _ in 0..EVENTS / 400 {
        broker.produce_lines("flights", &vec![event.as_str(); 400].join("\n"));
    }
    broker
}

fn ask(broker: &Broker, query: &str, stdout: Stdio, stderr: Stdio) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eddyline"));
    command.env_clear().env("TERM", "xterm").args(["query", query, "-o", "ndjson", "--url", &broker.url()]);
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().expect("it starts")
}

fn interrupt(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::INT).expect("a signal");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}

fn runs(broker: &Broker) -> bool {
    broker.get("/v1/queries").json()["queries"] != json!([])
}

#[test]
fn a_bar_tells_how_far_a_query_is_while_its_rows_go_to_a_file() {
    let broker = broker();
    // It takes far longer than anybody waits.
    let parts = vec!["data.o LIKE '%a%b%c%' OR data.n = 'x'"; 700].join(" OR ");
    let mut terminal = Terminal::open();
    let file = tempfile::tempfile().expect("a file");
    let child = ask(&broker, &format!("SELECT * IN flights WHERE {parts}"), file.into(), terminal.end());
    terminal.wait_for("% of 20,000 events, ");
    interrupt(child);
    eventually("it ends on the broker, too", || !runs(&broker));
}

#[test]
fn what_follows_stands_alone_on_a_terminal_and_beside_the_time_in_a_file() {
    let broker = broker();
    let mut terminal = Terminal::open();
    let child = ask(&broker, FOLLOW, terminal.end(), terminal.end());
    terminal.wait_for("up_to_date");
    // Longer than it takes until something is drawn.
    std::thread::sleep(Duration::from_secs(2));
    broker.produce_lines("flights", r#"{"n":1}"#);
    terminal.wait_for(r#""n":1}"#);
    assert!(!terminal.text.contains("the query runs"), "{}", terminal.text);
    interrupt(child);
    let file = tempfile::tempfile().expect("a file");
    let child = ask(&broker, FOLLOW, file.into(), terminal.end());
    terminal.wait_for("the query runs");
    interrupt(child);
}

#[test]
fn queries_that_run_are_listed_and_stopped() {
    let broker = broker();
    let url = broker.url();
    let query = |arguments: &[&str]| eddyline(&[&["query"], arguments, &["--url", &url]].concat());
    query(&["--running"]).with(0).saying("no query runs");
    let mut client = broker.client();
    let rows = [("Accept", "application/x-ndjson")];
    client.send(Client::request("POST", &format!("/v1/query?id={ID}"), &rows, FOLLOW));
    assert_eq!(client.head().status, 200);
    let table = query(&["--running"]).with(0);
    let lines: Vec<&str> = table.text().lines().collect();
    assert!(lines.len() == 2 && lines[0].split_whitespace().eq(["ID", "GROUP", "CALLER", "ELAPSED", "DONE", "QUERY"]));
    assert!(lines[1].starts_with(&format!("{ID}  flights  anonymous  ")) && lines[1].ends_with(FOLLOW), "{lines:?}");
    assert!(query(&["--running", "-o", "json"]).with(0).text().contains(&format!("\"id\":\"{ID}\"")));
    query(&["--running", "-o", "csv"]).with(2).saying("table or json");
    query(&["--running", FOLLOW]).with(2);
    query(&["--stop", ID, "-o", "json"]).with(2);
    query(&[]).with(2);
    query(&["--stop", ID]).with(0).saying("stopped");
    while client.chunk().is_some() {}
    eventually("it ends", || !runs(&broker));
    query(&["--stop", ID]).with(4).saying("--running");
}
