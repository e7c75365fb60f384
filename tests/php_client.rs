//! `clients/php/Pollgate.php` against a gate: with curl and without it, over TCP and unix sockets.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Addr, Gate, Way};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

/// PHP with its extensions, and PHP with none of those that are not built in, such as curl.
const KINDS: [&[&str]; 2] = [&[], &["-n"]];

fn client_file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/php/Pollgate.php")
}

/// The JSON that PHP prints after running `code`, in which `$gate` is a client of `address`.
async fn php(flags: &[&str], address: &str, options: &str, code: &str) -> Value {
    let script = format!(
        "error_reporting(E_ALL); ini_set('display_errors', 'stderr'); require '{}';\n\
         $gate = new Pollgate('{address}', {options});\n\
         try {{ $result = (function () use ($gate) {{ {code} }})(); }}\n\
         catch (PollgateException $e) {{\n\
             $result = ['error' => $e->getMessage(), 'status' => $e->status, 'hint' => $e->getHint()];\n\
         }}\n\
         echo json_encode($result);",
        client_file().display()
    );
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let run = move || Command::new("php").args(&flags).args(["-r", &script]).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let output = output.unwrap_or_else(|error| panic!("php is needed (php-cli): {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
}

/// The address as the client wants it.
fn address(addr: &Addr) -> String {
    match addr {
        Addr::Unix(path) => format!("unix:{}", path.display()),
        Addr::Tcp(tcp) => tcp.to_string(),
        Addr::Tls(tls) => panic!("not an internal address: {tls:?}"),
    }
}

async fn gate() -> Gate {
    let plan = Gate::with("").alone();
    let socket = format!("unix:{}", plan.folder().join("internal.sock").display());
    plan.internal(["127.0.0.1:0", &socket]).start().await
}

#[tokio::test]
async fn php_publishes_reads_and_forgets_over_tcp_and_unix_with_and_without_curl() {
    let gate = gate().await;
    for (flags, addr) in
        KINDS.iter().flat_map(|kind| gate.internals().iter().map(move |a| (kind, a)))
    {
        let at = address(addr);
        let mut held = gate.hold(Way::Plain, "/comet/räume%2F1,json").await;
        let code = "return [
            $gate->publish('räume/1', 'Grüße'),
            $gate->publishMany([['channel' => 'json', 'data' => ['a' => 1.5]], ['channels' => ['x', 'y']]]),
            $gate->publish('bytes', \"\\xff\\x00\"),
            $gate->publish('json', null, []),
            $gate->history('json'),
            $gate->publish('cursor', 'seen'),
            $gate->history('cursor', $gate->cursor('cursor')),
            $gate->forget('cursor'),
            $gate->forget('cursor'),
        ];";
        let done = php(flags, &at, "[]", code).await;
        assert_eq!(done[0]["channel"], "räume/1", "{done}");
        assert_eq!(done[0]["released"], 1, "{done}");
        assert_eq!(held.answer().await.json()["messages"][0]["data"], "Grüße");
        let names: Vec<_> = done[1].as_array().unwrap().iter().map(|one| &one["channel"]).collect();
        assert_eq!(names, ["json", "x", "y"]);
        assert!(done[2]["id"].is_string());
        let messages = done[4]["messages"].as_array().unwrap();
        assert_eq!((&messages[0]["data"], &messages[1]["data"]), (&json!({"a": 1.5}), &json!("")));
        assert_eq!(done[6]["messages"], json!([]));
        assert_eq!((&done[7]["channel"], &done[8]), (&json!("cursor"), &json!(false)));
        php(flags, &at, "[]", "return [$gate->forget('json'), $gate->forget('räume/1')];").await;
    }
}

#[tokio::test]
async fn an_error_has_the_gates_status_and_hint() {
    let gate = Gate::with("[publish]\ntoken = \"secret\"").alone().token("secret").start().await;
    let at = address(gate.internal());
    for flags in KINDS {
        let refused =
            php(flags, &at, "['token' => 'wrong']", "return $gate->publish('a', 'x');").await;
        assert_eq!(refused["status"], 401, "{refused}");
        assert!(!refused["hint"].as_str().unwrap().is_empty(), "{refused}");
        let bad = "['token' => 'secret']";
        let refused = php(flags, &at, bad, "return $gate->publish('', 'x');").await;
        assert!(refused["status"].as_u64().unwrap() >= 400, "{refused}");
        let refused = php(
            flags,
            &at,
            bad,
            "return $gate->publish('a', 'x', ['content_type' => \"a\\r\\nb\"]);",
        )
        .await;
        assert_eq!(refused["status"], 0, "{refused}");
        let revoked = php(flags, &at, bad, "return $gate->revoke('a', 'b&c');").await;
        assert_eq!(revoked, 0);
    }
}

#[tokio::test]
async fn a_key_makes_a_publish_safe_to_repeat() {
    let gate = gate().await;
    for (index, flags) in KINDS.iter().enumerate() {
        let code = format!(
            "$once = ['idempotency_key' => 'order-{index}'];
             return [$gate->publish('orders', 'x{index}', $once), $gate->publish('orders', 'x{index}', $once)];"
        );
        let done = php(flags, &address(gate.internal()), "[]", &code).await;
        assert_eq!(done[0], done[1], "{done}");
    }
    assert_eq!(gate.channel("orders").await["kept"], 2);
}

#[tokio::test]
async fn a_page_loses_a_second_at_most_when_the_gate_is_down_or_silent() {
    // Accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = silent.local_addr().unwrap().to_string();
    let _silent = tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            streams.push(stream);
        }
    });
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let down = closed.local_addr().unwrap().to_string();
    drop(closed);
    for flags in KINDS {
        for (at, least) in
            [(at.as_str(), 0.9), (down.as_str(), 0.0), ("unix:/nowhere/gate.sock", 0.0)]
        {
            let code = "ini_set('error_log', '/dev/null'); $from = microtime(true);
                $quiet = $gate->publishQuietly('a', 'x'); $took = microtime(true) - $from;
                try { $gate->publish('a', 'x'); } catch (PollgateException $e) {
                    return [$quiet, $took, $e->status, $e->getMessage()]; }";
            let began = Instant::now();
            let done = php(flags, at, "[]", code).await;
            assert!(began.elapsed() < Duration::from_secs(10));
            assert_eq!((&done[0], &done[2]), (&json!(false), &json!(0)), "{done}");
            let took = done[1].as_f64().unwrap();
            assert!((least..2.0).contains(&took), "{at}: {took}");
            assert!(done[3].as_str().unwrap().contains("no answer from the gate"), "{done}");
        }
    }
}

