//! Databases and caches: what a query is about, and what stands for a table.

use crate::adopt::events::What;
use crate::adopt::value::{Origin, Piece, Value};
use crate::adopt::walk::Walker;

impl Walker<'_> {
    pub(super) fn query_function(&mut self, name: &str, values: &[Value]) -> Option<Value> {
        let caches =
            ["apc_fetch", "apcu_fetch", "wincache_ucache_get", "xcache_get", "shm_get_var"];
        if caches.contains(&name) {
            return Some(self.cached(values));
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

    /// The value of a cache under a key.
    pub(super) fn cached(&mut self, keys: &[Value]) -> Value {
        let begin = keys.first().and_then(|key| key.pieces.as_ref()?.first());
        let key = match begin {
            Some(Piece::Text(text)) => text.clone(),
            _ => String::new(),
        };
        self.note(What::Cache(key));
        Value::from_origin(Origin::Cache)
    }

    /// A query, if one of the arguments is SQL.
    pub(super) fn query(&mut self, values: &[Value]) -> Option<Value> {
        let sql = values.iter().find_map(sql_in)?;
        let from = Value::made_of(values);
        self.note(What::Query {
            table: sql.table.clone(),
            writes: sql.writes,
            presence: sql.presence,
            from: from.clone(),
        });
        let origin = if sql.writes { Origin::Written(sql.table) } else { Origin::Rows(sql.table) };
        Some(from.with(origin))
    }

    /// Methods of what stands for a table: `M('chat')->where(...)->select()`.
    pub(super) fn model_method(
        &mut self,
        base: &Value,
        name: &str,
        values: &[Value],
    ) -> Option<Value> {
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
            "get_result",
            "max",
            "min",
            "exists",
            "pluck",
            "value",
        ];
        let writes = ["add", "insert", "save", "create", "update", "delete", "insertgetid"];
        let from = Value::made_of(values.iter().chain([base]));
        let write = writes.contains(&name) || written && name == "execute";
        if write || !written && reads.contains(&name) {
            let columns: Vec<&str> = values
                .iter()
                .take(1)
                .flat_map(|row| row.fields.iter().map(|(name, _)| name.as_str()))
                .collect();
            let presence = write && is_presence(&columns);
            self.note(What::Query { table, writes: write, presence, from: from.clone() });
        }
        Some(from)
    }
}

/// True if one of the values is SQL.
pub(super) fn is_query(values: &[Value]) -> bool {
    values.iter().any(|value| sql_in(value).is_some())
}

fn sql_in(value: &Value) -> Option<Sql> {
    match value.pieces.as_ref()?.first()? {
        Piece::Text(text) => Sql::read(text),
        _ => None,
    }
}

/// The subject of a query.
struct Sql {
    table: String,
    writes: bool,
    presence: bool,
}

/// True if columns say no more than that a client is there.
pub(super) fn is_presence(columns: &[&str]) -> bool {
    let seen = |column: &&str| {
        let column = column.to_ascii_lowercase();
        [
            "last_seen",
            "lastseen",
            "last_act",
            "lastact",
            "online",
            "heartbeat",
            "last_visit",
            "ping",
        ]
        .iter()
        .any(|part| column.contains(part))
    };
    !columns.is_empty() && columns.iter().all(seen)
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
        let presence = verb == "update" && is_presence(&columns_set(text));
        let table = table.rsplit('.').next().unwrap_or_default().to_owned();
        Some(Self { table, writes, presence })
    }
}

/// The columns that an `UPDATE ... SET` changes.
fn columns_set(sql: &str) -> Vec<&str> {
    let lower = sql.to_ascii_lowercase();
    let Some(begin) = lower.find(" set ").map(|at| at + 5) else { return Vec::new() };
    let end = lower.get(begin..).and_then(|rest| rest.find(" where ")).map(|at| begin + at);
    let list = sql.get(begin..end.unwrap_or(sql.len())).unwrap_or_default();
    let column = |part: &'_ str| part.split_once('=').map(|(name, _)| name.len());
    list.split(',')
        .filter_map(|part| part.get(..column(part)?))
        .map(|name| name.trim().trim_matches('`'))
        .collect()
}
