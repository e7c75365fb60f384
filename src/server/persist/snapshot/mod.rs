//! A snapshot of the history in a file, for the next start.
//!
//! The file is written whole beside its path, synced to the disk and renamed; so there is always
//! one whole file, the old one or the new one. It is read at the start and at once written again,
//! not clean any more: from then on positions are given out that it does not know. Only
//! [`Snapshot::finish`] writes a clean one, after the last position.
//!
//! A file that cannot be parsed is moved out of the way and the gate starts empty. A file that
//! cannot be written is reported in the log and in [`Snapshot::report`]; the gate goes on.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use crate::hub::Hub;
use crate::hub::channel::Time;
use crate::protocol::archive::{ArchiveError, Reader, StoredReply, Writer};
use parking_lot::Mutex;
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// `history.snapshot` and `history.snapshot_every`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The file; `None` = the history ends with the process.
    pub file: Option<PathBuf>,
    /// Interval of writes; zero = only when the gate ends.
    pub every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { file: None, every: Duration::from_secs(30) }
    }
}

/// Reason why the gate cannot start with its snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file exists and cannot be read.
    #[error("cannot read the snapshot {file}: {1}", file = .0.display())]
    Read(PathBuf, io::Error),
    /// The file cannot be written.
    #[error("cannot write the snapshot {file}: {1}", file = .0.display())]
    Write(PathBuf, io::Error),
}

/// State of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file.
    pub file: PathBuf,
    /// Time of the last write, in whole seconds since 1970.
    pub written: Option<u64>,
    /// Error of the last attempt to write it, if that failed.
    pub error: Option<String>,
    /// New path of a file that was damaged at the start.
    pub damaged: Option<PathBuf>,
}

/// The file of a running gate.
pub struct Snapshot {
    file: PathBuf,
    /// Locked while the file is being written.
    place: Mutex<Ownership>,
    report: Mutex<Report>,
}

#[derive(PartialEq, Eq)]
enum Ownership {
    Ours,
    /// The final file is written, or another process writes it.
    PassedOn,
}

impl Snapshot {
    /// A snapshot in `file`, which is neither read nor written.
    pub fn new(file: &Path) -> Self {
        let report = Report { file: file.to_owned(), ..Report::default() };
        let place = Mutex::new(Ownership::Ours);
        let report = Mutex::new(report);
        Self { file: file.to_owned(), place, report }
    }

    /// Reads `file`, if it exists, into `hub`, which is not in use yet; returns the stored replies
    /// in it, too.
    pub fn open(
        file: &Path,
        hub: &Hub,
        now: Time,
    ) -> Result<(Self, Vec<StoredReply>), SnapshotError> {
        let snapshot = Self::new(file);
        let mut remembered = Vec::new();
        remove_leftover(file);
        match read(file, hub, now) {
            Ok(Some((clean, answers))) => {
                remembered = answers;
                let channels = hub.channels();
                let bytes = hub.cost();
                tracing::info!(file = %file.display(), clean, channels, bytes, "history read");
                if !clean {
                    tracing::warn!(
                        "the last gate did not end in order: channels begin new epochs, and \
                         clients are told so"
                    );
                }
            }
            Ok(None) => tracing::info!(file = %file.display(), "no snapshot yet"),
            Err(ArchiveError::Io(error)) => {
                return Err(SnapshotError::Read(file.to_owned(), error));
            }
            Err(error) => snapshot.set_aside(&error),
        }
        snapshot.void(hub, &remembered)?;
        Ok((snapshot, remembered))
    }

    /// Makes sure that no process takes the file's contents for the complete history.
    fn void(&self, hub: &Hub, remembered: &[StoredReply]) -> Result<(), SnapshotError> {
        let Err(error) = self.write(hub, remembered) else { return Ok(()) };
        // A full disk is no reason not to start, if the old file can go.
        match fs::remove_file(&self.file) {
            Ok(()) => Ok(()),
            Err(_) => Err(SnapshotError::Write(self.file.clone(), error)),
        }
    }

    /// Makes sure of the same for a file that another process may have left, without a hub to
    /// write.
    pub fn forget_clean(&self) -> Result<(), SnapshotError> {
        let opened = File::open(&self.file).map_err(ArchiveError::from);
        let clean = opened.and_then(|file| Reader::begin(BufReader::new(file)));
        if !clean.is_ok_and(|reader| reader.is_clean()) {
            return Ok(());
        }
        fs::remove_file(&self.file).map_err(|error| SnapshotError::Write(self.file.clone(), error))
    }

