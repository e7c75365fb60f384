// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::{File, Site, config_for};
use proptest::prelude::*;

fn site(files: &[(&str, &str)]) -> Site {
    let file = |(path, text): &(&str, &str)| File { path: (*path).into(), text: (*text).into() };
    Site { root: "/srv/www".into(), files: files.iter().map(file).collect(), left_out: Vec::new() }
}

pub(super) fn adopted(files: &[(&str, &str)]) -> String {
    config_for(&site(files))
}

/// The lines of a config that are no comment.
pub(super) fn effective(config: &str) -> String {
    let lines = config.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.skip(2).map(|line| format!("{line}\n")).collect()
}

#[track_caller]
pub(super) fn assert_has(config: &str, lines: &[&str]) {
    for line in lines {
        assert!(effective(config).lines().any(|one| one == *line), "no {line:?} in\n{config}");
    }
}

#[track_caller]
pub(super) fn assert_nothing_found(source: &str) {
    let config = adopted(&[("a.php", source)]);
    assert_eq!(effective(&config), "", "{config}");
    assert!(config.contains("No script was found"), "{config}");
}

/// The least `backend.php`, with its path, its reading and its answer as given.
fn backend(path: &str, read: &str, answer: &str) -> String {
    format!(
        "<?php $f = {path}; $last = {read};
        while (filemtime($f) <= $last) {{ usleep(10000); clearstatcache(); }}
        echo {answer};"
    )
}

const GET: &str = "isset($_GET['t']) ? $_GET['t'] : 0";
const ANSWER: &str = "json_encode(array('m' => file_get_contents($f), 't' => filemtime($f)))";

#[test]
fn paths_are_folded_as_far_as_they_are_constant() {
    for (path, folded) in [
        ("dirname(__FILE__) . '/data.txt'", "/srv/www/app/data.txt"),
        ("dirname(dirname(__FILE__)) . '/data.txt'", "/srv/www/data.txt"),
        ("__DIR__ . \"/../d/{$_GET['x']}.txt\"", "/srv/www/d/*.txt"),
        ("'./data.txt'", "/srv/www/app/data.txt"),
        ("$_SERVER['DOCUMENT_ROOT'] . '/data.txt'", "/srv/www/data.txt"),
        ("sprintf('%s/%s', '/dev/shm', 'x.comet')", "/dev/shm/x.comet"),
        ("(getenv('D') ?: '/dev/shm') . '/x'", "/dev/shm/x"),
        ("implode('', array('/a'))", ""),
    ] {
        let config = adopted(&[("app/b.php", &backend(path, GET, ANSWER))]);
        let line = format!("path = \"{folded}\"");
        let known = effective(&config).lines().any(|one| one == line);
        assert_eq!(known, !folded.is_empty(), "{path}:\n{config}");
    }
}

#[test]
fn the_fields_the_parameter_and_the_method_are_the_scripts_own() {
    let config = adopted(&[("b.php", &backend("'/d/x'", "$_POST['t']", ANSWER))]);
    let fields = "fields = { message = \"m\", cursor = \"t\" }";
    assert_has(&config, &["path = \"/b.php\"", fields, "methods = [\"POST\"]", "content = true"]);
    let request = "filter_input(INPUT_GET, 't', FILTER_SANITIZE_NUMBER_INT)";
    let config = adopted(&[("b.php", &backend("'/d/x'", request, ANSWER))]);
    assert_has(&config, &[fields, "methods = [\"GET\"]"]);
}

#[test]
fn an_answer_of_more_than_text_and_time_is_the_sites_to_give() {
    for (answer, why) in [
        (
            "json_encode(array('m' => nl2br(file_get_contents($f)), 't' => filemtime($f)))",
            "m is not",
        ),
        (
            "json_encode(array('m' => file_get_contents($f), 'u' => filemtime($f)))",
            "sent back as t",
        ),
        (
            "json_encode(array('m' => file_get_contents($f), 't' => filemtime($f), 'n' => rand()))",
            "n is",
        ),
        ("file_get_contents($f)", "no JSON"),
    ] {
        let config = adopted(&[("b.php", &backend("'/d/x'", GET, answer))]);
        assert_has(&config, &["dialect = \"replay\"", "content = false"]);
        assert!(config.contains(why), "{why}:\n{config}");
    }
}

#[test]
fn what_a_session_may_decide_is_the_sites_to_answer() {
    let source = backend("'/d/x'", GET, ANSWER).replace("<?php", "<?php session_start();");
    let config = adopted(&[("b.php", &source)]);
    assert_has(&config, &["dialect = \"replay\""]);
    assert!(config.contains("session"), "{config}");
}

#[test]
fn a_script_that_waits_from_now_on_gets_no_old_message() {
    let now = "isset($_GET['t']) ? $_GET['t'] : time()";
    let config = adopted(&[("b.php", &backend("'/d/x'", now, ANSWER))]);
    assert_has(&config, &["first = \"wait\""]);
}

