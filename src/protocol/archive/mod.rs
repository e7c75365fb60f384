//! The history of all channels as a stream of bytes, for a file or for another process.
//!
//! ```text
//! stream  = "pollgate-history" version:u32 memory remembered* member* { channel message* } end
//! frame   = kind:u8 length:u64 payload crc32:u32          (numbers are little-endian)
//! memory  = clean:u8 latest:u64 floor:u64 clock:u64
//! channel = used:u64 epoch:u64 seq:u64 newest_stamp:u64 floor:u64 evicted_stamp:u64
//!           messages:u64 name
//! remembered = since:u64 print:u64 print:u64 method path key status:u64 content_type
//!              headers:u64 { name value } body            (each text has length:u16 before it)
//! member  = since:u64 present:u8 announced:u8 channel user info   (each text has length:u16 before it)
//! message = stamp:u64 published:u64 kind:u8 length:u16 content_type body
//! end     = channels:u64 messages:u64 remembered:u64 members:u64
//! ```
//!
//! Version 1 has no `remembered` frames and does not count them; versions 1 and 2 have no clock;
//! versions 1 to 3 have no members.
//! The `remembered` frames come before the channels, and must be looked up before them, so that no
//! repeated response refers to a message that is missing.
//!
//! Each frame has a checksum of its kind, length and payload, and the end counts everything before
//! it: a changed byte, a missing piece and a cut-off end are all noticed. Reading trusts no length:
//! memory is taken as bytes arrive, and a stream that is no archive is distinguished from one that
//! is damaged.

mod frame;
mod idempotent_reply;
mod read;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod write;

pub use idempotent_reply::StoredReply;
pub use read::Reader;
pub use write::Writer;

use std::io;

/// First bytes of the stream.
const MAGIC: &[u8; 16] = b"pollgate-history";
/// Version of the format that follows the magic.
const VERSION: u32 = 4;

/// Kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Dump = 1,
    Channel = 2,
    Message = 3,
    End = 4,
    StoredReply = 5,
    Member = 6,
}

/// Reasons why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is something else.
    #[error("it is no history of pollgate")]
    Foreign,
    /// Another version wrote it.
    #[error("it has version {0} of the format, this pollgate reads versions 1 to 4")]
    Version(u32),
    /// It ends before its end.
    #[error("it is cut off")]
    CutOff,
    /// Its bytes are not those that were written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// It cannot be read at all.
    #[error("it cannot be read: {0}")]
    Io(io::Error),
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::CutOff,
            _ => Self::Io(error),
        }
    }
}
