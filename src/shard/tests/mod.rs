//! What a start finds: data directories are made, filled, hurt with plain file writes, and started again.
//!
//! Every run of a shard has a thread and a ring of its own. It ends as a process that was killed ends, except that
//! nothing is still on its way to the disk: then the files are all there is, and may be changed.

mod checkpoint;
mod commit;
mod consumers;
mod groups;
mod history;
mod journal;
mod newer;
mod repair;
mod repair_segments;
mod retention;
mod segments;
mod state_file;
mod tokens;

use super::cursor::{Cursor, Frames};
use super::directory::Directory;
use super::groups::NewGroup;
use super::init::{self, DataDirectory, shard_directory};
use super::peers::{self, Shards};
use super::recover::{RecoverFault, Recovered, recover};
use super::{Fault, Settings, Shard};
use crate::group::config::GroupConfig;
use crate::group::table::TableGroup;
use crate::group::{Batch, Receipt};
use crate::io::{ring, system};
use crate::limits::{BLOCK_BYTES, SEGMENT_BYTES_MIN};
use crate::log::entry::{EntryBuilder, EntryHeader, EntryKind, EntryPlace, Owner, PartKind};
use crate::log::event::{Encoding, NewEvent, NewEvents};
use crate::log::frame::ProducerStamp;
use crate::log::journal::Ring;
use crate::log::segment;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const BLOCK: u64 = BLOCK_BYTES as u64;
/// The smallest ring, of files that a few entries fill.
const RING: Ring = Ring { file_bytes: 16 * BLOCK, files: 4 };

/// The longest story takes a second on a slow disk.
const STORY_TIME: Duration = Duration::from_secs(30);

/// A data directory of one shard.
#[derive(Clone)]
pub(super) struct Site {
    root: Arc<tempfile::TempDir>,
    tail_memory: usize,
    /// How long a write may wait for room.
    waiting: Duration,
    /// What the shard is told of the table of groups, if it is not its own.
    table: Option<Vec<TableGroup>>,
}

/// A running shard and how to ask it.
#[derive(Clone)]
pub(super) struct Node {
    shard: Rc<Shard>,
    shards: Rc<Shards>,
    directory: Rc<Directory>,
    tokens: Rc<crate::auth::directory::Directory>,
}

/// One event as a reader saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    offset: u64,
    id: u128,
    received_us: u64,
    data: String,
}

