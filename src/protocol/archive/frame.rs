//! Frames: a kind, a length, a payload, a checksum.

use super::{ArchiveError, Kind};
use crc32fast::Hasher;
use std::io::{self, Read, Write};

/// A payload under construction.
#[derive(Default)]
pub(super) struct Payload(Vec<u8>);

impl Payload {
    pub(super) fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    /// A text of at most 65,535 bytes, after its length; a longer one is left out.
    pub(super) fn short_text(mut self, text: &str) -> Self {
        let (length, text) = u16::try_from(text.len()).map_or((0, ""), |length| (length, text));
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Writes the frame of this payload followed by `rest`.
    pub(super) fn write(self, kind: Kind, rest: &[u8], to: &mut impl Write) -> io::Result<()> {
        let length = (self.0.len() + rest.len()) as u64;
        let mut head = [kind as u8; 9];
        head[1..].copy_from_slice(&length.to_le_bytes());
        let mut sum = Hasher::new();
        for piece in [&head[..], &self.0, rest] {
            sum.update(piece);
            to.write_all(piece)?;
        }
        to.write_all(&sum.finalize().to_le_bytes())
    }
}

/// Reads the next frame's payload.
pub(super) fn read(from: &mut impl Read) -> Result<(Kind, Vec<u8>), ArchiveError> {
    let mut head = [0; 9];
    from.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = u64::from_le_bytes(length);
    let mut payload = Vec::new();
    // Memory grows as bytes arrive, whatever the declared length.
    from.take(length).read_to_end(&mut payload)?;
    if payload.len() as u64 != length {
        return Err(ArchiveError::CutOff);
    }
    let mut sum = [0; 4];
    from.read_exact(&mut sum)?;
    let mut hasher = Hasher::new();
    hasher.update(&head);
    hasher.update(&payload);
    if hasher.finalize() != u32::from_le_bytes(sum) {
        return Err(ArchiveError::Damaged("a checksum does not match"));
    }
    let known =
        [Kind::Dump, Kind::Channel, Kind::Message, Kind::End, Kind::StoredReply, Kind::Member];
    let kind = known.into_iter().find(|known| *known as u8 == kind);
    Ok((kind.ok_or(ArchiveError::Damaged("a frame of an unknown kind"))?, payload))
}

/// A payload, parsed from its beginning.
pub(super) struct Parts<'a>(pub(super) &'a [u8]);

impl<'a> Parts<'a> {
    const SHORT: ArchiveError = ArchiveError::Damaged("a frame is too short");

    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], ArchiveError> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Self::SHORT)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, ArchiveError> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    pub(super) fn number(&mut self) -> Result<u64, ArchiveError> {
        let bytes = self.0.first_chunk().ok_or(Self::SHORT)?;
        self.0 = &self.0[bytes.len()..];
        Ok(u64::from_le_bytes(*bytes))
    }

    pub(super) fn short_text(&mut self) -> Result<&'a str, ArchiveError> {
        let length = u16::from_le_bytes([self.byte()?, self.byte()?]);
        let bytes = self.bytes(usize::from(length))?;
        std::str::from_utf8(bytes).map_err(|_| ArchiveError::Damaged("a text is not UTF-8"))
    }
}
