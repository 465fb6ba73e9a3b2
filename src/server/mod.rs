//! Threads, listening, signals, drain: how the broker starts and how it ends.
//!
//! ```text
//! main thread   checks the machine, opens the data directory, starts a thread per core, waits for signals
//! core thread   recovers its shards ─▶ listens ─▶ serves ─▶ drains ─▶ ends
//! ```
//!
//! Shard 0 recovers first, for it owns the table that the others need. When told to end, cores stop accepting, let live
//! readers go, answer what they have taken, write what is open, and end the process; a second signal ends it at once.

mod connection;
mod core;
pub mod offline;

use self::core::{Core, Report};
use crate::api::Broker;
use crate::api::query::Queries;
use crate::auth::directory::Directory as Tokens;
use crate::config::Config;
use crate::group::table::TableGroup;
use crate::io::{ring, socket, system};
use crate::log::journal::Ring;
use crate::log::recovery::End;
use crate::shard::directory::Directory;
use crate::shard::init::{self, DataDirectory, DirectoryFault};
use crate::shard::peers::{self, Address};
use crate::shard::recover::{RecoverFault, Recovered};
use crate::stats::Stats;
use crate::units::{counted, print_size, rough_size};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::watch;

/// Fewer open files than this are worth a warning.
const OPEN_FILES_COMFORTABLE: u64 = 65_536;

/// How often an address that is in use is tried, and the pause behind each attempt.
const LISTEN_ATTEMPTS: u32 = 12;
const LISTEN_PAUSE: Duration = Duration::from_millis(250);

/// Nobody can ask for anything but whether the broker is alive.
const NO_TOKENS: &str = "callers need tokens, and there is none: stop the broker, make the first one with \
                         `eddyline token create --admin --data DIR`, and start it again";

/// What a start is told besides the configuration.
pub struct Start {
    /// Called once the broker takes requests.
    pub on_ready: Box<dyn FnOnce(&Ready) + Send>,
}

/// What a started broker has to say.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Where its data is.
    pub data: PathBuf,
    /// What an operator wants to see at a start: name and value.
    pub facts: Vec<(String, String)>,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// From start to ready.
    pub took: Duration,
}

