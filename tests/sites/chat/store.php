<?php
// The messages, in a database beside the document root.

function database(): PDO
{
    $db = new PDO('sqlite:' . dirname(__DIR__) . '/chat.sqlite');
    $db->setAttribute(PDO::ATTR_ERRMODE, PDO::ERRMODE_EXCEPTION);
    $db->exec('PRAGMA busy_timeout = 10000');
    $db->exec('CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, room TEXT, text TEXT)');
    return $db;
}

function messages(PDO $db, string $room, int $since): array
{
    $select = $db->prepare('SELECT id, text FROM messages WHERE room = ? AND id > ? ORDER BY id');
    $select->execute([$room, $since]);
    return $select->fetchAll(PDO::FETCH_ASSOC);
}

// Changes the figures of who is at work here, under a lock.
function figures(callable $change): array
{
    $file = fopen(dirname(__DIR__) . '/figures.json', 'c+');
    flock($file, LOCK_EX);
    $figures = json_decode(stream_get_contents($file), true) ?: ['now' => 0, 'most' => 0, 'all' => 0];
    $figures = $change($figures);
    rewind($file);
    ftruncate($file, 0);
    fwrite($file, json_encode($figures));
    fclose($file);
    return $figures;
}
