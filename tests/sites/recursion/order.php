<?php
require 'db.php';
$insert = db()->prepare('INSERT INTO orders (dish) VALUES (?)');
$insert->execute(array($_POST['dish']));
echo 'ordered';
