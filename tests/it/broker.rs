//! A real broker process on a directory of its own, for the other tests: started, killed, started again.
//!
//! Sizes are small, so that journals wrap and segments roll within a test. Everything that is waited for has a generous
//! deadline, so nothing here depends on how fast the machine is.

use crate::http::{Answer, Client};
use crate::program::eddyline;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Nothing that works takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What every broker of the tests begins with; a test's own settings win.
const SETTINGS: [(&str, &str); 6] = [
    ("listen", "127.0.0.1:0"),
    ("cores", "1"),
    ("journal.file_bytes", "1MiB"),
    ("journal.files", "4"),
    ("storage.reserve", "1MiB"),
    ("log.format", "json"),
];

/// A broker and its data directory, which goes with it.
pub(crate) struct Broker {
    directory: tempfile::TempDir,
    data: PathBuf,
    running: Option<Running>,
}

/// One process of it.
struct Running {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Broker {
    /// Starts a broker on a new directory and waits until it is ready. Settings have the names of the configuration
    /// file and values as they would stand there, without quotes.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let data = directory.path().join("data");
        Self::start_in(directory, data, settings)
    }

    /// The same with its data in a directory of the test's own, such as a mounted file system.
    pub(crate) fn start_on(data: &Path, settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        Self::start_in(directory, data.to_owned(), settings)
    }

    /// The same with a clock that stands at that time, in microseconds, until it is [set](Self::set_time).
    #[cfg(feature = "simulated-time")]
    pub(crate) fn start_at(time_us: u64) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let data = directory.path().join("data");
        let mut broker = Self { directory, data, running: None };
        broker.set_time(time_us);
        broker.configure(&[]);
        broker.restart();
        broker
    }

    /// Sets its clock.
    #[cfg(feature = "simulated-time")]
    pub(crate) fn set_time(&self, time_us: u64) {
        use std::os::unix::fs::FileExt;
        let file =
            std::fs::File::options().create(true).truncate(false).write(true).open(self.directory.path().join("time"));
        file.and_then(|file| file.write_all_at(&time_us.to_le_bytes(), 0)).expect("the file with its time");
    }

    /// The same, with tokens turned on, and the text of one that may do everything.
    pub(crate) fn start_guarded(settings: &[(&str, &str)]) -> (Self, String) {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let data = directory.path().join("data");
        let mut broker = Self { directory, data, running: None };
        broker.configure(&[settings, &[("auth.enabled", "true")]].concat());
        let (data, configuration) = (broker.data(), broker.configuration());
        let paths = [data.to_str(), configuration.to_str()].map(|path| path.expect("text"));
        let made = eddyline(&["token", "create", "--admin", "--data", paths[0], "--config", paths[1]]).with(0);
        broker.restart();
        (broker, made.text().trim().to_owned())
    }

    fn start_in(directory: tempfile::TempDir, data: PathBuf, settings: &[(&str, &str)]) -> Self {
        let mut broker = Self { directory, data, running: None };
        broker.configure(settings);
        broker.restart();
        broker
    }

    /// Writes the configuration that the next start takes.
    pub(crate) fn configure(&self, settings: &[(&str, &str)]) {
        let own = SETTINGS.iter().filter(|(key, _)| settings.iter().all(|(given, _)| given != key));
        let lines: Vec<String> = own.chain(settings).map(|(key, value)| format!("{key} = {}\n", toml(value))).collect();
        std::fs::write(self.configuration(), lines.concat()).expect("the configuration");
    }

    /// Starts it again on the same directory, at another port; one that still runs is killed first.
    pub(crate) fn restart(&mut self) {
        self.kill9();
        self.running = Some(Running::start(self.directory.path(), &self.data));
    }

    /// Kills it as a crash of the process would.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }

    /// All events of a group, as NDJSON.
    pub(crate) fn export(&self, group: &str) -> String {
        let (mut all, mut from) = (String::new(), 0);
        loop {
            let url = format!("/v1/groups/{group}/events?from={from}&limit=10000&max_bytes=16MiB");
            let page = self.ask("GET", &url, &[("Accept", "application/x-ndjson")], "");
            all.push_str(page.text());
            from = page.number("eddyline-next").expect("where it goes on");
            if page.number("eddyline-tail") == Some(from) {
                return all;
            }
        }
    }

    /// Tells it to end, and waits: it must end by itself, and say that all is well.
    pub(crate) fn stop(&mut self) {
        self.terminate();
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "a broker that is told to end exits with 0");
    }

    /// Tells it to end.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.running().child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the process is there");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("a running broker");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = running.child.try_wait().expect("a child") {
                return status;
            }
            if Instant::now() > deadline {
                let _ = running.child.kill();
                let _ = running.child.wait();
                panic!("the broker did not end; its log:\n{}", running.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.running().address
    }

    /// The same as a URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// Its configuration file.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.directory.path().join("eddyline.toml")
    }

    /// Where it would find the host's time zones.
    pub(crate) fn zoneinfo(&self) -> PathBuf {
        self.directory.path().join("zoneinfo")
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        self.running().log()
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.running().child.id());
        let text = std::fs::read_to_string(path).expect("a running process");
        let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
        pages * 4096
    }

    /// How many connections it has, the one that asks among them.
    pub(crate) fn connections(&self) -> u64 {
        self.get("/v1/status").json()["connections"].as_u64().expect("a count")
    }

    /// Lets it open only so many files.
    pub(crate) fn limit_open_files(&self, most: u64) {
        let pid = rustix::process::Pid::from_child(&self.running().child);
        let limit = rustix::process::Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, limit).expect("a limit");
    }

    /// How many files it has open.
    pub(crate) fn open_files(&self) -> u64 {
        let path = format!("/proc/{}/fd", self.running().child.id());
        std::fs::read_dir(path).expect("a running process").count() as u64
    }

    /// A new connection to it.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        self.client().ask(method, target, headers, body)
    }

    /// The same by somebody who shows a token.
    pub(crate) fn ask_as(&self, token: &str, method: &str, target: &str, body: impl AsRef<[u8]>) -> Answer {
        self.ask(method, target, &[("Authorization", &format!("Bearer {token}"))], body)
    }

    /// A GET without ado.
    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[], "")
    }

    /// Makes a group, of that configuration if it is not empty.
    pub(crate) fn create(&self, group: &str, config: &str) {
        let answer = self.ask("PUT", &format!("/v1/groups/{group}"), &[], config);
        assert_eq!(answer.status, 201, "{answer:?}");
    }

    /// Adds one event a line and gives the first offset.
    pub(crate) fn produce_lines(&self, group: &str, lines: &str) -> u64 {
        let headers = [("Content-Type", "text/plain")];
        let answer = self.ask("POST", &format!("/v1/groups/{group}/batch"), &headers, lines);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["first_offset"].as_u64().expect("an offset")
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("a running broker")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(running) = &self.running
        {
            eprintln!("the broker's log:\n{}", running.log());
        }
        self.kill9();
    }
}

