//! The demo: a small site behind the gate, with a chat page that shows who is there. It knows the
//! gate only by its hook and by the requests that ask who a client is, like any other site.

pub(super) mod upstream;

use crate::protocol::http::query::Query;
use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Response};
use percent_encoding::percent_decode_str;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// The channel of the chat.
pub const CHANNEL: &str = "demo";

/// The gate's config: its usual rules, with users where the demo names them.
pub const CONFIG: [(&str, &str); 2] = [
    ("channel", r#"[{ match = "demo", presence = true }]"#),
    (
        "poll",
        r#"[
            { path = "/comet/*", dialect = "native",
              auth = { kind = "upstream", url = "/auth", anonymous = true } },
            { path = "/comet", dialect = "novcomet", when = ["subscribed"] },
            { path = "/comet", dialect = "timestamp", when = ["channel", "timestamp"],
              channel = "{query.channel}" },
        ]"#,
    ),
];

/// Sends the JSON of a publish to the hook; the error describes a failure.
pub type Publish =
    Box<dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// The demo site.
pub struct DemoSite {
    publish: Publish,
}

const PAGE: &str = include_str!("page.html");

/// Maximum length of a form, in bytes.
const MAX_FORM_LENGTH: usize = 16 * 1024;

impl DemoSite {
    /// A site that publishes through `publish`.
    pub fn new(publish: Publish) -> Self {
        Self { publish }
    }

    /// `POST /say`: does the part of a chat's PHP.
    async fn respond(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let Some(form) = read_form(session).await else {
            return respond(413, "text/plain", "the message is too long\n");
        };
        let text = |name: &str| form.text(name).unwrap_or_default().into_owned();
        let name = text("name");
        let words = text("text");
        if words.trim().is_empty() {
            return respond(400, "text/plain", "say something\n");
        }
        let data = serde_json::json!({ "name": name, "text": words });
        let publish = serde_json::json!({ "channel": CHANNEL, "data": data }).to_string();
        match (self.publish)(publish).await {
            Ok(()) => respond(200, "application/json", "{\"ok\":true}"),
            Err(error) => respond(502, "text/plain", &format!("publish: {error}\n")),
        }
    }
}

/// `GET /auth`: names the user of a poll. All may poll, under the name that the page sends as its
/// token: a site with something to protect would look into its session here.
fn authorize(headers: &HeaderMap) -> Response<Vec<u8>> {
    let mut response = respond(200, "text/plain", "");
    let user = user(headers).filter(|user| !user.trim().is_empty());
    // A name that is no header is not listed.
    if let Some(user) = user.and_then(|user| HeaderValue::from_bytes(user.as_bytes()).ok()) {
        response.headers_mut().insert("pollgate-user", user);
    }
    response
}

fn user(headers: &HeaderMap) -> Option<String> {
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(token) = token.and_then(|value| value.strip_prefix("Bearer ")) {
        return Some(percent_decode_str(token).decode_utf8_lossy().into_owned());
    }
    // A WebSocket's token stands in its address.
    let target = headers.get("x-original-uri")?.to_str().ok()?;
    let query = Query::parse(target.split_once('?')?.1);
    let token = query.text("token")?;
    Some(percent_decode_str(&token).decode_utf8_lossy().into_owned())
}

async fn read_form(session: &mut ServerSession) -> Option<Query<'static>> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = session.read_request_body().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_FORM_LENGTH {
            return None;
        }
    }
    Some(Query::parse(&String::from_utf8_lossy(&body)).into_owned())
}

fn respond(status: u16, content_type: &str, body: &str) -> Response<Vec<u8>> {
    let mut response = Response::new(body.as_bytes().to_vec());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_LENGTH, body.len().into());
    if let Ok(content_type) = content_type.parse() {
        headers.insert(http::header::CONTENT_TYPE, content_type);
    }
    response
}

#[async_trait]
impl ServeHttp for DemoSite {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        session.set_keepalive(Some(IDLE.as_secs()));
        let head = session.req_header();
        match (head.method.clone(), head.uri.path()) {
            (Method::GET | Method::HEAD, "/") => respond(200, "text/html; charset=utf-8", PAGE),
            (Method::GET, "/auth") => authorize(&head.headers),
            (Method::POST, "/say") => self.respond(session).await,
            _ => respond(404, "text/plain", "there is nothing here\n"),
        }
    }
}

const IDLE: Duration = Duration::from_secs(60);
