<?php
/**
 * The PHP client of pollgate: publishes, reads and administers through the gate's internal listener.
 *
 * One file, PHP 7.2 and later, no dependency: it uses the curl extension where there is one, and
 * PHP's own sockets elsewhere.
 *
 *     $gate = new Pollgate('127.0.0.1:7080');
 *     $gate->publish('news', ['headline' => 'It works']);
 *
 * A gate that cannot be reached costs a page at most one second (connect: 0.25 s).
 */

/** A request that the gate did not carry out. */
class PollgateException extends RuntimeException
{
    /** The HTTP status; 0 if there was no answer. */
    public $status;

    /** The gate's advice, or "" if it gave none. */
    public $hint;

    public function __construct(string $message, int $status = 0, string $hint = '')
    {
        parent::__construct($hint === '' ? $message : "$message; $hint", $status);
        $this->status = $status;
        $this->hint = $hint;
    }

    /** The HTTP status; 0 if there was no answer. */
    public function getStatus(): int
    {
        return $this->status;
    }

    /** The gate's advice, or "" if it gave none. */
    public function getHint(): string
    {
        return $this->hint;
    }
}

class Pollgate
{
    /** Seconds from a webhook's time within which it counts as new. */
    const WEBHOOK_TOLERANCE = 600;

    private $host;
    private $port;
    private $socket;
    private $tls;
    private $prefix;
    private $token;
    private $connectTimeout;
    private $timeout;
    private $curl;
    private $handle;

    /**
     * @param string $address The internal address of the gate: `127.0.0.1:7080`, `[::1]:7080`,
     *     `http://...`, `https://...` or `unix:/run/pollgate.sock`.
     * @param array $options
     *     `token`            the gate's `publish.token`, or that of a site
     *     `site`             the site to act on, for a gate with several and the gate's own token
     *     `connect_timeout`  seconds, 0.25
     *     `timeout`          seconds for one call in all, 1.0
     *     `curl`             false to do without the curl extension
     */
    public function __construct(string $address = '127.0.0.1:7080', array $options = [])
    {
        $known = ['token', 'site', 'connect_timeout', 'timeout', 'curl'];
        foreach (array_keys($options) as $option) {
            if (!in_array($option, $known, true)) {
                throw new PollgateException("no such option: $option", 0, 'use one of ' . implode(', ', $known));
            }
        }
        $this->readAddress($address);
        $site = $options['site'] ?? '';
        $this->prefix = $site === '' ? '' : '/sites/' . rawurlencode($site);
        $this->token = $options['token'] ?? '';
        if (preg_match('/[\x00-\x20\x7f]/', $this->token)) {
            throw new PollgateException('the token has a space or a control character');
        }
        $this->connectTimeout = (float) ($options['connect_timeout'] ?? 0.25);
        $this->timeout = (float) ($options['timeout'] ?? 1.0);
        $this->curl = ($options['curl'] ?? true) && function_exists('curl_init');
    }

    /**
     * Publishes one message. A string is a text message (bytes that are no UTF-8: a binary one);
     * any other value is sent as JSON; null is an empty message, a touch.
     *
     * @param array $options
     *     `content_type`     sends a string under this type, as it is
     *     `idempotency_key`  makes it safe to repeat: a call that fails is repeated once
     * @return array `channel`, `id`, `stamp`, `released` (held polls that it answered)
     * @throws PollgateException if it was not published
     */
    public function publish(string $channel, $data = null, array $options = []): array
    {
        list($type, $body) = self::encode($data, $options['content_type'] ?? null);
        $path = '/channels/' . rawurlencode($channel);
        return $this->json('POST', $path, $body, $type, $options['idempotency_key'] ?? null);
    }

    /**
     * Publishes several messages in one request: all of them, or none.
     *
     * @param array $messages A list of `['channel' => 'a', 'data' => ...]` or
     *     `['channels' => ['a', 'b'], 'data' => ...]`.
     * @return array One result for each channel of each message, as of {@see publish()}
     * @throws PollgateException if they were not published
     */
    public function publishMany(array $messages, array $options = []): array
    {
        $messages = array_values($messages);
        if ($messages === []) {
            return [];
        }
        $body = self::toJson($messages);
        $results = $this->json('POST', '/publish', $body, 'application/json', $options['idempotency_key'] ?? null);
        return isset($results['channel']) ? [$results] : $results;
    }

