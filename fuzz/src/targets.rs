//! The targets by name.

use crate::adopt::{File, Site, config_for};
use crate::hub::channel::{ChannelName, Kind, Position, SiteName, Tick, Time};
use crate::hub::{Hub, Settings};
use crate::protocol::auth::secret::Secret;
use crate::protocol::auth::{jwt, signed};
use crate::protocol::dialect::native::{Native, cursor};
use crate::protocol::dialect::nchan::Nchan;
use crate::protocol::dialect::novcomet::NovComet;
use crate::protocol::dialect::stream::Transport;
use crate::protocol::dialect::timestamp::Timestamp;
use crate::protocol::dialect::{Dialect, Parsed, Request};
use crate::protocol::http::form::{Encoding, Purpose};
use crate::protocol::http::framing::Framing;
use crate::protocol::http::query::{Query, decode_strictly, masked};
use crate::protocol::http::response_head;
use crate::protocol::http::validate as strict;
use crate::protocol::template::Template;
use crate::server::gate::front;
use crate::server::{backplane, publish};
use crate::{keeping, protocols, settings};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use std::sync::OnceLock;

const NOW: Time = Time(1_700_000_000_000_000);
const SECRET: &str = "a secret of 32 bytes, or of more";

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 22] = [
    ("query", query),
    ("cursor", read_cursor),
    ("head", head),
    ("agreement", agreement),
    ("answer", answer),
    ("dialects", dialects),
    ("hook", hook),
    ("form", form),
    ("announced", announced),
    ("envelope", envelope),
    ("archive", keeping::archive),
    ("snapshot", keeping::snapshot),
    ("handover", keeping::handover),
    ("config", settings::config),
    ("tokens", tokens),
    ("template", template),
    ("adopt", adopt),
    ("websocket", protocols::websocket),
    ("pusher", protocols::frames),
    ("rest", protocols::rest),
    ("mercure", protocols::mercure),
    ("grip", protocols::grip),
];

/// The target that the environment names.
pub fn chosen() -> Target {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("TARGET").unwrap_or_default();
        let target = TARGETS.iter().find(|(known, _)| *known == name);
        target.unwrap_or_else(|| panic!("TARGET is none of {:?}", TARGETS.map(|(name, _)| name))).1
    })
}

fn query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let query = Query::parse(&text);
    for name in ["a", "t[]", "t"] {
        let _ = (query.text(name), query.has_value(name), query.entries(name));
    }
    let _ = (decode_strictly(&text), masked(&text, &["a".to_owned()]));
}

fn read_cursor(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = cursor(&ChannelName::new("a").expect("a name"), &text);
    if let Ok(position) = text.parse::<Position>() {
        assert_eq!(position.to_string().parse(), Ok(position));
    }
}

/// Beside a reader that knows no more of HTTP than that lines end in CRLF.
fn head(data: &[u8]) {
    let Some((seen, bytes)) = data.split_first() else { return };
    let whole = front::plain(bytes, 0);
    let torn = usize::from(*seen).min(bytes.len());
    if !bytes[..torn].windows(4).any(|end| end == b"\r\n\r\n") {
        assert_eq!(front::plain(bytes, torn), whole, "read in pieces");
    }
    let Some((method, target, plain)) = whole else { return };
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes).into_owned();
    let text = text.split("\r\n\r\n").next().unwrap_or_default();
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    assert!(first.starts_with(&format!("{method} {target} ")), "{first:?}");
    let special = ["content-length", "transfer-encoding", "upgrade", "expect"];
    let names = lines.filter_map(|line| line.split(':').next());
    let special = names.map(str::to_ascii_lowercase).any(|name| special.contains(&&*name));
    let simple = method == "GET" && target.starts_with('/') && first.ends_with(" HTTP/1.1");
    if plain {
        assert!(simple && !special, "taken for a plain poll: {text:?}");
    }
    if strict::host_name(&target).is_some() {
        assert!(!plain);
    }
}

/// The lane and pingora see the same request.
fn agreement(data: &[u8]) {
    let Some((came, bytes)) = data.split_first() else { return };
    front::agreement::check(bytes, usize::from(*came) * 8);
}

