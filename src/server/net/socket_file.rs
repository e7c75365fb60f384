//! The file of a unix socket, so that an orderly end leaves none behind.

use crate::protocol::address::Address;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The file that a bound unix socket has, as it was when it was bound or taken over.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The file at `address`; `None` for TCP, and where there is no file any more.
    pub fn at(address: &Address) -> Option<Self> {
        let Address::Unix(path) = address else { return None };
        let file = fs::symlink_metadata(path).ok()?;
        Some(Self { path: path.clone(), device: file.dev(), inode: file.ino() })
    }

    /// Removes the file, unless another one has taken its place: that is another process's.
    pub fn remove(&self) {
        let file = fs::symlink_metadata(&self.path);
        if !file.is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode)) {
            return;
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "cannot remove a socket file");
            }
            _ => {}
        }
    }
}
