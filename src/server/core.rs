//! One core: a pinned thread with a ring of its own, its shards, its listeners and its connections.

use super::connection;
use crate::api::auth::now_us;
use crate::api::{Broker, Context, Requests};
use crate::auth::directory::{Directory as Tokens, Lookup as TokenLookup};
use crate::config::Config;
use crate::group::table::TableGroup;
use crate::http::DateClock;
use crate::io::buffer::Pool;
use crate::io::deadline::Deadlines;
use crate::io::socket::{Listener, Socket, Spare};
use crate::io::{ring, system};
use crate::limits::{RECEIVE_BUFFERS_KEPT, RECEIVE_BYTES};
use crate::shard::directory::{Directory, Entry, Lookup};
use crate::shard::init::{Layout, shard_directory};
use crate::shard::peers::{Address, Mailbox, Shards};
use crate::shard::recover::{RecoverFault, Recovered, recover};
use crate::shard::{Settings, Shard};
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};

/// After this much quiet an entry covers the last commit, so that its loss would be seen as damage.
const IDLE: Duration = Duration::from_secs(1);
/// A pause after the machine refused a connection: it is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How soon live readers hear that their token is good no more.
const TOKEN_TICK: Duration = Duration::from_millis(200);

/// What a core tells the main thread.
pub(super) enum Report {
    /// Its shards are recovered; with shard 0 comes the table.
    Recovered { shards: Vec<Recovered>, table: Vec<TableGroup> },
    /// One of them is not.
    Failed(RecoverFault),
}

/// What a core's thread begins with.
pub(super) struct Core {
    pub(super) number: usize,
    pub(super) cpu: usize,
    pub(super) mask: rustix::thread::CpuSet,
    pub(super) broker: Arc<Broker>,
    pub(super) layout: Layout,
    pub(super) owners: Vec<usize>,
    pub(super) addresses: Vec<Address>,
    pub(super) mailbox: Mailbox,
    pub(super) listeners: Vec<OwnedFd>,
    pub(super) groups: Arc<Directory>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) table: Option<Arc<Vec<TableGroup>>>,
    pub(super) draining: watch::Receiver<bool>,
    /// Cores that still have connections.
    pub(super) serving: Arc<AtomicUsize>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) go: mpsc::Receiver<()>,
}

impl Core {
    /// The thread: recover, serve, drain.
    pub(super) fn run(self) {
        if let Err(error) = system::pin(self.cpu) {
            tracing::warn!(core = self.number, cpu = self.cpu, %error, "the thread could not be pinned");
        }
        let shards = match self.recover() {
            Ok((shards, recovered)) => {
                let table = shards.iter().flat_map(|shard| shard.table_groups()).collect();
                let _ = self.reports.send(Report::Recovered { shards: recovered, table });
                shards
            }
            Err(fault) => {
                let _ = self.reports.send(Report::Failed(fault));
                return;
            }
        };
        // Another core may fail to recover; then nobody serves.
        if self.go.recv().is_err() {
            return;
        }
        let number = self.number;
        if let Err(error) = ring::run(self.serve(shards)) {
            tracing::error!(core = number, %error, "the ring could not be started");
        }
    }

    fn recover(&self) -> Result<(Vec<Rc<Shard>>, Vec<Recovered>), RecoverFault> {
        let config = &self.broker.config;
        let mut shards = Vec::new();
        let mut all = Vec::new();
        // The first core begins with shard 0, whose table the others of this core need, too.
        let mut table = self.table.clone();
        for number in (0..self.layout.shards).filter(|&shard| self.owners[usize::from(shard)] == self.number) {
            let settings = shard_settings(config, &self.layout, number);
            let own = table.as_ref().map(|table| -> Vec<TableGroup> {
                table.iter().filter(|group| group.shard == number).cloned().collect()
            });
            let stats = self.broker.stats.shard(number);
            let (shard, recovered) = recover(&self.layout, number, settings, own.as_deref(), &self.mask, stats)?;
            shard.tokens().into_values().for_each(|token| self.tokens.publish(token));
            let table = table.get_or_insert_with(|| Arc::new(shard.table_groups()));
            for group in table.iter().filter(|group| group.shard == number) {
                // A closed group is on its way out of the table.
                if let (Ok(info), Ok(_)) = (shard.group_info(group.number), shard.range(group.number)) {
                    self.groups.publish(Entry { table: group.clone(), config: info.config });
                }
            }
            shards.push(shard);
            all.push(recovered);
        }
        Ok((shards, all))
    }

    async fn serve(self, shards: Vec<Rc<Shard>>) {
        let config = &self.broker.config;
        let shards = Shards::new(self.number, shards, self.owners, self.addresses);
        shards.locals().for_each(Shard::start);
        tokio_uring::spawn(Rc::clone(&shards).read_letters(self.mailbox));
        let context = Rc::new(Context {
            shards: Rc::clone(&shards),
            lookup: Lookup::new(self.groups),
            tokens: TokenLookup::new(self.tokens),
            token_turn: Notify::new(),
            dates: RefCell::new(DateClock::new(unix_seconds())),
            deadlines: Deadlines::default(),
            drain: Notify::new(),
            keep_alive: format!("timeout={}", config.http.keep_alive.as_secs()),
            body_bytes: Cell::new(0),
            buffers: RefCell::new(Pool::new(RECEIVE_BUFFERS_KEPT, RECEIVE_BYTES * 2)),
            events: RefCell::default(),
            pieces: RefCell::default(),
            held_answers: Cell::default(),
            requests: Requests::default(),
            host: RefCell::default(),
            broker: Arc::clone(&self.broker),
        });
        tokio_uring::spawn(keep_time(Rc::clone(&context)));
        for shard in shards.locals() {
            let groups = Arc::clone(context.lookup.directory());
            tokio_uring::spawn(Rc::clone(shard).retain(Arc::clone(&groups), config.storage.retention_every));
            tokio_uring::spawn(Rc::clone(&shards).tell_all(Rc::clone(shard), groups));
        }
        if config.auth.enabled {
            tokio_uring::spawn(watch_tokens(Rc::clone(&context)));
        }
        if self.number == 0 {
            tokio_uring::spawn(finish_removals(Rc::clone(&context)));
        }
        let listeners: Vec<Rc<Listener>> =
            self.listeners.into_iter().map(|bound| Rc::new(Listener::new(bound))).collect();
        for listener in &listeners {
            tokio_uring::spawn(accept(Rc::clone(&context), Rc::clone(listener)));
        }
        let mut draining = self.draining;
        // The sender lives as long as the process; an error would mean the same as a signal.
        let _ = draining.wait_for(|draining| *draining).await;
        listeners.iter().for_each(|listener| listener.close());
        drain(&context, config.drain, &self.serving).await;
    }
}