impl Site {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        init::open(root.path(), 1, RING).unwrap();
        Self { root: Arc::new(root), tail_memory: 1 << 20, waiting: Duration::from_secs(5), table: None }
    }

    /// Starts the shard, lets `story` happen, and ends it as a kill does.
    fn run<R: Send + 'static>(&self, story: impl AsyncFnOnce(&Node) -> R + Send + 'static) -> (Recovered, R) {
        self.start(true, story).unwrap()
    }

    /// Recovers the shard and looks at it, without starting what goes on in the background.
    fn look<R: Send + 'static>(&self, story: impl AsyncFnOnce(&Node) -> R + Send + 'static) -> (Recovered, R) {
        self.start(false, story).unwrap()
    }

    fn start<R: Send + 'static>(
        &self,
        background: bool,
        story: impl AsyncFnOnce(&Node) -> R + Send + 'static,
    ) -> Result<(Recovered, R), RecoverFault> {
        let site = self.clone();
        let run = move || {
            let path = site.root.path();
            let DataDirectory { layout, lock, .. } = init::open(path, 1, RING).unwrap();
            let settings = Settings {
                directory: shard_directory(path, 0),
                identity: layout.identity,
                tail_memory: site.tail_memory,
                reserve: 0,
                segment_files: 16,
                waiting: site.waiting,
                // Entries that cover the last one are written where a test asks for them.
                idle: Duration::from_secs(3600),
            };
            let stats = crate::stats::Stats::default().shard(0);
            let (shard, recovered) =
                recover(&layout, 0, settings, site.table.as_deref(), &system::cpus().unwrap().1, stats)?;
            let (address, _mailbox) = peers::mailbox(4);
            let shards = Shards::new(0, vec![Rc::clone(&shard)], vec![0], vec![address]);
            let told = ring::run(async move {
                if background {
                    shard.start();
                }
                let node = Node { shard, shards, directory: Rc::default(), tokens: Default::default() };
                let whole = async {
                    let told = story(&node).await;
                    node.end().await;
                    told
                };
                // A task of the shard that panicked leaves whoever waits for it waiting.
                tokio::time::timeout(STORY_TIME, whole).await.expect("a story comes to its end")
            });
            drop(lock);
            Ok((recovered, told.unwrap()))
        };
        std::thread::spawn(run).join().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        shard_directory(self.root.path(), 0).join(name)
    }

    /// Writes over a file of the shard; the file grows where the bytes reach behind its end.
    fn write(&self, name: &str, position: u64, bytes: &[u8]) {
        File::options().write(true).open(self.path(name)).unwrap().write_all_at(bytes, position).unwrap();
    }

    fn read(&self, name: &str, position: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        File::open(self.path(name)).unwrap().read_exact_at(&mut bytes, position).unwrap();
        bytes
    }

    fn flip(&self, name: &str, position: u64) {
        let byte = self.read(name, position, 1)[0];
        self.write(name, position, &[byte ^ 0x10]);
    }

    /// Every whole entry that stands where it says, by index; of two with one index the later address wins.
    fn entries(&self) -> Vec<EntryHeader> {
        let mut found: Vec<EntryHeader> = Vec::new();
        for slot in 0..RING.files {
            let bytes = std::fs::read(self.path(&journal_file(slot))).unwrap();
            for position in (BLOCK..RING.file_bytes).step_by(BLOCK_BYTES) {
                let Ok(header) = EntryHeader::decode(&bytes[position as usize..], self.owner()) else { continue };
                if RING.place(header.address) == (slot as usize, position)
                    && header.parts(&bytes[position as usize..]).is_ok()
                {
                    found.push(header);
                }
            }
        }
        found.sort_by_key(|header| (header.index, header.address));
        found.reverse();
        found.dedup_by_key(|header| header.index);
        found.reverse();
        found
    }

    fn entry(&self, index: u64) -> EntryHeader {
        self.entries().into_iter().find(|header| header.index == index).unwrap()
    }

    /// The file and the position at which an address stands.
    fn place(address: u64) -> (String, u64) {
        let (slot, position) = RING.place(address);
        (journal_file(slot as u64), position)
    }

    /// The whole bytes of an entry.
    fn entry_bytes(&self, index: u64) -> Vec<u8> {
        let header = self.entry(index);
        let (file, position) = Self::place(header.address);
        self.read(&file, position, header.disk_bytes() as usize)
    }

    /// Flips a bit `at` so many bytes behind the beginning of an entry.
    fn hurt_entry(&self, index: u64, at: u64) {
        let (file, position) = Self::place(self.entry(index).address);
        self.flip(&file, position + at);
    }

    fn zero_entry(&self, index: u64) {
        let header = self.entry(index);
        let (file, position) = Self::place(header.address);
        self.write(&file, position, &vec![0; header.disk_bytes() as usize]);
    }

    /// Whose entries the journal holds.
    fn owner(&self) -> Owner {
        super::owner(init::inspect(self.root.path()).unwrap().identity, 0)
    }

    /// The parts of an entry.
    fn parts(&self, index: u64) -> Vec<(PartKind, Vec<u8>)> {
        let (header, bytes) = (self.entry(index), self.entry_bytes(index));
        header.parts(&bytes).unwrap().map(|part| part.map(|(kind, bytes)| (kind, bytes.to_vec())).unwrap()).collect()
    }

    /// An entry like entry `index` that holds `parts` and says of itself what `change` makes of it.
    fn forged(
        &self,
        index: u64,
        parts: &[(PartKind, Vec<u8>)],
        change: impl FnOnce(&mut EntryPlace),
    ) -> (Vec<u8>, u64) {
        let EntryHeader { kind, shard, index, address, durable_upto, previous_crc, .. } = self.entry(index);
        let owner = Owner { shard, ..self.owner() };
        let mut place = EntryPlace { kind, owner, index, address, durable_upto, previous_crc };
        change(&mut place);
        let mut builder = EntryBuilder::new(crate::io::buffer::AlignedBuffer::default());
        parts.iter().for_each(|(kind, bytes)| builder.part(*kind, bytes));
        (builder.finish(&place).0.to_vec(), place.address)
    }

    /// Puts a forged entry where it says it stands.
    fn forge(&self, index: u64, change: impl FnOnce(&mut EntryPlace)) {
        let (bytes, address) = self.forged(index, &self.parts(index), change);
        let (file, position) = Self::place(address);
        self.write(&file, position, &bytes);
    }

    /// Makes entry `index` one that was written while the one before was still on its way.
    fn uncover(&self, index: u64) {
        self.forge(index, |place| place.durable_upto = index - 2);
    }
}

fn journal_file(slot: u64) -> String {
    format!("journal/{slot:03}.journal")
}

