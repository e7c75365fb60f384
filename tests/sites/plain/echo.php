<?php
// The request as PHP sees it.
header('Content-Type: application/json');
echo json_encode(array(
    'method' => $_SERVER['REQUEST_METHOD'],
    'uri' => $_SERVER['REQUEST_URI'],
    'protocol' => $_SERVER['SERVER_PROTOCOL'],
    'remote_addr' => $_SERVER['REMOTE_ADDR'],
    'headers' => array_change_key_case(getallheaders()),
    'body' => file_get_contents('php://input'),
));
