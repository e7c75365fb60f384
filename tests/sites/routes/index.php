<?php
// Requests without a file of their own come here, as with any framework.
require __DIR__ . '/vendor/frame.php';
require __DIR__ . '/app/Http/Controllers/ChatController.php';
require __DIR__ . '/routes/web.php';
Route::answer();
