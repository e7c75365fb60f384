<?php
// Expected answer of upload.php for the first ?size= bytes of the rule.
include 'bytes.php';

$size = (int) $_GET['size'];
$hash = hash_init('sha256');
each_stretch($size, function ($bytes) use ($hash) {
    hash_update($hash, $bytes);
});
header('Content-Type: application/json');
echo json_encode(array('size' => $size, 'sha256' => hash_final($hash)));
