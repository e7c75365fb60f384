<?php
// Stores the message, tells the gate's hook about it, and answers as the
// framework's ajaxReturn does.
//
//   ?via=stream|curl      how PHP speaks to the hook
//   ?to=publish|channel   a form to /publish, or the bare message to /channels/live
include __DIR__ . '/../publish.php';

function ajax_return($data, $info, $status)
{
    header('Content-Type: application/json; charset=UTF-8');
    echo json_encode(array('data' => $data, 'info' => $info, 'status' => $status));
}

$via = isset($_GET['via']) ? $_GET['via'] : 'stream';
$to = isset($_GET['to']) ? $_GET['to'] : 'publish';
$msg = isset($_POST['msg']) ? $_POST['msg'] : '';

if ($msg == '') {
    ajax_return($_POST, 'no', 0);
    exit;
}

$filename = __DIR__ . '/../uploads/live/data.json';
if (!is_dir(dirname($filename))) {
    mkdir(dirname($filename), 0777, true);
}
file_put_contents($filename, $msg, LOCK_EX);

list($code, $answer) = publish('live', $msg, $via, $to);
if ($code == 200) {
    ajax_return(array('msg' => $msg, 'published' => json_decode($answer)), 'OK', 100);
} else {
    ajax_return(array('msg' => $msg, 'answer' => $answer), "stored, but not published: $code", 0);
}
