//! The kinds of scripts that wait, as people write them.

use super::tests::{adopted, assert_has, assert_nothing_found, effective};

const LOOP: &str = "while (true) { ROWS if (count($rows)) { ANSWER } sleep(1); }";

/// A loop around a query, with how it asks and how it answers as given.
fn rows(ask: &str, answer: &str) -> String {
    LOOP.replace("ROWS", ask).replace("ANSWER", answer)
}

#[test]
fn values_that_are_bound_to_a_statement_are_what_it_is_asked_with() {
    for ask in [
        "$q = $db->prepare('SELECT * FROM chat WHERE id > ?'); $q->bind_param('i', $last); $q->execute(); $rows = $q->get_result();",
        "$q = $db->prepare('SELECT * FROM chat WHERE id > :id'); $q->bindValue(':id', $last); $q->execute(); $rows = $q->fetchAll();",
        "$q = $db->prepare('SELECT * FROM chat WHERE id > ?'); $q->execute([$last]); $rows = $q->fetchAll();",
    ] {
        let poll = format!(
            "<?php $last = (int) $_GET['last']; {}",
            rows(ask, "echo json_encode($rows); exit;")
        );
        let say = "<?php $q = $db->prepare('INSERT INTO chat (text) VALUES (?)');
            $q->bind_param('s', $_POST['text']); $q->execute();";
        let config = adopted(&[("poll.php", &poll), ("say.php", say)]);
        assert_has(
            &config,
            &[
                "path = \"/poll.php\"",
                "dialect = \"replay\"",
                "cursor = \"last\"",
                "max_wait = \"3s\"",
                "data = \"{form.text}\"",
            ],
        );
    }
}

#[test]
fn a_function_that_sleeps_and_calls_itself_waits() {
    let poll = "<?php function wait_for($last, $start) {
            $r = mysql_query(\"SELECT * FROM chat WHERE id > $last\");
            if (mysql_num_rows($r)) { echo json_encode(mysql_fetch_assoc($r)); return; }
            if (time() > $start + 20) { exit; }
            sleep(2);
            wait_for($last, $start);
        }
        wait_for($_GET['last'], time());";
    let say = "<?php mysql_query(\"INSERT INTO chat (text) VALUES ('{$_POST['text']}')\");";
    let config = adopted(&[("poll.php", poll), ("say.php", say)]);
    assert_has(&config, &["dialect = \"replay\"", "timeout = \"20s\"", "cursor = \"last\""]);
    assert_nothing_found(
        "<?php function retry($n) { if (!mail($a, $b)) { sleep(1); retry($n); } } retry(1);",
    );
}

#[test]
fn a_controller_of_laravel_is_at_its_route() {
    let controller = format!(
        "<?php class ChatController extends Controller {{
            public function poll(Request $request, $room) {{
                $last = $request->input('last_id');
                {}
            }}
            public function say(Request $request) {{
                $m = new Message; $m->text = $request->text; $m->save();
                return back();
            }}
        }}",
        rows(
            "$rows = Message::where('id', '>', $last)->get();",
            "return response()->json(['messages' => $rows]);"
        )
    );
    let routes = "<?php Route::prefix('chat')->group(function () {
        Route::get('/{room}/poll', [ChatController::class, 'poll'])->name('poll');
        Route::post('/say', 'ChatController@say');
    });";
    let config = adopted(&[
        ("app/Http/Controllers/ChatController.php", &controller),
        ("routes/web.php", routes),
    ]);
    assert_has(
        &config,
        &[
            "path = \"/chat/*/poll\"",
            "cursor = \"last_id\"",
            "channel = \"messages\"",
            "path = \"/chat/say\"",
            "data = \"{form.text}\"",
        ],
    );
    assert!(!config.contains("# ?"), "{config}");
}

#[test]
fn a_controller_of_codeigniter_is_at_both_of_its_addresses() {
    let controller = format!(
        "<?php class Notify extends CI_Controller {{
            public function push() {{
                $this->db->insert('messages', array('text' => $this->input->post('text')));
            }}
            public function pull() {{
                $last = $this->input->get('last');
                {}
            }}
        }}",
        rows(
            "$rows = $this->db->query('SELECT * FROM messages WHERE id > ?', array($last))->result();",
            "$this->output->set_content_type('application/json')->set_output(json_encode($rows)); return;"
        )
    );
    let config = adopted(&[("application/controllers/notify.php", &controller)]);
    assert_has(
        &config,
        &[
            "path = \"/notify/pull\"",
            "path = \"/index.php/notify/pull\"",
            "path = \"/index.php/notify/push\"",
            "data = \"{form.text}\"",
        ],
    );
}

#[test]
fn an_ajax_action_of_wordpress_is_at_its_address_with_its_name() {
    let plugin = format!(
        "<?php class Plugin {{ function poll() {{ global $wpdb; $last = $_GET['last']; {} }} }}
        add_action('wp_ajax_nopriv_chat_poll', array($plugin, 'poll'));",
        rows(
            "$rows = $wpdb->get_results(\"SELECT * FROM chat WHERE id > $last\");",
            "wp_send_json($rows);"
        )
    );
    let say = "<?php $wpdb->insert('chat', array('text' => $_POST['text']));";
    let config = adopted(&[("wp-content/plugins/chat.php", &plugin), ("say.php", say)]);
    assert_has(&config, &["path = \"/wp-admin/admin-ajax.php\"", "when = [\"action=chat_poll\"]"]);
}

