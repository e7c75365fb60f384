<?php
file_put_contents(__DIR__ . '/messages.txt', $_POST['text'] . "\n", FILE_APPEND | LOCK_EX);
echo 'said';
