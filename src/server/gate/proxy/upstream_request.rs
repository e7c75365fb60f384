//! A request as the site gets it.

use super::forwarded::{self, Client, Way};
use super::{hop, session};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

/// Makes the head `upstream` of the request of `session` one for the site.
pub(in crate::server::gate) fn prepare(
    session: &Session,
    upstream: &mut RequestHeader,
    client: &Client,
) -> Result<()> {
    // A target with a host in it names its host twice (RFC 9112, section 3.2.2). The engine
    // has seen to it that both are the same.
    if !upstream.raw_path().starts_with(b"/") && upstream.uri.path().starts_with('/') {
        upstream.set_uri(upstream.uri.clone());
    }
    let headers = &session.req_header().headers;
    let way = Way { client: *client, tls: session::is_tls(session.as_downstream()) };
    let set = way.headers(headers, session::host(session.req_header()));
    let names = upstream.headers.keys();
    let dropped = names.filter(|name| forwarded::is_dropped(name.as_str(), client.trusted));
    for name in dropped.cloned().collect::<Vec<_>>() {
        upstream.remove_header(&name);
    }
    for (name, value) in set {
        upstream.insert_header(name, value)?;
    }
    let cookies = headers.get_all("cookie");
    if cookies.iter().nth(1).is_some() {
        // HTTP/2 may take cookies apart, HTTP/1.1 has them in one piece (RFC 9113, section 8.2.3).
        let cookies: Vec<&[u8]> = cookies.iter().map(|value| value.as_bytes()).collect();
        upstream.insert_header("cookie", cookies.join(&b"; "[..]))?;
    }
    if hop::is_old(session.req_header()) {
        upstream.remove_header("expect");
        if upstream.headers.get("host").is_none() && upstream.uri.host().is_none() {
            // HTTP/1.1 would want a Host, and there is none to be had.
            upstream.set_version(http::Version::HTTP_10);
        }
    }
    Ok(())
}
