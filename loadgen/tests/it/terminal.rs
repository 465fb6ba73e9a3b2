//! `--tui` on a terminal that is made here, so that it can be asked afterwards how it was left.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::fake::{Broker, Fault, Manners};
use crate::runs::{against, command, loadgen};

/// Longest wait for something to be drawn; only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both ends of a terminal, and what is written to it.
struct Pair {
    keys: File,
    terminal: File,
    drawn: Receiver<Vec<u8>>,
    text: String,
}

impl Pair {
    fn open() -> Pair {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let terminal = OpenOptions::new().read(true).write(true).open(path).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let keys = File::from(master);
        let mut master = keys.try_clone().unwrap();
        let (sender, drawn) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(bytes @ 1..) = master.read(&mut buffer) {
                if sender.send(buffer[..bytes].to_vec()).is_err() {
                    return;
                }
            }
        });
        Pair { keys, terminal, drawn, text: String::new() }
    }

    fn end(&self) -> Stdio {
        self.terminal.try_clone().unwrap().into()
    }

    fn wait_for(&mut self, part: &str) {
        while !self.text.contains(part) {
            let more =
                self.drawn.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{part:?} is not in {:?}", self.text));
            self.text += &String::from_utf8_lossy(&more);
        }
    }
}

#[test]
fn a_key_ends_the_load_and_the_terminal_is_given_back() {
    for keys in ["\u{3}", "q"] {
        let broker = Broker::honest();
        let mut pair = Pair::open();
        let modes = tcgetattr(&pair.terminal).unwrap().local_modes;
        let mut child = command(&format!("--url {} --group load -c 2 -d 1h --tui", broker.url()))
            .stdin(pair.end())
            .stdout(pair.end())
            .stderr(pair.end())
            .spawn()
            .unwrap();
        pair.wait_for("end the load now");
        let raw = tcgetattr(&pair.terminal).unwrap().local_modes;
        assert!(!raw.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{raw:?}");
        pair.keys.write_all(keys.as_bytes()).unwrap();
        pair.wait_for("\u{1b}[?1049l");
        pair.wait_for("verify     ok");
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(tcgetattr(&pair.terminal).unwrap().local_modes, modes, "{keys:?}");
        let after = pair.text.rsplit("\u{1b}[?1049l").next().unwrap();
        assert!(after.contains("\u{1b}[?25h") && !after.contains("\u{1b}[?1049h"), "the cursor is back: {after:?}");
    }
}

#[test]
fn consumers_are_drawn_too() {
    let broker = Broker::honest();
    broker.store("load", b"{}");
    let mut pair = Pair::open();
    let mut command = loadgen();
    command.args(["consume", "--url", &broker.url(), "--group", "load", "--consumers", "3", "-d", "1h", "--tui"]);
    let mut child = command.stdin(pair.end()).stdout(pair.end()).stderr(pair.end()).spawn().unwrap();
    // Blanks are passed over by moving the cursor.
    pair.wait_for("consumers");
    pair.keys.write_all(b"q").unwrap();
    pair.wait_for("ok: 3 given, 0 lost");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_second_key_ends_the_process_and_the_terminal_is_given_back_all_the_same() {
    let faults = [(1, Fault::Stall)].into();
    let broker = Broker::with(Manners { faults, page_events: 100, ..Manners::default() });
    let mut pair = Pair::open();
    let modes = tcgetattr(&pair.terminal).unwrap().local_modes;
    let mut child = command(&format!("--url {} --group load -c 1 -d 1h --timeout 1h --tui", broker.url()))
        .stdin(pair.end())
        .stdout(pair.end())
        .stderr(pair.end())
        .spawn()
        .unwrap();
    for (drawn, key) in [("end the load now", b"\x03"), ("waits for answers", b"\x03")] {
        pair.wait_for(drawn);
        pair.keys.write_all(key).unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    pair.wait_for("\u{1b}[?1049l");
    assert_eq!(tcgetattr(&pair.terminal).unwrap().local_modes, modes);
}

#[test]
fn without_a_terminal_lines_are_told_and_said_why() {
    let ran = against(&Broker::honest(), "-n 50 -c 2 --tui");
    assert_eq!((ran.code, ran.verify("verified")), (0, 50), "{ran:?}");
    assert!(
        ran.stderr.contains("--tui: stdin and stderr must be a terminal; progress is told line by line"),
        "{ran:?}"
    );
    assert!(!ran.stderr.contains('\u{1b}'), "{ran:?}");
}
