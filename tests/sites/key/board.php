<?php
require 'vendor/apcu.php';
$seen = isset($_GET['v']) ? (int) $_GET['v'] : 0;
for ($i = 0; $i < 4; $i++) {
    $now = apcu_fetch('board_version');
    if ($now != $seen) {
        echo json_encode(array('v' => $now, 'board' => apcu_fetch('board')));
        exit;
    }
    sleep(1);
}
echo 'quiet';
