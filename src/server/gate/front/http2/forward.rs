//! Streams that go from here straight to the upstream.

use super::Http2;
use crate::protocol::http::Headers;
use crate::server::gate::counters::SiteFile;
use crate::server::gate::forward::{self, Http2Stream, Lane, RequestParts, Room};
use crate::server::gate::proxy::error_page::page;
use crate::server::gate::proxy::forwarded::Way;
use crate::server::gate::proxy::request_context::{Classification, RequestContext};
use crate::server::gate::proxy::session;
use crate::server::gate::{RETRY_AFTER, Settings, Timer};
use crate::server::telemetry::refusal::Refusal;
use bytes::BytesMut;
use http::HeaderMap;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

impl Http2 {
    /// Forwards the stream's request. Returns it if it is pingora's: the upstream speaks GRIP, it
    /// was held as a replay, or its body has to be read to know what it is.
    pub(super) async fn forward(
        &self,
        stream: &mut ServerSession,
        handed: Box<RequestContext>,
        shutdown: &ShutdownWatch,
    ) -> Option<Box<RequestContext>> {
        let way = Way { client: handed.client, tls: session::is_tls(stream) };
        let ServerSession::H2(stream_session) = &mut *stream else { return Some(handed) };
        let settings = &handed.settings;
        if settings.grip.is_some()
            || !is_upstreams(&handed.finding, settings, stream_session.req_header().uri.path())
        {
            return Some(handed);
        }
        let head = stream_session.req_header();
        let framing = forward::framing(stream_session);
        let headers = WithHost { headers: &head.headers, host: session::host(head) };
        let request = RequestParts {
            method: head.method.as_str(),
            target: session::target(head),
            headers: &headers,
            framing: &framing,
            socket: false,
            grip: None,
        };
        let site = settings.site_name();
        let Some(prepared) = self.forwarder.prepare(&request, site, &way, true) else {
            return Some(handed);
        };
        let Some(file) = SiteFile::new(&self.gate) else {
            self.gate.refused(Refusal::FdLimit);
            let reply = page(503).with("Retry-After", RETRY_AFTER);
            self.answer(stream, &handed, &reply).await;
            return None;
        };
        let mut near =
            Http2Stream::new(stream_session, &self.share, &framing, settings.write_timeout);
        let lane = Lane {
            stream: &mut near,
            pending: &mut BytesMut::new(),
            timer: &mut Timer::default(),
            gate: &self.gate,
            settings,
            forwarder: &self.forwarder,
            shutdown,
            file,
            room: Room::OF_STREAM,
        };
        let outcome = forward::run(lane, prepared).await;
        near.break_off();
        let head = stream.req_header();
        if let Some(failure) = outcome.failure {
            failure.report(&self.gate, settings, head.method.as_str(), session::target(head));
            if !outcome.begun && failure.status() > 0 {
                self.answer(stream, &handed, &page(failure.status())).await;
                return None;
            }
        }
        let bytes = usize::try_from(outcome.bytes).unwrap_or(usize::MAX);
        let logged = ((outcome.status, bytes), None, None);
        session::log_answer(head, settings, handed.client.address, handed.began, logged);
        None
    }
}

/// True if no rule has anything to say about the request.
fn is_upstreams(finding: &Classification, settings: &Settings, path: &str) -> bool {
    match finding {
        Classification::Site => true,
        Classification::Released(_) => false,
        Classification::Undecided => !settings.may_serve(path),
    }
}

/// The headers of a stream as those of HTTP/1.1, which has the host among them.
struct WithHost<'a> {
    headers: &'a HeaderMap,
    host: &'a str,
}

impl Headers for WithHost<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        if name == "host" { Some(self.host) } else { Headers::get(self.headers, name) }
    }

    fn values(&self, name: &str) -> Vec<&str> {
        if name == "host" { vec![self.host] } else { Headers::values(self.headers, name) }
    }

    fn raw(&self, name: &str) -> Vec<&[u8]> {
        if name == "host" { vec![self.host.as_bytes()] } else { self.headers.raw(name) }
    }

    fn each(&self, show: &mut dyn FnMut(&str, &[u8])) {
        show("Host", self.host.as_bytes());
        self.headers.each(&mut |name, value| {
            if name != "host" {
                show(name, value);
            }
        });
    }
}
