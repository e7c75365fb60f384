//! Reads a file whole, or not at all.

use super::file::FileStat;
use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The result of reading a file.
#[derive(Debug)]
pub(super) enum Content {
    /// It did not change from the first look at it to the last.
    Whole(Bytes, FileStat),
    /// It changed during the read.
    Changing(FileStat),
    /// It is longer than the bound.
    TooLong(FileStat),
    /// It is not there any more.
    Gone,
    /// It is no regular file; the reason.
    Refused(String),
}

/// Reads at most `most` bytes. Symbolic links are not followed: a process that may write into the
/// directory could show any file of the machine to the public with them.
pub(super) fn read(path: &Path, most: u64) -> Content {
    match try_read(path, most) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Content::Gone,
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            Content::Refused("it is a symbolic link, which is not followed".to_owned())
        }
        Err(error) => Content::Refused(error.to_string()),
    }
}

fn try_read(path: &Path, most: u64) -> io::Result<Content> {
    // Opening a pipe must not wait for its other end.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let (meta, before) = look(&file)?;
    if let Some(what) = oddity(meta) {
        return Ok(Content::Refused(what.to_owned()));
    }
    if before.size > most {
        return Ok(Content::TooLong(before));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(before.size).unwrap_or_default() + 1);
    (&file).take(before.size + 1).read_to_end(&mut bytes)?;
    let (_, after) = look(&file)?;
    if !after.is_unchanged(&before) || bytes.len() as u64 != before.size {
        return Ok(Content::Changing(after));
    }
    Ok(Content::Whole(bytes.into(), after))
}

fn look(file: &File) -> io::Result<(std::fs::FileType, FileStat)> {
    let meta = file.metadata()?;
    Ok((meta.file_type(), FileStat::of(&meta)))
}

/// State of the entry; `Err` explains why it is no file to be watched, `Ok(None)` = it is gone.
pub(super) fn inspect(path: &Path) -> Result<Option<FileStat>, String> {
    match path.symlink_metadata() {
        Ok(meta) => match oddity(meta.file_type()) {
            Some(what) => Err(what.to_owned()),
            None => Ok(Some(FileStat::of(&meta))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn oddity(kind: std::fs::FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_symlink() {
        Some("it is a symbolic link, which is not followed")
    } else if kind.is_dir() {
        Some("it is a directory")
    } else {
        Some("it is no regular file")
    }
}
