//! TCP: listeners that share a port between cores, and connections.
//!
//! An idle connection waits by poll and pins no receive buffer; bytes are then taken by one non-blocking receive.

use super::ring;
use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// So much is sent by a call first, as far as the socket has room; less by the ring, together with what else is submitted.
const AT_ONCE_BYTES: usize = 64 << 10;

/// Binds `address`; several listeners (one per core) may share it, and the kernel spreads connections over them.
///
/// # Errors
/// The operating system's refusal: the address is taken, not ours, or privileged.
pub fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether somebody already listens on `address`. (With a shared port the kernel would not say.)
#[must_use]
pub fn in_use(address: SocketAddr) -> bool {
    let Ok(socket) = RawSocket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP)) else {
        return false;
    };
    let refused = socket.set_reuse_address(true).and_then(|()| socket.bind(&address.into()));
    refused.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// The address a listener was given, with the port the kernel chose for port 0.
///
/// # Errors
/// When the descriptor is no socket.
pub fn local_address(listener: &OwnedFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getsockname(listener)?;
    SocketAddr::try_from(address).map_err(|_| io::Error::other("not an internet address"))
}

/// Accepts connections on one core.
pub struct Listener(Rc<OwnedFd>);

impl Listener {
    /// Takes over a bound socket.
    #[must_use]
    pub fn new(bound: OwnedFd) -> Self {
        Self(Rc::new(bound))
    }

    /// The next connection.
    ///
    /// # Errors
    /// Out of descriptors or memory, or a connection that was gone before it was accepted.
    pub async fn accept(&self) -> io::Result<Socket> {
        let accepted = ring::accept(&self.0).await?;
        rustix::net::sockopt::set_tcp_nodelay(&accepted, true)?;
        Ok(Socket(Rc::new(accepted)))
    }

    /// Ends a waiting [`accept`](Self::accept) and refuses further connections.
    pub fn close(&self) {
        let _ = rustix::net::shutdown(&*self.0, Shutdown::Both);
    }
}

/// A descriptor that is kept in hand: when no other one is left, it is given up so that one more connection can be let
/// in and told so.
pub struct Spare(RefCell<Option<OwnedFd>>);

impl Spare {
    /// Takes a descriptor, if one is left.
    #[must_use]
    pub fn new() -> Rc<Self> {
        let spare = Self(RefCell::default());
        spare.take_again();
        Rc::new(spare)
    }

    /// Gives it up after `error`, if that says that descriptors have run out; false when that helps nobody.
    #[must_use]
    pub fn give_up(&self, error: &io::Error) -> bool {
        let out = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
        let out = error.raw_os_error().is_some_and(|code| out.iter().any(|errno| errno.raw_os_error() == code));
        out && self.0.take().is_some()
    }

    /// Takes one again, if one is left; whether one is in hand now.
    pub fn take_again(&self) -> bool {
        let mut spare = self.0.borrow_mut();
        if spare.is_none() {
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
            *spare = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).ok();
        }
        spare.is_some()
    }
}

/// One connection. Dropping it shuts it down first, so that no pending poll keeps it open.
pub struct Socket(Rc<OwnedFd>);

impl Socket {
    /// Completes when there is something to receive, the peer has closed, or the connection broke.
    pub fn readable(&self) -> impl Future<Output = io::Result<u32>> + use<> {
        ring::poll(&self.0, u32::from((PollFlags::IN | PollFlags::RDHUP).bits()))
    }

    /// Completes when the peer has gone: it closed (even only its sending side) or the connection broke.
    pub fn hung_up(&self) -> impl Future<Output = io::Result<u32>> + use<> {
        ring::poll(&self.0, u32::from(PollFlags::RDHUP.bits()))
    }

    /// Breaks the connection: the peer is told that this is no orderly end, and what it was not sent yet is dropped.
    pub fn reset(&self) {
        let _ = rustix::net::connect_unspec(&*self.0);
    }

    /// Ends the waits that were dropped before they completed. Nothing else may be under way on this connection.
    pub fn cancel_waits(&self) {
        ring::cancel(&self.0);
    }

    /// Takes what has arrived, at most `want` bytes, and appends it to `buffer`; 0 when the peer has closed.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has arrived; a broken connection.
    pub fn receive(&self, buffer: &mut Vec<u8>, want: usize) -> io::Result<usize> {
        buffer.reserve(want);
        let room = &mut buffer.spare_capacity_mut()[..want];
        let ((filled, _), _) = rustix::net::recv(&*self.0, room, RecvFlags::DONTWAIT)?;
        let received = filled.len();
        let len = buffer.len() + received;
        #[expect(unsafe_code, reason = "the kernel filled spare capacity")]
        // SAFETY: `recv` initialised the first `received` bytes of the spare capacity.
        unsafe {
            buffer.set_len(len);
        }
        Ok(received)
    }

    /// Sends all of `buffer` and gives it back. With `more` to come at once, what would not fill a packet waits for that.
    ///
    /// # Errors
    /// A broken connection, or one that was [shut down](Self::shutdown) meanwhile.
    pub async fn send(&self, mut buffer: Vec<u8>, more: bool) -> (io::Result<()>, Vec<u8>) {
        let mut sent = 0;
        if buffer.len() >= AT_ONCE_BYTES {
            // A socket mostly has room; a turn of the loop would only put off what the reader could be copying meanwhile.
            let flags =
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL | if more { SendFlags::MORE } else { SendFlags::empty() };
            match rustix::net::send(&*self.0, &buffer, flags) {
                Ok(taken) => sent = taken,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return (Err(error.into()), buffer),
            }
            if sent == buffer.len() {
                ring::park().await;
            }
        }
        while sent < buffer.len() {
            let result;
            (result, buffer) = ring::send(&self.0, buffer, sent, more).await;
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
                Ok(more) => sent += more,
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// When the connection broke meanwhile.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        let address = rustix::net::getpeername(&*self.0)?;
        address.and_then(|address| SocketAddr::try_from(address).ok()).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Says that no more will be sent.
    pub fn shutdown_send(&self) {
        let _ = rustix::net::shutdown(&*self.0, Shutdown::Write);
    }

    /// Ends both directions; whatever waits on this connection completes.
    pub fn shutdown(&self) {
        let _ = rustix::net::shutdown(&*self.0, Shutdown::Both);
    }

    /// Another handle to the same connection, for whoever must be able to end it.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer(Rc::downgrade(&self.0))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Ends a connection that somebody else owns, if it is still there.
pub struct Closer(std::rc::Weak<OwnedFd>);

impl Closer {
    /// Ends both directions.
    pub fn shutdown(&self) {
        if let Some(socket) = self.0.upgrade() {
            let _ = rustix::net::shutdown(&*socket, Shutdown::Both);
        }
    }
}
