<?php
// A small site that does with Pusher's protocol what Laravel does: it signs for its users'
// channels, and sends events to the server with signed requests.

require __DIR__ . '/broadcast.php';

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$user = $_COOKIE['user'] ?? '';

function answer($data, int $status = 200): void
{
    http_response_code($status);
    header('Content-Type: application/json');
    echo json_encode($data);
}

if ($path === '/broadcasting/auth') {
    // Laravel: a channel's callback in routes/channels.php decides, and returns a member's data.
    $channel = $_POST['channel_name'] ?? '';
    if ($user === '' || substr($channel, -7) === '-secret') {
        answer(['message' => 'Forbidden'], 403);
        return;
    }
    $data = strncmp($channel, 'presence-', 9) === 0
        ? json_encode(['user_id' => (int) $user, 'user_info' => ['name' => "User $user"]])
        : null;
    $signed = broadcast_sign($_POST['socket_id'] . ':' . $channel . ($data === null ? '' : ":$data"));
    answer($data === null ? ['auth' => $signed] : ['auth' => $signed, 'channel_data' => $data]);
} elseif ($path === '/broadcasting/user-auth') {
    if ($user === '') {
        answer(['message' => 'Forbidden'], 403);
        return;
    }
    $data = json_encode(['id' => $user, 'user_info' => ['name' => "User $user"]]);
    answer(['auth' => broadcast_sign($_POST['socket_id'] . '::user::' . $data), 'user_data' => $data]);
} elseif ($path === '/ship') {
    // Laravel: broadcast(new OrderShipped($order))->toOthers()
    $payload = ['order' => ['id' => (int) ($_POST['id'] ?? 0)], 'socket' => null];
    $channels = explode(',', $_POST['channels'] ?? 'orders');
    $event = $_POST['event'] ?? 'App\\Events\\OrderShipped';
    [$status, $body] = broadcast_event($channels, $event, $payload, $_SERVER['HTTP_X_SOCKET_ID'] ?? null);
    answer(['status' => $status, 'body' => $body]);
} elseif ($path === '/pusher/webhook') {
    $body = file_get_contents('php://input');
    $signature = hash_hmac('sha256', $body, getenv('REVERB_APP_SECRET'));
    $key = $_SERVER['HTTP_X_PUSHER_KEY'] ?? '';
    if ($key !== getenv('REVERB_APP_KEY') || !hash_equals($signature, $_SERVER['HTTP_X_PUSHER_SIGNATURE'] ?? '')) {
        answer(['message' => 'Forbidden'], 403);
        return;
    }
    foreach (json_decode($body, true)['events'] as $event) {
        file_put_contents(__DIR__ . '/webhooks', json_encode($event) . "\n", FILE_APPEND);
    }
    answer([]);
} elseif ($path === '/ask') {
    [$status, $body] = broadcast_request('GET', $_GET['path'], array_diff_key($_GET, ['path' => 1]));
    answer(['status' => $status, 'body' => $body]);
} elseif ($path === '/js/pusher' || $path === '/js/echo') {
    // What `npm install laravel-echo pusher-js` brings.
    $files = ['/js/pusher' => 'pusher-js/dist/web/pusher.js', '/js/echo' => 'laravel-echo/dist/echo.iife.js'];
    header('Content-Type: text/javascript');
    readfile(getenv('NODE_MODULES') . '/' . $files[$path]);
} else {
    header('Content-Type: text/html; charset=UTF-8');
    echo '<!doctype html><title>Orders</title><script src="/js/pusher"></script>',
        '<script src="/js/echo"></script><ul id="log"></ul>';
}
