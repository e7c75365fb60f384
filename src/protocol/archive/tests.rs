use super::*;
use crate::hub::channel::{ChannelName, Kind as Content, Payload, SiteName, Time};
use crate::hub::presence::MemberDump;
use crate::hub::{Hub, Settings};
use proptest::prelude::*;

const NOW: Time = Time(1_700_000_000_000_000);

fn hub() -> Hub {
    let hub = Hub::new(Settings::default(), 1);
    let json = Payload {
        kind: Content::Json,
        content_type: "application/json".into(),
        body: r#"{"a":1}"#.into(),
    };
    let bytes = Payload {
        kind: Content::Binary,
        content_type: "image/png".into(),
        body: vec![0xff; 300].into(),
    };
    let posts =
        [("a", Payload::text("eins")), ("b", json), ("a", bytes), ("ä/2", Payload::empty())];
    for (micros, (channel, payload)) in (1..).zip(posts) {
        let now = Time(NOW.0 + micros);
        hub.publish(&[(ChannelName::new(channel).unwrap(), payload)], now).unwrap();
    }
    hub
}

fn archived(hub: &Hub, clean: bool) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), clean, hub.memory()).unwrap();
    for trace in hub.traces() {
        writer.channel(&trace).unwrap();
    }
    writer.end().unwrap()
}

#[test]
fn users_are_written_and_read_back_and_what_is_no_user_is_damage() {
    let member = |user: &str, info: Option<&str>| MemberDump {
        channel: ChannelName::new("ä/2").unwrap(),
        user: user.into(),
        info: info.map(Into::into),
        since: NOW,
        present: true,
        announced: true,
    };
    let of = |members: &[MemberDump]| {
        let hub = hub();
        let mut writer = Writer::begin(Vec::new(), true, hub.memory()).unwrap();
        members.iter().for_each(|one| writer.member(one).unwrap());
        hub.traces().for_each(|trace| writer.channel(&trace).unwrap());
        writer.end().unwrap()
    };
    let members = [member("7", None), member("ünï", Some("{\"name\":\"A\"}"))];
    let mut again = restored(&of(&members)).unwrap().presence().dump();
    again.sort_by(|a, b| a.user.cmp(&b.user));
    assert_eq!(again, members);
    // The same user on a channel of the same name, at two sites.
    let at = |site: &str| {
        let member = member("7", None);
        let channel = member.channel.clone().in_site(&SiteName::new(site).unwrap());
        MemberDump { channel, ..member }
    };
    let members = [at("blog"), at("shop")];
    let mut again = restored(&of(&members)).unwrap().presence().dump();
    again.sort_by(|a, b| a.channel.cmp(&b.channel));
    assert_eq!(again, members);
    for bad in [member("", None), member(&"x".repeat(256), None), member("7", Some("{no json"))] {
        assert!(matches!(restored(&of(&[bad])), Err(ArchiveError::Damaged(_))));
    }
}

fn remembered(key: &str) -> StoredReply {
    let text = str::to_owned;
    StoredReply {
        method: text("POST"),
        path: text("/publish"),
        key: text(key),
        since: NOW,
        print: [1, u64::MAX],
        status: 200,
        content_type: text("application/json"),
        headers: vec![(text("X-A"), text("b"))],
        body: "{}".into(),
    }
}

/// `bytes` of an archive without stored responses, as version 1 wrote them.
fn of_version_1(mut bytes: Vec<u8>, channels: u64, messages: u64) -> Vec<u8> {
    bytes[MAGIC.len()] = 1;
    let start = MAGIC.len() + 4;
    let length = 9 + 1 + 3 * 8 + 4;
    let mut dump = Vec::new();
    let payload = &bytes[start + 9..start + 9 + 17];
    frame::Payload::default().write(Kind::Dump, payload, &mut dump).unwrap();
    bytes.splice(start..start + length, dump);
    let end = 9 + 4 * 8 + 4;
    bytes.truncate(bytes.len() - end);
    let end = frame::Payload::default().number(channels).number(messages);
    end.write(Kind::End, &[], &mut bytes).unwrap();
    bytes
}

fn restored(bytes: &[u8]) -> Result<Hub, ArchiveError> {
    Reader::begin(bytes)?.verify()?;
    let hub = Hub::new(Settings::default(), 2);
    Reader::begin(bytes)?.restore(&hub, false, NOW)?;
    Ok(hub)
}

