//! What PHP's own functions, its databases and some frameworks do, as far as it matters here.

use super::eval::{formatted, parent};
use super::syntax::{Expr, Kind};
use super::value::{Origin, Piece, Source, Value};
use super::walk::{Walker, What};

impl<'a> Walker<'a> {
    pub(super) fn call_expression(
        &mut self,
        line: u32,
        function: &'a Expr,
        arguments: &'a [Expr],
    ) -> Value {
        // An `isset` reads nothing.
        let values: Vec<Value> = arguments.iter().map(|one| self.eval(one)).collect();
        let value = match &function.kind {
            Kind::Name(name) => {
                self.line = line;
                self.named(name, arguments, values)
            }
            Kind::Member(base, name) => {
                let base = self.eval(base);
                self.line = line;
                self.method_call(base, name, values)
            }
            Kind::Static(class, name) => {
                let class = self.class_named(class).unwrap_or_default();
                self.line = line;
                self.static_call(&class, name, values)
            }
            _ => {
                let callee = self.eval(function);
                self.closure_call(&callee, values)
            }
        };
        self.line = line;
        value
    }

    fn closure_call(&mut self, callee: &Value, values: Vec<Value>) -> Value {
        let Some((script, function, around)) =
            callee.closure.and_then(|at| self.closures.get(at)).cloned()
        else {
            return Value::made_of(&values);
        };
        let (this, class) = (self.scope.this, self.scope.class.clone());
        self.call_within(script, function, values, this, class, around)
    }

    fn named(&mut self, name: &str, arguments: &'a [Expr], values: Vec<Value>) -> Value {
        let included = |script| self.walked.included.contains(&script);
        if let Some((script, function)) = self.project.function(name, included) {
            return self.call(script, function, values, None, None);
        }
        let name = name.rsplit('\\').next().unwrap_or(name).to_ascii_lowercase();
        self.file_function(&name, &values)
            .or_else(|| self.request_function(&name, arguments, &values))
            .or_else(|| self.query_function(&name, &values))
            .or_else(|| text_function(&name, &values))
            .unwrap_or_else(|| self.other_function(&name, values))
    }

    /// Waiting, and what is done with files.
    fn file_function(&mut self, name: &str, values: &[Value]) -> Option<Value> {
        let folder = self.project.folder(self.entry);
        let first = values.first().cloned().unwrap_or_default();
        let place = first.place(&folder);
        let (what, value) = match name {
            "sleep" => (What::Sleep(first.number()), Value::default()),
            "usleep" => (What::Sleep(first.number().map(|n| n / 1e6)), Value::default()),
            "time_nanosleep" => (What::Sleep(first.number()), Value::default()),
            "clearstatcache" => (What::Clear, Value::default()),
            "filemtime" => {
                (What::Look(place.clone()), Value::from_origin(Origin::ChangeTime(place)))
            }
            "filesize" | "filectime" | "fileatime" | "stat" | "md5_file" | "sha1_file" => {
                (What::Look(place.clone()), Value::from_origin(Origin::State(place)))
            }
            "file_get_contents" | "file" if first.constant().is_some_and(|p| p.contains("://")) => {
                return Some(Value::default());
            }
            "file_get_contents" => {
                (What::Read(place.clone()), Value::from_origin(Origin::Content(place)))
            }
            "file" => {
                let content = Value::from_origin(Origin::Content(place.clone()));
                (What::Read(place), content.with(Origin::Changed))
            }
            "readfile" => {
                let content = Value::from_origin(Origin::Content(place.clone()));
                self.note(What::Read(place));
                (What::Echo(content), Value::default())
            }
            "file_put_contents" => {
                (What::Write(place, values.get(1).cloned().unwrap_or_default()), Value::default())
            }
            "touch" => (What::Touch(place), Value::default()),
            "rename" | "copy" | "move_uploaded_file" => {
                let to = values.get(1)?.place(&folder);
                (What::Write(to, Value::default()), Value::default())
            }
            // A handle is known by the path it was opened with.
            "fopen" => {
                let mode = values.get(1).and_then(Value::constant).unwrap_or_default();
                let handle = first.clone();
                if mode.starts_with('r') {
                    return Some(handle.with(Origin::Content(place)));
                }
                // Emptied now, written to later.
                return Some(handle);
            }
            "fread" | "fgets" | "stream_get_contents" if first.pieces.is_some() => {
                let content = Value::from_origin(Origin::Content(place.clone()));
                (What::Read(place), content)
            }
            "fwrite" | "fputs" if first.pieces.is_some() => {
                (What::Write(place, values.get(1).cloned().unwrap_or_default()), Value::default())
            }
            "realpath" | "tmpfile" => return Some(first),
            "getcwd" => return Some(Value::text(folder)),
            "sys_get_temp_dir" => return Some(Value::text("/tmp")),
            "fclose" | "flock" | "fflush" | "fseek" | "is_file" | "file_exists" | "is_readable"
            | "is_dir" | "mkdir" | "unlink" => return Some(Value::default()),
            _ => return None,
        };
        self.note(what);
        Some(value)
    }

