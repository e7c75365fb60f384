//! Rules that tell a poll from other requests at its address, and the addresses of frameworks.

use super::tests::{adopted, assert_has, effective};

/// A loop around a file's time, with the branch before it and around it as given.
fn chat(before: &str, around: (&str, &str)) -> String {
    let (open, close) = around;
    format!(
        "<?php $f = '/d/x'; {before} {open} while (filemtime($f) <= $_GET['t']) {{ sleep(1);
        clearstatcache(); }} echo strtoupper(file_get_contents($f)); {close}"
    )
}

#[test]
fn a_poll_is_told_by_the_value_of_a_parameter() {
    for (open, when) in [
        ("if ($_GET['do'] == 'poll')", "when = [\"do=poll\"]"),
        ("if (!empty($_GET['room']))", "when = [\"room!=\"]"),
        ("if (isset($_GET['room']))", "when = [\"room\"]"),
        ("if (in_array($_GET['do'], array('poll')))", "when = [\"do=poll\"]"),
        ("if ($_GET['do'] != 'send')", "unless = [\"do=send\"]"),
        ("if (!isset($_GET['msg']))", "unless = [\"msg\", \"msg=\"]"),
        ("if (empty($_GET['msg']))", "unless = [\"msg\"]"),
    ] {
        let config = adopted(&[("c.php", &chat("", (&format!("{open} {{"), "}")))]);
        assert_has(&config, &[when]);
    }
}

#[test]
fn a_poll_with_one_of_several_values_has_a_rule_for_each() {
    for open in [
        "if ($_GET['do'] == 'poll' || $_GET['do'] == 'wait') {",
        "if (in_array($_GET['do'], ['poll', 'wait'])) {",
        "switch ($_GET['do']) { case 'list': echo 'x'; break; case 'poll': case 'wait':",
    ] {
        let config = adopted(&[("c.php", &chat("", (open, "}")))]);
        assert_has(&config, &["when = [\"do=poll\"]", "when = [\"do=wait\"]"]);
        assert_eq!(effective(&config).matches("[[poll]]").count(), 2, "{config}");
    }
    let rest = "switch ($_GET['do']) { case 'list': echo 'x'; break; default:";
    let config = adopted(&[("c.php", &chat("", (rest, "}")))]);
    assert_has(&config, &["unless = [\"do=list\"]"]);
}

#[test]
fn a_test_that_no_condition_expresses_is_a_question() {
    let config = adopted(&[("c.php", &chat("", ("if (ctype_digit($_GET['room'])) {", "}")))]);
    assert_eq!(effective(&config), "", "{config}");
    assert!(config.contains("? for which values of room does it wait?"), "{config}");
}

#[test]
fn a_request_that_writes_under_two_conditions_is_no_poll() {
    for test in
        ["isset($_GET['room']) && isset($_GET['msg'])", "isset($_GET['room'], $_GET['msg'])"]
    {
        let write = format!("if ({test}) {{ file_put_contents($f, $_GET['msg']); exit; }}");
        let config = adopted(&[("c.php", &chat(&write, ("", "")))]);
        let rules = effective(&config);
        let none = rules.find("when = [\"room\", \"msg\"]\ndialect = \"none\"");
        assert!(none < rules.find("dialect = \"replay\"") && none.is_some(), "{config}");
        assert!(!rules.contains("unless"), "{config}");
    }
    // It writes and then waits.
    let write = "if ($_GET['do'] == 'send') { file_put_contents($f, $_GET['msg']); }";
    assert_has(&adopted(&[("c.php", &chat(write, ("", "")))]), &["unless = [\"do=send\"]"]);
}

#[test]
fn a_script_that_ends_its_wait_without_a_word_is_answered_for_with_nothing() {
    let poll = |inside: &str, behind: &str| {
        format!(
            "<?php $n = 0; while (true) {{
                $r = mysql_query('SELECT * FROM chat WHERE id > ' . (int) $_GET['last']);
                if (mysql_num_rows($r)) {{ echo json_encode(mysql_fetch_assoc($r)); break; }}
                {inside} sleep(1);
            }} {behind}"
        )
    };
    for (inside, behind, silent) in [
        ("if ($n++ > 20) { break; }", "", true),
        ("if ($n++ > 20) exit;", "", true),
        ("if ($n++ > 20) { echo mysql_error(); break; }", "", false),
        ("if ($n++ > 20) { http_response_code(408); break; }", "", false),
        ("if ($n++ > 20) { break; }", "echo mysql_error();", false),
    ] {
        let config = adopted(&[("c.php", &poll(inside, behind))]);
        assert_eq!(config.contains("on_timeout = \"\""), silent, "{inside} {behind}\n{config}");
    }
}

#[test]
fn a_first_poll_of_the_timestamp_dialect_is_the_gates() {
    let poll = "<?php $f = '/d/x'; $t = isset($_GET['t']) ? $_GET['t'] : 0; $now = filemtime($f);
        if ($t != 0) { while ($now <= $t) { sleep(1); clearstatcache(); $now = filemtime($f); } }
        echo json_encode(array('m' => file_get_contents($f), 't' => $now));";
    let config = adopted(&[("c.php", poll)]);
    assert_has(&config, &["dialect = \"timestamp\""]);
    assert!(!effective(&config).contains("unless"), "{config}");
}

