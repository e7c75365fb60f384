<?php
// Waits until the price is another one than when the visitor asked, and shows it.
$file = __DIR__ . '/price.txt';
$then = trim(file_get_contents($file));
while (trim(file_get_contents($file)) == $then) {
    usleep(100000);
}
echo '<b>' . htmlspecialchars(trim(file_get_contents($file))) . '</b>';
