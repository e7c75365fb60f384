//! Databases and caches: what a query is about, and what stands for a table.

use crate::adopt::events::What;
use crate::adopt::value::{Origin, Piece, Value};
use crate::adopt::walk::Walker;

impl Walker<'_> {
    pub(super) fn query_function(&mut self, name: &str, values: &[Value]) -> Option<Value> {
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
    pub(super) fn query(&mut self, values: &[Value]) -> Option<Value> {
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
