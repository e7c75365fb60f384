<?php
// Waits for as long as it takes until there are messages after ?last=N, and answers them.
ini_set('max_execution_time', '0');

$file = __DIR__ . '/messages.txt';
$last = (int) ($_GET['last'] ?? 0);

while (true) {
    clearstatcache();
    $messages = is_file($file) ? file($file, FILE_IGNORE_NEW_LINES) : [];
    if (count($messages) > $last) {
        break;
    }
    usleep(100000);
}

header('Content-Type: application/json');
echo json_encode(['messages' => array_slice($messages, $last), 'last' => count($messages)]);
