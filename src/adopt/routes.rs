//! The addresses at which frameworks call a method: routes of Laravel, Lumen and Slim, controllers
//! of CodeIgniter, AJAX actions of WordPress.
//!
//! Routes are read where they are written, as far as they are constant.

use super::project::Project;
use super::syntax::{Expr, Kind, Stmt};

/// Where something is requested.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Address {
    /// With a `*` for each part that differs.
    pub(super) path: String,
    /// What the request must have, as in a rule.
    pub(super) when: Vec<String>,
}

struct Route {
    /// In small letters, without its namespace; empty for any.
    class: String,
    method: String,
    address: Address,
}

/// The routes of a site.
#[derive(Default)]
pub(super) struct Routes {
    routes: Vec<Route>,
}

/// Routes in one site.
const ROUTES: usize = 5_000;
const VERBS: &[&str] = &["get", "post", "put", "patch", "any", "match", "map", "options"];

impl Routes {
    pub(super) fn of(project: &Project) -> Self {
        let mut routes = Self::default();
        for script in &project.scripts {
            let api = script.path.ends_with("/routes/api.php");
            routes.statements(&script.body, if api { "/api" } else { "" }, 0);
        }
        routes
    }

    /// Where a method is requested.
    pub(super) fn addresses(&self, script: &str, class: &str, method: &str) -> Vec<Address> {
        let (class, method) = (short(class), method.to_ascii_lowercase());
        let fits = |route: &&Route| {
            route.method == method && (route.class.is_empty() || route.class == class)
        };
        let mut all: Vec<Address> =
            self.routes.iter().filter(fits).map(|route| route.address.clone()).collect();
        if all.is_empty() {
            all = codeigniter(script, &method);
        }
        all.dedup();
        all
    }

    fn statements(&mut self, body: &[Stmt], prefix: &str, depth: usize) {
        if depth > 20 {
            return;
        }
        for statement in body {
            match statement {
                Stmt::Expr(expr) | Stmt::Return(Some(expr)) => {
                    self.expression(expr, prefix, depth);
                }
                Stmt::Block(body) | Stmt::If { then: body, .. } => {
                    self.statements(body, prefix, depth + 1);
                }
                Stmt::Class(class) => {
                    for method in &class.methods {
                        self.statements(&method.body, prefix, depth + 1);
                    }
                }
                Stmt::Function(function) => self.statements(&function.body, prefix, depth + 1),
                _ => {}
            }
        }
    }

    fn expression(&mut self, expr: &Expr, prefix: &str, depth: usize) {
        let Kind::Call(function, arguments) = &expr.kind else { return };
        if depth > 20 || self.routes.len() >= ROUTES {
            return;
        }
        let (name, base) = match &function.kind {
            Kind::Static(base, name) | Kind::Member(base, name) => (name, Some(&**base)),
            Kind::Name(name) => (name, None),
            _ => return,
        };
        let name = name.to_ascii_lowercase();
        if name == "add_action" {
            return self.action(arguments);
        }
        let Some(base) = base else { return };
        if name == "group" {
            let mut prefix = format!("{prefix}{}", prefix_of(base));
            for argument in arguments {
                match &argument.kind {
                    Kind::Text(part) => prefix.push_str(&pattern(part)),
                    Kind::Array(_) => {
                        let part = entry(argument, "prefix").map(pattern).unwrap_or_default();
                        prefix.push_str(&part);
                    }
                    Kind::Closure(closure) => self.statements(&closure.body, &prefix, depth + 1),
                    _ => {}
                }
            }
            return;
        }
        let texts = arguments.iter().position(|one| matches!(one.kind, Kind::Text(_)));
        if VERBS.contains(&&*name)
            && is_router(base)
            && let Some(at) = texts
            && let (Some(Kind::Text(text)), Some(action)) =
                (arguments.get(at).map(|one| &one.kind), arguments.get(at + 1))
            && let Some((class, method)) = action_of(action)
        {
            let path = format!("{prefix}{}{}", prefix_of(base), pattern(text));
            let address = Address { path: slash(path), when: Vec::new() };
            self.routes.push(Route { class, method, address });
        }
        // `Route::get(...)->name(...)`
        self.expression(base, prefix, depth + 1);
    }

