<?php
require 'db.php';

$insert = db()->prepare('INSERT INTO messages (said) VALUES (?)');
$insert->execute(array($_POST['said']));
echo db()->lastInsertId();
