<?php
function db()
{
    $db = new PDO('sqlite:' . __DIR__ . '/orders.sqlite');
    $db->exec('CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, dish TEXT)');
    return $db;
}
