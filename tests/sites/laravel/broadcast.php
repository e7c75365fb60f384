<?php
// Requests to a Pusher server, signed as pusher-php-server does, which Laravel uses. The settings
// are those of Laravel's .env.

function broadcast_sign(string $text): string
{
    return getenv('REVERB_APP_KEY') . ':' . hash_hmac('sha256', $text, getenv('REVERB_APP_SECRET'));
}

/** @return array{int, mixed} the status and the decoded body */
function broadcast_request(string $method, string $path, array $query = [], ?string $body = null): array
{
    $path = '/apps/' . getenv('REVERB_APP_ID') . $path;
    $query += ['auth_key' => getenv('REVERB_APP_KEY'), 'auth_timestamp' => time(), 'auth_version' => '1.0'];
    if ($body !== null) {
        $query['body_md5'] = md5($body);
    }
    ksort($query);
    $pairs = [];
    foreach ($query as $name => $value) {
        $pairs[] = "$name=$value";
    }
    $signed = "$method\n$path\n" . implode('&', $pairs);
    $query['auth_signature'] = hash_hmac('sha256', $signed, getenv('REVERB_APP_SECRET'));
    $url = getenv('REVERB_SCHEME') . '://' . getenv('REVERB_HOST') . ':' . getenv('REVERB_PORT')
        . $path . '?' . http_build_query($query);
    $curl = curl_init($url);
    curl_setopt_array($curl, [
        CURLOPT_CUSTOMREQUEST => $method,
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_CONNECTTIMEOUT => 1,
        CURLOPT_TIMEOUT => 5,
        CURLOPT_HTTPHEADER => ['Content-Type: application/json'],
    ]);
    if ($body !== null) {
        curl_setopt($curl, CURLOPT_POSTFIELDS, $body);
    }
    $text = curl_exec($curl);
    $status = (int) curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
    return [$status, json_decode((string) $text, true)];
}

/** Sends one event to the subscribers of channels, but for one of them. */
function broadcast_event(array $channels, string $event, array $payload, ?string $except): array
{
    $body = ['name' => $event, 'data' => json_encode($payload), 'channels' => $channels];
    if ($except !== null) {
        $body['socket_id'] = $except;
    }
    return broadcast_request('POST', '/events', [], json_encode($body));
}
