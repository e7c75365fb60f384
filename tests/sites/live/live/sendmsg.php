<?php
require 'LiveAction.php';

$action = new LiveAction();
$action->sendMsg();