#[test]
fn a_whole_number_in_the_page_asks_for_whole_seconds() {
    let script = backend("'/d/x'", GET, ANSWER);
    let page =
        "<script>$.get('b.php'); t = parseInt(data.t); if (data.m != '') show(data.m);</script>";
    let config = adopted(&[("b.php", &script), ("index.html", page)]);
    assert_has(&config, &["stamp = \"seconds\""]);
    assert!(!effective(&config).contains("timeout"), "{config}");
}

#[test]
fn a_page_that_was_never_answered_without_a_message_never_is() {
    let config = adopted(&[("b.php", &backend("'/d/x'", GET, ANSWER))]);
    assert_has(&config, &["timeout = \"0s\""]);
}

#[test]
fn includes_classes_and_closures_are_followed() {
    let files = [
        ("lib/paths.php", "<?php define('ROOT', dirname(__DIR__)); const NAME = 'x.txt';"),
        ("lib/Waiter.php", "<?php require_once __DIR__ . '/paths.php';
            abstract class Base { protected $sleep = 2; static function make() { return new static(); } }
            class Waiter extends Base {
                private $file;
                function __construct($name = NAME) { $this->file = ROOT . \"/data/$name\"; }
                function wait($last) {
                    $newer = function ($last) { clearstatcache(); return filemtime($this->file) > $last; };
                    $tries = 10;
                    for ($i = 0; $i < $tries; $i++) { if ($newer($last)) break; sleep($this->sleep); }
                    return ['body' => file_get_contents($this->file), 'at' => filemtime($this->file)];
                }
            }"),
        ("poll.php", "<?php include('lib/Waiter.php');
            header('Content-type: application/json; charset=utf-8');
            $w = new Waiter(); die(json_encode($w->wait($_REQUEST['at'])));"),
    ];
    let config = adopted(&files);
    assert_has(
        &config,
        &[
            "path = \"/poll.php\"",
            "fields = { message = \"body\", cursor = \"at\" }",
            "content_type = \"application/json; charset=utf-8\"",
            "timeout = \"20s\"",
            "path = \"/srv/www/data/x.txt\"",
        ],
    );
    assert!(config.contains("lib/Waiter.php:"), "{config}");
    assert_eq!(config.matches("[[poll]]").count(), 1, "{config}");
}

#[test]
fn a_method_that_a_framework_calls_is_commented_out_with_a_question() {
    let source = "<?php class LiveAction extends Action {
        public function poll() {
            $f = './uploads/data.json';
            while (filemtime($f) <= $_GET['t']) { usleep(10); clearstatcache(); }
            $this->ajaxReturn(array('m' => file_get_contents($f), 't' => filemtime($f)));
        }
    }";
    let config = adopted(&[("Lib/LiveAction.class.php", source)]);
    assert_eq!(effective(&config), "", "{config}");
    assert!(config.contains("#path = \"/live/poll\""), "{config}");
    assert!(config.contains("# ? at which address"), "{config}");
}

/// Waits for rows of a database server's table, which no file shows.
const ROWS: &str = "<?php mysql_connect('h'); $last = (int) $_GET['last'];
        while (true) {
            $r = mysql_query(\"SELECT * FROM chat WHERE id > $last\");
            if (mysql_num_rows($r) > 0) { echo json_encode(mysql_fetch_assoc($r)); exit; }
            sleep(1);
        }";

const SAY: &str = "<?php if (!empty($_POST['text'])) {
        mysql_query(\"INSERT INTO chat (text) VALUES ('\" . mysql_real_escape_string($_POST['text']) . \"')\");
    }";

const EDIT: &str = "<?php mysql_query('UPDATE chat SET seen = 1 WHERE id = ' . (int) $_GET['id']);";

#[test]
fn a_poll_of_a_database_server_is_told_by_the_requests_that_write() {
    let config = adopted(&[("poll.php", ROWS), ("say.php", SAY), ("edit.php", EDIT)]);
    assert_has(
        &config,
        &[
            "path = \"/poll.php\"",
            "dialect = \"replay\"",
            "channel = \"chat\"",
            "[[capture]]",
            "path = \"/say.php\"",
            "methods = [\"POST\"]",
            "data = \"{form.text}\"",
            "on = \"2xx,3xx\"",
            "path = \"/edit.php\"",
            "methods = [\"GET\"]",
            "data = \"{query.id}\"",
        ],
    );
    assert!(!config.contains("# ?"), "{config}");
}

#[test]
fn a_database_server_of_which_not_all_is_told_is_a_question() {
    let users = ROWS.replace("sleep(1);", "mysql_query('SELECT name FROM users'); sleep(1);");
    let nightly = "<?php mysql_query('UPDATE chat SET old = 1 WHERE id < 100');";
    for (poll, writers, question) in [
        (ROWS, &[][..], "which script changes the table chat?"),
        (
            ROWS,
            &[("say.php", SAY), ("nightly.php", nightly)],
            "with which request does nightly.php:1",
        ),
        (ROWS, &[("say*.php", SAY)], "which script changes the table chat?"),
        (&*users, &[("say.php", SAY)], "it asks the table users as well"),
    ] {
        let config = adopted(&[&[("poll.php", poll)], writers].concat());
        assert_eq!(effective(&config), "", "{config}");
        assert!(config.contains(&format!("# ? {question}")), "{question}:\n{config}");
        assert!(config.lines().any(|line| line == "#dialect = \"replay\""), "{config}");
    }
}

#[test]
fn a_poll_of_sqlite_is_told_by_the_file() {
    let source = "<?php $db = new PDO('sqlite:' . __DIR__ . '/a.db');
        do {
            $q = $db->query('SELECT * FROM chat WHERE id > ' . (int) $_GET['last']);
            $rows = $q->fetchAll();
            sleep(1);
        } while (!$rows);
        echo json_encode($rows);";
    let config = adopted(&[("poll.php", source)]);
    assert_has(&config, &["dialect = \"replay\"", "path = \"/srv/www/a.db\"", "content = false"]);
}

#[test]
fn a_value_that_decides_stands_in_the_rule() {
    let source = backend("'/d/x'", GET, ANSWER)
        .replace("<?php", "<?php if ($_GET['action'] != 'poll') { echo 'page'; exit; }");
    assert_has(&adopted(&[("b.php", &source)]), &["when = [\"action=poll\"]"]);
    let source = backend("'/d/x'", GET, ANSWER).replace(
        "<?php",
        "<?php if ($_GET['act'] == 'send') { file_put_contents('/d/x', $_GET['m']); exit; }",
    );
    assert_has(&adopted(&[("b.php", &source)]), &["unless = [\"act=send\"]"]);
    let source = backend("'/d/x'", GET, ANSWER);
    let switch = format!(
        "<?php switch ($_GET['do']) {{ case 'put': touch('/d/x'); break; case 'get': {} break; }}",
        source.trim_start_matches("<?php")
    );
    assert_has(&adopted(&[("b.php", &switch)]), &["when = [\"do=get\"]"]);
}

#[test]
fn ordinary_waiting_is_no_poll() {
    assert_nothing_found("<?php while (!flock($h, LOCK_EX)) { usleep(100); } fwrite($h, 'x');");
    assert_nothing_found(
        "<?php for ($i = 0; $i < 3; $i++) { if (mail($to, $s, $t)) break; sleep(1); }",
    );
    assert_nothing_found("<?php // while (filemtime($f) <= $_GET['t']) sleep(1);\n echo 'x';");
    assert_nothing_found("<?php echo 'while (filemtime($f) <= $_GET[\"t\"]) { sleep(1); }';");
    assert_nothing_found(
        "<?php do { $ok = $wpdb->query('SELECT 1 FROM lock'); sleep(1); } while (!$ok);",
    );
    assert_nothing_found("<?php header('Last-Modified: ' . filemtime(__FILE__)); sleep(1);");
    assert_nothing_found("<html>sleep(1)</html>");
}

#[test]
fn a_name_cannot_break_out_of_its_line() {
    let config = adopted(&[("a\n[upstream]\n.php", &backend("\"/d/x\\n[y]\"", GET, ANSWER))]);
    assert_eq!(config.matches("\n[upstream]").count(), 1, "{config}");
    assert!(!config.contains("\n[y]"), "{config}");
}

#[test]
fn depth_and_length_end_somewhere() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{", "}"),
        ("!", ""),
        ("$", ""),
        ("f(", ""),
        ("a->", ""),
        ("1 .", ""),
    ] {
        let many = |text: &str| text.repeat(20_000);
        adopted(&[("a.php", &format!("<?php {}1{};", many(open), many(close)))]);
    }
    for word in
        ["if (1) {} else", "if (1) ", "while (1) ", "new ", "function () ", "fn () => ", "\"{$a"]
    {
        adopted(&[("a.php", &format!("<?php {}", word.repeat(20_000)))]);
    }
}

proptest! {
    #[test]
    fn any_text_is_read_to_its_end(text in ".{0,200}") {
        adopted(&[("a.php", &text), ("b.php", &format!("<?php {text}"))]);
    }

    #[test]
    fn any_order_of_code_is_read_to_its_end(
        words in proptest::collection::vec(
            prop::sample::select(vec![
                "<?php ", "?>", "while", "for", "foreach", "as", "=>", "(", ")", "{", "}", "[", "]",
                ";", "$f", "$_GET['t']", "filemtime", "sleep", "usleep(1)", "'", "\"", "{$", "}",
                "class A", "function b", "fn", "new A", "->b", "::", "=", ".", ",", "if", "else",
                "switch", "case 1:", "echo", "return", "json_encode", "include 'a.php'", "<<<X\n",
                "\nX;\n", "/*", "*/", "#", "?", ":", "??", "static", "match", "try", "catch",
            ]),
            0..60,
        )
    ) {
        adopted(&[("a.php", &format!("<?php {}", words.join(" ")))]);
    }
}
