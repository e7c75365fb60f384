//! `pollgate adopt`: an old site is read, and what comes out is a config that is accepted as it
//! stands.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use support::{TempDir, pollgate};

fn site(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sites").join(name)
}

/// Prints of `adopt` for a folder.
async fn adopt(folder: &Path) -> String {
    let done = pollgate(&["adopt", &folder.display().to_string()]).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stderr.is_empty(), "{}", done.stderr);
    done.stdout
}

/// Sees that `check` accepts it, and answers it as it takes effect.
async fn checked(config: &str) -> toml_edit::DocumentMut {
    let folder = TempDir::new("adopted");
    let file = folder.write("pollgate.toml", config).display().to_string();
    let done = pollgate(&["check", "--config", &file]).await;
    assert_eq!(done.code, 0, "{}\n{config}", done.stderr);
    done.stdout.parse().unwrap()
}

fn php_waiting_for(path: &str) -> String {
    format!(
        "<?php $f = {path};
        while (filemtime($f) <= $_GET['timestamp']) {{ usleep(10000); clearstatcache(); }}
        echo json_encode(['msg' => file_get_contents($f), 'timestamp' => filemtime($f)]);"
    )
}

#[tokio::test]
async fn every_known_site_becomes_a_config_that_check_accepts() {
    for (name, rules, dialect) in [
        ("novcomet", 1, "novcomet"),
        ("backend", 1, "timestamp"),
        ("sendmsg", 1, "timestamp"),
        ("live", 1, "timestamp"),
        ("jsonp", 1, "timestamp"),
        ("postpoll", 1, "timestamp"),
        ("millis", 1, "timestamp"),
        ("talk", 1, "replay"),
    ] {
        let config = adopt(&site(name)).await;
        let effective = checked(&config).await;
        let polls = effective["poll"].as_array_of_tables().unwrap();
        assert_eq!(polls.len(), rules, "{name}:\n{config}");
        assert_eq!(polls.get(0).unwrap()["dialect"].as_str(), Some(dialect), "{name}:\n{config}");
        assert!(!config.contains("# ?"), "{name} needs an answer:\n{config}");
    }
}

#[tokio::test]
async fn each_finding_names_its_file_and_line() {
    let config = adopt(&site("backend")).await;
    let source = std::fs::read_to_string(site("backend").join("backend.php")).unwrap();
    let line = source.lines().position(|line| line.starts_with("while")).unwrap() + 1;
    assert!(config.contains(&format!("# backend.php:{line}  waits for data.txt")), "{config}");
}

#[tokio::test]
async fn the_report_for_programs_has_a_verdict_for_each_script_that_waits() {
    let folder = site("backend").display().to_string();
    let done = pollgate(&["adopt", &folder, "--json"]).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(report["config"], adopt(&site("backend")).await);
    assert_eq!(report["findings"][0]["verdict"], "live");
    assert_eq!(report["findings"][0]["addresses"][0], "/backend.php");
    let done = pollgate(&["adopt", &folder, "--try", "ftp://x/y"]).await;
    assert_eq!(done.code, 2, "{}", done.stderr);
}

#[tokio::test]
async fn a_site_that_does_not_wait_gets_the_least_config_and_the_word_that_nothing_was_found() {
    let empty = TempDir::new("empty");
    for folder in [site("plain"), empty.path().to_owned()] {
        let config = adopt(&folder).await;
        assert!(config.contains("# No script was found that waits"), "{config}");
        let effective = checked(&config).await;
        assert_eq!(effective["upstream"]["servers"][0].as_str(), Some("127.0.0.1:8000"));
        assert!(!config.contains("[[poll]]"), "{config}");
    }
}

#[tokio::test]
async fn what_is_no_document_root_is_a_mistake_in_the_usage() {
    let folder = TempDir::new("no-root");
    let file = folder.write("file.php", "<?php").display().to_string();
    let missing = folder.path().join("missing").display().to_string();
    for (args, told) in [
        (&["adopt", &missing][..], "missing"),
        (&["adopt", &file], "no folder"),
        (&["adopt"], "DIR"),
        (&["adopt", &missing, "--nonsense"], "nonsense"),
    ] {
        let done = pollgate(args).await;
        assert_eq!((done.code, done.stdout.as_str()), (2, ""), "{args:?}");
        assert!(done.stderr.contains(told), "{args:?}: {}", done.stderr);
    }
}

