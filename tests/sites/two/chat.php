<?php
// With ?room= and a text it stores the text, with ?room= alone it waits for one.
$file = __DIR__ . '/' . basename($_REQUEST['room']) . '.log';
if (isset($_REQUEST['room']) && isset($_REQUEST['text'])) {
    file_put_contents($file, $_REQUEST['text'] . "\n", FILE_APPEND | LOCK_EX);
    exit('stored');
}
$known = isset($_GET['lines']) ? (int) $_GET['lines'] : 0;
$begun = time();
do {
    clearstatcache();
    $size = is_file($file) ? filesize($file) : 0;
    if ($size > $known) {
        $text = substr(file_get_contents($file), $known);
        echo '<pre data-size="' . ($known + strlen($text)) . '">' . htmlspecialchars($text) . '</pre>';
        break;
    }
    usleep(100000);
} while (time() < $begun + 4);
