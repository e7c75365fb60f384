<?php
// Number of polls at work here, at once and in all.
require 'store.php';

header('Content-Type: application/json');
echo json_encode(figures(fn ($figures) => $figures));