/// Why the broker does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The machine lacks something.
    #[error("{0}")]
    Machine(#[from] io::Error),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {cause}; choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryFault),
    /// A shard cannot be recovered.
    #[error(transparent)]
    Recover(#[from] RecoverFault),
    /// A core's thread died.
    #[error("a core's thread ended unexpectedly")]
    Core,
}

/// Runs the broker until it is told to end.
///
/// # Errors
/// Why it does not start, or that it died.
pub fn run(config: Config, start: Start) -> Result<(), StartError> {
    let began = Instant::now();
    end_on_panic();
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    ring::probe()?;
    let open_files = system::raise_open_files();
    let (cpus, mask) = system::cpus()?;
    let cores = if config.cores == 0 { cpus.len() } else { config.cores };
    let listeners = listen(&config.listen, cores)?;
    let listen: Vec<SocketAddr> = listeners[0].iter().map(socket::local_address).collect::<io::Result<_>>()?;

    let directory = open_directory(&config, cores)?;
    let layout = directory.layout.clone();
    let mut warnings = machine_warnings(open_files, cores, cpus.len());

    let broker = shared(config, began, layout.shards, &cpus, cores)?;
    let owners: Vec<usize> = (0..usize::from(layout.shards)).map(|shard| shard % cores).collect();
    let (addresses, mailboxes): (Vec<Address>, Vec<_>) =
        (0..cores).map(|_| peers::mailbox(broker.config.limits.queue)).unzip();
    let (drain, draining) = watch::channel(false);
    let (reports, reported) = mpsc::channel();
    let (groups, tokens) = (Arc::new(Directory::default()), Arc::new(Tokens::default()));
    let serving = Arc::new(AtomicUsize::new(cores));
    let mut threads = Vec::new();
    let mut go = Vec::new();
    let mut table = None;
    let mut recovered: Vec<Recovered> = Vec::new();
    for (number, (mailbox, listeners)) in mailboxes.into_iter().zip(listeners).enumerate() {
        let (start, started) = mpsc::channel::<()>();
        let core = Core {
            number,
            cpu: cpus[number % cpus.len()],
            mask,
            broker: Arc::clone(&broker),
            layout: layout.clone(),
            owners: owners.clone(),
            addresses: addresses.clone(),
            mailbox,
            listeners,
            groups: Arc::clone(&groups),
            tokens: Arc::clone(&tokens),
            table: table.clone(),
            draining: draining.clone(),
            serving: Arc::clone(&serving),
            reports: reports.clone(),
            go: started,
        };
        threads.push(std::thread::Builder::new().name(format!("core-{number}")).spawn(move || core.run())?);
        go.push(start);
        // Core 0 owns shard 0; the table it recovers is what the others begin with, all at once.
        if number == 0 {
            table = Some(Arc::new(take_report(&reported, &mut recovered)?));
        }
    }
    for _ in 1..cores {
        take_report(&reported, &mut recovered)?;
    }
    go.iter().for_each(|start| {
        let _ = start.send(());
    });
    for found in &recovered {
        warnings.extend(found.warnings.iter().cloned());
    }
    if broker.config.auth.enabled && tokens.is_empty() {
        warnings.push(NO_TOKENS.to_owned());
    }
    let ready = Ready {
        facts: facts(&broker, &listen, &recovered, cores, &directory, open_files, tokens.len()),
        listen,
        data: broker.data.clone(),
        warnings,
        took: began.elapsed(),
    };
    (start.on_ready)(&ready);

    std::thread::spawn(move || end_on_signal(signals, &broker, &drain));
    for thread in threads {
        thread.join().map_err(|_| StartError::Core)?;
    }
    tracing::info!("ended: everything that was answered is on the disk");
    drop(directory);
    Ok(())
}

/// What all cores have in common.
fn shared(config: Config, began: Instant, shards: u16, cpus: &[usize], cores: usize) -> io::Result<Arc<Broker>> {
    let stats = Stats::default();
    let counters = (0..shards).map(|shard| stats.shard(shard)).collect();
    Ok(Arc::new(Broker {
        stats,
        draining: AtomicBool::new(false),
        started: began,
        data: config.data.clone(),
        queries: Queries::start(cpus, cores, counters)?,
        config,
    }))
}

/// Begins the drain at the first signal to end, and ends the process at the second.
fn end_on_signal(mut signals: Signals, broker: &Broker, drain: &watch::Sender<bool>) {
    let mut told = false;
    for signal in signals.forever() {
        match signal {
            SIGHUP => tracing::info!("nothing of this configuration can be reloaded: restart the broker"),
            _ if told => std::process::exit(130),
            _ => {
                told = true;
                broker.draining.store(true, Ordering::Relaxed);
                tracing::info!("draining: no new connections, commits finish");
                let _ = drain.send(true);
            }
        }
    }
}

/// What an operator should know of the machine.
fn machine_warnings(open_files: u64, cores: usize, cpus: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    if open_files < OPEN_FILES_COMFORTABLE {
        warnings.push(format!("only {open_files} files may be open (ulimit -n): many groups or connections need more"));
    }
    if cores > cpus {
        warnings.push(format!("{cores} cores were asked for, {cpus} are there: threads share them"));
    }
    warnings
}

/// A task that panicked must not leave half a broker behind, whose writers wait for ever: the process ends, and the next
/// start recovers.
fn end_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

/// Waits for a core to have recovered; returns the table it found, if it owns that.
fn take_report(
    reported: &mpsc::Receiver<Report>,
    recovered: &mut Vec<Recovered>,
) -> Result<Vec<TableGroup>, StartError> {
    match reported.recv().map_err(|_| StartError::Core)? {
        Report::Recovered { shards, table } => {
            recovered.extend(shards);
            Ok(table)
        }
        Report::Failed(fault) => Err(fault.into()),
    }
}

/// One listener per address for each core.
fn listen(addresses: &[SocketAddr], cores: usize) -> Result<Vec<Vec<OwnedFd>>, StartError> {
    let mut listeners: Vec<Vec<OwnedFd>> = (0..cores).map(|_| Vec::new()).collect();
    for &address in addresses {
        let failed = |cause| StartError::Listen { address, cause };
        if address.port() != 0 && !comes_free(address) {
            return Err(failed(io::ErrorKind::AddrInUse.into()));
        }
        let mut bound = address;
        for core in &mut listeners {
            let listener = socket::bind(bound).map_err(failed)?;
            bound = socket::local_address(&listener).map_err(failed)?;
            core.push(listener);
        }
    }
    Ok(listeners)
}

/// Whether nobody listens on `address`, or not for long: the kernel may hold the sockets of a broker that was killed until
/// its ring is torn down, which is after the process is gone.
fn comes_free(address: SocketAddr) -> bool {
    for attempt in 0..LISTEN_ATTEMPTS {
        if !socket::in_use(address) {
            return true;
        }
        if attempt == 0 {
            tracing::warn!(%address, "address in use, trying again");
        }
        std::thread::sleep(LISTEN_PAUSE);
    }
    false
}

/// Opens the data directory, or makes it for so many cores.
fn open_directory(config: &Config, cores: usize) -> Result<DataDirectory, StartError> {
    let shards = if config.shards == 0 { cores } else { config.shards };
    let ring = new_ring(config, shards)?;
    Ok(init::open(&config.data, shards as u16, ring)?)
}

/// The journal a new data directory would get: smaller on a small disk.
fn new_ring(config: &Config, shards: usize) -> Result<Ring, StartError> {
    std::fs::create_dir_all(&config.data).map_err(|cause| DirectoryFault::Io { path: config.data.clone(), cause })?;
    let space = system::disk_space(&config.data)?;
    let journal = config.journal.ring(shards, space.total);
    Ok(Ring { file_bytes: journal.file_bytes, files: journal.files as u64 })
}

fn facts(
    broker: &Broker,
    listen: &[SocketAddr],
    recovered: &[Recovered],
    cores: usize,
    directory: &DataDirectory,
    open_files: u64,
    tokens: usize,
) -> Vec<(String, String)> {
    let ring = directory.layout.ring;
    let space = system::disk_space(&broker.data).map_or_else(
        |error| error.to_string(),
        |space| format!("{} free of {}", rough_size(space.free), rough_size(space.total)),
    );
    let entries: u64 = recovered.iter().map(|found| found.entries).sum();
    let groups: usize = recovered.iter().map(|found| found.groups).sum();
    let longest = recovered.iter().map(|found| found.took).max().unwrap_or_default();
    let cut = recovered.iter().filter(|found| found.end == End::Torn).count();
    let direct = recovered.iter().all(|found| found.direct);
    let mut state = match directory.new {
        true => "a new data directory".to_owned(),
        false => {
            let groups = counted(groups as u64, "group");
            format!("{groups}, {entries} journal entries applied in {:.3} s", longest.as_secs_f64())
        }
    };
    if cut > 0 {
        state.push_str(", a torn end that was never answered was cut");
    }
    let way =
        if direct { "O_DIRECT, O_DSYNC" } else { "O_DSYNC through the page cache: this file system has no O_DIRECT" };
    let tokens = match broker.config.auth.enabled {
        true => format!("on: callers need one, {} in force", counted(tokens as u64, "token")),
        false => "off: everybody who reaches the address may do everything".to_owned(),
    };
    let addresses: Vec<String> = listen.iter().map(|address| format!("http://{address}")).collect();
    [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("kernel", system::kernel()),
        ("io_uring", ring::FLAGS.to_owned()),
        ("cores", format!("{cores} (one thread each), {}", counted(recovered.len() as u64, "shard"))),
        ("open files", open_files.to_string()),
        ("data", format!("{} ({space})", broker.data.display())),
        ("journal", format!("{} × {} a shard, {way}", ring.files, print_size(ring.file_bytes))),
        ("recovered", state),
        ("promise", "an answer means durable: written and synced before it is given".to_owned()),
        ("tokens", tokens),
        ("listening", addresses.join(", ")),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