    /// The request and the answer's head.
    fn request_function(
        &mut self,
        name: &str,
        arguments: &'a [Expr],
        values: &[Value],
    ) -> Option<Value> {
        let first = values.first().cloned().unwrap_or_default();
        Some(match name {
            "filter_input" => {
                let source = match arguments.first().map(|one| &one.kind) {
                    Some(Kind::Name(name)) if name == "INPUT_POST" => Source::Post,
                    Some(Kind::Name(name)) if name == "INPUT_COOKIE" => Source::Cookie,
                    _ => Source::Get,
                };
                let name = values.get(1).and_then(Value::constant)?;
                Value::from_origin(Origin::Parameter(source, name))
            }
            // ThinkPHP's and others' readers: `I('get.msg')`, `input('msg')`.
            "i" | "input" if values.len() <= 3 => {
                let text = first.constant()?;
                let (source, name) = match text.split_once('.') {
                    Some(("get", name)) => (Source::Get, name),
                    Some(("post", name)) => (Source::Post, name),
                    _ => (Source::Either, text.trim_start_matches("param.")),
                };
                Value::from_origin(Origin::Parameter(source, name.to_owned()))
            }
            "header" => {
                self.note(What::Header(first));
                Value::default()
            }
            "session_start" => {
                self.note(What::Session);
                Value::default()
            }
            "getenv" => match first.constant() {
                Some(name) => Value::from_origin(Origin::Environment(name)),
                None => Value::default(),
            },
            "time" | "microtime" | "hrtime" => Value::from_origin(Origin::Clock),
            "define" => {
                let value = values.get(1).cloned().unwrap_or_default();
                self.constants.insert(first.constant()?, value);
                Value::default()
            }
            "constant" => self.constants.get(&first.constant()?).cloned().unwrap_or_default(),
            "compact" => {
                let mut array = Value::default();
                for name in values.iter().filter_map(Value::constant) {
                    let value = self.scope.variables.get(&name).cloned().unwrap_or_default();
                    array.set_field(&name, value);
                }
                array
            }
            "call_user_func" => {
                let callee = first;
                self.closure_call(&callee, values.iter().skip(1).cloned().collect())
            }
            "print" | "printf" | "vprintf" | "print_r" => {
                let text = if name == "printf" {
                    formatted(&first.constant().unwrap_or_default(), values.get(1..).unwrap_or(&[]))
                } else {
                    first
                };
                self.note(What::Echo(text));
                Value::default()
            }
            "wp_send_json" => self.answer_json(first),
            _ => return None,
        })
    }

    fn query_function(&mut self, name: &str, values: &[Value]) -> Option<Value> {
        let caches =
            ["apc_fetch", "apcu_fetch", "wincache_ucache_get", "xcache_get", "shm_get_var"];
        if caches.contains(&name) {
            self.note(What::Cache);
            return Some(Value::from_origin(Origin::Cache));
        }
        let queries = name.ends_with("_query")
            || ["odbc_exec", "oci_parse", "mysqli_prepare", "pg_query_params"].contains(&name);
        if queries {
            return self.query(values);
        }
        // ThinkPHP's models and Laravel's tables.
        if ["m", "d"].contains(&name) {
            let table = values.first().and_then(Value::constant)?;
            return Some(Value::from_origin(Origin::Rows(table.to_ascii_lowercase())));
        }
        let fetches = ["mysql_fetch", "mysqli_fetch", "pg_fetch", "sqlite_fetch", "mysqli_num"];
        if fetches.iter().any(|begin| name.starts_with(begin)) {
            return Some(Value::made_of(values));
        }
        None
    }

    /// A query, if one of the arguments is SQL.
    fn query(&mut self, values: &[Value]) -> Option<Value> {
        let sql = values.iter().find_map(|value| {
            let first = value.pieces.as_ref()?.first()?;
            match first {
                Piece::Text(text) => Sql::read(text),
                _ => None,
            }
        })?;
        let from = Value::made_of(values);
        self.note(What::Query { table: sql.table.clone(), writes: sql.writes, from: from.clone() });
        let origin = if sql.writes { Origin::Written(sql.table) } else { Origin::Rows(sql.table) };
        Some(from.with(origin))
    }

