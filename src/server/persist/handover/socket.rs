//! The upgrade socket: its path, and the check of the process at its other end.

use crate::protocol::address::Address;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Reason why the two processes cannot connect.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No process listens.
    #[error("no gate is running that could be taken over: {path}: {error}", path = .0.display(), error = .1)]
    Nobody(PathBuf, io::Error),
    /// The socket cannot be made.
    #[error("cannot listen on {path}: {error}", path = .0.display(), error = .1)]
    Bind(PathBuf, io::Error),
    /// Other users could put something else there.
    #[error("the folder {path} is open to others; remove it, or name another upgrade.socket", path = .0.display())]
    Open(PathBuf),
    /// The process at the other end belongs to another user.
    #[error("the process at the other end of the upgrade socket is user {0}'s")]
    Stranger(u32),
}

/// The path of a gate with that first internal address, unless the config sets one. `None` if the
/// system chooses the port: no other process could derive the path.
pub fn default_path(internal: &Address) -> Option<PathBuf> {
    let name = match internal {
        Address::Tcp { port: 0, .. } => return None,
        Address::Tcp { host, port } => format!("{host}-{port}"),
        Address::Unix(path) => path.display().to_string().replace('/', "-"),
    };
    let user = geteuid();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = match runtime.filter(|path| path.is_absolute()) {
        Some(path) => path,
        None if user.is_root() => "/run".into(),
        None => std::env::temp_dir(),
    };
    Some(base.join(format!("pollgate-{}", user.as_raw())).join(format!("{name}.upgrade")))
}

/// Listens at `path`, for this user's processes alone. Replaces a socket on which no process
/// listens. Makes the folder of a `default` path, which has to be private.
pub fn bind(path: &Path, default: bool) -> Result<UnixListener, SocketError> {
    if let (true, Some(folder)) = (default, path.parent()) {
        private_folder(folder)?;
    }
    let failed = |error| SocketError::Bind(path.to_owned(), error);
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            return Err(failed(io::ErrorKind::AddrInUse.into()));
        }
        fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Makes the folder for this user alone; an existing one has to be like that.
fn private_folder(folder: &Path) -> Result<(), SocketError> {
    let failed = |error| SocketError::Bind(folder.to_owned(), error);
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let found = fs::symlink_metadata(folder).map_err(failed)?;
    let private = found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0;
    if private { Ok(()) } else { Err(SocketError::Open(folder.to_owned())) }
}

/// Connects to the gate that listens at `path`.
pub fn join(path: &Path) -> Result<UnixStream, SocketError> {
    let absent = |error| SocketError::Nobody(path.to_owned(), error);
    let stream = UnixStream::connect(path).map_err(absent)?;
    look_at(&stream)?;
    Ok(stream)
}

/// The process at the other end.
pub(super) fn process(stream: impl AsFd) -> Option<u32> {
    let pid = socket_peercred(stream).ok()?.pid;
    u32::try_from(pid.as_raw_nonzero().get()).ok()
}

/// Checks that the process at the other end is the same user's or root's.
pub(super) fn look_at(stream: impl AsFd) -> Result<(), SocketError> {
    let peer = socket_peercred(stream).map_err(|_| SocketError::Stranger(u32::MAX))?.uid;
    if peer.is_root() || peer == geteuid() {
        return Ok(());
    }
    Err(SocketError::Stranger(peer.as_raw()))
}
