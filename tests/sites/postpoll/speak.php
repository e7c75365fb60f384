<?php
include_once 'room.php';

$file = room_file($_POST['room']);
if (!is_dir(dirname($file))) {
    mkdir(dirname($file));
}
file_put_contents($file, $_POST['say']);
echo 'ok';
