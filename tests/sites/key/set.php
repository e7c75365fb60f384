<?php
require 'vendor/apcu.php';
apcu_store('board', $_POST['board']);
apcu_store('board_version', apcu_fetch('board_version') + 1);
echo 'set';
