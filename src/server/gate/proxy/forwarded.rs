//! Forwarded headers: describe the client to the upstream, regardless of the client's own claims.
//!
//! The gate always sets `X-Forwarded-For/Proto/Host` and `Forwarded` (RFC 7239). It trusts those
//! that a request brings only from a peer in `trusted_proxies`, or on a unix socket, which only
//! this machine's own processes can reach.

use crate::protocol::http::Headers;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// True if a header of that (lower case) name does not go on to the upstream as the client sent
/// it; `trusted` = the client is believed about the connection behind it.
///
/// PHP gets headers by the names of CGI (RFC 3875, section 4.1.18), in which `X_Real.IP` is
/// `X-Real-IP`. So a name with anything but letters, digits and `-` is dropped, as nginx does with
/// `underscores_in_headers off`; of a trusted proxy only one that is then the gate's own.
pub fn is_dropped(name: &str, trusted: bool) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.bytes().all(plain) {
        return is_dropped_plain(name, trusted);
    }
    let folded = || name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    !trusted || is_dropped_plain(&folded(), trusted) || OWN.contains(&folded().as_str())
}

/// Headers that the gate sets or relies on, which no second spelling may stand beside.
const OWN: [&str; 8] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "x-forwarded-host",
    "x-forwarded-proto",
];

fn is_dropped_plain(name: &str, trusted: bool) -> bool {
    match name {
        // The gate sets them, with the earlier value if that is trusted.
        "forwarded" | "x-forwarded-for" => true,
        "x-real-ip" | "x-client-ip" | "client-ip" | "true-client-ip" | "x-cluster-client-ip" => {
            !trusted
        }
        // PHP hands it to scripts as HTTP_PROXY, which HTTP clients obey.
        "proxy" => true,
        _ if name.starts_with("x-forwarded-") => !trusted,
        // The gate's own are for the upstream to send, not for its visitors.
        _ => name.starts_with("pollgate-"),
    }
}

/// The sender of a request, as far as the gate can determine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The peer of the connection; `None` on a unix socket.
    pub peer: Option<IpAddr>,
    /// True if the peer's claims about others are trusted.
    pub trusted: bool,
    /// The client: the rightmost address that is no trusted proxy's.
    pub address: Option<IpAddr>,
}

impl Client {
    /// Reads the hops of a request.
    pub fn of(peer: Option<IpAddr>, headers: &dyn Headers, proxies: &[IpNet]) -> Self {
        let known = |address: &IpAddr| proxies.iter().any(|net| net.contains(address));
        let peer = peer.map(|peer| peer.to_canonical());
        let trusted = peer.as_ref().is_none_or(known);
        if !trusted {
            return Self { peer, trusted, address: peer };
        }
        let way = headers.all("x-forwarded-for");
        let mut address = peer;
        for hop in way.rsplit(',') {
            // A hop that is no address ends the way: no trusted proxy vouches for the rest.
            let Some(hop) = parse_hop(hop) else { break };
            address = Some(hop);
            if !known(&hop) {
                break;
            }
        }
        Self { peer, trusted, address }
    }
}

/// The last hop of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The client that sent it.
    pub client: Client,
    /// True if it came over TLS.
    pub tls: bool,
}

impl Way {
    /// The headers that describe the way to the site; `host` is the one that the request is for.
    pub fn headers(&self, headers: &dyn Headers, host: &str) -> Vec<(&'static str, String)> {
        let mut set = Vec::with_capacity(4);
        self.show(headers, host, &mut |name, parts| set.push((name, parts.concat())));
        set
    }

