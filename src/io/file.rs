//! Files: the journal's direct files, segments, and the few steps that make a change of a directory durable.
//!
//! Blocking calls are for helper threads and start-up; the loop uses the `async` ones and [`SegmentFile::read_cached`].

use super::buffer::AlignedBuffer;
use super::ring;
use crate::limits::{BLOCK_BYTES, PACE_BYTES};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// Syncs a directory, so that files made, renamed or removed in it stay so.
///
/// # Errors
/// The operating system's; final for whatever depends on the change.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A file of the journal: every write is durable when it completes (`O_DSYNC`), and bypasses the page cache where the
/// file system can (`O_DIRECT`; tmpfs on old kernels cannot).
#[derive(Clone)]
pub struct JournalFile {
    file: Arc<OwnedFd>,
    /// Whether writes bypass the page cache.
    pub direct: bool,
}

impl JournalFile {
    /// Opens the file.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::DSYNC;
        let (file, direct) = match rustix::fs::open(path, flags | OFlags::DIRECT, Mode::empty()) {
            Ok(file) => (file, true),
            Err(rustix::io::Errno::INVAL) => (rustix::fs::open(path, flags, Mode::empty())?, false),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { file: Arc::new(file), direct })
    }

    /// Creates the file with `length` zero bytes really written, so that later writes change no metadata.
    ///
    /// # Errors
    /// The operating system's; a partial file is removed.
    pub fn create(path: &Path, length: u64) -> io::Result<()> {
        const PIECE: usize = 1 << 20;
        let write = || -> io::Result<()> {
            let file = File::create_new(path)?;
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length)?;
            let zeros = vec![0; PIECE];
            let mut position = 0;
            while position < length {
                let piece = (length - position).min(PIECE as u64) as usize;
                std::os::unix::fs::FileExt::write_all_at(&file, &zeros[..piece], position)?;
                position += piece as u64;
            }
            file.sync_all()
        };
        write().inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
    }

    /// Writes whole blocks at `position`; durable when it returns `Ok`. The write is queued by the call itself, ahead of
    /// whatever is submitted later.
    pub fn write(
        &self,
        buffer: AlignedBuffer,
        position: u64,
    ) -> impl Future<Output = (io::Result<()>, AlignedBuffer)> + use<> {
        ring::write_at(&self.file, buffer, position)
    }

    /// [`write`](Self::write) for start-up and helper threads.
    ///
    /// # Errors
    /// The operating system's; final for the shard.
    pub fn write_blocking(&self, buffer: &[u8], position: u64) -> io::Result<()> {
        match rustix::io::pwrite(&*self.file, buffer, position)? {
            written if written == buffer.len() => Ok(()),
            written => {
                Err(io::Error::new(io::ErrorKind::WriteZero, format!("{written} of {} bytes written", buffer.len())))
            }
        }
    }

    /// Makes durable what was written by whoever had the file open before.
    ///
    /// # Errors
    /// The operating system's; final for the shard.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&*self.file)?)
    }

    /// Reads blocks at `position` into `buffer`; what lies behind the end of the file reads as zeros.
    ///
    /// # Errors
    /// The operating system's.
    pub fn read(&self, buffer: &mut AlignedBuffer, position: u64) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::io::pread(&*self.file, &mut buffer[filled..], position + filled as u64)? {
                0 => {
                    buffer[filled..].fill(0);
                    break;
                }
                read => filled += read,
            }
        }
        Ok(())
    }
}

/// A segment: appended by a helper through the page cache, read by any core.
#[derive(Clone, Debug)]
pub struct SegmentFile(Arc<OwnedFd>);

