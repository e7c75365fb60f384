<?php
require 'config.php';
require __DIR__ . '/lib/Board.php';

use Board\Board;

$board = new Board(DATA_DIR . '/board.txt');

if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    echo json_encode(array('ok' => $board->write($_POST['text'])));
    exit;
}

$t = isset($_GET['t']) ? $_GET['t'] : 0;
while ($board->changed() <= $t) {
    usleep(50 * 1000);
}
echo json_encode(array('t' => $board->changed(), 'text' => $board->read(), 'version' => 2));
