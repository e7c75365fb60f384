<?php
// A server's database, as far as this site knows: no file of it is named.
function db()
{
    $db = new PDO(getenv('NOTES'));
    $db->exec('CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, note TEXT)');
    return $db;
}
