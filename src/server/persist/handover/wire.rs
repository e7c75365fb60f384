//! Messages on the socket: JSON with its length before it, file descriptors beside it.

use super::{PROTOCOL, Ready, Socket};
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The longest message, in bytes.
const MAX_LENGTH: u32 = 1 << 20;
/// The most file descriptors beside one message; Linux allows 253.
const MAX: usize = 250;

/// All messages.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WireMessage {
    Hello {
        protocol: u32,
        version: String,
    },
    Refused {
        why: String,
    },
    Sockets {
        protocol: u32,
        version: String,
        sockets: Vec<Socket>,
    },
    Ready(Ready),
    /// The history follows.
    History,
    Loaded,
    Go,
    Serving,
}

impl WireMessage {
    pub(super) fn hello() -> Self {
        Self::Hello { protocol: PROTOCOL, version: version() }
    }

    pub(super) fn sockets(sockets: Vec<Socket>) -> Self {
        Self::Sockets { protocol: PROTOCOL, version: version(), sockets }
    }
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

pub(super) fn send(to: &UnixStream, word: &WireMessage) -> io::Result<()> {
    say_with(to, word, &[])
}

/// Sends `word` and hands over copies of `fds`.
pub(super) fn say_with(
    mut to: &UnixStream,
    word: &WireMessage,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let json = serde_json::to_vec(word)?;
    let too_much = || io::Error::new(io::ErrorKind::InvalidInput, "too many sockets");
    let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_LENGTH);
    let length = length.filter(|_| fds.len() <= MAX).ok_or_else(too_much)?.to_le_bytes();
    // The descriptors go with the first bytes; those are so few that they go in one piece.
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(too_much());
    }
    let sent = sendmsg(to, &[IoSlice::new(&length)], &mut beside, SendFlags::NOSIGNAL)?;
    to.write_all(&length[sent..])?;
    to.write_all(&json)
}

pub(super) fn receive(from: &UnixStream) -> io::Result<WireMessage> {
    hear_with(from).map(|(word, _)| word)
}

/// Receives a message and the descriptors handed over with it.
pub(super) fn hear_with(mut from: &UnixStream) -> io::Result<(WireMessage, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(from, &mut [IoSliceMut::new(&mut length)], &mut beside, flags)?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut fds = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(handed) = message {
            fds.extend(handed);
        }
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("file descriptors were lost: too many files are open"));
    }
    from.read_exact(&mut length[got.bytes..])?;
    let length = u32::from_le_bytes(length);
    if length > MAX_LENGTH {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut json = Vec::new();
    from.take(length.into()).read_to_end(&mut json)?;
    Ok((serde_json::from_slice(&json)?, fds))
}
