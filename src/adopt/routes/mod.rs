//! The addresses at which frameworks call a method: routes of Laravel, Lumen and Slim, controllers
//! and routes of CodeIgniter, AJAX actions of WordPress.
//!
//! Routes are read where they are written, as far as they are constant.

mod codeigniter;

use super::project::Project;
use super::syntax::{Expr, Function, Kind, Stmt};
use super::value::Source;

/// The place at which something is requested.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Address {
    /// With a `*` for each part that differs.
    pub(super) path: String,
    /// The conditions of a rule for it.
    pub(super) when: Vec<String>,
    /// The only way in which the parameters come: the route is for GET or for POST.
    pub(super) source: Option<Source>,
    /// Other addresses that its `*` would match.
    pub(super) apart: Vec<String>,
}

struct Route {
    /// In small letters, without its namespace; empty for any.
    class: String,
    method: String,
    address: Address,
}

/// A route's own function.
pub(super) struct RouteClosure<'a> {
    /// The script it is written in.
    pub(super) script: usize,
    pub(super) function: &'a Function,
    pub(super) address: Address,
}

/// The routes of a site.
#[derive(Default)]
pub(super) struct Routes<'a> {
    routes: Vec<Route>,
    closures: Vec<RouteClosure<'a>>,
}

/// The surroundings of a route: the groups it is in.
#[derive(Clone)]
struct Group {
    script: usize,
    prefix: String,
    /// The class of its methods, in small letters.
    class: String,
    depth: usize,
}

/// The target of a route.
enum Action<'a> {
    /// Class and method.
    Method(String, String),
    Closure(&'a Function),
}

/// Routes in one site.
const MAX_ROUTES: usize = 5_000;
/// Groups in groups.
const MAX_DEPTH: usize = 20;
/// Other addresses that are printed for one with a `*`.
const MAX_APART: usize = 20;
const VERBS: &[&str] = &["get", "post", "put", "patch", "any", "match", "map", "options"];

impl<'a> Routes<'a> {
    pub(super) fn of(project: &'a Project) -> Self {
        let mut routes = Self::default();
        for (number, script) in project.scripts.iter().enumerate() {
            let api = script.path.ends_with("/routes/api.php");
            let prefix = if api { "/api" } else { "" }.to_owned();
            let group = Group { script: number, prefix, class: String::new(), depth: 0 };
            routes.statements(&script.body, &group);
            if script.path.ends_with("/config/routes.php") {
                codeigniter::routes(&script.path, &script.body, &mut routes.routes);
            }
        }
        routes
    }

    /// The addresses of a method with so many `parameters`.
    pub(super) fn addresses(&self, script: &str, class: &str, method: &Function) -> Vec<Address> {
        let class = short(class);
        let name = method.name.to_ascii_lowercase();
        let fits = |route: &&Route| {
            route.method == name && (route.class.is_empty() || route.class == class)
        };
        let mut all: Vec<Address> =
            self.routes.iter().filter(fits).map(|route| route.address.clone()).collect();
        all.extend(codeigniter::of_controller(script, method));
        all.dedup();
        all.into_iter().map(|address| self.with_apart(address)).collect()
    }

    /// The functions that routes have of their own.
    pub(super) fn closures(&self) -> impl Iterator<Item = (&RouteClosure<'a>, Address)> {
        self.closures.iter().map(|one| (one, self.with_apart(one.address.clone())))
    }

    /// Adds the addresses of other routes that its `*` would match.
    fn with_apart(&self, address: Address) -> Address {
        if !address.path.contains('*') {
            return address;
        }
        let of_closures = self.closures.iter().map(|closure| &closure.address);
        let all = self.routes.iter().map(|route| &route.address).chain(of_closures);
        let others = all.filter(|other| {
            let differs = other.source.is_some() && other.source != address.source;
            !other.path.contains('*') && other.when.is_empty() && !differs
        });
        let mut apart: Vec<String> = others
            .filter(|other| matches(&address.path, &other.path))
            .map(|other| other.path.clone())
            .collect();
        apart.sort();
        apart.dedup();
        apart.truncate(MAX_APART);
        Address { apart, ..address }
    }

    fn statements(&mut self, body: &'a [Stmt], group: &Group) {
        if group.depth > MAX_DEPTH {
            return;
        }
        let inner = Group { depth: group.depth + 1, ..group.clone() };
        for statement in body {
            match statement {
                Stmt::Expr(expr) | Stmt::Return(Some(expr)) => self.expression(expr, group),
                Stmt::Block(body) | Stmt::If { then: body, .. } => self.statements(body, &inner),
                Stmt::Class(class) => {
                    for method in &class.methods {
                        self.statements(&method.body, &inner);
                    }
                }
                Stmt::Function(function) => self.statements(&function.body, &inner),
                _ => {}
            }
        }
    }

