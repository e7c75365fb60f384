<?php
// Waits until the newest message is newer than ?timestamp=, and answers it.
ini_set('max_execution_time', '0');

$filename = __DIR__ . '/uploads/live/data.json';
if (!is_file($filename)) {
    @mkdir(dirname($filename), 0777, true);
    touch($filename);
}

$lastmodif = isset($_GET['timestamp']) ? (int) $_GET['timestamp'] : 0;

clearstatcache();
$currentmodif = filemtime($filename);
while ($currentmodif <= $lastmodif) {
    usleep(10000);
    clearstatcache();
    $currentmodif = filemtime($filename);
}

echo json_encode(array(
    'msg' => file_get_contents($filename),
    'timestamp' => $currentmodif,
));
flush();
