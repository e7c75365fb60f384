//! A bare client of the Pusher protocol, and a site that signs as Pusher's libraries do.

use super::http::{Client, Response};
use super::socket::TEXT;
use super::{Gate, Socket};
use ring::hmac;
use serde_json::{Value, json};
use std::time::SystemTime;

/// One app; more of its keys may follow.
pub const APP: &str = "[[pusher]]\nid = \"shop\"\nkey = \"app-key\"\nsecret = \"app-secret\"\n";

pub const KEY: &str = "app-key";
pub const SECRET: &str = "app-secret";

/// Where clients connect.
pub const TARGET: &str = "/app/app-key?protocol=7&client=js&version=8.6.0&flash=false";

/// HMAC-SHA-256 in hex.
pub fn sign(text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::sign(&key, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a site answers to `POST /broadcasting/auth`.
pub fn auth(socket_id: &str, channel: &str, data: Option<&str>) -> String {
    let data = data.map(|data| format!(":{data}")).unwrap_or_default();
    format!("{KEY}:{}", sign(&format!("{socket_id}:{channel}{data}")))
}

/// The data of a presence channel's member.
pub fn member(user: &str) -> String {
    json!({ "user_id": user, "user_info": { "name": format!("Name of {user}") } }).to_string()
}

/// A connection.
pub struct Echo {
    pub socket: Socket,
    pub id: String,
}

/// The `data` of a frame, taken out of its string.
pub fn data(frame: &Value) -> Value {
    match &frame["data"] {
        Value::String(text) => serde_json::from_str(text).unwrap_or(frame["data"].clone()),
        other => other.clone(),
    }
}

impl Echo {
    pub async fn connect(gate: &Gate) -> Echo {
        let mut socket = Socket::open(gate, TARGET, &[]).await;
        let first = socket.json().await;
        assert_eq!(first["event"], "pusher:connection_established");
        let id = data(&first)["socket_id"].as_str().unwrap().to_owned();
        Echo { socket, id }
    }

    pub async fn send(&mut self, frame: &Value) {
        self.socket.send(0x80 | TEXT, frame.to_string().as_bytes()).await;
    }

    pub async fn next(&mut self) -> Value {
        self.socket.json().await
    }

    /// Asks for a channel with these fields besides; the answer.
    pub async fn ask(&mut self, channel: &str, mut fields: Value) -> Value {
        fields["channel"] = channel.into();
        self.send(&json!({ "event": "pusher:subscribe", "data": fields })).await;
        self.next().await
    }

    /// Subscribes, signed where the channel wants it.
    pub async fn subscribe(&mut self, channel: &str) -> Value {
        let fields = match channel.starts_with("private-") {
            true => json!({ "auth": auth(&self.id, channel, None) }),
            false => json!({}),
        };
        let answer = self.ask(channel, fields).await;
        assert_eq!(answer["event"], "pusher_internal:subscription_succeeded", "{answer}");
        assert_eq!(answer["channel"], channel);
        data(&answer)
    }

    /// Joins a presence channel.
    pub async fn join(&mut self, channel: &str, user: &str) -> Value {
        let member = member(user);
        let auth = auth(&self.id, channel, Some(&member));
        let answer = self.ask(channel, json!({ "auth": auth, "channel_data": member })).await;
        assert_eq!(answer["event"], "pusher_internal:subscription_succeeded", "{answer}");
        data(&answer)
    }

    pub async fn unsubscribe(&mut self, channel: &str) {
        let data = json!({ "channel": channel });
        self.send(&json!({ "event": "pusher:unsubscribe", "data": data })).await;
        self.is_alive().await;
    }

    pub async fn sign_in(&mut self, user: &str) -> Value {
        let user = json!({ "id": user }).to_string();
        let auth = format!("{KEY}:{}", sign(&format!("{}::user::{user}", self.id)));
        let data = json!({ "auth": auth, "user_data": user });
        self.send(&json!({ "event": "pusher:signin", "data": data })).await;
        self.next().await
    }

    /// Whether nothing has come: the answer to a ping is the next frame.
    pub async fn is_alive(&mut self) {
        self.send(&json!({ "event": "pusher:ping", "data": {} })).await;
        let frame = self.next().await;
        assert_eq!(frame["event"], "pusher:pong", "{frame}");
    }

    /// Reads on to the end: the error, and the code of the close.
    pub async fn closed(&mut self) -> (Value, u16) {
        let error = self.next().await;
        assert_eq!(error["event"], "pusher:error", "{error}");
        (error["data"].clone(), self.socket.closed().await.0)
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// A signed target: what a library would ask for.
pub fn signed(method: &str, path: &str, query: &[(&str, &str)], body: &str, at: u64) -> String {
    let mut query: Vec<(String, String)> =
        query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    query.push(("auth_key".to_owned(), KEY.to_owned()));
    query.push(("auth_timestamp".to_owned(), at.to_string()));
    query.push(("auth_version".to_owned(), "1.0".to_owned()));
    if !body.is_empty() {
        query.push(("body_md5".to_owned(), format!("{:x}", md5::compute(body))));
    }
    query.sort();
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = query.join("&");
    let signature = sign(&format!("{method}\n{path}\n{query}"));
    format!("{path}?{query}&auth_signature={signature}")
}

/// A signed request to the internal side.
pub async fn rest(
    gate: &Gate,
    method: &str,
    path: &str,
    query: &[(&str, &str)],
    body: &Value,
) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let target = signed(method, path, query, &body, now());
    let mut client = Client::connect(gate.internal()).await;
    let headers = [("Content-Type", "application/json")];
    client.request(method, &target, &headers, body.as_bytes()).await
}

/// Publishes an event, with these fields besides.
pub async fn trigger(gate: &Gate, channel: &str, event: &str, data: &str, fields: Value) -> Value {
    let mut body = json!({ "name": event, "data": data, "channels": [channel] });
    body.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap_or_default());
    let response = rest(gate, "POST", "/apps/shop/events", &[], &body).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// A client of the HTTP fallbacks.
pub struct Session {
    pub path: String,
    client: Client,
}

impl Session {
    pub async fn new(gate: &Gate, id: &str) -> Session {
        Session { path: format!("/pusher/app/{KEY}/123/{id}"), client: gate.connect().await }
    }

    /// Opens a session and reads its first frame: the socket id.
    pub async fn open(gate: &Gate, id: &str) -> (Session, String) {
        let mut session = Session::new(gate, id).await;
        assert_eq!(session.poll().await, "o{}\n");
        let frames = session.frames().await;
        assert_eq!(frames[0]["event"], "pusher:connection_established");
        let socket = data(&frames[0])["socket_id"].as_str().unwrap().to_owned();
        (session, socket)
    }

    fn target(&self, what: &str) -> String {
        format!("{}/{what}?protocol=7&client=js&version=8.6.0&t=1&n=1", self.path)
    }

    /// Sends a request for the next frames.
    pub async fn ask(&mut self, what: &str) {
        let headers = [("Content-Type", "application/json"), ("Content-Length", "0")];
        self.client.send("POST", &self.target(what), &headers, b"").await;
    }

    /// The lines of a poll.
    pub async fn poll(&mut self) -> String {
        self.ask("xhr").await;
        self.answer().await.text()
    }

    pub async fn answer(&mut self) -> Response {
        let response = self.client.read_response().await;
        assert_eq!(response.status, 200, "{}", response.text());
        response
    }

    /// The frames of a poll.
    pub async fn frames(&mut self) -> Vec<Value> {
        frames(&self.poll().await)
    }

    /// Sends frames on a connection of their own.
    pub async fn send(&self, gate: &Gate, frames: &[Value]) -> Response {
        let frames: Vec<String> = frames.iter().map(Value::to_string).collect();
        let body = serde_json::to_string(&frames).unwrap();
        let mut client = gate.connect().await;
        client.post(&self.target("xhr_send"), "application/json", body).await
    }

    /// Begins a streamed answer: its connection.
    pub async fn stream(&mut self) -> &mut Client {
        self.ask("xhr_streaming").await;
        let head = self.client.read_head().await;
        assert_eq!(head.status, 200);
        &mut self.client
    }
}

/// The frames in a line.
pub fn frames(line: &str) -> Vec<Value> {
    let array = line.strip_prefix('a').and_then(|line| line.strip_suffix('\n'));
    let array = array.unwrap_or_else(|| panic!("no line of frames: {line:?}"));
    let frames: Vec<String> = serde_json::from_str(array).unwrap();
    frames.iter().map(|frame| serde_json::from_str(frame).unwrap()).collect()
}

impl Session {
    /// The next line of a streamed answer.
    pub async fn line(&mut self) -> String {
        let chunk = self.client.read_chunk().await;
        String::from_utf8(chunk.unwrap_or_else(|| panic!("the stream has ended"))).unwrap()
    }

    /// What is left of a streamed answer.
    pub async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        while let Some(chunk) = self.client.read_chunk().await {
            rest.extend(chunk);
        }
        String::from_utf8(rest).unwrap()
    }

    /// True if nothing comes for a while.
    pub async fn is_quiet(&mut self) -> bool {
        self.client.is_quiet().await
    }
}
