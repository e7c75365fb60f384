<?php
Route::get('/chat/rooms', [ChatController::class, 'rooms']);
Route::get('/chat/{room}', [ChatController::class, 'poll']);
Route::post('/chat/{room}', [ChatController::class, 'say']);
