<?php
$route['default_controller'] = 'board';
$route['news'] = 'board/wait';
$route['tell']['post'] = 'board/add';
