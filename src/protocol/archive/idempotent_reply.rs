//! Stored responses for publishers that repeat a request.

use super::frame::{Parts, Payload};
use super::{ArchiveError, Kind};
use crate::hub::channel::Time;
use bytes::Bytes;
use std::io::{self, Write};

/// A response under the key of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReply {
    /// The method of the request.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Its key.
    pub key: String,
    /// Time of the request.
    pub since: Time,
    /// Fingerprint that distinguishes its body from another one.
    pub print: [u64; 2],
    /// The status of the response.
    pub status: u16,
    /// Its content type.
    pub content_type: String,
    /// Its other headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

impl StoredReply {
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let [first, second] = self.print;
        let payload = Payload::default().number(self.since.0).number(first).number(second);
        let payload = payload.short_text(&self.method).short_text(&self.path);
        let payload = payload.short_text(&self.key).number(self.status.into());
        let payload = payload.short_text(&self.content_type);
        let payload = payload.number(self.headers.len() as u64);
        let payload = self
            .headers
            .iter()
            .fold(payload, |payload, (name, value)| payload.short_text(name).short_text(value));
        payload.write(Kind::StoredReply, &self.body, to)
    }

    pub(super) fn read(parts: &mut Parts<'_>) -> Result<Self, ArchiveError> {
        /// More headers than any response has.
        const MAX_HEADERS: u64 = 100;
        let since = super::read::time(parts.number()?)?;
        let print = [parts.number()?, parts.number()?];
        let mut text = || parts.short_text().map(str::to_owned);
        let method = text()?;
        let path = text()?;
        let key = text()?;
        let status = u16::try_from(parts.number()?);
        let status = status.map_err(|_| ArchiveError::Damaged("a status is impossible"))?;
        let content_type = parts.short_text()?.to_owned();
        let count = parts.number()?;
        if count > MAX_HEADERS {
            return Err(ArchiveError::Damaged("an answer has too many headers"));
        }
        let mut headers = Vec::new();
        for _ in 0..count {
            headers.push((parts.short_text()?.to_owned(), parts.short_text()?.to_owned()));
        }
        let body = Bytes::copy_from_slice(parts.0);
        Ok(Self { method, path, key, since, print, status, content_type, headers, body })
    }
}
