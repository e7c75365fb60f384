<?php
// Bytes by rule, the same in tests/support/bytes.rs: records of 256 bytes,
// each the record's number (8 bytes, big-endian) and then the values 8..255.
// A lost, doubled or swapped stretch shows, and every byte value occurs.

const RECORD = 256;

function records($first, $count)
{
    static $tail = null;
    if ($tail === null) {
        $tail = implode('', array_map('chr', range(8, 255)));
    }
    $out = '';
    for ($i = 0; $i < $count; $i++) {
        $out .= pack('J', $first + $i) . $tail;
    }
    return $out;
}

// Calls $take with stretches of at most 64 KiB, $size bytes in all.
function each_stretch($size, $take)
{
    $at_once = 256;
    for ($record = 0; $record * RECORD < $size; $record += $at_once) {
        $left = $size - $record * RECORD;
        $take(substr(records($record, $at_once), 0, $left));
    }
}
