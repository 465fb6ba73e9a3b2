//! The ring: starting one per core, and the single-completion operations that other files of this room build on.
//!
//! tokio-uring lacks cancel, poll and flags for its transfers, but takes any operation that completes once. An operation
//! owns its buffer and keeps its descriptor open until the kernel has answered; a future here is awaited to its end,
//! except `poll`, which owns nothing and may be dropped.

use io_uring::{cqueue, opcode, squeue, types};
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

/// Submissions that fit between two parks of the loop; more only costs another system call.
const SUBMISSIONS: u32 = 1024;
/// Completions that may wait; the kernel keeps any overflow.
const COMPLETIONS: u32 = 16 * 1024;

/// Setup flags the ring was given, for the start-up report.
pub const FLAGS: &str = "COOP_TASKRUN, SINGLE_ISSUER";

fn builder() -> tokio_uring::Builder {
    let mut ring = tokio_uring::uring_builder();
    // DEFER_TASKRUN is not among them: with it, completions wait for a call that tokio-uring's driver never makes.
    ring.setup_coop_taskrun().setup_single_issuer().setup_cqsize(COMPLETIONS);
    let mut builder = tokio_uring::builder();
    builder.entries(SUBMISSIONS).uring_builder(&ring);
    builder
}

/// Runs `main` on a new ring of this thread.
///
/// # Errors
/// When the kernel refuses the ring.
pub fn run<F: Future>(main: F) -> io::Result<F::Output> {
    let runtime = tokio_uring::Runtime::new(&builder())?;
    let output = runtime.block_on(main);
    // Operations may still be in flight; the process is about to exit, and dropping the runtime now could free
    // buffers that the kernel still writes to.
    std::mem::forget(runtime);
    Ok(output)
}

/// Starts a ring on a thread of its own and lets a no-op pass through it.
///
/// # Errors
/// The kernel's refusal, with what usually causes it and what to do.
pub fn probe() -> io::Result<()> {
    let probe = std::thread::spawn(|| {
        let runtime = tokio_uring::Runtime::new(&builder())?;
        runtime.block_on(tokio_uring::no_op())
    });
    let answer = probe.join().unwrap_or_else(|_| Err(io::Error::other("the ring's driver panicked")));
    answer.map_err(|error| {
        let hint = match error.raw_os_error() {
            Some(libc_errno::EPERM | libc_errno::EACCES) => {
                "it is forbidden here: allow io_uring in the container's seccomp profile \
                 (docker run --security-opt seccomp=unconfined) or set sysctl kernel.io_uring_disabled=0"
            }
            Some(libc_errno::ENOSYS) => "this kernel has none: Linux 6.0 or newer is needed",
            Some(libc_errno::EINVAL) => "this kernel lacks COOP_TASKRUN or SINGLE_ISSUER: Linux 6.0 or newer is needed",
            Some(libc_errno::ENOMEM) => "raise the locked-memory limit (ulimit -l)",
            _ => "no no-op completed",
        };
        io::Error::new(error.kind(), format!("io_uring does not work: {error}; {hint}"))
    })
}

/// Lets the loop take a turn: whatever is ready runs, and what waits to be submitted is submitted. Work that takes long is
/// done in slices with this in between, for the ring is only served when the thread parks.
pub async fn park() {
    // A no-op cannot fail but for a broken ring, which every other operation would tell.
    let _ = tokio_uring::no_op().await;
}

/// Error numbers named here so that the match above reads as words.
mod libc_errno {
    use rustix::io::Errno;
    pub(super) const EPERM: i32 = Errno::PERM.raw_os_error();
    pub(super) const EACCES: i32 = Errno::ACCESS.raw_os_error();
    pub(super) const ENOSYS: i32 = Errno::NOSYS.raw_os_error();
    pub(super) const EINVAL: i32 = Errno::INVAL.raw_os_error();
    pub(super) const ENOMEM: i32 = Errno::NOMEM.raw_os_error();
}

/// Hands an operation's result and what it owned back to whoever awaits it.
struct GiveBack<T>(std::marker::PhantomData<fn() -> T>);

impl<T> OneshotOutputTransform for GiveBack<T> {
    type Output = (io::Result<u32>, T);
    type StoredData = T;

    fn transform_oneshot_output(self, data: T, completion: cqueue::Entry) -> Self::Output {
        let result = completion.result();
        (if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as u32) }, data)
    }
}