impl Running {
    fn start(directory: &Path, data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_eddyline"))
            .arg("serve")
            .arg("--config")
            .arg(directory.join("eddyline.toml"))
            .arg("--data")
            .arg(data)
            .env_clear()
            .env("SIMULATED_TIME", directory.join("time"))
            .env("TZDIR", directory.join("zoneinfo"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker's program");
        let stderr = child.stderr.take().expect("a pipe");
        let (told, ready) = mpsc::channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let address = listening(&line);
                lines.lock().expect("no panic").push(line);
                if let Some(address) = address {
                    let _ = told.send(address);
                }
            }
        });
        let mut running = Self { child, address: ([127, 0, 0, 1], 0).into(), log };
        match running.wait_ready(&ready) {
            Some(address) => running.address = address,
            None => {
                let _ = running.child.kill();
                let status = running.child.wait();
                panic!("the broker did not start ({status:?}); its log:\n{}", running.log());
            }
        }
        running
    }

    /// The address it announces; `None` when it ends instead, which closes the pipe, or says nothing.
    fn wait_ready(&self, ready: &Receiver<SocketAddr>) -> Option<SocketAddr> {
        ready.recv_timeout(PATIENCE).ok()
    }

    fn log(&self) -> String {
        self.log.lock().expect("no panic").join("\n")
    }
}

/// An address that a broker can come back to. It is below the ports that the system gives to clients: one of those might
/// get it, or connect to itself, while the broker is away.
pub(crate) fn own_address() -> SocketAddr {
    let ports = 10_000_u32..32_000;
    let first = std::process::id() * 7;
    (first..first + 1000)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], (ports.start + port % ports.len() as u32) as u16)))
        .find(|&address| TcpListener::bind(address).is_ok())
        .expect("a free port")
}

/// The address in the line that announces a ready broker.
fn listening(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["message"] != "ready" {
        return None;
    }
    let url = line["facts"]["listening"].as_str()?;
    url.split(", ").next()?.strip_prefix("http://")?.parse().ok()
}

/// A value as it stands in the configuration file.
fn toml(value: &str) -> String {
    let bare = value.parse::<u64>().is_ok() || value == "true" || value == "false" || value.starts_with('[');
    if bare { value.to_owned() } else { format!("{value:?}") }
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
