//! A data directory: making one, and taking one over.
//!
//! ```text
//! data/lock              held by the one broker that runs here
//! data/identity.toml     written last: a directory without it was never finished
//! data/reserve           space that is given back when the disk is full and something must still be written
//! data/shard-000/        journal/000.journal …  segments/<group>-<sequence>.seg …  state.a  state.b
//! ```

use super::checkpoint::write_first_state;
use crate::io::file::{JournalFile, reserve_space, sync_directory};
use crate::io::system::{self, DirectoryLock};
use crate::limits::BLOCK_BYTES;
use crate::log::file_header::{FileHeader, FileKind, Identity};
use crate::log::journal::Ring;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use uuid::Uuid;

/// The format of a data directory as a whole.
const FORMAT: u32 = 1;
/// Name of the file that holds the reserve.
const RESERVE: &str = "reserve";
/// Its bytes.
const RESERVE_BYTES: u64 = 4 << 20;

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DirectoryFault {
    /// Another broker runs here.
    #[error("{0} is in use by another broker: stop it first, or choose another directory with --data")]
    Locked(PathBuf),
    /// Something else lies here.
    #[error("{0} is not empty and no data directory of Eddyline: choose another one with --data")]
    Foreign(PathBuf),
    /// A newer broker wrote it.
    #[error("{path} has format {found}, this version knows up to {FORMAT}: start the newer version")]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// `identity.toml` cannot be read.
    #[error("{path} is damaged: {cause}; restore it from a backup")]
    BadIdentity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The operating system refused.
    #[error("{path}: {cause}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// What a data directory was made as.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Where it is.
    pub path: PathBuf,
    /// Whose files these are.
    pub identity: Identity,
    /// Number of shards, for good.
    pub shards: u16,
    /// Size of each shard's journal, for good.
    pub ring: Ring,
}

/// A data directory that is ours.
pub struct DataDirectory {
    /// What it was made as.
    pub layout: Layout,
    /// Whether it was just made.
    pub new: bool,
    /// Held as long as this lives.
    pub lock: DirectoryLock,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    format: u32,
    cluster: Uuid,
    broker: u32,
    replica: u32,
    shards: u16,
    journal_file_bytes: u64,
    journal_files: u64,
}

/// Directory of one shard.
#[must_use]
pub fn shard_directory(data: &Path, shard: u16) -> PathBuf {
    data.join(format!("shard-{shard:03}"))
}

/// One file of a shard's journal.
#[must_use]
pub fn journal_path(shard: &Path, slot: u64) -> PathBuf {
    shard.join("journal").join(format!("{slot:03}.journal"))
}

/// Gives the reserve back to a disk that is full; `shard` is the directory of the shard that must still write.
pub(super) fn release_reserve(shard: &Path) -> io::Result<()> {
    tracing::warn!("the disk is full: the broker's own reserve is given back for its state");
    match fs::remove_file(shard.with_file_name(RESERVE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens a data directory, or makes it with so many shards and such journals.
///
/// # Errors
/// Why it cannot be used; nothing was changed then, but for what an unfinished creation left.
pub fn open(path: &Path, shards: u16, ring: Ring) -> Result<DataDirectory, DirectoryFault> {
    let io = |cause| DirectoryFault::Io { path: path.to_owned(), cause };
    let identity_path = path.join("identity.toml");
    if !identity_path.exists() {
        fs::create_dir_all(path).map_err(io)?;
        let ours = |name: &str| {
            name.starts_with("shard-") || matches!(name, "lost+found" | "lock" | RESERVE | "identity.toml.new")
        };
        let foreign =
            fs::read_dir(path).map_err(io)?.flatten().any(|entry| !ours(&entry.file_name().to_string_lossy()));
        if foreign {
            return Err(DirectoryFault::Foreign(path.to_owned()));
        }
    }
    let lock = lock_existing(path)?;
    let new = !identity_path.exists();
    if new {
        make(path, shards, ring).map_err(io)?;
    }
    let layout = inspect(path)?;
    match reserve_space(&path.join(RESERVE), RESERVE_BYTES) {
        // It was given back, or never was; it is made at the first start that finds room.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
        reserved => reserved.map_err(io)?,
    }
    Ok(DataDirectory { layout, new, lock })
}

/// What an existing data directory was made as; nothing is touched.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn inspect(path: &Path) -> Result<Layout, DirectoryFault> {
    let file = read_identity(path)?;
    Ok(Layout {
        path: path.to_owned(),
        identity: Identity { cluster: file.cluster.as_u128(), broker: file.broker, replica: file.replica },
        shards: file.shards,
        ring: Ring { file_bytes: file.journal_file_bytes, files: file.journal_files },
    })
}

/// Takes the directory's lock for reading it while no broker runs.
///
/// # Errors
/// When a broker runs here.
pub fn lock_existing(path: &Path) -> Result<DirectoryLock, DirectoryFault> {
    let lock = system::lock(&path.join("lock")).map_err(|cause| DirectoryFault::Io { path: path.to_owned(), cause })?;
    lock.ok_or_else(|| DirectoryFault::Locked(path.to_owned()))
}

fn read_identity(path: &Path) -> Result<IdentityFile, DirectoryFault> {
    /// Read first, so that a newer format is told by name whatever else it holds.
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let path = path.join("identity.toml");
    let text = fs::read_to_string(&path).map_err(|cause| DirectoryFault::Io { path: path.clone(), cause })?;
    let bad =
        |error: toml::de::Error| DirectoryFault::BadIdentity { path: path.clone(), cause: error.message().to_owned() };
    let Format { format } = toml::from_str(&text).map_err(bad)?;
    if format > FORMAT {
        return Err(DirectoryFault::Newer { path, found: format });
    }
    toml::from_str(&text).map_err(bad)
}

/// Makes a data directory; `identity.toml` comes last and in one step, so a crash leaves nothing half made.
fn make(path: &Path, shards: u16, ring: Ring) -> io::Result<()> {
    let cluster = Uuid::from_u128((u128::from(fastrand::u64(..)) << 64) | u128::from(fastrand::u64(..)));
    let cluster = uuid::Builder::from_u128(cluster.as_u128()).with_version(uuid::Version::Random).into_uuid();
    let identity = Identity { cluster: cluster.as_u128(), broker: 1, replica: 1 };
    for shard in 0..shards {
        let directory = shard_directory(path, shard);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(directory.join("journal"))?;
        fs::create_dir_all(directory.join("segments"))?;
        for slot in 0..ring.files {
            let journal = journal_path(&directory, slot);
            JournalFile::create(&journal, ring.file_bytes)?;
            let header = FileHeader { kind: FileKind::Journal, identity, shard, first: slot, second: ring.file_bytes };
            let mut block = crate::io::buffer::AlignedBuffer::with_capacity(BLOCK_BYTES);
            block.extend_from_slice(&header.encode());
            block.pad();
            JournalFile::open(&journal)?.write_blocking(&block, 0)?;
        }
        write_first_state(&directory, identity, shard)?;
        sync_directory(&directory.join("journal"))?;
        sync_directory(&directory.join("segments"))?;
        sync_directory(&directory)?;
    }
    let file = IdentityFile {
        format: FORMAT,
        cluster,
        broker: identity.broker,
        replica: identity.replica,
        shards,
        journal_file_bytes: ring.file_bytes,
        journal_files: ring.files,
    };
    let text = toml::to_string(&file).map_err(io::Error::other)?;
    let fresh = path.join("identity.toml.new");
    fs::write(&fresh, text)?;
    fs::File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, path.join("identity.toml"))?;
    sync_directory(path)
}
