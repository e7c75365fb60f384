<?php
// ?do=add stores a note, ?do=wait waits for one, ?do=count counts them.
require 'db.php';

switch (isset($_GET['do']) ? $_GET['do'] : 'count') {
    case 'add':
        $insert = db()->prepare('INSERT INTO notes (note) VALUES (:note)');
        $insert->bindValue(':note', $_POST['note']);
        $insert->execute();
        echo 'stored';
        break;
    case 'wait':
        $query = db()->prepare('SELECT id, note FROM notes WHERE id > ?');
        for ($i = 0; $i < 20; $i++) {
            $query->execute(array((int) $_GET['last']));
            $rows = $query->fetchAll(PDO::FETCH_ASSOC);
            if ($rows) {
                echo json_encode(array('notes' => $rows));
                exit;
            }
            sleep(1);
        }
        echo json_encode(array('quiet' => true));
        break;
    case 'title':
        echo 'notes';
        break;
    case 'count':
        echo db()->query('SELECT COUNT(*) FROM notes')->fetchColumn();
}