#[test]
fn a_key_of_a_cache_is_a_question_with_the_line_that_publishes() {
    for read in [
        "apcu_fetch('board_version')",
        "$redis->get('board_version')",
        "Redis::get('board_version')",
    ] {
        let poll = format!(
            "<?php $redis = new Redis(); while (true) {{ $now = {read};
            if ($now != $_GET['v']) {{ echo json_encode(array('v' => $now)); exit; }} sleep(1); }}"
        );
        let config = adopted(&[("poll.php", &poll)]);
        assert_eq!(effective(&config), "", "{config}");
        let joined = config.replace("\n# ", " ");
        assert!(joined.contains("? which script sets the key board_version?"), "{config}");
        assert!(joined.contains("7080/channels/board%5Fversion"), "{config}");
    }
}

#[test]
fn a_script_that_waits_from_when_it_was_asked_needs_a_line() {
    for script in [
        "<?php $f = '/d/x'; $old = filemtime($f);
            while (filemtime($f) == $old) { sleep(1); clearstatcache(); } echo strtoupper(file_get_contents($f));",
        "<?php function newest() { return mysql_fetch_assoc(mysql_query('SELECT * FROM chat')); }
            $old = newest(); do { sleep(1); $new = newest(); } while ($new['id'] == $old['id']);
            echo json_encode($new);",
    ] {
        let config = adopted(&[("poll.php", script)]);
        assert_eq!(effective(&config), "", "{config}");
        assert!(config.contains("needs one line of PHP"), "{config}");
        assert!(config.contains("#add_query = \"pollgate=1\""), "{config}");
    }
    let file = "<?php $f = '/d/x'; $old = filemtime($f);
        while (filemtime($f) == $old) { sleep(1); clearstatcache(); } echo file_get_contents($f);";
    let config = adopted(&[("poll.php", file)]);
    assert_has(&config, &["fields = { message = \".\" }", "content = true"]);
}

#[test]
fn a_time_that_the_client_sends_is_not_how_long_to_wait() {
    let poll = "<?php $end = (int) $_GET['since'] + 20;
        do { $r = mysql_query('SELECT * FROM chat WHERE t > ' . $_GET['since']); sleep(1); }
        while (!mysql_num_rows($r) && time() < $end); echo json_encode(mysql_fetch_assoc($r));";
    let config = adopted(&[("poll.php", poll)]);
    assert!(!config.contains("since=0"), "{config}");
    let asked = "<?php $start = time();
        do { $r = mysql_query('SELECT * FROM chat WHERE t > ' . $_GET['since']); sleep(1); }
        while (!mysql_num_rows($r) && time() - $start < $_GET['wait']);
        echo json_encode(mysql_fetch_assoc($r));";
    assert!(adopted(&[("poll.php", asked)]).contains("add_query = \"wait=0\""));
}

#[test]
fn a_counter_that_goes_down_by_more_than_one_waits_as_long_as_it_does() {
    let poll = "<?php $left = 5000;
        while ($left > 0) {
            $r = mysql_query('SELECT * FROM chat WHERE id > ' . $_GET['last']);
            if (mysql_num_rows($r)) break;
            usleep(200000); $left -= 200;
        }
        echo json_encode(mysql_fetch_assoc($r));";
    assert!(adopted(&[("poll.php", poll)]).contains("timeout = \"5s\""));
}

#[test]
fn that_a_visitor_is_there_is_no_news() {
    let poll = "<?php
        mysql_query('UPDATE users SET last_seen = NOW() WHERE id = ' . (int) $_GET['me']);
        while (true) {
            $r = mysql_query('SELECT * FROM users WHERE id > ' . (int) $_GET['last']);
            if (mysql_num_rows($r)) { echo json_encode(mysql_fetch_assoc($r)); exit; }
            sleep(1);
        }";
    let config = adopted(&[("poll.php", poll)]);
    assert_eq!(effective(&config), "", "{config}");
    assert!(!config.contains("[[capture]]"), "{config}");
    assert!(config.contains("? it writes the table users with each poll"), "{config}");
}

#[test]
fn what_a_script_says_at_its_timeout_the_gate_says() {
    let poll = "<?php for ($i = 0; $i < 30; $i++) {
            $r = mysql_query('SELECT * FROM chat WHERE id > ' . (int) $_GET['last']);
            if (mysql_num_rows($r)) { echo json_encode(mysql_fetch_assoc($r)); exit; }
            sleep(1);
        }
        echo json_encode(array('status' => 'nothing', 'messages' => array()));";
    let config = adopted(&[("poll.php", poll)]);
    assert!(config.contains("timeout = \"30s\""), "{config}");
    assert!(
        config.contains(r#"on_timeout = "{\"status\":\"nothing\",\"messages\":[]}""#),
        "{config}"
    );
    let always = "<?php $f = '/d/x'; $n = 0; $t = filemtime($f);
        while ($t <= $_GET['t'] && $n < 28) { sleep(1); $n++; clearstatcache(); $t = filemtime($f); }
        echo json_encode(array('m' => file_get_contents($f), 't' => $t));";
    assert_has(&adopted(&[("b.php", always)]), &["on_timeout = \"latest\"", "timeout = \"28s\""]);
}

#[test]
fn polls_with_a_json_body_cannot_be_taken_over() {
    let poll = "<?php $in = json_decode(file_get_contents('php://input'));
        while (true) {
            $r = mysql_query('SELECT * FROM chat WHERE id > ' . (int) $in->last);
            if (mysql_num_rows($r)) { echo json_encode(mysql_fetch_assoc($r)); exit; }
            sleep(1);
        }";
    let config = adopted(&[("poll.php", poll)]);
    assert!(config.contains("cannot be taken over"), "{config}");
    assert!(!config.contains("[[poll]]"), "{config}");
}
