<?php
// Long polling over the modification times of files: a publisher of an id
// touches its file, a subscriber checks until the file is newer
// than what was last seen.
class NovComet
{
    const COMET_OK = 0;
    const COMET_CHANGED = 1;

    private $_tries;
    private $_sleep;
    private $_vars = array();
    private $_callback = null;

    public function __construct($tries = 20, $sleep = 2)
    {
        $this->_tries = $tries;
        $this->_sleep = $sleep;
    }

    public function setVar($key, $value)
    {
        $this->_vars[$key] = $value;
    }

    public function setTries($tries)
    {
        $this->_tries = $tries;
    }

    public function setSleepTime($sleep)
    {
        $this->_sleep = $sleep;
    }

    public function setCallbackCheck($callback)
    {
        $this->_callback = $callback;
    }

    public function run()
    {
        $callback = $this->_callback;
        if (is_null($callback)) {
            $callback = function ($id) {
                $file = self::path($id);
                return is_file($file) ? filemtime($file) : 0;
            };
        }

        // A client that does not know the time starts from now, and "now" is
        // when it asked, not each time we look.
        $vars = array();
        foreach ($this->_vars as $id => $timestamp) {
            $vars[$id] = (int) $timestamp == 0 ? time() : (int) $timestamp;
        }

        for ($i = 0; $i < $this->_tries; $i++) {
            $out = array();
            clearstatcache();
            foreach ($vars as $id => $timestamp) {
                $changed = $callback($id);
                if ($changed > $timestamp) {
                    $out[$id] = $changed;
                }
            }
            if (count($out) > 0) {
                return json_encode(array('s' => self::COMET_CHANGED, 'k' => $out));
            }
            sleep($this->_sleep);
        }

        return json_encode(array('s' => self::COMET_OK));
    }

    public function publish($id)
    {
        return json_encode(touch(self::path($id)));
    }

    private static function path($id)
    {
        $dir = getenv('COMET_DIR') ?: '/dev/shm';
        return sprintf("$dir/%s.comet", basename($id));
    }
}