#[tokio::test]
async fn links_in_a_circle_and_out_of_the_site_end() {
    let folder = TempDir::new("links");
    let root = folder.path().join("site");
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    symlink(&root, root.join("a/b/again")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink(folder.path().join("secret.php"), root.join("secret.php")).unwrap();
    folder.write("secret.php", php_waiting_for("'/d/secret'"));
    std::fs::write(root.join("a/poll.php"), php_waiting_for("'/d/x'")).unwrap();
    let config = adopt(&root).await;
    assert_eq!(config.matches("[[poll]]").count(), 1, "{config}");
    assert!(config.contains("path = \"/a/poll.php\""), "{config}");
    assert!(config.contains("secret.php (it leads out"), "{config}");
    checked(&config).await;
}

#[tokio::test]
async fn files_that_are_no_text_or_too_large_are_survived() {
    let folder = TempDir::new("odd");
    folder.write("latin1.php", b"<?php $a = '\xe4\xf6\xfc'; /* \xff\xfe */ ?>\x00\x01");
    let mut odd = php_waiting_for("'/d/x'").into_bytes();
    odd.splice(5..5, b" /* K\xf6ln */ ".iter().copied());
    folder.write("poll.php", odd);
    folder.write("large.php", vec![b'x'; 1_000_000]);
    let config = adopt(folder.path()).await;
    assert!(config.contains("path = \"/poll.php\""), "{config}");
    assert!(config.contains("large.php (too large)"), "{config}");
    checked(&config).await;
}

#[tokio::test]
async fn names_that_are_no_words_of_a_config_are_questions_or_quoted() {
    let folder = TempDir::new("names");
    for name in ["it's \"quoted\".php", "star*.php", "brace{x}.php", "über.php", "line\nbreak.php"]
    {
        folder.write(name, php_waiting_for("__DIR__ . '/d\\'\"{x}.txt'"));
    }
    checked(&adopt(folder.path()).await).await;
}

/// Names, sizes and times of all that is below a folder.
fn state(folder: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        all.push((entry.path(), about.len(), about.modified().unwrap()));
        if about.is_dir() {
            all.extend(state(&entry.path()));
        }
    }
    all.sort();
    all
}

#[tokio::test]
async fn the_site_is_only_read() {
    let before = state(&site("live"));
    adopt(&site("live")).await;
    assert_eq!(state(&site("live")), before);
}

#[tokio::test]
async fn a_large_site_of_the_usual_kind_gives_no_finding() {
    let folder = TempDir::new("usual");
    let usual = [
        "<?php get_header(); while (have_posts()) : the_post(); ?><h1><?php the_title(); ?></h1>\
         <?php endwhile; get_footer();",
        "<?php class Lock { function take($name) { global $wpdb; for ($i = 0; $i < 5; $i++) { \
         if ($wpdb->query(\"INSERT INTO locks (name) VALUES ('$name')\")) return true; \
         usleep(100000); } return false; } }",
        "<?php function retry($url) { do { $r = wp_remote_get($url); sleep(1); } \
         while (is_wp_error($r)); return json_decode($r['body']); } echo json_encode(retry($_GET['u']));",
        "<?php $css = filemtime(__DIR__ . '/style.css'); echo \"<link href='style.css?$css'>\";",
        "<?php if (file_exists($cache) && time() - filemtime($cache) < 3600) { readfile($cache); \
         exit; } ob_start(); sleep(0); echo $_GET['page']; file_put_contents($cache, ob_get_flush());",
        "<?php foreach ($queue as $mail) { mail($mail->to, $mail->subject, $mail->body); sleep(2); } \
         header('Content-Type: application/json'); echo json_encode(['sent' => count($queue)]);",
    ];
    for number in 0..600 {
        let part = folder.path().join(format!("part-{}", number % 20));
        std::fs::create_dir_all(&part).unwrap();
        std::fs::write(part.join(format!("{number}.php")), usual[number % usual.len()]).unwrap();
    }
    let config = adopt(folder.path()).await;
    assert!(!config.contains("[[poll]]"), "{config}");
    checked(&config).await;
}