    /// Moves a file that cannot be parsed out of the way.
    fn set_aside(&self, error: &ArchiveError) {
        let aside = format!("{}.damaged-{}", self.file.display(), seconds());
        let moved = fs::rename(&self.file, &aside);
        let file = self.file.display();
        match &moved {
            Ok(()) => tracing::error!(%file, %error, moved_to = aside, "starting without history"),
            Err(cannot_move) => {
                tracing::error!(%file, %error, %cannot_move, "starting without history");
            }
        }
        self.report.lock().damaged = moved.is_ok().then(|| aside.into());
    }

    /// Writes the file while the gate runs. Call it off the runtime's threads, with replies stored
    /// before: so their messages are in the hub by now.
    pub fn write(&self, hub: &Hub, remembered: &[StoredReply]) -> io::Result<()> {
        self.write_as(hub, remembered, false, &mut self.place.lock())
    }

    /// Writes the final file: no position may be given out any more.
    pub fn finish(&self, hub: &Hub, remembered: &[StoredReply]) -> io::Result<()> {
        let mut place = self.place.lock();
        self.write_as(hub, remembered, true, &mut place)?;
        *place = Ownership::PassedOn;
        Ok(())
    }

    /// Leaves the file to another process, or takes it `back`. Waits for a write under way.
    pub fn pass_on(&self, back: bool) {
        *self.place.lock() = if back { Ownership::Ours } else { Ownership::PassedOn };
    }

    /// The state of the snapshot.
    pub fn report(&self) -> Report {
        self.report.lock().clone()
    }

    fn write_as(
        &self,
        hub: &Hub,
        remembered: &[StoredReply],
        clean: bool,
        place: &mut Ownership,
    ) -> io::Result<()> {
        if *place == Ownership::PassedOn {
            return Ok(());
        }
        let written = write(&self.file, hub, remembered, clean);
        let mut report = self.report.lock();
        match &written {
            Ok(()) => {
                report.written = Some(seconds());
                if report.error.take().is_some() {
                    tracing::info!(file = %self.file.display(), "the snapshot is written again");
                }
            }
            Err(error) => {
                tracing::error!(file = %self.file.display(), %error, "cannot write the snapshot");
                report.error = Some(error.to_string());
            }
        }
        written
    }
}

/// True if the file was clean, and the stored replies in it.
type Found = (bool, Vec<StoredReply>);

/// Reads the file into `hub`; `None` if it does not exist. It is read twice, so that nothing of a
/// damaged one gets into the hub.
fn read(file: &Path, hub: &Hub, now: Time) -> Result<Option<Found>, ArchiveError> {
    let mut opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ArchiveError::Io(error)),
    };
    check_owner(&opened)?;
    Reader::begin(BufReader::new(&opened))?.verify()?;
    opened.rewind().map_err(ArchiveError::Io)?;
    let reader = Reader::begin(BufReader::new(&opened))?;
    let clean = reader.is_clean();
    let remembered = reader.restore(hub, !clean, now)?;
    Ok(Some((clean, remembered)))
}

/// Refuses a file that another user can have written: what is in it goes to clients.
fn check_owner(file: &File) -> Result<(), ArchiveError> {
    let about = file.metadata().map_err(ArchiveError::Io)?;
    if about.uid() != rustix::process::geteuid().as_raw() {
        return Err(ArchiveError::Damaged("it belongs to another user"));
    }
    if about.mode() & 0o022 != 0 {
        return Err(ArchiveError::Damaged("other users may write it; it has to have mode 0600"));
    }
    Ok(())
}

fn write(file: &Path, hub: &Hub, remembered: &[StoredReply], clean: bool) -> io::Result<()> {
    let new = beside(file);
    remove_leftover(file);
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = (|| {
        let mut writer = Writer::begin(BufWriter::new(opened), clean, hub.memory())?;
        remembered.iter().try_for_each(|one| writer.remembered(one))?;
        hub.presence().dump().iter().try_for_each(|one| writer.member(one))?;
        hub.traces().try_for_each(|trace| writer.channel(&trace))?;
        let opened = writer.end()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        opened.sync_all()?;
        fs::rename(&new, file)?;
        // The new name is only as durable as its folder.
        File::open(folder(file))?.sync_all()
    })();
    if written.is_err() {
        // The earlier error is the one that matters.
        let _ = fs::remove_file(&new);
    }
    written
}

/// Path of the file while it is being written.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Removes the leftover of a process that was killed.
fn remove_leftover(file: &Path) {
    // If it exists and stays, creating it reports that.
    let _ = fs::remove_file(beside(file));
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reason why there can be no snapshot at that path, as far as a check without touching it shows.
pub fn objection(file: &Path) -> Option<String> {
    if file.is_dir() {
        return Some(format!("{} is a folder; name a file", file.display()));
    }
    let folder = folder(file);
    (!folder.is_dir()).then(|| format!("there is no folder {}; create it", folder.display()))
}

fn seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}
