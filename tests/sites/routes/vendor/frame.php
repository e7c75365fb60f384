<?php
// The least of a framework that the controllers need; `adopt` does not read this folder.
class Request
{
    public function input($name, $default = null)
    {
        return $_REQUEST[$name] ?? $default;
    }
}

class Route
{
    private static $all = [];

    public static function get($path, $action)
    {
        self::$all[] = ['GET', $path, $action];
    }

    public static function post($path, $action)
    {
        self::$all[] = ['POST', $path, $action];
    }

    public static function answer()
    {
        $path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
        foreach (self::$all as [$method, $route, [$class, $name]]) {
            $pattern = '#^' . preg_replace('#\{\w+\}#', '([^/]+)', $route) . '$#';
            if ($method === $_SERVER['REQUEST_METHOD'] && preg_match($pattern, $path, $parts)) {
                echo (new $class())->$name(new Request(), ...array_slice($parts, 1));
                return;
            }
        }
        http_response_code(404);
    }
}

class Table
{
    private $where = [];

    public function __construct(private $db, private $name)
    {
    }

    public function where($column, $is, $value = null)
    {
        $this->where[] = func_num_args() === 2 ? [$column, '=', $is] : [$column, $is, $value];
        return $this;
    }

    public function get()
    {
        $tests = array_map(fn ($one) => "$one[0] $one[1] ?", $this->where);
        $query = $this->db->prepare("SELECT * FROM {$this->name} WHERE " . implode(' AND ', $tests));
        $query->execute(array_column($this->where, 2));
        return $query->fetchAll(PDO::FETCH_ASSOC);
    }

    public function insert($row)
    {
        $names = implode(',', array_keys($row));
        $marks = implode(',', array_fill(0, count($row), '?'));
        $this->db->prepare("INSERT INTO {$this->name} ($names) VALUES ($marks)")
            ->execute(array_values($row));
    }
}

class DB
{
    public static function table($name)
    {
        $db = new PDO(getenv('MESSAGES'));
        $db->exec('PRAGMA busy_timeout = 5000');
        $db->exec('CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, room, text)');
        return new Table($db, $name);
    }
}

function response()
{
    return new class () {
        public function json($data)
        {
            header('Content-Type: application/json');
            return json_encode($data);
        }
    };
}
