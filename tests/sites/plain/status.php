<?php
// Answers with ?code=.
$code = isset($_GET['code']) ? (int) $_GET['code'] : 200;
if ($code >= 300 && $code < 400 && $code != 304) {
    header('Location: /index.php');
}
header('Content-Type: text/plain; charset=UTF-8', true, $code);
if ($code != 204 && $code != 304) {
    echo "status $code\n";
}
