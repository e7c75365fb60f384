<?php
// Notes each webhook whose signature is right; fails or hangs while a file says so.
require getenv('POLLGATE_CLIENT');
$mode = @file_get_contents(__DIR__ . '/mode');
if ($mode === 'hang') {
    sleep(30);
}
if ($mode === 'fail' || $mode === 'hang') {
    http_response_code(500);
    exit;
}
$note = function ($line) {
    file_put_contents(__DIR__ . '/seen', trim($line) . "\n", FILE_APPEND | LOCK_EX);
};
try {
    $webhook = Pollgate::verifyWebhook('hush', file_get_contents('php://input'), $_SERVER);
} catch (PollgateException $error) {
    http_response_code(401);
    $note($error->getMessage());
    exit;
}
foreach ($webhook['events'] as $event) {
    $note($event['name'] . ' ' . $event['channel'] . ' ' . ($event['user'] ?? ''));
}
