<?php
// A talk in a database: a file of SQLite beside the script.
function db()
{
    static $db;
    if (!$db) {
        $db = new PDO('sqlite:' . __DIR__ . '/talk.sqlite');
        $db->setAttribute(PDO::ATTR_ERRMODE, PDO::ERRMODE_EXCEPTION);
        $db->exec('CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, said TEXT)');
    }
    return $db;
}
