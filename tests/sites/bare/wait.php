<?php
// The status as it is, when it next changes.
$file = __DIR__ . '/status.txt';
$before = filemtime($file);
while (filemtime($file) == $before) {
    sleep(1);
    clearstatcache();
}
echo file_get_contents($file);
