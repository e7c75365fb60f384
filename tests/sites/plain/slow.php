<?php
// Two chunks with a wait between them: ?wait= milliseconds, or until a file
// named by ?until= lies beside this script. With ?silent=1 nothing, not even
// the head, is sent before the wait.
ini_set('max_execution_time', '0');

header('Content-Type: text/plain; charset=UTF-8');
if (!isset($_GET['silent'])) {
    echo "first\n";
    // PHP's own buffer (php.ini: output_buffering) and then the server's.
    if (ob_get_level() > 0) {
        ob_flush();
    }
    flush();
}
if (isset($_GET['until'])) {
    $file = __DIR__ . '/' . basename($_GET['until']);
    while (!is_file($file)) {
        usleep(5000);
        clearstatcache();
    }
} else {
    usleep(1000 * (isset($_GET['wait']) ? (int) $_GET['wait'] : 500));
}
echo "second\n";
