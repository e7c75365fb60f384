//! Readers of data that outlives a process, or passes from one to the next: the archive, the
//! snapshot's file, the words of a handover.

use crate::hub::channel::{Message, Time};
use crate::hub::{ChannelDump, Hub, Settings};
use crate::protocol::archive::{ArchiveError, Reader, StoredReply, Writer};
use pollgate::server::persist::handover::{NewProcess, OldProcess, Ready};
use pollgate::server::persist::snapshot::Snapshot;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const NOW: Time = Time(1_700_000_000_000_000);

fn hub() -> Hub {
    Hub::new(Settings::default(), 1)
}

/// Raw, and cut into frames with valid checksums. An archive that is read is written and read the
/// same again, and refused with a byte changed or its end cut off.
pub fn archive(data: &[u8]) {
    let _ = Reader::begin(data).and_then(Reader::verify);
    let Some((&odd, data)) = data.split_first() else { return };
    let Ok(first) = restored(&framed(data)) else { return };
    let written = archived(&first);
    let again = restored(&written).unwrap_or_else(|error| panic!("written by ourselves: {error}"));
    assert_eq!(told(&again), told(&first), "it reads otherwise than it was written");

    let at = usize::from(odd) * written.len() / 256;
    assert!(restored(&written[..at]).is_err(), "cut off at {at}");
    let mut damaged = written;
    damaged[at] ^= 1 << (odd % 8);
    assert!(restored(&damaged).is_err(), "damaged at {at}");
}

/// The stream of these frames: length, kind, payload.
fn framed(data: &[u8]) -> Vec<u8> {
    let mut framed = b"pollgate-history\x02\0\0\0".to_vec();
    let mut rest = data;
    while let [length, kind, payload @ ..] = rest {
        let (payload, after) = payload.split_at(payload.len().min(usize::from(*length)));
        let mut frame = vec![*kind];
        frame.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        frame.extend_from_slice(payload);
        framed.extend_from_slice(&frame);
        framed.extend_from_slice(&crc32fast::hash(&frame).to_le_bytes());
        rest = after;
    }
    framed
}

/// A table, and the answers that are remembered beside it.
type Kept = (Hub, Vec<StoredReply>);

fn restored(bytes: &[u8]) -> Result<Kept, ArchiveError> {
    Reader::begin(bytes)?.verify()?;
    let hub = hub();
    let remembered = Reader::begin(bytes)?.restore(&hub, false, NOW)?;
    Ok((hub, remembered))
}

fn archived((hub, remembered): &Kept) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), true, hub.memory()).expect("memory takes all");
    remembered.iter().for_each(|answer| writer.remembered(answer).expect("memory takes all"));
    hub.traces().for_each(|trace| writer.channel(&trace).expect("memory takes all"));
    writer.end().expect("memory takes all")
}

/// All that was kept, the channels sorted by name.
fn told((hub, remembered): &Kept) -> Vec<String> {
    let trace = |trace: ChannelDump| {
        // Not their tags, by which one process knows them.
        let kept = |message: &Arc<Message>| {
            format!("{:?}", (message.position, message.stamp, message.published, &message.payload))
        };
        let messages: Vec<_> = trace.messages.iter().map(kept).collect();
        format!("{:?} {:?} {:?} {messages:?}", trace.channel, trace.used, trace.kept)
    };
    let mut all: Vec<_> = hub.traces().map(trace).collect();
    all.sort();
    all.push(format!("{:?} {remembered:?}", hub.memory()));
    all
}

/// A file of these bytes, or of these frames: the gate starts with it or moves it aside, leaves
/// one that is not clean, and finds in that what it had.
pub fn snapshot(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    let file = place("snapshot");
    let bytes = if kind % 2 == 0 { framed(data) } else { data.to_vec() };
    let sound = restored(&bytes).is_ok();
    fs::write(&file, &bytes).expect("a file of our own");

    let hub = self::hub();
    let opened = Snapshot::open(&file, &hub, NOW);
    let (snapshot, remembered) = opened.expect("a file that can be read");
    let report = snapshot.report();
    assert_eq!(report.damaged.is_none(), sound, "{report:?}");
    if let Some(aside) = &report.damaged {
        assert!(fs::read(aside).expect("moved there") == bytes);
        fs::remove_file(aside).expect("our own");
        assert_eq!(hub.channels(), 0, "something of a damaged file got into the hub");
    }
    let now = fs::read(&file).expect("written again");
    assert!(!Reader::begin(&now[..]).expect("ours").is_clean(), "positions are given out by now");
    snapshot.finish(&hub, &remembered).expect("a file of our own");
    let next = self::hub();
    let (_, again) = Snapshot::open(&file, &next, NOW).expect("ours");
    let kept = (hub, remembered);
    let next = (next, again);
    assert_eq!(told(&next), told(&kept), "the next gate has another history");
}

/// A file of this process alone, in memory where there is such a place.
pub fn place(name: &str) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("pollgate-fuzz-{}-{name}", std::process::id()))
}

/// All input from the other process, to the old one and to the new one: raw, and cut into words
/// with their lengths before them.
pub fn handover(data: &[u8]) {
    for said in [data.to_vec(), words(data)] {
        let (near, _far) = hears(&said);
        if let Ok(giver) = OldProcess::begin(near) {
            let history = |mut to: std::io::BufWriter<&UnixStream>| to.write_all(b"history");
            let _ = giver.sockets(&[]).and_then(|()| giver.ready()).and_then(|ready| {
                ready.address();
                giver.history(history).and_then(|()| giver.go())
            });
        }
        let (near, _far) = hears(&said);
        let Ok((taker, sockets)) = NewProcess::begin(near) else { continue };
        assert!(sockets.is_empty(), "sockets out of nothing");
        let internal = "127.0.0.1:1".to_owned();
        let token = String::new();
        if let Ok(history) = taker.ready(Ready { internal, token, upgrade: true }) {
            let _ = Reader::begin(history).and_then(|reader| reader.restore(&hub(), false, NOW));
            let _ = taker.loaded();
        }
    }
}

/// A line is a word.
fn words(data: &[u8]) -> Vec<u8> {
    let mut said = Vec::new();
    for word in data.split(|byte| *byte == b'\n') {
        said.extend_from_slice(&(word.len() as u32).to_le_bytes());
        said.extend_from_slice(word);
    }
    said
}

/// A socket with all input sent, and its far end, which stays open for answers.
fn hears(said: &[u8]) -> (UnixStream, UnixStream) {
    let (near, mut far) = UnixStream::pair().expect("a pair of sockets");
    far.write_all(said).expect("there is room for so little");
    far.shutdown(Shutdown::Write).expect("it is connected");
    (near, far)
}
