//! PHP's own functions, as far as they matter here.

use super::texts::formatted;
use crate::adopt::events::What;
use crate::adopt::syntax::{Expr, Kind};
use crate::adopt::value::{Origin, Piece, Source, Value};
use crate::adopt::walk::Walker;

impl<'a> Walker<'a> {
    /// Waiting, and what is done with files.
    pub(super) fn file_function(&mut self, name: &str, values: &[Value]) -> Option<Value> {
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
            "file_get_contents" if first.constant().as_deref() == Some("php://input") => {
                return Some(Value::from_origin(Origin::Request(Source::Json)));
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
            // Laravel's folders.
            "base_path" | "public_path" | "storage_path" | "app_path" => {
                let path = self.project.folder(self.script) + "/";
                let (base, _) = path.split_once("/app/").or_else(|| path.split_once("/routes/"))?;
                let folder = match name {
                    "base_path" => "/",
                    "public_path" => "/public/",
                    "storage_path" => "/storage/",
                    _ => "/app/",
                };
                let inner = if values.is_empty() { Value::text("") } else { first };
                return Some(Value::join([Value::text(format!("{base}{folder}")), inner]));
            }
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
    pub(super) fn request_function(
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
            "request" if values.is_empty() => Value::from_origin(Origin::Request(Source::Either)),
            "request" => Value::from_origin(Origin::Parameter(Source::Either, first.constant()?)),
            "header" => {
                self.note(What::Header(first));
                Value::default()
            }
            "http_response_code" if !values.is_empty() => {
                self.note(What::Header(Value::text("HTTP/1.1 ")));
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

    pub(super) fn other_function(&mut self, name: &str, values: Vec<Value>) -> Value {
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
            "json_decode" if values.first().is_some_and(super::requests::is_request) => {
                values.into_iter().next().unwrap_or_default()
            }
            "json_decode" => Value::made_of(&values).with(Origin::Decoded),
            "array_merge" => values.into_iter().reduce(Value::or).unwrap_or_default(),
            _ => changed(&values),
        }
    }
}

/// The value of a function that is not known.
fn changed(values: &[Value]) -> Value {
    let value = Value::made_of(values);
    let content = value.has(|origin| matches!(origin, Origin::Content(_)));
    if content { value.with(Origin::Changed) } else { value }
}
