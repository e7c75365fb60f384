<?php
// The poll of an old chat's page: the messages after `since`. Without `wait=0` it waits for some,
// looking into the database again and again, as long as it takes.
require 'store.php';

figures(function ($figures) {
    $figures['now']++;
    $figures['all']++;
    $figures['most'] = max($figures['most'], $figures['now']);
    return $figures;
});
$db = database();
$since = (int) ($_REQUEST['since'] ?? 0);
$room = $_REQUEST['room'] ?? '';
$wait = ($_GET['wait'] ?? '') !== '0';
do {
    $found = messages($db, $room, $since);
    usleep(2000);
} while ($wait && !$found);
figures(function ($figures) {
    $figures['now']--;
    return $figures;
});
header('Content-Type: application/json');
echo json_encode(['messages' => $found]);