    fn other_function(&mut self, name: &str, values: Vec<Value>) -> Value {
        match name {
            "isset" | "empty" | "is_null" | "count" | "strlen" | "is_numeric" | "is_array"
            | "in_array" | "array_key_exists" | "ini_set" | "set_time_limit" | "flush" => {
                Value::default()
            }
            "json_encode" => {
                let inside = values.into_iter().next().unwrap_or_default();
                let origins = inside.all_origins();
                let pieces = Some(vec![Piece::Json(Box::new(inside))]);
                Value { pieces, origins, ..Value::default() }.bounded()
            }
            "json_decode" => Value::made_of(&values).with(Origin::Decoded),
            "array_merge" => values.into_iter().reduce(Value::or).unwrap_or_default(),
            _ => changed(&values),
        }
    }

    pub(super) fn method_call(&mut self, base: Value, name: &str, values: Vec<Value>) -> Value {
        let own = base.object.and_then(|at| {
            let class = self.objects.get(at)?.class.clone();
            Some((at, self.find_method(&class, name)?))
        });
        if let Some((at, (script, class, function))) = own {
            return self.call(script, function, values, Some(at), Some(class));
        }
        if let Some(value) = self.foreign_method(&base, name, &values) {
            return value;
        }
        // An object of which nothing is known: its class, if just one has such a method.
        let only = self.project.only_class_with(name).map(str::to_owned);
        if base.object.is_none()
            && let Some(class) = only
            && let Some((script, class, function)) = self.find_method(&class, name)
        {
            return self.call(script, function, values, None, Some(class));
        }
        Value::made_of(values.iter().chain([&base]))
    }

    /// Methods of databases, requests and frameworks.
    fn foreign_method(&mut self, base: &Value, name: &str, values: &[Value]) -> Option<Value> {
        let lower = name.to_ascii_lowercase();
        let first = values.first().cloned().unwrap_or_default();
        match lower.as_str() {
            "ajaxreturn" => {
                let answer = match values {
                    [data, info, status, ..] => {
                        let mut all = Value::default();
                        all.set_field("data", data.clone());
                        all.set_field("info", info.clone());
                        all.set_field("status", status.clone());
                        all
                    }
                    _ => first,
                };
                Some(self.answer_json(answer))
            }
            "json" | "setjsoncontent" | "renderjson" if values.len() <= 3 => {
                Some(self.answer_json(first))
            }
            "getparam" | "getquery" | "getpost" | "input" | "param" => {
                let source = match lower.as_str() {
                    "getquery" => Source::Get,
                    "getpost" => Source::Post,
                    _ => Source::Either,
                };
                Some(Value::from_origin(Origin::Parameter(source, first.constant()?)))
            }
            "getmtime" => {
                let place = base.place(&self.project.folder(self.entry));
                self.note(What::Look(place.clone()));
                Some(Value::from_origin(Origin::ChangeTime(place)))
            }
            "get" | "lrange" | "lpop" | "blpop" | "fetch"
                if base.has(|origin| *origin == Origin::Cache) =>
            {
                self.note(What::Cache);
                Some(Value::from_origin(Origin::Cache))
            }
            _ => self.query(values).or_else(|| self.model_method(base, &lower, values)),
        }
    }

    /// Methods of what stands for a table: `M('chat')->where(...)->select()`.
    fn model_method(&mut self, base: &Value, name: &str, values: &[Value]) -> Option<Value> {
        let (table, written) = base.origins.iter().find_map(|origin| match origin {
            Origin::Rows(table) => Some((table.clone(), false)),
            Origin::Written(table) => Some((table.clone(), true)),
            _ => None,
        })?;
        let reads = [
            "select",
            "find",
            "findall",
            "get",
            "first",
            "count",
            "all",
            "getfield",
            "execute",
            "fetch",
            "fetchall",
            "fetcharray",
            "fetchcolumn",
            "fetch_assoc",
            "fetch_all",
        ];
        let writes = ["add", "insert", "save", "create", "update", "delete", "insertgetid"];
        let from = Value::made_of(values.iter().chain([base]));
        let write = writes.contains(&name) || written && name == "execute";
        if write || !written && reads.contains(&name) {
            // What is written is what is handed over, not what it is handed to.
            let from = if written { Value::made_of(values) } else { from.clone() };
            self.note(What::Query { table, writes: write, from });
        }
        Some(from)
    }

