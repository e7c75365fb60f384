<?php
$name = isset($_GET['name']) ? $_GET['name'] : 'visitor';
setcookie('seen', 'yes');
setcookie('lang', 'en');
?>
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Plain site</title></head>
<body><h1>An ordinary page</h1><p>Hello, <?= htmlspecialchars($name) ?>.</p></body>
</html>