#[test]
fn a_script_that_pauses_before_it_looks_has_time_for_both() {
    let poll = "<?php do { sleep(3); $r = mysql_query('SELECT COUNT(*) AS n FROM notes');
            $row = mysql_fetch_assoc($r); } while ($row['n'] == $_GET['shown']);
        echo json_encode($row);";
    let config = adopted(&[("c.php", poll)]);
    assert!(config.contains("max_wait = \"6s\""), "{config}");
    assert!(config.contains("cursor = \"shown\""), "{config}");
}

#[test]
fn all_files_that_a_loop_looks_at_are_watched() {
    let poll = "<?php while (true) { clearstatcache();
        if (filemtime('/d/x') > $_GET['t']) die(file_get_contents('/d/x'));
        if (filemtime('/d/y') > $_GET['t']) die('r'); }";
    let config = adopted(&[("c.php", poll)]);
    assert_has(&config, &["dialect = \"replay\"", "path = \"/d/x\"", "path = \"/d/y\""]);
    let usual = "<?php foreach ($files as $f) { clearstatcache();
        if (filemtime($f) > $_GET['t']) $new[] = $f; } echo json_encode($new);";
    assert_eq!(effective(&adopted(&[("c.php", usual)])), "");
}

#[test]
fn a_file_in_a_folder_for_each_room_is_watched_and_the_usual_room_has_a_rule() {
    let poll = "<?php $f = '/d/' . ($_GET['room'] ?? 'home') . '/log.txt';
        while (filemtime($f) <= $_GET['t']) { sleep(1); clearstatcache(); }
        echo strtoupper(file_get_contents($f));";
    let config = adopted(&[("c.php", poll)]);
    assert_has(
        &config,
        &["path = \"/d/*/log.txt\"", "channel = \"{query.room}\"", "channel = \"home\""],
    );
}

#[test]
fn waits_for_the_session_cannot_be_taken_over() {
    let poll = "<?php session_start(); while (empty($_SESSION['m'])) { session_write_close();
        sleep(1); session_start(); } echo json_encode($_SESSION['m']);";
    let config = adopted(&[("c.php", poll)]);
    assert!(config.contains("cannot be taken over"), "{config}");
    assert!(!config.contains("[[poll]]") && !config.contains("# ?"), "{config}");
}

const ROWS: &str = "while (true) { $rows = DB::table('chat')->where('id', '>', $last)->get();
    if (count($rows)) { return response()->json($rows); } sleep(1); }";

#[test]
fn routes_of_their_own_function_or_of_a_class_alone_are_addresses() {
    let closure = format!(
        "<?php Route::get('/wait/{{room}}', function (Request $request, $room) {{
            $last = $request->input('last'); {ROWS} }});
        Route::get('/wait/help', 'Pages@help'); Route::post('/wait/{{room}}', 'Chat@say');"
    );
    let invoked = format!(
        "<?php class Poll {{ function __invoke(Request $request) {{
            $last = $request->query('last'); {ROWS} }} }}
        class Chat {{ function say(Request $request) {{
            DB::table('chat')->insert(['text' => $request->input('text')]); }} }}
        class Pages {{ function help() {{ return 'x'; }} }}"
    );
    let more = "<?php Route::get('/poll', Poll::class);
        Route::controller(Chat::class)->prefix('talk')->group(function () {
            Route::post('/say', 'say'); });";
    let files = [("routes/web.php", &*closure), ("app/a.php", &invoked), ("routes/more.php", more)];
    let config = adopted(&files);
    assert_has(
        &config,
        &["path = \"/wait/*\"", "path = \"/poll\"", "path = \"/talk/say\"", "methods = [\"GET\"]"],
    );
    let rules = effective(&config);
    assert!(rules.contains("path = \"/wait/help\"\ndialect = \"none\""), "{config}");
    assert!(rules.contains("content_type") || !rules.contains("on_timeout"), "{config}");
}

#[test]
fn routes_of_codeigniter_are_addresses_beside_the_controllers() {
    let controller = "<?php class Chat extends CI_Controller { function poll($room) {
        $last = $this->input->get('last');
        while (true) { $q = $this->db->query('SELECT * FROM chat WHERE id > ?', array($last));
            if ($q->num_rows()) { echo json_encode($q->result()); return; } sleep(1); } }
        function say() { $this->db->insert('chat', array('t' => $this->input->post('t'))); } }";
    let routes = "<?php $route['default_controller'] = 'chat/say'; $route['404_override'] = '';
        $route['rooms/(:num)/wait'] = 'chat/poll/$1';";
    let config = adopted(&[
        ("application/controllers/Chat.php", controller),
        ("application/config/routes.php", routes),
    ]);
    assert_has(
        &config,
        &[
            "path = \"/rooms/*/wait\"",
            "path = \"/index.php/rooms/*/wait\"",
            "path = \"/chat/poll/*\"",
            "path = \"/\"",
        ],
    );
}
