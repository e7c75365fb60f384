<?php
namespace Board;

class Board
{
    private $path;

    public function __construct($path = '')
    {
        $this->path = $path;
    }

    /** In milliseconds, as JavaScript has them. */
    public function changed()
    {
        clearstatcache();
        return filemtime($this->path) * 1000;
    }

    public function read()
    {
        return file_get_contents($this->path);
    }

    public function write($text)
    {
        file_put_contents($this->path, $text);
        return true;
    }
}
