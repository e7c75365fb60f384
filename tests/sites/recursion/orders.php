<?php
// The orders after ?after=; waits by calling itself.
require 'db.php';

function orders($after, $begun)
{
    $query = db()->prepare('SELECT id, dish FROM orders WHERE id > ?');
    $query->execute(array($after));
    $rows = $query->fetchAll(PDO::FETCH_ASSOC);
    if ($rows || time() > $begun + 15) {
        echo json_encode($rows);
        return;
    }
    sleep(1);
    orders($after, $begun);
}

orders(isset($_GET['after']) ? (int) $_GET['after'] : 0, time());
