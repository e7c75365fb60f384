//! The browser client as a file that the gate serves: at its path, as a script and as a module, over
//! every way in, cached by its tag. `tests/js_client.rs` runs it.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::tls::Identity;
use support::{Gate, PlainSite, Response, TempDir, Way, pollgate};

const PATHS: [&str; 2] = ["/pollgate.js", "/pollgate.mjs"];

#[track_caller]
fn assert_is_client(response: &Response, path: &str) {
    assert_eq!(response.status, 200, "{path}");
    let header = |name| response.header(name).unwrap_or_else(|| panic!("{path} without {name}"));
    assert_eq!(header("content-type"), "text/javascript; charset=utf-8");
    assert_eq!(header("cache-control"), "public, max-age=3600");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("vary"), "Accept-Encoding");
    assert_eq!(header("access-control-allow-origin"), "*");
    assert!(header("etag").starts_with('"') && header("etag").ends_with('"'));
    assert_eq!(response.all("content-length"), [response.body.len().to_string()]);
    let text = response.text();
    assert!(text.starts_with("function pollgate("), "{text}");
    assert_eq!(text.contains("export{pollgate,pollgate as default}"), path.ends_with(".mjs"));
}

#[tokio::test]
async fn it_is_a_script_and_a_module_over_every_way_in() {
    let plain = Gate::start_alone("").await;
    let tls = Gate::with("").alone().tls(Identity::any()).start().await;
    for (way, gate) in Way::ALL.into_iter().flat_map(|way| [(way, &plain), (way, &tls)]) {
        for path in PATHS {
            let mut client = way.connect(gate).await;
            assert_is_client(&client.poll(path).await, path);
            let head = client.poll_with("HEAD", path, &[]).await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{path} {way:?}");
        }
    }
}

#[tokio::test]
async fn a_browser_that_has_it_is_spared_the_bytes() {
    let gate = Gate::start_alone("").await;
    let mut client = gate.connect().await;
    for path in PATHS {
        for coding in ["identity", "gzip"] {
            let first = client.request("GET", path, &[("Accept-Encoding", coding)], b"").await;
            let tag = first.header("etag").unwrap();
            let also = format!("\"other\", W/{tag}");
            for known in [tag, &also, "*"] {
                let headers = [("Accept-Encoding", coding), ("If-None-Match", known)];
                for method in ["GET", "HEAD"] {
                    let again = client.request(method, path, &headers, b"").await;
                    assert_eq!((again.status, again.body.len()), (304, 0), "{known}");
                    assert_eq!(again.header("etag"), Some(tag));
                    assert_eq!(again.header("cache-control"), Some("public, max-age=3600"));
                    assert_eq!(again.header("content-length"), None, "{method}");
                }
            }
            let headers = [("Accept-Encoding", coding), ("If-None-Match", "\"other\"")];
            assert_eq!(client.request("GET", path, &headers, b"").await.status, 200);
        }
    }
}

#[tokio::test]
async fn it_takes_at_most_4_kb_on_the_wire() {
    let gate = Gate::start_alone("").await;
    let mut client = gate.connect().await;
    let mut tags = Vec::new();
    for path in PATHS {
        let plain = client.get(path).await;
        let headers = [("Accept-Encoding", "br, gzip;q=0.8")];
        let packed = client.request("GET", path, &headers, b"").await;
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        assert!(packed.body.len() <= 4096, "{path}: {}", packed.body.len());
        let mut unpacked = String::new();
        let mut decoder = flate2::read::GzDecoder::new(&packed.body[..]);
        std::io::Read::read_to_string(&mut decoder, &mut unpacked).unwrap();
        assert_eq!(unpacked, plain.text());
        tags.extend([&plain, &packed].map(|served| served.header("etag").unwrap().to_owned()));
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "each has a tag of its own");
}

#[tokio::test]
async fn the_gate_s_own_comes_before_the_site_s_unless_it_is_off_or_elsewhere() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "").await;
    assert_is_client(&gate.get("/pollgate.js?v=2").await, "/pollgate.js");
    let posted = gate.connect().await.post("/pollgate.js", "text/plain", "x").await;
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));

    let changed = gate.reconfigure("[client]\npath = \"/js/live.js\"").await;
    assert_eq!(changed["changed"], serde_json::json!(["client.path"]));
    assert_is_client(&gate.get("/js/live.js").await, "/js/live.js");
    assert_is_client(&gate.get("/js/live.mjs").await, "/js/live.mjs");
    for (config, path) in [
        ("[client]\npath = \"/js/live.js\"", "/pollgate.js"),
        ("[client]\npath = \"\"", "/pollgate.js"),
        ("[client]\npath = \"\"", "/pollgate.mjs"),
    ] {
        gate.reconfigure(config).await;
        assert_eq!(gate.get(path).await.text(), format!("site: GET {path}"));
    }
}

#[tokio::test]
async fn a_path_that_is_none_is_a_mistake() {
    for path in ["pollgate.js", "/pollgate", "/a b.js", "/x.js?y.js", "/%70.js", "/*.js"] {
        let folder = TempDir::new("client");
        let config = format!("upstream.servers = [\"127.0.0.1:1\"]\nclient.path = \"{path}\"\n");
        let file = folder.write("pollgate.toml", config);
        let checked = pollgate(&["check", "--config", file.to_str().unwrap()]).await;
        assert_eq!(checked.code, 2, "{path}: {}", checked.stderr);
        assert!(checked.stderr.contains("client.path: "), "{}", checked.stderr);
        assert!(checked.stderr.contains("is no path of a script"), "{}", checked.stderr);
    }
}