#[tokio::test]
async fn a_torn_answer_is_an_error_and_is_repeated_only_with_a_key() {
    let torn = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = torn.local_addr().unwrap().to_string();
    let (seen, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let _torn = tokio::spawn(async move {
        while let Ok((mut stream, _)) = torn.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or_default();
            let _ = seen.send(length);
        }
    });
    for flags in KINDS {
        for (options, requests) in [("[]", 1), ("['idempotency_key' => 'k']", 2)] {
            let code = format!("return $gate->publish('a', 'x', {options});");
            assert_eq!(php(flags, &at, "[]", &code).await["status"], 0);
            for _ in 0..requests {
                assert!(asked.recv().await.unwrap() > 0);
            }
            assert!(asked.try_recv().is_err(), "{flags:?} {options}");
        }
    }
}

#[tokio::test]
async fn tokens_that_the_client_signs_open_their_channels_and_no_others() {
    let gate = Gate::start_alone(
        "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\nauth = { kind = \"signed\", keys = { k1 = \"sesame\" } }\n\
         [[poll]]\npath = \"/jwt/*\"\ndialect = \"native\"\nauth = { kind = \"jwt\", key = \"0123456789abcdef0123456789abcdef\", algorithms = [\"HS256\"] }\n",
    )
    .await;
    let code = "return [
        Pollgate::token('k1', 'sesame', ['news', 'room-*'], time() + 60),
        Pollgate::token('k1', 'other', ['news'], time() + 60),
        Pollgate::jwt('0123456789abcdef0123456789abcdef', ['channels' => ['news'], 'exp' => time() + 60]),
    ];";
    let tokens = php(&[], "127.0.0.1:1", "[]", code).await;
    let asked = [
        ("comet", 0, "news", 200),
        ("comet", 0, "room-7", 200),
        ("comet", 0, "other", 403),
        ("comet", 1, "news", 401),
        ("jwt", 2, "news", 200),
        ("jwt", 2, "other", 403),
    ];
    for (path, token, channel, status) in asked {
        let token = tokens[token].as_str().unwrap();
        let target = format!("/{path}/{channel}?timeout=0&token={token}");
        let response = gate.get(&target).await;
        assert_eq!(response.status, status, "{target}: {}", response.text());
    }
    for code in
        ["return Pollgate::token('k1', 's', ['a,b'], 1);", "return Pollgate::jwt('s', [], 'none');"]
    {
        assert!(php(&[], "127.0.0.1:1", "[]", code).await["error"].is_string());
    }
}