/// What a shard is started with.
pub(super) fn shard_settings(config: &Config, layout: &Layout, number: u16) -> Settings {
    Settings {
        directory: shard_directory(&layout.path, number),
        identity: layout.identity,
        tail_memory: config.storage.tail_memory as usize,
        reserve: config.storage.reserve,
        segment_files: config.storage.segment_files,
        waiting: config.limits.waiting,
        idle: IDLE,
    }
}

/// Lets live readers and idle connections go, waits for the others, writes what is open.
async fn drain(context: &Context, patience: Duration, serving: &AtomicUsize) {
    let deadline = Instant::now() + patience;
    let pause = || tokio::time::sleep(Duration::from_millis(2));
    while !context.deadlines.is_empty() && Instant::now() < deadline {
        context.drain.notify_waiters();
        context.deadlines.interrupt_all();
        pause().await;
    }
    serving.fetch_sub(1, Ordering::AcqRel);
    // Other cores' connections may still need the shards of this one.
    while serving.load(Ordering::Acquire) > 0 && Instant::now() < deadline + Duration::from_millis(100) {
        pause().await;
    }
    for shard in context.shards.locals() {
        shard.close().await;
        shard.final_checkpoint(deadline).await;
    }
}

/// Moves the `Date` field on and looks at deadlines.
async fn keep_time(context: Rc<Context>) {
    let http = &context.broker.config.http;
    let shortest = [http.keep_alive, http.head, http.body_grace, http.send].into_iter().min().unwrap_or_default();
    let period = (shortest / 8).clamp(Duration::from_millis(5), Duration::from_millis(250));
    tokio_uring::spawn({
        let context = Rc::clone(&context);
        async move { context.deadlines.keep(period).await }
    });
    loop {
        context.dates.borrow_mut().set(unix_seconds());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        tokio::time::sleep(Duration::from_micros(1_000_100 - u64::from(now.subsec_micros()))).await;
    }
}

/// Wakes whoever reads on when a token was revoked, or its time is over.
async fn watch_tokens(context: Rc<Context>) {
    let directory = context.tokens.directory();
    let (mut version, mut expiry) = (directory.version(), directory.next_expiry_us(now_us()));
    loop {
        tokio::time::sleep(TOKEN_TICK).await;
        let (now_us, found) = (now_us(), directory.version());
        if found != version || expiry.is_some_and(|expiry| expiry <= now_us) {
            (version, expiry) = (found, directory.next_expiry_us(now_us));
            context.token_turn.notify_waiters();
        }
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A crash between closing a group and taking it out of the table is finished here.
async fn finish_removals(context: Rc<Context>) {
    let table = context.shards.ask(0, |shard| Box::pin(async move { shard.table_groups() })).await;
    for number in 0..context.shards.count() as u16 {
        let closed = context.shards.ask(number, |shard| Box::pin(async move { shard.closed_groups() })).await;
        for (group, _) in closed {
            if let Some(group) = table.iter().find(|known| known.number == group)
                && let Err(fault) = context.shards.remove_group(context.lookup.directory(), group, None).await
            {
                tracing::warn!(group = %group.name, %fault, "a removal that a crash interrupted could not be finished");
            }
        }
    }
}

/// Accepts connections until the listener is closed. Without a descriptor left, one connection at a time is told so.
async fn accept(context: Rc<Context>, listener: Rc<Listener>) {
    let spare = Spare::new();
    let mut told = false;
    loop {
        match listener.accept().await {
            Ok(socket) => {
                told = false;
                spare.take_again();
                tokio_uring::spawn(serve(Rc::clone(&context), socket, None));
            }
            Err(_) if context.draining() => return,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "a connection could not be accepted");
                }
                if spare.give_up(&error)
                    && let Ok(socket) = listener.accept().await
                {
                    // Nobody may have come for long, and files were closed meanwhile.
                    if spare.take_again() {
                        tokio_uring::spawn(serve(Rc::clone(&context), socket, None));
                        continue;
                    }
                    serve(Rc::clone(&context), socket, Some("no file can be opened any more (ulimit -n)")).await;
                }
                spare.take_again();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection to its end, or tells why that cannot be done.
async fn serve(context: Rc<Context>, socket: Socket, refused: Option<&'static str>) {
    let connections = &context.broker.stats.connections;
    let crowded = connections.inc() >= context.broker.config.http.connections as i64;
    let crowded = crowded.then_some("too many connections (http.connections)");
    connection::serve(&context, socket, refused.or(crowded)).await;
    context.broker.stats.connections.dec();
}