    /// The same, one after the other, each value in parts.
    pub fn show(
        &self,
        headers: &dyn Headers,
        host: &str,
        put: &mut dyn FnMut(&'static str, &[&str]),
    ) {
        let Self { client, tls } = self;
        let received = |name: &str| {
            let received = if client.trusted { headers.all(name) } else { String::new() };
            (!received.trim().is_empty()).then_some(received)
        };
        let peer = client.peer.map(|peer| peer.to_string());
        let peer = peer.as_deref();
        match (peer, received("x-forwarded-for")) {
            (Some(peer), Some(received)) => put("X-Forwarded-For", &[&received, ", ", peer]),
            (Some(peer), None) => put("X-Forwarded-For", &[peer]),
            (None, Some(received)) => put("X-Forwarded-For", &[&received]),
            (None, None) => {}
        }
        let proto = if *tls { "https" } else { "http" };
        match received("x-forwarded-proto") {
            Some(received) => put("X-Forwarded-Proto", &[&received]),
            None => put("X-Forwarded-Proto", &[proto]),
        }
        match received("x-forwarded-host") {
            Some(received) => put("X-Forwarded-Host", &[&received]),
            // Only HTTP/1.0 has requests without a host.
            None if host.is_empty() => {}
            None => put("X-Forwarded-Host", &[host]),
        }
        // This hop in the form of RFC 7239, section 4.
        let (opened, closed) = match client.peer {
            Some(IpAddr::V6(_)) => ("\"[", "]\""),
            _ => ("", ""),
        };
        // A Host was checked to be `host[:port]`, so it holds nothing that would end the quotes.
        let (named, end) = if host.is_empty() { ("", "") } else { (";host=\"", "\"") };
        let peer = peer.unwrap_or("unknown");
        let own = ["for=", opened, peer, closed, named, host, end, ";proto=", proto];
        match received("forwarded") {
            Some(received) => put("Forwarded", &[&[received.as_str(), ", "], &own[..]].concat()),
            None => put("Forwarded", &own),
        }
    }
}

/// Headers of a request that are its connection's, whether that names them or not (RFC 9110,
/// section 7.6.1), and those that frame its body, which each connection does anew.
pub fn is_of_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// An address, an IPv6 one in brackets too, with or without its port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().map(IpAddr::V6).ok();
    let with_port = || text.parse().map(|place: SocketAddr| place.ip()).ok();
    let found = text.parse().ok().or_else(bracketed).or_else(with_port);
    found.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn forwarded(
        client: &Client,
        headers: &dyn Headers,
        host: &str,
        proto: &str,
    ) -> Vec<(&'static str, String)> {
        Way { client: *client, tls: proto == "https" }.headers(headers, host)
    }
    use http::{HeaderMap, HeaderValue};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn client(peer: &str, way: &str, trusted: &str) -> Client {
        let proxies = [trusted.parse().unwrap()];
        Client::of(peer.parse().ok(), &headers(&[("x-forwarded-for", way)]), &proxies)
    }

    #[test]
    fn no_spelling_of_a_trusted_name_comes_from_a_stranger() {
        for name in [
            "x-forwarded-user",
            "x-forwarded-ssl",
            "x-forwarded-anything",
            "x_forwarded_for",
            "x-forwarded_user",
            "client_ip",
            "x_real_ip",
            "x.real.ip",
            "x-real!ip",
            "x_anything",
            "content_length",
        ] {
            assert!(is_dropped(name, false), "{name}");
        }
        for name in ["pollgate-channels", "pollgate_channels", "pollgate.user", "proxy", "pro_xy"] {
            assert_eq!(is_dropped(name, true), name != "pro_xy", "{name}");
        }
        for name in ["x_forwarded_for", "x.forwarded.proto", "content_length", "http2_", "co_okie"]
        {
            assert_eq!(is_dropped(name, true), !["http2_", "co_okie"].contains(&name), "{name}");
        }
        for name in ["x-requested-with", "x-api-key", "accept", "authorization", "cookie"] {
            assert!(!is_dropped(name, false), "{name}");
        }
        for name in ["x-forwarded-user", "x-real-ip", "x_own"] {
            assert!(!is_dropped(name, true), "{name}");
        }
    }