#[tokio::test]
async fn a_webhook_is_taken_only_with_its_signature_and_in_its_time() {
    let code = "
        $body = json_encode(['time_ms' => (int) (microtime(true) * 1000), 'events' => [['name' => 'channel_occupied', 'channel' => 'a']]]);
        $old = json_encode(['time_ms' => 1000, 'events' => []]);
        $sign = function ($body) { return 'sha256=' . hash_hmac('sha256', $body, 'secret'); };
        $try = function ($body, $headers) {
            try { return Pollgate::verifyWebhook('secret', $body, $headers)['events']; }
            catch (PollgateException $e) { return $e->status; }
        };
        return [
            $try($body, ['HTTP_POLLGATE_SIGNATURE' => $sign($body)]),
            $try($body, ['Pollgate-Signature' => [$sign($body)]]),
            $try($body . ' ', ['Pollgate-Signature' => $sign($body)]),
            $try($body, []),
            $try($old, ['Pollgate-Signature' => $sign($old)]),
        ];";
    let done = php(&[], "127.0.0.1:1", "[]", code).await;
    let events = json!([{"name": "channel_occupied", "channel": "a"}]);
    assert_eq!(done, json!([events, events, 401, 401, 401]));
}

#[test]
fn the_client_uses_no_syntax_newer_than_php_7_2() {
    // PHP's own tokens; those that came later have names of their own, or a telling order.
    let code = format!(
        r#"$tokens = token_get_all(file_get_contents('{}'), TOKEN_PARSE);
        $later = ['T_FN', 'T_MATCH', 'T_ENUM', 'T_READONLY', 'T_ATTRIBUTE', 'T_COALESCE_EQUAL', 'T_NULLSAFE_OBJECT_OPERATOR'];
        $found = []; $last = ''; $before = '';
        foreach ($tokens as $token) {{
            $name = is_array($token) ? token_name($token[0]) : $token;
            if (in_array($name, ['T_WHITESPACE', 'T_COMMENT', 'T_DOC_COMMENT'])) continue;
            if (in_array($name, $later)) $found[] = $name;
            // A typed property, a promoted one, a trailing comma of a call, a spread in an array.
            if ($name === 'T_VARIABLE' && $last === 'T_STRING' && in_array($before, ['T_PUBLIC', 'T_PRIVATE', 'T_PROTECTED', 'T_STATIC', '?'])
                && !in_array($seen ?? '', ['(', ','])) $found[] = 'typed property ' . $token[1];
            if ($name === ')' && $last === ',') $found[] = 'trailing comma';
            if ($name === 'T_ELLIPSIS' && $last === '[') $found[] = 'spread';
            if ($name === '?') $seen = $last;
            $before = $last; $last = $name;
        }}
        echo json_encode($found);"#,
        client_file().display()
    );
    let output = Command::new("php").args(["-r", &code]).output();
    let output = output.unwrap_or_else(|error| panic!("php is needed (php-cli): {error}"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[]");
}