/// The head and the body of a site's answer, whole and in pieces of a few bytes.
fn answer(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    let whole = response_head::end(bytes, 0);
    let mut torn = Ok(None);
    for seen in (0..bytes.len()).step_by(piece) {
        torn = response_head::end(&bytes[..(seen + piece).min(bytes.len())], seen);
        if torn != Ok(None) {
            break;
        }
    }
    if let Ok(Some(end)) = whole {
        assert_eq!(torn, whole, "read in pieces");
        let Ok(head) = response_head::ResponseHead::parse(&bytes[..end]) else { return };
        let mut at_once = head.framing(false);
        let mut in_pieces = head.framing(false);
        let data = |framing: &mut Framing, mut rest: &[u8]| {
            let mut all = Vec::new();
            while let Some(data) = framing.data(&mut rest).ok().filter(|data| !data.is_empty()) {
                all.extend_from_slice(data);
            }
            all
        };
        let body = &bytes[end..];
        let once = data(&mut at_once, body);
        let torn: Vec<u8> =
            body.chunks(piece).flat_map(|part| data(&mut in_pieces, part)).collect();
        assert!(torn.starts_with(&once), "another body");
        assert!(once.len() <= body.len());
    }
}

fn dialects(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let (rest, text) = text.split_once('?').unwrap_or(("a", &text));
    let template: Template = "room-{query.room}".parse().expect("a template");
    let dialect = match kind % 5 {
        0 => Dialect::Native(Native { channel: None, callback: Some("callback".to_owned()) }),
        1 => Dialect::NovComet(NovComet::default()),
        2 => Dialect::Timestamp(Timestamp::new(template)),
        3 => Dialect::Nchan(Nchan::default()),
        _ => Dialect::Native(Native { channel: Some(template), callback: None }),
    };
    let query = Query::parse(text);
    let headers = http::HeaderMap::new();
    let transport = Transport::Poll;
    let site = &SiteName::NONE;
    let form = None;
    let request =
        Request { stars: &[rest], query: &query, form, headers: &headers, transport, site };
    if let Parsed::Poll(poll) = dialect.parse(&request, &|_| Tick::default()) {
        let hub = Hub::new(Settings::default(), 1);
        let answer = hub.look(&poll.subscriptions, poll.take, NOW).expect("there is room");
        dialect.render(&answer, poll.callback.as_deref());
    }
}

fn hook(data: &[u8]) {
    publish::hook::read("application/json", data);
    publish::hook::read("application/x-www-form-urlencoded", data);
}

/// A POST poll's body; its content type stands before it on a line of its own.
fn form(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (kind, body) = text.split_once('\n').unwrap_or(("", &text));
    let Ok(Some(encoding)) = Encoding::of(kind) else { return };
    for files in [Purpose::Poll, Purpose::Capture] {
        if let Ok(form) = encoding.parse(body.as_bytes(), files) {
            let _ = (form.text("a"), form.entries("a"));
        }
    }
}

fn announced(data: &[u8]) {
    let mut headers = http::HeaderMap::new();
    for value in data.split(|byte| *byte == b'\n') {
        if let Ok(value) = http::HeaderValue::from_bytes(value) {
            headers.append("pollgate-publish", value);
        }
    }
    publish::capture::announced(&headers);
}

/// A message that is written as it was read is read as the same.
fn envelope(data: &[u8]) {
    let Some(message) = backplane::read(data) else { return };
    let position = message.position;
    let payload = &message.payload;
    let letter = match payload.kind {
        Kind::Json => "j",
        Kind::Text => "t",
        Kind::Binary => "b",
    };
    assert!(data.ends_with(&payload.body));
    assert!(payload.kind == Kind::Binary || std::str::from_utf8(&payload.body).is_ok());
    let epoch = position.epoch.number();
    let seq = position.seq;
    let stamp = message.stamp.0;
    let published = message.published.0;
    let kind = &payload.content_type;
    let mut again = format!("{epoch} {seq} {stamp} {published} {letter} {kind}\n").into_bytes();
    again.extend_from_slice(&payload.body);
    let again = backplane::read(&again).expect("written as it was read");
    assert_eq!(again.position, position);
    assert_eq!((again.stamp, again.published), (message.stamp, message.published));
    assert!(again.payload == *payload);
}

/// As they are, and with a right signature.
fn tokens(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let keys = signed::Keys::new([("k".to_owned(), Secret::new(SECRET))]);
    let _ = keys.grant(&text, 0);
    let body = format!("k.{text}");
    let hex: String = hmac::sign(&key, body.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let _ = keys.grant(&format!("{body}.{hex}"), 0);

    let key_of_jwt = jwt::Key::new(SECRET).expect("a key");
    let verifier = jwt::Verifier::new(vec![key_of_jwt], jwt::Expected::default());
    let _ = verifier.grant(&text, 0);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let body = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(data));
    let signature = encode(hmac::sign(&key, body.as_bytes()).as_ref());
    let _ = verifier.grant(&format!("{body}.{signature}"), 0);
}

fn template(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(template) = text.parse::<Template>() {
        let _ = template.only_field();
        assert!(template.fill(|_| Some("x".into())).is_some());
    }
}

fn adopt(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let files = vec![File { path: "a.php".to_owned(), text }];
    config_for(&Site { root: "/srv/www".to_owned(), files, left_out: Vec::new() });
}
