<?php
// A site that speaks GRIP with nothing but PHP.

/** A token as GRIP's libraries make it. */
function token(string $key): string
{
    $code = fn (string $text): string => rtrim(strtr(base64_encode($text), '+/', '-_'), '=');
    $claims = json_encode(['iss' => 'site', 'exp' => time() + 60]);
    $signed = $code('{"typ":"JWT","alg":"HS256"}') . '.' . $code($claims);
    return $signed . '.' . $code(hash_hmac('sha256', $signed, $key, true));
}

function publish(string $text): void
{
    $item = ['channel' => 'room', 'formats' => [
        'http-response' => ['body' => $text],
        'http-stream' => ['content' => $text],
        'ws-message' => ['content' => $text],
    ]];
    $context = stream_context_create(['http' => [
        'method' => 'POST',
        'header' => "Content-Type: application/json\r\nConnection: close\r\nAuthorization: Bearer " . token('secret'),
        'content' => json_encode(['items' => [$item]]),
    ]]);
    echo file_get_contents(getenv('POLLGATE_HOOK') . '/grip/publish/', false, $context);
}

/** One event as bytes. */
function event(string $kind, string $content): string
{
    return sprintf("%s %x\r\n%s\r\n", $kind, strlen($content), $content);
}

function chat(): void
{
    header('Content-Type: application/websocket-events');
    $in = file_get_contents('php://input');
    if ($in === "OPEN\r\n") {
        header('Sec-WebSocket-Extensions: grip; message-prefix=""');
        echo "OPEN\r\n", event('TEXT', 'c:{"type":"subscribe","channel":"room"}');
        return;
    }
    while (preg_match('/^([A-Z]+)(?: ([0-9a-f]+))?\r\n/', $in, $head)) {
        $length = isset($head[2]) ? hexdec($head[2]) : 0;
        $content = substr($in, strlen($head[0]), $length);
        $in = substr($in, strlen($head[0]) + (isset($head[2]) ? $length + 2 : 0));
        if ($head[1] === 'TEXT') {
            echo event('TEXT', "echo $content");
        } elseif ($head[1] === 'CLOSE') {
            echo event('CLOSE', $content);
        }
    }
}

switch (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    case '/poll':
        header('Grip-Hold: response');
        header('Grip-Channel: room');
        echo "nothing\n";
        break;
    case '/stream':
        header('Content-Type: text/plain');
        header('Grip-Hold: stream');
        header('Grip-Channel: room');
        echo "begin\n";
        break;
    case '/send':
        publish(file_get_contents('php://input'));
        break;
    case '/chat':
        chat();
        break;
}
