<?php
require_once dirname(__FILE__) . '/Action.php';

class LiveAction extends Action
{
    public function sendMsg()
    {
        $filename = dirname(__FILE__) . '/../uploads/live/' . 'data.json';
        if (isset($_POST['msg']) && $_POST['msg'] != '') {
            if (!is_dir(dirname($filename))) {
                mkdir(dirname($filename), 0777, true);
            }
            file_put_contents($filename, $_POST['msg'], LOCK_EX);
            $this->ajaxReturn($_POST, 'OK', 100);
        } else {
            $this->ajaxReturn($_POST, 'no', 0);
        }
    }
}