/// Submits `entry`, which may point into `owned` only where moving `owned` does not move what is pointed at.
fn submit<T: Unpin + 'static>(entry: squeue::Entry, owned: T) -> impl Future<Output = (io::Result<u32>, T)> {
    UnsubmittedOneshot::new(owned, GiveBack(std::marker::PhantomData), entry).submit()
}

/// Waits until `fd` has one of `events` (`poll(2)` bits). May be dropped, with a
/// [`cancel`] to follow: it owns no bytes.
pub(super) fn poll(fd: &Rc<OwnedFd>, events: u32) -> impl Future<Output = io::Result<u32>> + use<> {
    let entry = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), events).build();
    let operation = submit(entry, Rc::clone(fd));
    async move { operation.await.0 }
}

/// Ends every operation that is pending on `fd`: whoever drops a [`poll`] says so, or it would stay until the end of the
/// connection. Operations submitted later are not touched, for submissions are taken in order.
pub(super) fn cancel(fd: &Rc<OwnedFd>) {
    let pending = types::CancelBuilder::fd(types::Fd(fd.as_raw_fd())).all();
    // Nobody waits for it: the operations that it ends tell.
    drop(submit(opcode::AsyncCancel2::new(pending).build(), Rc::clone(fd)));
}

/// Accepts one connection.
pub(super) async fn accept(fd: &Rc<OwnedFd>) -> io::Result<OwnedFd> {
    let flags = rustix::net::SocketFlags::CLOEXEC.bits() as i32;
    let entry = opcode::Accept::new(types::Fd(fd.as_raw_fd()), std::ptr::null_mut(), std::ptr::null_mut());
    let (result, _) = submit(entry.flags(flags).build(), Rc::clone(fd)).await;
    let accepted = result?;
    #[expect(unsafe_code, reason = "a new descriptor arrives as a number")]
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(accepted as i32) })
}

/// Sends `buffer[start..]`; the kernel retries short sends itself, so less only comes with an error to follow. With `more`
/// to come at once, what would not fill a packet waits for that.
pub(super) async fn send(fd: &Rc<OwnedFd>, buffer: Vec<u8>, start: usize, more: bool) -> (io::Result<usize>, Vec<u8>) {
    const WAIT_ALL: i32 = 0x100;
    const NO_SIGNAL: i32 = 0x4000;
    const MORE: i32 = 0x8000;
    let bytes = &buffer[start..];
    let entry = opcode::Send::new(types::Fd(fd.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32);
    let entry = entry.flags(WAIT_ALL | NO_SIGNAL | if more { MORE } else { 0 }).build();
    let (result, (buffer, _)) = submit(entry, (buffer, Rc::clone(fd))).await;
    (result.map(|sent| sent as usize), buffer)
}

/// Writes all of `buffer` at `position`; a short write is an error (`WriteZero`), for nothing may be written twice. The
/// operation is queued at once, whenever the future is polled.
pub(super) fn write_at<B>(
    fd: &Arc<OwnedFd>,
    buffer: B,
    position: u64,
) -> impl Future<Output = (io::Result<()>, B)> + use<B>
where
    B: std::ops::Deref<Target = [u8]> + Unpin + 'static,
{
    let bytes: &[u8] = &buffer;
    let length = bytes.len();
    let entry = opcode::Write::new(types::Fd(fd.as_raw_fd()), bytes.as_ptr(), length as u32).offset(position).build();
    let operation = submit(entry, (buffer, Arc::clone(fd)));
    async move {
        let (result, (buffer, _)) = operation.await;
        let result = result.and_then(|written| match written as usize == length {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::WriteZero, format!("{written} of {length} bytes written"))),
        });
        (result, buffer)
    }
}

/// Reads up to `want` bytes at `position` and appends them to `buffer`.
pub(super) async fn read_at(
    fd: &Arc<OwnedFd>,
    mut buffer: Vec<u8>,
    want: usize,
    position: u64,
) -> (io::Result<usize>, Vec<u8>) {
    buffer.reserve(want);
    let room = buffer.spare_capacity_mut();
    let entry = opcode::Read::new(types::Fd(fd.as_raw_fd()), room.as_mut_ptr().cast(), want as u32);
    let (result, (mut buffer, _)) = submit(entry.offset(position).build(), (buffer, Arc::clone(fd))).await;
    let result = result.map(|read| read as usize);
    if let Ok(read) = result {
        #[expect(unsafe_code, reason = "the kernel filled spare capacity")]
        // SAFETY: `want` bytes of spare capacity were reserved, and the kernel initialised the first `read <= want`.
        unsafe {
            buffer.set_len(buffer.len() + read);
        }
    }
    (result, buffer)
}
