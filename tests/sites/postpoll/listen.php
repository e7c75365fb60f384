<?php
require_once 'room.php';

if (!isset($_POST['room'])) {
    header('Location: index.html');
    exit;
}

$file = room_file($_POST['room']);
$seen = empty($_POST['seen']) ? 0 : (int) $_POST['seen'];

header('Content-Type: application/json');
for ($try = 0; $try < 50; $try++) {
    clearstatcache();
    $time = is_file($file) ? filemtime($file) : 0;
    if ($time > $seen) {
        die(json_encode(['said' => file_get_contents($file), 'seen' => $time]));
    }
    usleep(400000);
}
echo json_encode(['said' => '', 'seen' => $seen]);
