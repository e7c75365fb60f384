<?php
// Size and sha256 of what came: the file of a multipart form, else the raw body.
ini_set('max_execution_time', '0');

$file = isset($_FILES['file']) ? $_FILES['file'] : null;
if ($file !== null && $file['error'] !== UPLOAD_ERR_OK) {
    http_response_code(400);
    exit("upload failed: {$file['error']}\n");
}
$from = fopen($file === null ? 'php://input' : $file['tmp_name'], 'rb');
$hash = hash_init('sha256');
$size = hash_update_stream($hash, $from);
header('Content-Type: application/json');
echo json_encode(array('size' => $size, 'sha256' => hash_final($hash)));
