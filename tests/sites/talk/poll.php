<?php
// All messages after ?last_id=. Without news it looks again, for up to ten seconds.
require 'db.php';

$last = isset($_GET['last_id']) ? (int) $_GET['last_id'] : 0;
$query = db()->prepare('SELECT id, said FROM messages WHERE id > ? ORDER BY id');

$end = time() + 10;
do {
    $query->execute(array($last));
    $rows = $query->fetchAll(PDO::FETCH_ASSOC);
    if (count($rows) > 0) {
        break;
    }
    usleep(250000);
} while (time() < $end);

header('Content-Type: application/json');
echo json_encode(array('messages' => $rows));