    fn static_call(&mut self, class: &str, name: &str, values: Vec<Value>) -> Value {
        if let Some((script, class, function)) = self.find_method(class, name) {
            let this = self.scope.this;
            return self.call(script, function, values, this, Some(class));
        }
        let first = values.first().and_then(Value::constant);
        match (class.to_ascii_lowercase().as_str(), name.to_ascii_lowercase().as_str(), first) {
            ("db", "table" | "name", Some(table)) => {
                Value::from_origin(Origin::Rows(table.to_ascii_lowercase()))
            }
            ("input" | "request", "get" | "input", Some(name)) => {
                Value::from_origin(Origin::Parameter(Source::Either, name))
            }
            _ => match self.query(&values) {
                Some(value) => value,
                None => Value::made_of(&values),
            },
        }
    }

    /// `new` for a class that is not the site's own.
    pub(super) fn foreign_object(&mut self, class: &str, values: &[Value]) -> Value {
        let first = values.first().cloned().unwrap_or_default();
        match class.rsplit('\\').next().unwrap_or(class).to_ascii_lowercase().as_str() {
            "pdo" | "sqlite3" => {
                if let Some(Piece::Text(text)) = first.pieces.as_ref().and_then(|all| all.first()) {
                    let file = text.strip_prefix("sqlite:");
                    let file = file.or(Some(&**text).filter(|path| path.starts_with('/')));
                    if let Some(file) = file {
                        let begin = Piece::Text(file.to_owned());
                        let rest = first.pieces.iter().flatten().skip(1).cloned();
                        let pieces = Some([begin].into_iter().chain(rest).collect());
                        let path = Value { pieces, ..Value::default() };
                        let place = path.place(&self.project.folder(self.entry));
                        self.note(What::Database(place));
                    }
                }
                Value::default()
            }
            "mysqli" => Value::default(),
            "memcache" | "memcached" | "redis" => Value::from_origin(Origin::Cache),
            "splfileinfo" | "splfileobject" => first,
            "jsonresponse" => self.answer_json(first),
            _ => Value::made_of(values),
        }
    }

    fn answer_json(&mut self, value: Value) -> Value {
        let json = Value { pieces: Some(vec![Piece::Json(Box::new(value))]), ..Value::default() };
        self.note(What::Echo(json.bounded()));
        Value::default()
    }
}

/// Functions from text to text.
fn text_function(name: &str, values: &[Value]) -> Option<Value> {
    let first = values.first().cloned().unwrap_or_default();
    Some(match name {
        "sprintf" => match first.constant() {
            Some(format) => formatted(&format, values.get(1..).unwrap_or(&[])),
            None => Value::made_of(values),
        },
        "dirname" => {
            let levels = values.get(1).and_then(Value::number).unwrap_or(1.0) as u32;
            match first.constant() {
                Some(path) => Value::text(parent(&path, levels)),
                None => Value::made_of(values),
            }
        }
        "basename" => match first.constant() {
            Some(path) => Value::text(path.rsplit('/').next().unwrap_or_default().to_owned()),
            None => Value { pieces: None, ..first },
        },
        "trim" | "rtrim" | "ltrim" | "chop" => {
            let content = first.has(|origin| matches!(origin, Origin::Content(_)));
            if content { first.with(Origin::Trimmed) } else { first }
        }
        "intval" | "floatval" | "floor" | "round" | "ceil" | "strval" | "number_format"
        | "filter_var" | "filter_var_array" | "stripslashes" | "addslashes" => first,
        "max" | "min" => values.iter().cloned().reduce(Value::or)?,
        "strtolower" | "strtoupper" | "ucfirst" if first.constant().is_some() => {
            let text = first.constant()?;
            let lower = name == "strtolower";
            Value::text(if lower { text.to_lowercase() } else { text.to_uppercase() })
        }
        _ => return None,
    })
}

/// What a function that nobody here knows makes of its arguments.
fn changed(values: &[Value]) -> Value {
    let value = Value::made_of(values);
    let content = value.has(|origin| matches!(origin, Origin::Content(_)));
    if content { value.with(Origin::Changed) } else { value }
}

/// What a query is about.
struct Sql {
    table: String,
    writes: bool,
}

impl Sql {
    /// Reads the beginning of a query; `None` if the text is none.
    fn read(text: &str) -> Option<Self> {
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | '{' | '}');
        let mut words =
            text.split(|c| !is_name(c)).filter(|word| !word.is_empty()).map(str::to_lowercase);
        let verb = words.next()?;
        let (before, writes) = match verb.as_str() {
            "select" => ("from", false),
            "insert" | "replace" => ("into", true),
            "delete" => ("from", true),
            "update" => ("update", true),
            _ => return None,
        };
        if before != "update" {
            words.find(|word| word == before)?;
        }
        let table = words.next().unwrap_or_default();
        Some(Self { table: table.rsplit('.').next().unwrap_or_default().to_owned(), writes })
    }
}
