//! What the server sends: frames of the protocol's own, as JSON.
//!
//! The `data` of a server's frame is a JSON text within a string.

use super::event::push_string;
use serde::Serialize;
use serde_json::json;

#[derive(Serialize)]
struct Frame<'a> {
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

fn frame(event: &str, channel: Option<&str>, data: Option<String>) -> String {
    // Strings alone always serialize.
    serde_json::to_string(&Frame { event, channel, data }).unwrap_or_default()
}

/// The first frame of a connection; `timeout` is the silence in seconds after which the client
/// pings.
pub fn established(socket: super::SocketId, timeout: u64) -> String {
    let data = json!({ "socket_id": socket.to_string(), "activity_timeout": timeout });
    frame("pusher:connection_established", None, Some(data.to_string()))
}

/// A question for life.
pub fn ping() -> String {
    frame("pusher:ping", None, Some("{}".to_owned()))
}

/// The answer to a client's.
pub fn pong() -> String {
    frame("pusher:pong", None, Some("{}".to_owned()))
}

/// An error of the connection. Its data is an object, as the protocol has it.
pub fn error(code: Option<u16>, message: &str) -> String {
    json!({ "event": "pusher:error", "data": { "code": code, "message": message } }).to_string()
}

/// A subscription has begun; `data` is who is there, on presence channels.
pub fn succeeded(channel: &str, data: Option<String>) -> String {
    let data = data.unwrap_or_else(|| "{}".to_owned());
    frame("pusher_internal:subscription_succeeded", Some(channel), Some(data))
}

/// A subscription was refused, with the status that HTTP would have for it.
pub fn refused(channel: &str, error: &str, status: u16) -> String {
    let kind = if matches!(status, 401 | 403) { "AuthError" } else { "SubscriptionError" };
    let data = json!({ "type": kind, "error": error, "status": status });
    frame("pusher:subscription_error", Some(channel), Some(data.to_string()))
}

/// Who is on a presence channel, for [`succeeded`]: user ids, and what is known of each as JSON.
pub fn members<'a>(members: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let mut ids = String::new();
    let mut hash = String::new();
    let mut count = 0;
    for (id, info) in members {
        if count > 0 {
            ids.push(',');
            hash.push(',');
        }
        push_string(&mut ids, id);
        push_string(&mut hash, id);
        hash.push(':');
        hash.push_str(info.unwrap_or("null"));
        count += 1;
    }
    format!("{{\"presence\":{{\"count\":{count},\"ids\":[{ids}],\"hash\":{{{hash}}}}}}}")
}

/// A user has come to a presence channel.
pub fn member_added(channel: &str, user: &str, info: Option<&str>) -> String {
    let mut data = "{\"user_id\":".to_owned();
    push_string(&mut data, user);
    if let Some(info) = info {
        data.push_str(",\"user_info\":");
        data.push_str(info);
    }
    data.push('}');
    frame("pusher_internal:member_added", Some(channel), Some(data))
}

/// A user is gone from a presence channel.
pub fn member_removed(channel: &str, user: &str) -> String {
    let data = json!({ "user_id": user }).to_string();
    frame("pusher_internal:member_removed", Some(channel), Some(data))
}

/// A cache channel has no event yet.
pub fn cache_miss(channel: &str) -> String {
    frame("pusher:cache_miss", Some(channel), None)
}

/// So many connections subscribe to a channel.
pub fn subscription_count(channel: &str, count: usize) -> String {
    let data = json!({ "subscription_count": count }).to_string();
    frame("pusher_internal:subscription_count", Some(channel), Some(data))
}

/// Watched users are online, and others not; `None` = there are none.
pub fn watchlist(online: &[&str], offline: &[&str]) -> Option<String> {
    let lists = [("online", online), ("offline", offline)];
    let lists = lists.into_iter().filter(|(_, users)| !users.is_empty());
    let events: Vec<_> =
        lists.map(|(name, users)| json!({ "name": name, "user_ids": users })).collect();
    let data = (!events.is_empty()).then(|| json!({ "events": events }).to_string())?;
    Some(frame("pusher_internal:watchlist_events", None, Some(data)))
}

/// A user has signed in; `data` is what the site said of it.
pub fn signed_in(data: &str) -> String {
    let data = json!({ "user_data": data });
    frame("pusher:signin_success", None, Some(data.to_string()))
}

/// Events were lost on a channel. Only this gate sends it.
pub fn reset(channel: &str) -> String {
    frame("pollgate:reset", Some(channel), Some("{}".to_owned()))
}