impl SegmentFile {
    /// Creates (or, after a crash, takes over) the file.
    ///
    /// # Errors
    /// The operating system's.
    pub fn create(path: &Path) -> io::Result<Self> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        Ok(Self(Arc::new(rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?)))
    }

    /// Opens an existing file.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)))
    }

    /// Opens an existing file for reading alone.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open_read_only(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)))
    }

    /// Makes sure that the file's first `length` bytes have room on the disk.
    ///
    /// # Errors
    /// `StorageFull` and the operating system's others.
    pub fn allocate(&self, length: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&*self.0, FallocateFlags::empty(), 0, length)?)
    }

    /// Gives back what lies behind `length`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn truncate(&self, length: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&*self.0, length)?)
    }

    /// Length of the file.
    ///
    /// # Errors
    /// The operating system's.
    pub fn length(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&*self.0)?.st_size as u64)
    }

    /// Writes all `pieces` one behind the other from `position` on, into the page cache.
    ///
    /// # Errors
    /// The operating system's; final for the shard.
    pub fn write(&self, pieces: &[impl AsRef<[u8]>], mut position: u64) -> io::Result<()> {
        /// The kernel takes no more at once (`IOV_MAX`).
        const PIECES_MAX: usize = 1024;
        for pieces in pieces.chunks(PIECES_MAX) {
            let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece.as_ref())).collect();
            let mut rest = &mut slices[..];
            while !rest.is_empty() {
                match rustix::io::pwritev(&*self.0, rest, position)? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    written => {
                        position += written as u64;
                        IoSlice::advance_slices(&mut rest, written);
                    }
                }
            }
        }
        Ok(())
    }

    /// The same past the page cache: whole blocks are written directly from `buffer`, and only what is left over at both
    /// ends through the cache. `path` is this file's. A file system that cannot do it writes through the cache, paced.
    ///
    /// # Errors
    /// The operating system's; final for the shard.
    pub fn write_past_cache(
        &self,
        path: &Path,
        pieces: &[impl AsRef<[u8]>],
        position: u64,
        buffer: &mut AlignedBuffer,
    ) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::DIRECT;
        let direct = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(direct) => direct,
            Err(rustix::io::Errno::INVAL) => {
                self.write(pieces, position)?;
                let bytes: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
                return self.write_out(position, bytes as u64);
            }
            Err(error) => return Err(error.into()),
        };
        // The buffer begins where a block of the file begins; what stands before `position` there is not ours.
        let mut lead = (position % BLOCK_BYTES as u64) as usize;
        let mut base = position - lead as u64;
        buffer.clear();
        buffer.extend_from_slice(&[0; BLOCK_BYTES][..lead]);
        let mut flush = |buffer: &mut AlignedBuffer| -> io::Result<()> {
            let first = if lead > 0 { BLOCK_BYTES.min(buffer.len()) } else { 0 };
            let last = (buffer.len() - buffer.len() % BLOCK_BYTES).max(first);
            write_all(&self.0, &buffer[lead..first.max(lead)], base + lead as u64)?;
            write_all(&direct, &buffer[first..last], base + first as u64)?;
            write_all(&self.0, &buffer[last..], base + last as u64)?;
            base += buffer.len() as u64;
            lead = 0;
            buffer.clear();
            Ok(())
        };
        for piece in pieces {
            let mut rest = piece.as_ref();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(PACE_BYTES as usize - buffer.len()));
                buffer.extend_from_slice(now);
                rest = later;
                if buffer.len() == PACE_BYTES as usize {
                    flush(buffer)?;
                }
            }
        }
        flush(buffer)
    }

    /// Starts writing `length` bytes at `position` to the disk and waits until they are out. It paces a large flush;
    /// it makes nothing durable.
    ///
    /// # Errors
    /// The operating system's; final for the shard.
    pub fn write_out(&self, position: u64, length: u64) -> io::Result<()> {
        const WAIT_BEFORE_WRITE_WAIT_AFTER: u32 = 7;
        #[expect(unsafe_code, reason = "rustix has no sync_file_range")]
        // SAFETY: the call takes no pointers; the descriptor is open.
        let result = unsafe {
            sync_file_range(self.0.as_raw_fd(), position as i64, length as i64, WAIT_BEFORE_WRITE_WAIT_AFTER)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// The operating system's. Final: a second try would say `Ok` for bytes that are gone.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&*self.0)?)
    }

    /// Reads up to `want` bytes at `position` if they are in the page cache, appended to `buffer`; `None` when they are not.
    ///
    /// # Errors
    /// The operating system's.
    pub fn read_cached(&self, buffer: &mut Vec<u8>, want: usize, position: u64) -> io::Result<Option<usize>> {
        buffer.reserve(want);
        let room = IoVec { start: buffer.spare_capacity_mut().as_mut_ptr().cast(), length: want };
        let flags = ReadWriteFlags::NOWAIT.bits() as i32;
        #[expect(unsafe_code, reason = "rustix's preadv2 reads into initialised memory alone")]
        // SAFETY: the descriptor is open, and `room` is the one piece: `want` bytes of spare capacity, which are ours.
        let result = unsafe { preadv2(self.0.as_raw_fd(), &raw const room, 1, position as i64, flags) };
        let Ok(read) = usize::try_from(result) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Unsupported => Ok(None),
                _ => Err(error),
            };
        };
        #[expect(unsafe_code, reason = "the kernel filled spare capacity")]
        // SAFETY: `want` bytes of spare capacity were reserved, and the kernel initialised the first `read <= want`.
        unsafe {
            buffer.set_len(buffer.len() + read);
        }
        Ok(Some(read))
    }

    /// Reads up to `want` bytes at `position` through the ring, appended to `buffer`.
    pub async fn read(&self, buffer: Vec<u8>, want: usize, position: u64) -> (io::Result<usize>, Vec<u8>) {
        ring::read_at(&self.0, buffer, want, position).await
    }

    /// Reads `buffer.len()` bytes at `position`, or fewer at the end of the file.
    ///
    /// # Errors
    /// The operating system's.
    pub fn read_blocking(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::io::pread(&*self.0, &mut buffer[filled..], position + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, position)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                bytes = &bytes[written..];
                position += written as u64;
            }
        }
    }
    Ok(())
}

