<?php
// What PHP itself sees of a request, in hexadecimal; null for what is missing or an array.
$seen = function ($from) {
    return isset($from['msg']) && is_string($from['msg']) ? bin2hex($from['msg']) : null;
};
header('Content-Type: application/json');
echo json_encode(['form' => $seen($_POST), 'query' => $seen($_GET), 'cookie' => $seen($_COOKIE)]);
