<?php
// Methods of every action of the site, as in its framework.
abstract class Action
{
    protected function ajaxReturn($data, $info = '', $status = 1)
    {
        header('Content-Type: application/json; charset=UTF-8');
        echo json_encode(array('data' => $data, 'info' => $info, 'status' => $status));
        exit;
    }
}
