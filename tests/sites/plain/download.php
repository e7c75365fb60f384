<?php
// ?size= bytes of the rule (50 MB if not said), with their length unless ?length=no.
include 'bytes.php';

ini_set('max_execution_time', '0');
$size = isset($_GET['size']) ? (int) $_GET['size'] : 50 * 1024 * 1024;
header('Content-Type: application/octet-stream');
if (!isset($_GET['length']) || $_GET['length'] != 'no') {
    header("Content-Length: $size");
}
each_stretch($size, function ($bytes) {
    echo $bytes;
    flush();
});
