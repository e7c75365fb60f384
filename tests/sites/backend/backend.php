<?php
// One script for both ways: ?msg= stores a message, ?timestamp= waits for one.
ini_set('max_execution_time', '0');

$filename = dirname(__FILE__) . '/data.txt';

$msg = isset($_GET['msg']) ? $_GET['msg'] : '';
if ($msg != '') {
    file_put_contents($filename, $msg, LOCK_EX);
    exit;
}

if (!is_file($filename)) {
    touch($filename);
}

$lastmodif = isset($_GET['timestamp']) ? (int) $_GET['timestamp'] : 0;

clearstatcache();
$currentmodif = filemtime($filename);
while ($currentmodif <= $lastmodif) {
    usleep(10000); // 10 ms, to leave the processor to others
    clearstatcache();
    $currentmodif = filemtime($filename);
}

$response = array();
$response['msg'] = file_get_contents($filename);
$response['timestamp'] = $currentmodif;
echo json_encode($response);
flush();