    /**
     * As {@see publish()}, for pages that must not break: false where that throws, and the reason
     * in PHP's error log.
     *
     * @return array|false
     */
    public function publishQuietly(string $channel, $data = null, array $options = [])
    {
        try {
            return $this->publish($channel, $data, $options);
        } catch (PollgateException $error) {
            error_log('pollgate: not published on ' . $channel . ': ' . $error->getMessage());
            return false;
        }
    }

    /**
     * The cursor after a channel's newest message. A page that is rendered now and polls from it
     * misses nothing.
     */
    public function cursor(string $channel): string
    {
        return $this->history($channel)['cursor'];
    }

    /**
     * The messages that the gate keeps of a channel; with a cursor, those after it.
     *
     * @return array `cursor`, `messages` (each with `channel`, `id`, `stamp`, `data`), and `reset`
     *     if the cursor could not be placed
     */
    public function history(string $channel, ?string $cursor = null): array
    {
        $path = '/channels/' . rawurlencode($channel) . '/messages';
        if ($cursor !== null) {
            $path .= '?cursor=' . rawurlencode($cursor);
        }
        return $this->json('GET', $path);
    }

    /**
     * The users on a channel with presence, and the position in the channel `presence:{channel}` from
     * which their joins and leaves go on.
     *
     * @return array `channel`, `cursor`, `count`, `connections`, `members` (each with `user`, `info`,
     *     `since`)
     * @throws PollgateException if there is no presence on the channel (status 404)
     */
    public function presence(string $channel): array
    {
        return $this->json('GET', '/channels/' . rawurlencode($channel) . '/presence');
    }

    /**
     * Forgets a channel with its history. Its held polls are answered with `reset`.
     *
     * @return array|false `channel`, `released`; false if there was no such channel
     */
    public function forget(string $channel)
    {
        try {
            return $this->json('DELETE', '/channels/' . rawurlencode($channel));
        } catch (PollgateException $error) {
            if ($error->status === 404) {
                return false;
            }
            throw $error;
        }
    }

    /**
     * Revokes access: ends the held polls of a channel, of a credential (a token or a cookie's
     * value), or of both together, and forgets what the upstream allowed them.
     *
     * @return int How many grants were revoked
     */
    public function revoke(?string $channel = null, ?string $credential = null): int
    {
        $query = http_build_query(array_filter(
            ['channel' => $channel, 'credential' => $credential],
            function ($value) {
                return $value !== null;
            }
        ), '', '&', PHP_QUERY_RFC3986);
        return $this->json('DELETE', '/grants' . ($query === '' ? '' : "?$query"))['revoked'];
    }

    /**
     * Signs a token for `auth = { kind = "signed" }`.
     *
     * @param string[] $channels Names; a `*` at the end of one stands for any rest.
     * @param int $expires Unix time after which it is refused
     */
    public static function token(string $keyId, string $secret, array $channels, int $expires, ?string $user = null): string
    {
        foreach ($channels as $channel) {
            if (strpos($channel, ',') !== false || strpos(substr($channel, 0, -1), '*') !== false) {
                throw new PollgateException("not for a token: the channel \"$channel\"", 0, 'a name must have no comma, and a * only at its end');
            }
        }
        if ($keyId === '' || strpos($keyId, '.') !== false) {
            throw new PollgateException('a key id must not be empty or have a dot');
        }
        $signed = $keyId . '.' . $expires . '.' . self::base64url(implode(',', $channels));
        if ($user !== null) {
            $signed .= '.' . self::base64url($user);
        }
        return $signed . '.' . hash_hmac('sha256', $signed, $secret);
    }

    /** Signs a JSON Web Token for `auth = { kind = "jwt" }`, with HS256. */
    public static function jwt(string $secret, array $claims, string $alg = 'HS256'): string
    {
        if ($alg !== 'HS256') {
            throw new PollgateException("no such algorithm: $alg", 0, 'use HS256, or a library for the others');
        }
        $signed = self::base64url(self::toJson(['typ' => 'JWT', 'alg' => $alg]))
            . '.' . self::base64url(self::toJson((object) $claims));
        return $signed . '.' . self::base64url(hash_hmac('sha256', $signed, $secret, true));
    }