    #[test]
    fn a_stranger_is_who_the_connection_says() {
        let stranger = client("203.0.113.9", "10.0.0.1", "10.0.0.0/8");
        assert_eq!(stranger.address, "203.0.113.9".parse().ok());
        let map = headers(&[("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")]);
        let set = forwarded(&stranger, &map, "site.example", "http");
        assert_eq!(set[0].1, "203.0.113.9");
        assert_eq!(set[3].1, "for=203.0.113.9;host=\"site.example\";proto=http");
    }

    #[test]
    fn behind_proxies_the_rightmost_stranger_is_the_client() {
        let address = |way| client("10.0.0.1", way, "10.0.0.0/8").address.unwrap().to_string();
        assert_eq!(address("6.6.6.6, 203.0.113.9"), "203.0.113.9");
        assert_eq!(address("6.6.6.6, 203.0.113.9, 10.0.0.7"), "203.0.113.9");
        assert_eq!(address("10.0.0.9"), "10.0.0.9");
        assert_eq!(address("203.0.113.9:4711"), "203.0.113.9");
        assert_eq!(address("[2001:db8::1]:80"), "2001:db8::1");
        assert_eq!(address("6.6.6.6, nonsense"), "10.0.0.1");
    }

    #[test]
    fn what_is_no_address_ends_the_way_and_never_makes_a_stranger_trusted() {
        let address =
            |way: &str| client("10.0.0.1", way, "10.0.0.0/8").address.unwrap().to_string();
        for nonsense in [
            "",
            " ",
            ",",
            "unknown",
            "_hidden",
            "203.0.113.9:80:80",
            "203.0.113.999",
            "1.2.3",
            "[",
            "[]",
            "[::1",
            "fe80::1%eth0",
            "203.0.113.9 10.0.0.9",
            "\"203.0.113.9\"",
            "0x7f.1",
            "%",
            "for=203.0.113.9",
            "localhost",
            "::ffff:10.0.0.256",
        ] {
            // The writer of what stands to the left of it is not trusted.
            assert_eq!(address(&format!("10.0.0.66, {nonsense}")), "10.0.0.1", "{nonsense:?}");
            assert_eq!(
                address(&format!("6.6.6.6, {nonsense}, 10.0.0.7")),
                "10.0.0.7",
                "{nonsense:?}"
            );
        }
        assert_eq!(address("6.6.6.6, ::ffff:203.0.113.9"), "203.0.113.9");
        assert_eq!(address("6.6.6.6, [::ffff:10.0.0.7]:80"), "6.6.6.6");
        assert_eq!(address("6.6.6.6,\t2001:db8::1 ,10.0.0.7:1"), "2001:db8::1");
        let long = "10.0.0.7, ".repeat(5_000);
        assert_eq!(address(&format!("203.0.113.9, {long}10.0.0.8")), "203.0.113.9");
        // A hop that is trusted itself, and claims that all others are.
        let stranger = client("203.0.113.9", "10.0.0.1, 10.0.0.2", "10.0.0.0/8");
        assert_eq!((stranger.trusted, stranger.address), (false, "203.0.113.9".parse().ok()));
        let mapped = client("::ffff:10.0.0.1", "203.0.113.9", "10.0.0.0/8");
        assert!(mapped.trusted && mapped.address == "203.0.113.9".parse().ok());
    }

    #[test]
    fn what_a_trusted_proxy_says_is_kept_and_extended() {
        let map = headers(&[
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "site.example"),
        ]);
        let proxies = ["::1/128".parse().unwrap()];
        let proxy = Client::of("::1".parse().ok(), &map, &proxies);
        let set = forwarded(&proxy, &map, "inner", "http");
        let values: Vec<&str> = set.iter().map(|(_, value)| value.as_str()).collect();
        let own = "for=\"[::1]\";host=\"inner\";proto=http";
        assert_eq!(values, ["203.0.113.9, ::1", "https", "site.example", own]);
    }
}
