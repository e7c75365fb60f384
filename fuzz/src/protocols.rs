//! Readers of the protocols besides polls: WebSocket, Pusher, Mercure, GRIP.

use crate::hub::channel::SiteName;
use crate::protocol::auth::secret::Secret;
use crate::protocol::grip::events::{self, Event};
use crate::protocol::grip::{self, Instruct, Item, link, params, patch};
use crate::protocol::http::Request;
use crate::protocol::http::websocket::{self, CloseCode, Incoming, Messages, Opcode};
use crate::protocol::mercure::{Parameters, Selectors};
use crate::protocol::pusher::{self, App, Member, Signer, channel, event, lines, rest};
use bytes::{Bytes, BytesMut};
use serde_json::Value;

/// The longest message of a socket here.
const MAX_MESSAGE: usize = 300;
const NOW: u64 = 1_700_000_000;

/// A client's frames read at once and in pieces are the same messages, and end for the same reason.
/// The first bytes are the pieces' length and, if odd, have the frames masked here.
pub fn websocket(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else { return };
    let bytes = if piece % 2 == 0 { data.to_vec() } else { masked(data) };
    let whole = messages(&bytes, bytes.len().max(1));
    let torn = messages(&bytes, usize::from(*piece).max(1));
    assert_eq!(whole, torn, "read in pieces");
    for incoming in &whole.0 {
        match incoming {
            Incoming::Text(text) => {
                assert!(text.len() <= MAX_MESSAGE && std::str::from_utf8(text).is_ok());
            }
            Incoming::Binary(bytes) => assert!(bytes.len() <= MAX_MESSAGE),
            Incoming::Ping(payload) => assert!(payload.len() <= 125),
            Incoming::Close(payload) => match websocket::close_answer(payload) {
                Ok(code) => assert!((1000..5000).contains(&code)),
                Err(code) => assert!(matches!(code, CloseCode::Protocol | CloseCode::Invalid)),
            },
            Incoming::Pong => {}
        }
    }
    let close = websocket::close(CloseCode::Policy, &String::from_utf8_lossy(data));
    assert!(close.len() <= 127 && std::str::from_utf8(&close[4..]).is_ok());
    assert_eq!(websocket::frame(Opcode::Text, data)[0], 0x81);
}

/// Frames of these bytes, each by its first byte, its length and its payload.
fn masked(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = data;
    while let [first, length, payload @ ..] = rest {
        let (payload, after) = payload.split_at(payload.len().min(usize::from(*length)));
        out.push(*first);
        match payload.len() {
            short @ ..126 => out.push(0x80 | short as u8),
            long => out.extend_from_slice(&[0x80 | 126, 0, long as u8]),
        }
        let mask = [1, 2, 3, 4];
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        rest = after;
    }
    out
}

fn messages(bytes: &[u8], piece: usize) -> (Vec<Incoming>, Option<CloseCode>) {
    let mut messages = Messages::default();
    let mut pending = BytesMut::new();
    let mut all = Vec::new();
    for piece in bytes.chunks(piece) {
        pending.extend_from_slice(piece);
        loop {
            match messages.next(&mut pending, MAX_MESSAGE) {
                Ok(Some(incoming)) => all.push(incoming),
                Ok(None) => break,
                Err(code) => return (all, Some(code)),
            }
        }
    }
    (all, None)
}

fn app() -> App {
    App {
        site: SiteName::NONE,
        id: "app".into(),
        key: "key".into(),
        signer: Signer::new(Secret::new("a secret of 32 bytes, or of more")),
        client_events: true,
        origins: Vec::new(),
        max_event: 1000,
    }
}

/// A client's frames, and what it sends over the fallbacks.
pub fn frames(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(command) = pusher::parse(&text) {
        // Shown without a panic, whatever is in it.
        let _ = format!("{command:?}");
    }
    let _ = (Member::of_channel(&text), Member::of_user(&text), pusher::watchlist(&text));
    let _ = (channel::Kind::of(&text), channel::is_name(&text), channel::is_cache(&text));
    if let Ok(frames) = lines::read(data) {
        let elements: Vec<Bytes> =
            frames.iter().map(|frame| lines::element(frame).into()).collect();
        let line = lines::frames(&elements);
        let inside = line.strip_prefix(b"a").and_then(|line| line.strip_suffix(b"\n"));
        assert_eq!(lines::read(inside.expect("a line of frames")), Ok(frames));
        assert_eq!(
            lines::units(&line),
            String::from_utf8_lossy(&line).encode_utf16().count(),
            "another length than a browser's"
        );
    }
    let socket = pusher::SocketId::from_random(data.len() as u64);
    assert!(pusher::SocketId::is_valid(&socket.to_string()));
    let _ = (pusher::SocketId::is_valid(&text), event::Mark::of(&text));
}

