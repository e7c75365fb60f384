<?php
// jQuery as Debian ships it, so that no copy of it lies in this repository.
$path = '/usr/share/javascript/jquery/jquery.min.js';
if (!is_readable($path)) {
    http_response_code(500);
    header('Content-Type: text/plain; charset=UTF-8');
    exit("$path is missing: install Debian's package libjs-jquery\n");
}
header('Content-Type: text/javascript; charset=UTF-8');
header('Cache-Control: max-age=3600');
readfile($path);