    fn expression(&mut self, expr: &'a Expr, group: &Group) {
        let Kind::Call(function, arguments) = &expr.kind else { return };
        let full = self.routes.len() + self.closures.len() >= MAX_ROUTES;
        if group.depth > MAX_DEPTH || full {
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
            return self.group(base, arguments, group);
        }
        let texts = arguments.iter().position(|one| matches!(one.kind, Kind::Text(_)));
        if VERBS.contains(&&*name)
            && is_router(base)
            && let Some(at) = texts
            && let (Some(Kind::Text(text)), Some(action)) =
                (arguments.get(at).map(|one| &one.kind), arguments.get(at + 1))
            && let Some(action) = action_of(action, &group.class)
        {
            let path = slash(format!("{}{}{}", group.prefix, prefix_of(base), pattern(text)));
            let source = match name.as_str() {
                "get" => Some(Source::Get),
                "post" => Some(Source::Post),
                _ => None,
            };
            let address = Address { path, source, ..Address::default() };
            match action {
                Action::Method(class, method) => self.routes.push(Route { class, method, address }),
                Action::Closure(function) => {
                    let script = group.script;
                    self.closures.push(RouteClosure { script, function, address });
                }
            }
        }
        // `Route::get(...)->name(...)`
        self.expression(base, &Group { depth: group.depth + 1, ..group.clone() });
    }

    fn group(&mut self, base: &'a Expr, arguments: &'a [Expr], outer: &Group) {
        let mut group = Group { depth: outer.depth + 1, ..outer.clone() };
        group.prefix.push_str(&prefix_of(base));
        if let Some(class) = controller_of(base) {
            group.class = class;
        }
        for argument in arguments {
            match &argument.kind {
                Kind::Text(part) => group.prefix.push_str(&pattern(part)),
                Kind::Array(_) => {
                    let part = entry(argument, "prefix").map(pattern).unwrap_or_default();
                    group.prefix.push_str(&part);
                }
                Kind::Closure(closure) => self.statements(&closure.body, &group),
                _ => {}
            }
        }
    }

    /// `add_action('wp_ajax_poll', array($this, 'poll'))`.
    fn action(&mut self, arguments: &[Expr]) {
        let [Expr { kind: Kind::Text(hook), .. }, callback, ..] = arguments else { return };
        let Some(action) = hook.strip_prefix("wp_ajax_") else { return };
        let action = action.strip_prefix("nopriv_").unwrap_or(action);
        let Kind::Array(parts) = &callback.kind else { return };
        let Some((_, Expr { kind: Kind::Text(method), .. })) = parts.get(1) else { return };
        let when = vec![format!("action={action}")];
        let path = "/wp-admin/admin-ajax.php".to_owned();
        let address = Address { path, when, ..Address::default() };
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

/// The texts before a group: `Route::prefix('chat')->group(...)`.
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

/// The class before a group: `Route::controller(Chat::class)->group(...)`.
fn controller_of(base: &Expr) -> Option<String> {
    let Kind::Call(function, arguments) = &base.kind else { return None };
    let (Kind::Static(inner, name) | Kind::Member(inner, name)) = &function.kind else {
        return None;
    };
    let own = arguments.first().filter(|_| name == "controller").and_then(class_of);
    own.or_else(|| controller_of(inner))
}

/// `Chat::class`, or a class by its name.
fn class_of(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Static(class, name) if name == "class" => match &class.kind {
            Kind::Name(name) => Some(short(name)),
            _ => None,
        },
        Kind::Text(name) => Some(short(name)),
        _ => None,
    }
}

/// `'Chat@poll'`, `[Chat::class, 'poll']`, `['uses' => 'Chat@poll']`, `Chat::class`, a function, or
/// a method of the group's class.
fn action_of<'a>(action: &'a Expr, class: &str) -> Option<Action<'a>> {
    let named = |text: &str| {
        let parts = text.split_once('@').or_else(|| text.split_once(':'));
        let (class, method) = match parts {
            Some((class, method)) => (short(class), method.trim_start_matches(':')),
            None if class.is_empty() => return None,
            None => (class.to_owned(), text),
        };
        // CodeIgniter's `Chat::poll/$1`.
        let method = method.split('/').next().unwrap_or(method);
        Some(Action::Method(class, method.to_ascii_lowercase()))
    };
    match &action.kind {
        Kind::Text(text) => named(text),
        Kind::Closure(function) => Some(Action::Closure(function)),
        Kind::Static(..) => Some(Action::Method(class_of(action)?, "__invoke".to_owned())),
        Kind::Array(parts) => {
            if let Some(text) = entry(action, "uses") {
                return named(text);
            }
            let class = class_of(&parts.first()?.1)?;
            let Kind::Text(method) = &parts.get(1)?.1.kind else { return None };
            Some(Action::Method(class, method.to_ascii_lowercase()))
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

/// `/room/{id}/poll` or `room/(:num)/poll` as a rule has it: `/room/*/poll`.
fn pattern(text: &str) -> String {
    let parts = text.split('/').filter(|part| !part.is_empty());
    let star =
        |part: &str| if part.contains(['{', ':', '(']) { "*".to_owned() } else { part.to_owned() };
    parts.map(|part| format!("/{}", star(part))).collect()
}

/// True if a pattern, whose `*` are whole segments, matches a path.
fn matches(pattern: &str, path: &str) -> bool {
    let mut wanted = pattern.split('/').peekable();
    let mut parts = path.split('/');
    while let Some(one) = wanted.next() {
        let Some(part) = parts.next() else { return false };
        let rest = one == "*" && wanted.peek().is_none();
        if rest {
            return true;
        }
        let fits = if one == "*" { !part.is_empty() } else { one == part };
        if !fits {
            return false;
        }
    }
    parts.next().is_none()
}

fn slash(path: String) -> String {
    if path.is_empty() { "/".to_owned() } else { path }
}

fn short(name: &str) -> String {
    name.rsplit('\\').next().unwrap_or(name).to_ascii_lowercase()
}
