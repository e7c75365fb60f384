//! Handing a running gate over to a new process, over a unix socket.
//!
//! ```text
//! new                                    old
//!  │ hello: version                       │
//!  │──────────────────────────────────────▶ checks the other process
//!  │                    sockets, with fds │
//!  ◀──────────────────────────────────────│
//!  │ binds and builds the rest            │ serves on
//!  │ ready: where to send publishes       │
//!  │──────────────────────────────────────▶ stops accepting and publishing
//!  │             the history, or a refusal │
//!  ◀──────────────────────────────────────│
//!  │ loaded                               │
//!  │──────────────────────────────────────▶ may not go back after this
//!  │                                   go │
//!  ◀──────────────────────────────────────│
//!  │ serving                              │
//!  │──────────────────────────────────────▶ answers its polls, ends
//! ```
//!
//! Until `go` the new process has given out nothing, so if it falls silent or dies the old one
//! goes on as if nothing had happened. Between `go` and `serving` the new one does nothing but
//! write the message; if it dies even then, the old one takes everything back.
//!
//! Each side checks that the other process is the same user's, or root's. Messages are JSON with
//! their length before it; the history is an archive, as in a snapshot.

mod socket;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod wire;

pub use socket::{SocketError, bind, default_path, join};

use crate::protocol::address::Address;
use serde::{Deserialize, Serialize};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use wire::WireMessage;

/// Both sides have to speak this version of it.
const PROTOCOL: u32 = 1;
/// Timeout of the other side for an answer that needs no work.
const PROMPT: Duration = Duration::from_secs(5);
/// Timeout of the new process to build itself.
const BUILDING: Duration = Duration::from_secs(60);
/// Timeout of the history's transfer. Publishes wait meanwhile.
const LOADING: Duration = Duration::from_secs(10);

/// Reason why a handover failed.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The connection broke, or the other side fell silent.
    #[error("the other process broke off: {0}")]
    Broken(#[from] io::Error),
    /// The other side refused.
    #[error("the other process refused: {0}")]
    Refused(String),
    /// The other side speaks another protocol.
    #[error("the other process is another version ({0}) that hands over in another way")]
    Version(String),
    /// The other side sent a message out of turn.
    #[error("the other process said something unexpected")]
    Unexpected,
}

/// A listening socket, as the old process describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The address as the config had it.
    pub asked: String,
    /// The address it is bound to.
    pub bound: String,
}

/// The new process's description of itself once it could serve.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ready {
    /// Address of its internal side.
    pub internal: String,
    /// The token for them.
    pub token: String,
    /// True if it has taken the upgrade socket, too.
    pub upgrade: bool,
}

impl Ready {
    /// Address of its internal side.
    pub fn address(&self) -> Option<Address> {
        self.internal.parse().ok()
    }
}

/// The old process's side of a handover.
pub struct OldProcess {
    stream: UnixStream,
}

impl OldProcess {
    /// Receives the new process's hello.
    pub fn begin(stream: UnixStream) -> Result<Self, HandoverError> {
        socket::look_at(&stream).map_err(|error| HandoverError::Refused(error.to_string()))?;
        let old = Self { stream };
        old.patience(PROMPT)?;
        match wire::receive(&old.stream)? {
            WireMessage::Hello { protocol: PROTOCOL, .. } => Ok(old),
            WireMessage::Hello { version, .. } => {
                old.refuse("the running gate hands over in another way");
                Err(HandoverError::Version(version))
            }
            _ => Err(HandoverError::Unexpected),
        }
    }

    /// The process at the other end.
    pub fn process(&self) -> Option<u32> {
        socket::process(&self.stream)
    }

    /// Sends the reason of a refusal.
    pub fn refuse(&self, why: &str) {
        // It may be gone already.
        let _ = wire::send(&self.stream, &WireMessage::Refused { why: why.to_owned() });
    }

    /// Hands over copies of `sockets`.
    pub fn sockets(&self, sockets: &[(Socket, BorrowedFd<'_>)]) -> Result<(), HandoverError> {
        let (described, fds): (Vec<_>, Vec<_>) = sockets.iter().cloned().unzip();
        Ok(wire::say_with(&self.stream, &WireMessage::sockets(described), &fds)?)
    }

    /// Waits until the new process is able to serve.
    pub fn ready(&self) -> Result<Ready, HandoverError> {
        self.patience(BUILDING)?;
        match wire::receive(&self.stream)? {
            WireMessage::Ready(ready) => Ok(ready),
            _ => Err(HandoverError::Unexpected),
        }
    }

    /// Sends the output of `write`, and waits until the new process has taken it in.
    pub fn history(
        &self,
        write: impl FnOnce(BufWriter<&UnixStream>) -> io::Result<()>,
    ) -> Result<(), HandoverError> {
        self.patience(LOADING)?;
        wire::send(&self.stream, &WireMessage::History)?;
        write(BufWriter::new(&self.stream))?;
        match wire::receive(&self.stream)? {
            WireMessage::Loaded => Ok(()),
            _ => Err(HandoverError::Unexpected),
        }
    }

    /// Lets the new process serve. An error means that it never will.
    pub fn go(self) -> Result<(), HandoverError> {
        wire::send(&self.stream, &WireMessage::Go)?;
        // Without a limit: it either confirms or is dead, and only then may this process go on.
        self.stream.set_read_timeout(None)?;
        match wire::receive(&self.stream)? {
            WireMessage::Serving => Ok(()),
            _ => Err(HandoverError::Unexpected),
        }
    }

    fn patience(&self, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))?;
        self.stream.set_write_timeout(Some(limit))
    }
}

/// The new process's side of a handover.
pub struct NewProcess {
    stream: UnixStream,
}

impl NewProcess {
    /// Sends the hello, and takes the sockets.
    pub fn begin(stream: UnixStream) -> Result<(Self, Vec<(Socket, OwnedFd)>), HandoverError> {
        // The old process may be at work with another new one.
        let limit = Some(BUILDING);
        stream.set_read_timeout(limit)?;
        stream.set_write_timeout(limit)?;
        wire::send(&stream, &WireMessage::hello())?;
        match wire::hear_with(&stream)? {
            (WireMessage::Sockets { protocol: PROTOCOL, sockets, .. }, fds)
                if sockets.len() == fds.len() =>
            {
                Ok((Self { stream }, sockets.into_iter().zip(fds).collect()))
            }
            (WireMessage::Sockets { version, .. }, _) => Err(HandoverError::Version(version)),
            (WireMessage::Refused { why }, _) => Err(HandoverError::Refused(why)),
            _ => Err(HandoverError::Unexpected),
        }
    }

    /// Reports that it could serve; the history comes next.
    pub fn ready(&self, ready: Ready) -> Result<BufReader<&UnixStream>, HandoverError> {
        wire::send(&self.stream, &WireMessage::Ready(ready))?;
        match wire::receive(&self.stream)? {
            WireMessage::History => Ok(BufReader::new(&self.stream)),
            WireMessage::Refused { why } => Err(HandoverError::Refused(why)),
            _ => Err(HandoverError::Unexpected),
        }
    }

    /// Reports that it has the history, waits for `go`, and confirms it. From then on this process
    /// is the gate.
    pub fn loaded(self) -> Result<(), HandoverError> {
        wire::send(&self.stream, &WireMessage::Loaded)?;
        match wire::receive(&self.stream)? {
            WireMessage::Go => {}
            _ => return Err(HandoverError::Unexpected),
        }
        wire::send(&self.stream, &WireMessage::Serving)?;
        (&self.stream).flush()?;
        Ok(())
    }
}