    /**
     * Checks a webhook's signature and reads it.
     *
     * @param string $body As it came: `file_get_contents('php://input')`
     * @param array $headers `$_SERVER`, or header names with their values
     * @return array `time_ms` and `events`
     * @throws PollgateException if it is not the gate's, or older than {@see WEBHOOK_TOLERANCE}
     */
    public static function verifyWebhook(string $secret, string $body, array $headers): array
    {
        $signature = '';
        foreach ($headers as $name => $value) {
            $name = strtolower(str_replace('_', '-', (string) $name));
            if ($name === 'pollgate-signature' || $name === 'http-pollgate-signature') {
                $signature = is_array($value) ? (string) reset($value) : (string) $value;
            }
        }
        if ($secret === '' || !hash_equals('sha256=' . hash_hmac('sha256', $body, $secret), $signature)) {
            throw new PollgateException('the webhook is not signed with this secret', 401);
        }
        $webhook = json_decode($body, true);
        if (!is_array($webhook) || !isset($webhook['time_ms'], $webhook['events'])) {
            throw new PollgateException('the webhook has no time_ms and events', 400);
        }
        if (abs(microtime(true) - $webhook['time_ms'] / 1000) > self::WEBHOOK_TOLERANCE) {
            throw new PollgateException('the webhook is too old', 401, 'compare the clocks of the two machines');
        }
        return $webhook;
    }

