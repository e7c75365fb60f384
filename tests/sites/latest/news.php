<?php
// The news, when they are other than those of ?seen=, or after three seconds.
$file = __DIR__ . '/news.txt';
$seen = isset($_GET['seen']) ? $_GET['seen'] : 0;
$changed = filemtime($file);
$waited = 0;
while ($changed <= $seen && $waited < 3) {
    sleep(1);
    $waited += 1;
    clearstatcache();
    $changed = filemtime($file);
}
echo json_encode(array('news' => file_get_contents($file), 'seen' => $changed));
