<?php
// Publishing through the hook: the few lines that a site adds for it. Each
// function answers array(<HTTP status, 0 for none>, <body>).

function publish($channel, $msg, $via, $to)
{
    $hook = rtrim(getenv('POLLGATE_HOOK') ?: 'http://127.0.0.1:7080', '/');
    if ($to == 'channel') {
        $url = "$hook/channels/" . rawurlencode($channel);
        $type = 'text/plain; charset=UTF-8';
        $body = $msg;
    } else {
        $url = "$hook/publish";
        $type = 'application/x-www-form-urlencoded';
        $body = http_build_query(array('channel' => $channel, 'data' => $msg));
    }
    return $via == 'curl' ? post_by_curl($url, $type, $body) : post_by_stream($url, $type, $body);
}

function post_by_stream($url, $type, $body)
{
    $context = stream_context_create(array('http' => array(
        'method' => 'POST',
        'header' => "Content-Type: $type\r\n",
        'content' => $body,
        'timeout' => 5,
        'ignore_errors' => true,
    )));
    $answer = @file_get_contents($url, false, $context);
    $code = 0;
    if (isset($http_response_header[0])) {
        $code = (int) explode(' ', $http_response_header[0])[1];
    }
    return array($code, $answer === false ? 'no answer' : $answer);
}

function post_by_curl($url, $type, $body)
{
    $headers = array("Content-Type: $type");
    if (strlen($body) > 1024) {
        // As libcurl did by itself for such bodies for many years; newer
        // ones do it from 1 MB up.
        $headers[] = 'Expect: 100-continue';
    }
    $curl = curl_init($url);
    curl_setopt_array($curl, array(
        CURLOPT_POST => true,
        CURLOPT_POSTFIELDS => $body,
        CURLOPT_HTTPHEADER => $headers,
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT => 5,
        // Without a 100 from the hook this runs into the timeout above,
        // where the default would send the body after one second anyhow.
        CURLOPT_EXPECT_100_TIMEOUT_MS => 10000,
    ));
    $answer = curl_exec($curl);
    $code = (int) curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
    $error = curl_error($curl);
    curl_close($curl);
    return array($code, $answer === false ? $error : $answer);
}
