<?php
// The newest headline, for pages of other sites: ?callback=NAME&since=TIME.
set_time_limit(60);
header('Content-Type: text/javascript; charset=UTF-8');

define('HEADLINE', __DIR__ . '/headline.txt');

$since = isset($_GET['since']) ? intval($_GET['since']) : 0;
$deadline = time() + 20;

do {
    clearstatcache();
    $changed = filemtime(HEADLINE);
    if ($changed > $since) {
        break;
    }
    usleep(200000);
} while (time() < $deadline);

$answer = array('state' => 'ok', 'headline' => '', 'since' => $changed);
if ($changed > $since) {
    $answer['headline'] = file_get_contents(HEADLINE);
}
echo $_GET['callback'] . '(' . json_encode($answer) . ');';
