//! The PHP of `docs/auth.md`, run by real PHP: tokens that PHP signs, and a script that authorizes
//! polls.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::process::Command;
use support::{Gate, PhpSite, Way};

const MANUAL: &str = include_str!("../docs/auth.md");

/// The PHP of the manual that has `mark` in it.
fn manual(mark: &str) -> &'static str {
    let blocks = MANUAL.split("```php\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.into_iter().find(|block| block.contains(mark)).unwrap_or_else(|| panic!("no {mark}"))
}

/// Output of PHP.
fn php(code: &str) -> String {
    let output = Command::new("php").args(["-r", code]).output();
    let output = output.unwrap_or_else(|error| panic!("php is needed (php-cli): {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_manuals_three_lines_of_php_sign_a_token() {
    let rule = MANUAL.split("```toml\n").find(|block| block.contains("\"signed\"")).unwrap();
    let gate = Gate::start_alone(rule.split("```").next().unwrap()).await;
    let code = format!("$userId = 7; {} echo $token;", manual("hash_hmac"));
    let token = php(&code);
    for way in Way::ALL {
        let mut poller = way.connect(&gate).await;
        let cookie = format!("a=b; pollgate_token={token}");
        let headers = [("Cookie", cookie.as_str())];
        for (channel, status) in [("news", 200), ("user-7%2Finbox", 200), ("user-8%2Fx", 403)] {
            let target = format!("/comet/{channel}?timeout=0");
            let response = poller.poll_with("GET", &target, &headers).await;
            assert_eq!(response.status, status, "{channel}: {}", response.text());
        }
    }
}

#[tokio::test]
async fn a_json_web_token_signed_by_php_is_checked_with_the_public_key() {
    // RS256 as openssl makes it: the private key signs, the gate has the public one.
    let code = r#"
        $pair = openssl_pkey_new(['private_key_type' => OPENSSL_KEYTYPE_RSA, 'private_key_bits' => 2048]);
        $encode = fn($bytes) => rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
        $signed = $encode('{"alg":"RS256"}') . '.' . $encode('{"channels":["news"],"exp":' . (time() + 60) . '}');
        openssl_sign($signed, $signature, $pair, OPENSSL_ALGO_SHA256);
        echo json_encode([openssl_pkey_get_details($pair)['key'], "$signed." . $encode($signature)]);
    "#;
    let made: Vec<String> = serde_json::from_str(&php(code)).unwrap();
    let [pem, token] = made.as_slice() else { panic!("{made:?}") };
    let rule = format!(
        "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\nauth = {{ kind = \"jwt\", key = '''{pem}''' }}\n"
    );
    let gate = Gate::start_alone(&rule).await;
    for way in Way::ALL {
        let mut poller = way.connect(&gate).await;
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        let response = poller.poll_with("GET", "/comet/news?timeout=0", &headers).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(poller.poll_with("GET", "/comet/x?timeout=0", &headers).await.status, 403);
    }
}

#[tokio::test]
async fn the_manuals_script_says_who_may_poll_by_the_users_session() {
    let mut site = PhpSite::of("plain");
    let login =
        "<?php session_start(); $_SESSION['channels'] = ['mine', 'a,b']; echo session_id();";
    std::fs::write(site.root().join("login.php"), login).unwrap();
    let script = format!("<?php {}", manual("read_and_close"));
    std::fs::write(site.root().join("auth.php"), script).unwrap();
    site.start().await;
    let rule = MANUAL.split("```toml\n").find(|block| block.contains("\"upstream\"")).unwrap();
    let gate = Gate::start_before(site.addr(), rule.split("```").next().unwrap()).await;
    let session = gate.get("/login.php").await.text();
    let cookie = format!("PHPSESSID={}", session.trim());
    for way in Way::ALL {
        let mut poller = way.connect(&gate).await;
        let headers = [("Cookie", cookie.as_str())];
        for (channels, status) in [("mine", 200), ("other", 403), ("other,a%2Cb", 200)] {
            let target = format!("/comet/{channels}?timeout=0");
            let response = poller.poll_with("GET", &target, &headers).await;
            assert_eq!(response.status, status, "{channels}: {}", response.text());
        }
        assert_eq!(poller.poll("/comet/mine?timeout=0").await.status, 401);
    }
}