fn segment_file(group: u32, sequence: u32) -> String {
    segment::path("segments".as_ref(), group, sequence).to_str().unwrap().to_owned()
}

/// A configuration whose segments are as small as they may be.
fn small_segments() -> GroupConfig {
    GroupConfig { segment_max_bytes: SEGMENT_BYTES_MIN, ..GroupConfig::default() }
}

fn text(data: &str) -> NewEvent<'_> {
    NewEvent { key: None, content_type: None, headers: &[], encoding: Encoding::Text, data: data.as_bytes() }
}

impl Node {
    async fn make(&self, name: &str, config: GroupConfig) -> u32 {
        let wanted = NewGroup { name: name.into(), config, shard: None, most: 100, audit: None };
        self.shards.create_group(&self.directory, wanted).await.unwrap().unwrap().into_group().number
    }

    async fn remove(&self, name: &str) {
        let groups = self.shard.table_groups();
        let group = groups.iter().find(|group| &*group.name == name).unwrap();
        self.shards.remove_group(&self.directory, group, None).await.unwrap();
    }

    /// Adds events as one request, durably: one entry of the journal, for nobody else writes.
    async fn produce(&self, group: u32, data: &[&str]) -> Result<Receipt, Fault> {
        self.produce_as(group, None, data).await
    }

    async fn produce_as(
        &self,
        group: u32,
        producer: Option<ProducerStamp<'_>>,
        data: &[&str],
    ) -> Result<Receipt, Fault> {
        let events: NewEvents = data.iter().map(|data| text(data)).collect();
        let batch = Batch { events: &events, producer, expect_offset: None };
        self.shard.append_durably(group, &batch).await
    }

    /// Everything from `offset` on, up to the tail or to what cannot be read.
    async fn read_from(&self, group: u32, offset: u64) -> (Vec<Seen>, Option<Fault>) {
        let mut cursor = Cursor::new(Rc::clone(&self.shards), 0, group, offset);
        let mut frames = Frames::default();
        let mut seen = Vec::new();
        loop {
            match cursor.read(&mut frames).await {
                Ok(true) => {}
                Ok(false) => return (seen, None),
                Err(fault) => return (seen, Some(fault)),
            }
            for event in frames.iter().flat_map(|frame| frame.events().map(Result::unwrap).collect::<Vec<_>>()) {
                if event.offset < cursor.offset() {
                    continue;
                }
                let data = String::from_utf8(event.data.to_vec()).unwrap();
                seen.push(Seen { offset: event.offset, id: event.id, received_us: event.received_us, data });
                cursor.advance(event.offset + 1);
            }
        }
    }

    /// All events of a group, none of which may be damaged.
    async fn read(&self, group: u32) -> Vec<Seen> {
        let (seen, fault) = self.read_from(group, self.shard.range(group).unwrap().earliest).await;
        assert_eq!(fault, None);
        let range = self.shard.range(group).unwrap();
        assert_eq!(seen.len() as u64, range.tail - range.earliest);
        let ascend = |pair: &[Seen]| pair[0].offset + 1 == pair[1].offset && pair[0].id < pair[1].id;
        assert!(seen.windows(2).all(ascend), "offsets are contiguous and ids ascend");
        assert!(seen.windows(2).all(|pair| pair[0].received_us <= pair[1].received_us));
        seen
    }

    /// The data of all events of a group.
    async fn data(&self, group: u32) -> Vec<String> {
        self.read(group).await.into_iter().map(|seen| seen.data).collect()
    }

    /// Makes a checkpoint that holds everything so far, and waits for it.
    async fn checkpoint(&self) {
        let upto = self.shard.state.borrow().durable_index;
        while self.shard.state.borrow().checkpoint.index < upto {
            assert_eq!(self.shard.fault(), None);
            self.shard.want_checkpoint();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Stops everything where it is, and lets the disk finish what it was given.
    async fn end(&self) {
        {
            let state = &mut *self.shard.state.borrow_mut();
            state.fault.get_or_insert(Fault::Stopped(Arc::from("killed")));
        }
        loop {
            self.shard.commit_turn.notify_one();
            self.shard.tails_turn.notify_one();
            self.shard.space_turn.notify_one();
            self.shard.lease_turn.notify_one();
            self.shard.mover.run(|| ()).await;
            self.shard.opener.run(|| ()).await;
            ring::park().await;
            // The node and its table of shards; the loops have let go.
            if Rc::strong_count(&self.shard) == 2 {
                return;
            }
        }
    }
}
