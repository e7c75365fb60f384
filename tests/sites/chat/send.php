<?php
// Stores a message, then tells the gate.
require 'store.php';

$insert = database()->prepare('INSERT INTO messages (room, text) VALUES (?, ?)');
$insert->execute([$_POST['room'], $_POST['text']]);
$url = getenv('POLLGATE_HOOK') . '/channels/room-' . rawurlencode($_POST['room']);
$context = stream_context_create(['http' => ['method' => 'POST', 'content' => '', 'timeout' => 5]]);
$published = @file_get_contents($url, false, $context);
header('Content-Type: application/json');
echo $published === false ? '{"error":"not published"}' : $published;