    /// `add_action('wp_ajax_poll', array($this, 'poll'))`.
    fn action(&mut self, arguments: &[Expr]) {
        let [Expr { kind: Kind::Text(hook), .. }, callback, ..] = arguments else { return };
        let Some(action) = hook.strip_prefix("wp_ajax_") else { return };
        let action = action.strip_prefix("nopriv_").unwrap_or(action);
        let Kind::Array(parts) = &callback.kind else { return };
        let Some((_, Expr { kind: Kind::Text(method), .. })) = parts.get(1) else { return };
        let when = vec![format!("action={action}")];
        let address = Address { path: "/wp-admin/admin-ajax.php".to_owned(), when };
        let method = method.to_ascii_lowercase();
        self.routes.push(Route { class: String::new(), method, address });
    }
}

/// True if routes are made with it: `Route::`, `$app->`, `$router->`.
fn is_router(base: &Expr) -> bool {
    match &base.kind {
        Kind::Name(name) => short(name) == "route",
        Kind::Variable(name) => {
            matches!(name.as_str(), "app" | "router" | "r" | "group" | "routes")
        }
        Kind::Call(function, _) => match &function.kind {
            Kind::Static(base, _) | Kind::Member(base, _) => is_router(base),
            _ => false,
        },
        Kind::Member(_, name) => matches!(name.as_str(), "router" | "app"),
        _ => false,
    }
}

/// What stands before a group: `Route::prefix('chat')->group(...)`.
fn prefix_of(base: &Expr) -> String {
    let Kind::Call(function, arguments) = &base.kind else { return String::new() };
    let (Kind::Static(inner, name) | Kind::Member(inner, name)) = &function.kind else {
        return String::new();
    };
    let own = match (name.as_str(), arguments.first().map(|one| &one.kind)) {
        ("prefix", Some(Kind::Text(text))) => pattern(text),
        _ => String::new(),
    };
    prefix_of(inner) + &own
}

/// The class and the method: `'Chat@poll'`, `[Chat::class, 'poll']`, `['uses' => 'Chat@poll']`.
fn action_of(action: &Expr) -> Option<(String, String)> {
    let named = |text: &str| {
        let (class, method) = text.split_once('@').or_else(|| text.split_once(':'))?;
        Some((short(class), method.trim_start_matches(':').to_ascii_lowercase()))
    };
    match &action.kind {
        Kind::Text(text) => named(text),
        Kind::Array(parts) => {
            if let Some(text) = entry(action, "uses") {
                return named(text);
            }
            let class = match &parts.first()?.1.kind {
                Kind::Static(class, _) => match &class.kind {
                    Kind::Name(name) => name.clone(),
                    _ => return None,
                },
                Kind::Text(name) => name.clone(),
                _ => return None,
            };
            let Kind::Text(method) = &parts.get(1)?.1.kind else { return None };
            Some((short(&class), method.to_ascii_lowercase()))
        }
        _ => None,
    }
}

/// A text of an array by its key.
fn entry<'e>(array: &'e Expr, wanted: &str) -> Option<&'e str> {
    let Kind::Array(parts) = &array.kind else { return None };
    parts.iter().find_map(|(key, value)| match (key.as_ref().map(|key| &key.kind), &value.kind) {
        (Some(Kind::Text(key)), Kind::Text(text)) if key == wanted => Some(text.as_str()),
        _ => None,
    })
}

/// `/room/{id}/poll` as a rule has it: `/room/*/poll`.
fn pattern(text: &str) -> String {
    let parts = text.split('/').filter(|part| !part.is_empty());
    let star =
        |part: &str| if part.contains(['{', ':']) { "*".to_owned() } else { part.to_owned() };
    parts.map(|part| format!("/{}", star(part))).collect()
}

fn slash(path: String) -> String {
    if path.is_empty() { "/".to_owned() } else { path }
}

/// A controller of CodeIgniter, with and without `index.php` in its addresses.
fn codeigniter(script: &str, method: &str) -> Vec<Address> {
    let Some((root, rest)) = script.split_once("/application/controllers/") else {
        return Vec::new();
    };
    let class = rest.rsplit_once('.').map_or(rest, |(name, _)| name).to_ascii_lowercase();
    let mut ends = vec![format!("/{class}/{method}")];
    if method == "index" {
        ends.push(format!("/{class}"));
    }
    let both = |end: &String| [format!("{root}{end}"), format!("{root}/index.php{end}")];
    ends.iter().flat_map(both).map(|path| Address { path, when: Vec::new() }).collect()
}

fn short(name: &str) -> String {
    name.rsplit('\\').next().unwrap_or(name).to_ascii_lowercase()
}
