//! The lines of the HTTP fallbacks, as pusher-js reads them: the framing of SockJS without SockJS.

use std::borrow::Cow;

/// The first line of a session; a second one says that the session was lost.
pub const OPEN: &str = "o{}\n";

/// Nothing has come; a polling client polls again. A streaming client would answer it.
pub const HEARTBEAT: &str = "h\n";

/// The most frames that a client may send at once.
const MAX_FRAMES: usize = 100;

/// The line that ends a session.
pub fn close(code: u16, reason: &str) -> String {
    let mut line = format!("c[{code},");
    super::event::push_string(&mut line, reason);
    line.push_str("]\n");
    line
}

/// One frame, as it stands in a line of frames.
pub fn element(frame: &str) -> String {
    let mut out = String::with_capacity(frame.len() + 16);
    super::event::push_string(&mut out, frame);
    out
}

/// The line of these [`element`]s; of none, it answers a streaming client's ping.
pub fn frames(elements: &[bytes::Bytes]) -> Vec<u8> {
    let mut line = Vec::with_capacity(elements.iter().map(|one| one.len() + 1).sum::<usize>() + 4);
    line.extend_from_slice(b"a[");
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            line.push(b',');
        }
        line.extend_from_slice(element);
    }
    line.extend_from_slice(b"]\n");
    line
}

/// The length of a line as a browser counts it, in UTF-16 units.
pub fn units(line: &[u8]) -> usize {
    // Every character begins with one byte that continues none; those of four bytes are two units.
    line.iter().map(|byte| usize::from(byte & 0xc0 != 0x80) + usize::from(*byte >= 0xf0)).sum()
}

/// The frames that a client sends at once, a JSON array of strings; none = a ping.
pub fn read(body: &[u8]) -> Result<Vec<Cow<'_, str>>, &'static str> {
    let frames: Vec<Element<'_>> =
        serde_json::from_slice(body).map_err(|_| "the body is no JSON array of strings")?;
    if frames.len() > MAX_FRAMES {
        return Err("the body has more than 100 frames");
    }
    Ok(frames.into_iter().map(|Element(text)| text).collect())
}

#[derive(serde::Deserialize)]
struct Element<'a>(#[serde(borrow)] Cow<'a, str>);