/// A site's signed request: as it came, and with a right signature. The query, a line end, the body.
pub fn rest(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (query, body) = text.split_once('\n').unwrap_or((&text, ""));
    let app = app();
    let ask = |query: &str| {
        let target = format!("/apps/app/events?{query}");
        let mut request = Request::new(http::Method::POST, &target);
        request.body = Bytes::copy_from_slice(body.as_bytes());
        request
    };
    let _ = rest::authorize(&app, &ask(query), NOW);
    // Signed as the libraries do it: the parameters in their order.
    let md5 = format!("{:x}", md5::compute(body));
    let signed = format!("auth_key=key&auth_timestamp={NOW}&auth_version=1.0&body_md5={md5}");
    let signature = app.signer.sign(format!("POST\n/apps/app/events\n{signed}").as_bytes());
    let good = format!("{signed}&auth_signature={signature}");
    if !body.is_empty() {
        assert_eq!(rest::authorize(&app, &ask(&good), NOW), Ok(()));
    }
    // With a parameter more it does not hold.
    assert!(rest::authorize(&app, &ask(&format!("{good}&x={}", query.len())), NOW).is_err());
    for most in [10, 1000] {
        if let Ok(trigger) = rest::events(body.as_bytes(), most) {
            let _ = format!("{trigger:?}");
        }
        let _ = rest::batch(body.as_bytes(), most).map(|all| assert!(all.len() <= rest::MAX_BATCH));
    }
    let _ = rest::Info::of(Some(query));
}

/// Topic selectors, one a line, and a topic in the last. A topic always selects itself.
pub fn mercure(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut texts: Vec<&str> = text.split('\n').collect();
    let topic = texts.pop().unwrap_or_default();
    if let Ok(selectors) = Selectors::new(&texts) {
        let selected = selectors.select(topic);
        let all = texts.contains(&"*");
        assert!(!(all || texts.contains(&topic)) || selected, "{texts:?} {topic:?}");
        let plain = texts.iter().all(|text| !text.contains('{'));
        assert!(!plain || selected == (all || texts.contains(&topic)), "{texts:?} {topic:?}");
        let _ = (selectors.template_bytes(), selectors.cost());
    }
    let form = Parameters::new(&text);
    let first = form.first("topic").map(std::borrow::Cow::into_owned);
    assert_eq!(first.as_deref(), form.values("topic").next().as_deref());
}

/// What a site says to hold, in headers (lines) or in a body, and what it publishes.
pub fn grip(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let text = String::from_utf8_lossy(data);
    let mut headers = http::HeaderMap::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let name = http::HeaderName::from_bytes(name.as_bytes());
        let value = http::HeaderValue::from_str(value.trim());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let _ = Instruct::is_in(&headers);
    let _ = Instruct::read(200, &headers, body.clone());
    let mut instructs = http::HeaderMap::new();
    let kind = http::HeaderValue::from_static("application/grip-instruct");
    instructs.insert("content-type", kind);
    let _ = Instruct::read(200, &instructs, body.clone());
    let _ = (params::list(&text), params::params(&text), grip::sign::key(&text));
    if let Some(link) = link::resolve("/a/b?c=d", &text) {
        assert!(link.target.starts_with('/'), "{link:?}");
        assert!(link.target.bytes().all(|byte| byte.is_ascii_graphic()), "{link:?}");
    }
    if let Ok(items) = grip::item::read(data) {
        for (_, item) in items {
            let stored = item.stored();
            let again = Item::of(&stored).expect("stored by ourselves");
            assert_eq!(again.stored(), stored, "it is stored otherwise than it was read");
        }
    }
    if let Ok(read) = events::read(&body) {
        let written = events::write(&read);
        let again: Vec<Event> = events::read(&written).expect("written by ourselves");
        assert_eq!(again, read);
    }
    let _ = events::control(data);
    // A document, a line end, and operations on it.
    if let Some((document, operations)) = text.split_once('\n')
        && let Ok(Value::Array(operations)) = serde_json::from_str(operations)
    {
        let _ = patch::apply(document.as_bytes(), &operations);
    }
}
