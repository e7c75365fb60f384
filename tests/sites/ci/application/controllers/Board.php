<?php
class Board extends CI_Controller
{
    public function index()
    {
        echo 'a board';
    }

    public function wait()
    {
        $after = (int) $this->input->get('after');
        for ($tries = 0; $tries < 4; $tries++) {
            $query = $this->db->query('SELECT id, line FROM board WHERE id > ?', array($after));
            if ($query->num_rows() > 0) {
                $this->output->set_content_type('application/json');
                $this->output->set_output(json_encode(array('lines' => $query->result_array())));
                return;
            }
            sleep(1);
        }
        $this->output->set_content_type('application/json');
        $this->output->set_output('{"lines":[]}');
    }

    public function add()
    {
        $this->db->insert('board', array('line' => $this->input->post('line')));
        echo 'told';
    }
}