#[test]
fn what_is_written_is_read_back() {
    let hub = hub();
    let bytes = archived(&hub, true);
    assert!(Reader::begin(&bytes[..]).unwrap().is_clean());
    let again = restored(&bytes).unwrap();
    assert_eq!(again.cost(), hub.cost());
    assert!(archived(&again, true) == bytes);
    assert!(!Reader::begin(&archived(&hub, false)[..]).unwrap().is_clean());
}

#[test]
fn what_the_version_before_wrote_is_read() {
    let hub = hub();
    let bytes = archived(&hub, true);
    let again = restored(&of_version_1(bytes.clone(), 3, 4)).unwrap();
    // Only the clock is another one.
    assert!(of_version_1(archived(&again, true), 3, 4) == of_version_1(bytes.clone(), 3, 4));
    assert!(restored(&of_version_1(bytes, 3, 3)).is_err());
}

#[test]
fn answers_are_remembered_in_their_order() {
    let hub = hub();
    let both = [remembered("a"), StoredReply { headers: Vec::new(), ..remembered("b") }];
    let mut writer = Writer::begin(Vec::new(), true, hub.memory()).unwrap();
    both.iter().for_each(|one| writer.remembered(one).unwrap());
    hub.traces().for_each(|trace| writer.channel(&trace).unwrap());
    let bytes = writer.end().unwrap();
    Reader::begin(&bytes[..]).unwrap().verify().unwrap();
    let again = Hub::new(Settings::default(), 2);
    assert_eq!(Reader::begin(&bytes[..]).unwrap().restore(&again, false, NOW).unwrap(), both);
    assert_eq!(again.channels(), hub.channels());
}

#[test]
fn an_archive_cut_off_anywhere_is_refused() {
    let bytes = archived(&hub(), true);
    for length in 0..bytes.len() {
        let error = restored(&bytes[..length]).map(|_| ()).unwrap_err();
        let expected = if length < MAGIC.len() {
            matches!(error, ArchiveError::Foreign)
        } else {
            matches!(error, ArchiveError::CutOff)
        };
        assert!(expected, "{length}: {error}");
    }
}

#[test]
fn a_changed_bit_anywhere_is_noticed() {
    let bytes = archived(&hub(), true);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert!(restored(&changed).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn another_file_and_another_version_are_told_apart_from_damage() {
    assert!(matches!(restored(b"<?php echo 'hello, world';"), Err(ArchiveError::Foreign)));
    assert!(matches!(restored(b""), Err(ArchiveError::Foreign)));
    let mut bytes = archived(&hub(), true);
    bytes[MAGIC.len()] = 9;
    assert!(matches!(restored(&bytes), Err(ArchiveError::Version(9))));
}

#[test]
fn a_frame_that_promises_endless_bytes_takes_no_memory_for_them() {
    let bytes = archived(&hub(), true);
    let mut huge = bytes[..MAGIC.len() + 4].to_vec();
    huge.push(Kind::Dump as u8);
    huge.extend_from_slice(&u64::MAX.to_le_bytes());
    huge.extend_from_slice(b"little");
    assert!(matches!(restored(&huge), Err(ArchiveError::CutOff)));
}

#[test]
fn sound_frames_that_make_no_sense_are_refused() {
    let archive = |name: &str, numbers: [u64; 7]| {
        let memory = Hub::new(Settings::default(), 1).memory();
        let mut writer = Writer::begin(Vec::new(), true, memory).unwrap();
        let head = numbers.into_iter().fold(frame::Payload::default(), frame::Payload::number);
        head.write(Kind::Channel, name.as_bytes(), &mut writer.to).unwrap();
        writer.channels += 1;
        restored(&writer.end().unwrap()).map(|_| ())
    };
    assert!(archive("a", [1, 2, 3, 4, 5, 6, 0]).is_ok());
    for (name, numbers) in [
        ("", [1, 2, 3, 4, 5, 6, 0]),
        ("a\n", [1, 2, 3, 4, 5, 6, 0]),
        ("a", [u64::MAX, 2, 3, 4, 5, 6, 0]),
        ("a", [1, 2, u64::MAX, 4, 5, 6, 0]),
        ("a", [1, 2, 3, u64::MAX, 5, 6, 0]),
        ("a", [1, 2, 3, 4, 5, 6, 4]),
        ("a", [1, 2, 3, 4, 5, 6, 1]),
    ] {
        assert!(archive(name, numbers).is_err(), "{name:?} {numbers:?}");
    }
}

proptest! {
    #[test]
    fn whatever_follows_the_version_nothing_panics(rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&rest);
        prop_assert!(restored(&bytes).is_err());
    }
}