    private static function base64url(string $bytes): string
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }

    private static function toJson($value): string
    {
        $json = json_encode($value, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION);
        if ($json === false) {
            throw new PollgateException('not to be written as JSON: ' . json_last_error_msg());
        }
        return $json;
    }

    /** The content type and the bytes of a message. */
    private static function encode($data, ?string $type): array
    {
        if ($type !== null) {
            if (!is_string($data)) {
                throw new PollgateException('content_type is for strings; other values are sent as JSON');
            }
            if (preg_match('/[\x00-\x1f\x7f]/', $type)) {
                throw new PollgateException('the content_type has a control character');
            }
            return [$type, $data];
        }
        if ($data === null || $data === '') {
            return ['text/plain; charset=utf-8', ''];
        }
        if (is_string($data)) {
            $text = preg_match('//u', $data) === 1;
            return [$text ? 'text/plain; charset=utf-8' : 'application/octet-stream', $data];
        }
        return ['application/json', self::toJson($data)];
    }

    private function readAddress(string $address)
    {
        $this->tls = strncmp($address, 'https://', 8) === 0;
        $rest = preg_replace('~^https?://~', '', $address);
        if (strncmp($rest, 'unix:/', 6) === 0) {
            $this->socket = substr($rest, 5);
            $this->host = 'localhost';
        } elseif (preg_match('~^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?/?$~', $rest, $parts)) {
            $this->host = $parts[1];
            $this->port = (int) ($parts[2] ?? ($this->tls ? 443 : 80));
        } else {
            throw new PollgateException("no address: $address", 0, 'write 127.0.0.1:7080, http://host:port or unix:/path');
        }
    }

    /** Makes a request and reads its JSON; repeats it once if it has an idempotency key. */
    private function json(string $method, string $path, string $body = '', string $type = '', ?string $key = null): array
    {
        $headers = ['Accept: application/json'];
        if ($type !== '') {
            $headers[] = "Content-Type: $type";
        }
        if ($this->token !== '') {
            $headers[] = 'Authorization: Bearer ' . $this->token;
        }
        if ($key !== null) {
            if ($key === '' || preg_match('/[\x00-\x1f\x7f]/', $key)) {
                throw new PollgateException('an idempotency_key must not be empty or have control characters');
            }
            $headers[] = "Idempotency-Key: $key";
        }
        $deadline = microtime(true) + $this->timeout;
        try {
            list($status, $answer) = $this->send($method, $this->prefix . $path, $headers, $body, $deadline);
        } catch (PollgateException $error) {
            if ($key === null || microtime(true) >= $deadline) {
                throw $error;
            }
            list($status, $answer) = $this->send($method, $this->prefix . $path, $headers, $body, $deadline);
        }
        $read = json_decode($answer, true);
        if ($status < 200 || $status > 299) {
            $error = is_array($read) && isset($read['error']) ? (string) $read['error'] : "the gate answered $status";
            throw new PollgateException($error, $status, is_array($read) ? (string) ($read['hint'] ?? '') : '');
        }
        if (!is_array($read)) {
            throw new PollgateException('the answer is no JSON', $status, 'is this the internal address of a gate?');
        }
        return $read;
    }

    private function send(string $method, string $path, array $headers, string $body, float $deadline): array
    {
        $send = $this->curl ? 'sendWithCurl' : 'sendWithSocket';
        return $this->$send($method, $path, $headers, $body, $deadline);
    }

    private function where(): string
    {
        return $this->socket === null ? "{$this->host}:{$this->port}" : "unix:{$this->socket}";
    }

    private function unreachable(string $why): PollgateException
    {
        $hint = 'is it running, and is this its internal address?';
        return new PollgateException('no answer from the gate at ' . $this->where() . ": $why", 0, $hint);
    }

    private function sendWithCurl(string $method, string $path, array $headers, string $body, float $deadline): array
    {
        // One handle for all calls keeps the connection.
        $curl = $this->handle ?: ($this->handle = curl_init());
        curl_reset($curl);
        $left = max(1, (int) (($deadline - microtime(true)) * 1000));
        $options = [
            CURLOPT_URL => ($this->tls ? 'https' : 'http') . "://{$this->host}" . ($this->port ? ":{$this->port}" : '') . $path,
            CURLOPT_CUSTOMREQUEST => $method,
            // No "Expect: 100-continue", which costs a round trip.
            CURLOPT_HTTPHEADER => array_merge($headers, ['Expect:']),
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_CONNECTTIMEOUT_MS => min($left, max(1, (int) ($this->connectTimeout * 1000))),
            CURLOPT_TIMEOUT_MS => $left,
            CURLOPT_NOSIGNAL => true,
            CURLOPT_FOLLOWLOCATION => false,
            CURLOPT_PROXY => '',
        ];
        if ($this->socket !== null) {
            $options[CURLOPT_UNIX_SOCKET_PATH] = $this->socket;
        }
        if ($method === 'POST') {
            $options[CURLOPT_POSTFIELDS] = $body;
        }
        curl_setopt_array($curl, $options);
        $answer = curl_exec($curl);
        if ($answer === false) {
            throw $this->unreachable(curl_error($curl));
        }
        return [curl_getinfo($curl, CURLINFO_RESPONSE_CODE), $answer];
    }

    private function sendWithSocket(string $method, string $path, array $headers, string $body, float $deadline): array
    {
        $scheme = $this->tls ? 'tls' : 'tcp';
        $remote = $this->socket === null ? "$scheme://{$this->host}:{$this->port}" : "unix://{$this->socket}";
        $left = max(0.001, min($this->connectTimeout, $deadline - microtime(true)));
        $stream = @stream_socket_client($remote, $code, $why, $left);
        if ($stream === false) {
            throw $this->unreachable($why === '' ? "error $code" : $why);
        }
        // HTTP/1.0: the answer is not chunked, and ends with the connection.
        $head = "$method $path HTTP/1.0\r\nHost: " . ($this->port ? "{$this->host}:{$this->port}" : $this->host) . "\r\n";
        foreach ($headers as $header) {
            $head .= "$header\r\n";
        }
        $head .= 'Content-Length: ' . strlen($body) . "\r\nConnection: close\r\n\r\n";
        stream_set_blocking($stream, false);
        try {
            return $this->talk($stream, $head . $body, $deadline);
        } finally {
            fclose($stream);
        }
    }

    /** Writes a request and reads the response, both until the deadline. */
    private function talk($stream, string $request, float $deadline): array
    {
        $response = '';
        $sent = 0;
        while (true) {
            $left = $deadline - microtime(true);
            if ($left <= 0) {
                throw $this->unreachable('it took longer than ' . $this->timeout . ' s');
            }
            $read = [$stream];
            $write = $sent < strlen($request) ? [$stream] : null;
            $except = null;
            if (@stream_select($read, $write, $except, 0, (int) min($left * 1e6, 999999)) === false) {
                continue;
            }
            if ($write) {
                $count = @fwrite($stream, $sent === 0 ? $request : substr($request, $sent));
                if ($count === false) {
                    throw $this->unreachable('the connection broke off');
                }
                $sent += $count;
            }
            if ($read) {
                $piece = fread($stream, 65536);
                if ($piece === '' || $piece === false) {
                    if (feof($stream)) {
                        break;
                    }
                    continue;
                }
                $response .= $piece;
            }
        }
        $parts = explode("\r\n\r\n", $response, 2);
        if (count($parts) < 2 || !preg_match('~^HTTP/1\.[01] (\d{3})~', $parts[0], $status)) {
            throw $this->unreachable('the connection broke off');
        }
        if (preg_match('/^content-length:\s*(\d+)/mi', $parts[0], $length) && strlen($parts[1]) < (int) $length[1]) {
            throw $this->unreachable('the connection broke off in the middle of the answer');
        }
        return [(int) $status[1], $parts[1]];
    }
}
