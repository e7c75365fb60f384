<?php
// The last message in a room. The room's file is made by speak.php.
function room_file($room)
{
    return sprintf('%s/rooms/%s.txt', dirname(__FILE__), basename($room));
}
