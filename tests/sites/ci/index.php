<?php
require __DIR__ . '/vendor/frame.php';
require __DIR__ . '/application/config/routes.php';
answer($route);
