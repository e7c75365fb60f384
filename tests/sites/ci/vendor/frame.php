<?php
// The least of CodeIgniter that the controller needs; `adopt` does not read this folder.
class Rows
{
    public function __construct(private $rows)
    {
    }

    public function num_rows()
    {
        return count($this->rows);
    }

    public function result_array()
    {
        return $this->rows;
    }
}

class Database
{
    private $db;

    public function __construct()
    {
        $this->db = new PDO(getenv('BOARD'));
        $this->db->exec('PRAGMA busy_timeout = 5000');
        $this->db->exec('CREATE TABLE IF NOT EXISTS board (id INTEGER PRIMARY KEY, line)');
    }

    public function query($sql, $values)
    {
        $query = $this->db->prepare($sql);
        $query->execute($values);
        return new Rows($query->fetchAll(PDO::FETCH_ASSOC));
    }

    public function insert($table, $row)
    {
        $this->db->prepare("INSERT INTO $table (line) VALUES (?)")->execute(array_values($row));
    }
}

class Input
{
    public function get($name)
    {
        return $_GET[$name] ?? null;
    }

    public function post($name)
    {
        return $_POST[$name] ?? null;
    }
}

class Output
{
    public function set_content_type($type)
    {
        header("Content-Type: $type");
    }

    public function set_output($text)
    {
        echo $text;
    }
}

class CI_Controller
{
    protected $input;
    protected $output;
    protected $db;

    public function __construct()
    {
        [$this->input, $this->output, $this->db] = [new Input(), new Output(), new Database()];
    }
}

function answer($route)
{
    $path = trim(parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH), '/');
    $target = $path === '' ? $route['default_controller'] : ($route[$path] ?? $path);
    $target = is_array($target) ? $target[strtolower($_SERVER['REQUEST_METHOD'])] : $target;
    [$class, $method] = explode('/', "$target/index");
    require __DIR__ . '/../application/controllers/' . ucfirst($class) . '.php';
    (new $class())->$method();
}
