//! The machine: CPU masks, limits, disk space, the data directory's lock, randomness.

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The CPUs this process may run on, in ascending order, and the same as a mask.
///
/// # Errors
/// When the kernel does not say.
pub fn cpus() -> io::Result<(Vec<usize>, CpuSet)> {
    let mask = rustix::thread::sched_getaffinity(None)?;
    Ok(((0..CpuSet::MAX_CPU).filter(|&cpu| mask.is_set(cpu)).collect(), mask))
}

/// Pins the calling thread to one CPU.
///
/// # Errors
/// When the CPU is outside of the process's mask.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut mask = CpuSet::new();
    mask.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &mask)?)
}

/// Lets the calling thread run only where no other one wants to (`SCHED_IDLE`): any other thread that wakes up takes its
/// CPU at once.
///
/// # Errors
/// When the kernel refuses.
pub fn take_what_is_left() -> io::Result<()> {
    const SCHED_IDLE: i32 = 5;
    // A `sched_param` is one number with the GNU library and has reserved ones behind it with musl.
    let parameters = [0_u64; 8];
    #[expect(unsafe_code, reason = "rustix has no pthread_setschedparam")]
    // SAFETY: the thread is the calling one, and the parameters are read during the call alone.
    let error = unsafe { pthread_setschedparam(pthread_self(), SCHED_IDLE, parameters.as_ptr().cast()) };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

#[expect(unsafe_code, reason = "rustix has no pthread_setschedparam")]
unsafe extern "C" {
    /// `pthread_self(3)`.
    fn pthread_self() -> usize;
    /// `pthread_setschedparam(3)`.
    fn pthread_setschedparam(thread: usize, policy: i32, parameters: *const std::ffi::c_void) -> i32;
}

/// Raises the open-file limit to its hard value and returns it.
#[must_use]
pub fn raise_open_files() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    now.unwrap_or(u64::MAX)
}

/// Size and free space of a file system, in bytes; free is what an ordinary user may still take.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpace {
    /// All of it.
    pub total: u64,
    /// What is left.
    pub free: u64,
}

/// Space of the file system that holds `path`.
///
/// # Errors
/// When `path` is not there.
pub fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(DiskSpace { total: stat.f_blocks * stat.f_frsize, free: stat.f_bavail * stat.f_frsize })
}

/// A lock on a data directory, held until it is dropped or the process ends, however it ends.
pub struct DirectoryLock(#[expect(dead_code, reason = "held for its lock")] OwnedFd);

/// Takes the lock, or returns `None` when another process holds it.
///
/// # Errors
/// When the lock file cannot be made.
pub fn lock(path: &Path) -> io::Result<Option<DirectoryLock>> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(DirectoryLock(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Name and release of the kernel.
#[must_use]
pub fn kernel() -> String {
    let name = rustix::system::uname();
    format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy())
}

/// Resident memory of this process in bytes, and the CPU time it used in microseconds.
#[must_use]
pub fn usage() -> (u64, u64) {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    (resident * rustix::param::page_size() as u64, time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000)
}