/// `struct iovec`.
#[repr(C)]
struct IoVec {
    start: *mut u8,
    length: usize,
}

#[expect(unsafe_code, reason = "rustix lacks the one, and the other into spare capacity")]
unsafe extern "C" {
    /// `sync_file_range(2)`.
    fn sync_file_range(fd: i32, offset: i64, nbytes: i64, flags: u32) -> i32;
    /// `preadv2(2)`.
    fn preadv2(fd: i32, pieces: *const IoVec, count: i32, offset: i64, flags: i32) -> isize;
}

/// Creates or grows a file to at least `length` bytes that are allocated on the disk, and syncs it.
///
/// # Errors
/// The operating system's.
pub fn reserve_space(path: &Path, length: u64) -> io::Result<()> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    if file.metadata()?.len() < length {
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length)?;
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_goes_past_the_cache_comes_to_its_place_and_nothing_else_changes(
            position in 0..20_000_usize,
            lengths in prop::collection::vec(prop_oneof![0..300_usize, 4000..4200_usize, 0..700_000_usize], 1..6),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("segment");
            let pieces: Vec<Vec<u8>> = lengths.iter().zip(1_u8..).map(|(&length, value)| vec![value; length]).collect();
            let written = pieces.concat();
            let mut expected = vec![0xee; position + written.len() + 5000];
            std::fs::write(&path, &expected).unwrap();
            let file = SegmentFile::open(&path).unwrap();
            // What was in the buffer before must not be seen.
            let mut buffer = AlignedBuffer::zeroed(3 * BLOCK_BYTES);
            buffer.fill(0xbb);
            file.write_past_cache(&path, &pieces, position as u64, &mut buffer).unwrap();
            expected[position..position + written.len()].copy_from_slice(&written);
            prop_assert!(std::fs::read(&path).unwrap() == expected);
        }
    }
}
