<?php
// Stands in for the extension; `adopt` does not read this folder.
if (!function_exists('apcu_fetch')) {
    function apcu_fetch($key)
    {
        $file = __DIR__ . "/$key.value";
        return is_file($file) ? json_decode(file_get_contents($file)) : 0;
    }

    function apcu_store($key, $value)
    {
        file_put_contents(__DIR__ . "/$key.new", json_encode($value));
        rename(__DIR__ . "/$key.new", __DIR__ . "/$key.value");
    }
}
