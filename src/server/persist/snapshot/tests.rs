use super::*;
use crate::hub::channel::{ChannelName, Cursor, Payload, Take};
use crate::hub::{self, Subscription};
use std::os::unix::fs::PermissionsExt;

const NOW: Time = Time(1_700_000_000_000_000);

/// A folder of its own, removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("pollgate-snapshot-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("history")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(|entry| name(entry).into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn hub() -> Hub {
    Hub::new(hub::Settings::default(), fastrand::u64(..))
}

fn publish(hub: &Hub, text: &'static str) {
    let name = ChannelName::new("c").unwrap();
    hub.publish(&[(name, Payload::text(text))], NOW).unwrap();
}

fn epoch(hub: &Hub) -> crate::hub::channel::Epoch {
    hub.info(&ChannelName::new("c").unwrap(), NOW).unwrap().epoch
}

fn kept(hub: &Hub) -> Vec<String> {
    let subscription =
        Subscription { channel: ChannelName::new("c").unwrap(), cursor: Cursor::Oldest };
    let update = hub.read(&subscription, Take::All, NOW);
    let text = |message: &std::sync::Arc<crate::hub::channel::Message>| {
        String::from_utf8(message.payload.body.to_vec()).unwrap()
    };
    update.map_or(Vec::new(), |update| update.found.messages.iter().map(text).collect())
}

#[test]
fn a_finished_snapshot_goes_on_and_one_that_was_not_begins_anew() {
    let folder = Folder::new("goes-on");
    let first = hub();
    let (snapshot, _) = Snapshot::open(&folder.file(), &first, NOW).unwrap();
    publish(&first, "one");
    snapshot.finish(&first, &[]).unwrap();
    publish(&first, "too late");
    snapshot.write(&first, &[]).unwrap();

    let second = hub();
    let (snapshot, _) = Snapshot::open(&folder.file(), &second, NOW).unwrap();
    assert_eq!((epoch(&second), kept(&second)), (epoch(&first), vec!["one".to_owned()]));
    publish(&second, "two");
    snapshot.write(&second, &[]).unwrap();
    assert_eq!(snapshot.report().error, None);

    // The second was never finished.
    let third = hub();
    Snapshot::open(&folder.file(), &third, NOW).unwrap();
    assert_ne!(epoch(&third), epoch(&second));
    assert_eq!(kept(&third), ["one", "two"]);
}

#[test]
fn a_clean_file_is_void_as_soon_as_it_is_read() {
    let folder = Folder::new("void");
    let first = hub();
    publish(&first, "one");
    Snapshot::new(&folder.file()).finish(&first, &[]).unwrap();
    Snapshot::open(&folder.file(), &hub(), NOW).unwrap();
    let again = hub();
    Snapshot::open(&folder.file(), &again, NOW).unwrap();
    assert_ne!(epoch(&again), epoch(&first));

    Snapshot::new(&folder.file()).finish(&first, &[]).unwrap();
    Snapshot::new(&folder.file()).forget_clean().unwrap();
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[test]
fn the_file_is_private_and_alone() {
    let folder = Folder::new("private");
    fs::write(beside(&folder.file()), "left behind").unwrap();
    let (snapshot, _) = Snapshot::open(&folder.file(), &hub(), NOW).unwrap();
    snapshot.finish(&hub(), &[]).unwrap();
    assert_eq!(folder.names(), ["history"]);
    let mode = fs::metadata(folder.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_file_that_is_not_understood_is_set_aside_whole() {
    let folder = Folder::new("damaged");
    let whole = hub();
    publish(&whole, "one");
    Snapshot::new(&folder.file()).finish(&whole, &[]).unwrap();
    let mut bytes = fs::read(folder.file()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(folder.file(), &bytes).unwrap();

    let hub = hub();
    let report = Snapshot::open(&folder.file(), &hub, NOW).unwrap().0.report();
    assert_eq!(hub.channels(), 0);
    let damaged = report.damaged.unwrap();
    assert!(damaged.display().to_string().contains("history.damaged-1"), "{damaged:?}");
    assert_eq!(fs::read(damaged).unwrap(), bytes);
    assert_eq!(report.error, None);
}

#[test]
fn a_place_that_cannot_be_written_is_told() {
    let folder = Folder::new("unwritable");
    let nowhere = folder.0.join("none/history");
    assert!(objection(&nowhere).unwrap().contains("there is no folder"));
    assert!(objection(&folder.0).unwrap().contains("is a folder"));
    assert_eq!(objection(&folder.file()), None);
    assert!(matches!(Snapshot::open(&nowhere, &hub(), NOW), Err(SnapshotError::Write(..))));
    let snapshot = Snapshot::new(&nowhere);
    assert!(snapshot.write(&hub(), &[]).is_err());
    assert!(snapshot.report().error.is_some());
}

#[test]
fn a_file_that_another_user_may_have_written_is_set_aside() {
    type Change = fn(&Path);
    let append = |file: &Path| {
        let mut bytes = fs::read(file).unwrap();
        bytes.push(0);
        fs::write(file, bytes).unwrap();
    };
    let mode = |file: &Path| fs::set_permissions(file, fs::Permissions::from_mode(0o620)).unwrap();
    // Only root can give a file away.
    let give = |file: &Path| {
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(file, Some(65534), None).unwrap();
        } else {
            fs::set_permissions(file, fs::Permissions::from_mode(0o602)).unwrap();
        }
    };
    for (name, change) in [("append", append as Change), ("mode", mode), ("owner", give)] {
        let folder = Folder::new(&format!("foreign-{name}"));
        let first = hub();
        let (snapshot, _) = Snapshot::open(&folder.file(), &first, NOW).unwrap();
        publish(&first, "one");
        snapshot.finish(&first, &[]).unwrap();
        change(&folder.file());
        let second = hub();
        let (snapshot, _) = Snapshot::open(&folder.file(), &second, NOW).unwrap();
        assert_eq!(second.channels(), 0, "{name}");
        assert!(snapshot.report().damaged.is_some(), "{name}");
        assert!(folder.names().iter().any(|file| file.contains("damaged")), "{name}");
        let mode = fs::metadata(folder.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
