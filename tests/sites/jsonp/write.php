<?php
if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
    http_response_code(405);
    exit;
}
$text = trim($_POST['headline']);
$new = tempnam(__DIR__, 'new');
file_put_contents($new, $text);
rename($new, __DIR__ . '/headline.txt');
echo 'stored';
