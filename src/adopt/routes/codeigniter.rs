//! CodeIgniter: the addresses of a controller by its file's name, and those that `routes.php` adds,
//! each with and without `index.php`.

use super::{Address, Route, pattern};
use crate::adopt::syntax::{Expr, Function, Kind, Stmt};

/// Routes in one file.
const MAX_ROUTES: usize = 1_000;

/// The addresses of a method in a controller.
pub(super) fn of_controller(script: &str, method: &Function) -> Vec<Address> {
    let Some((root, rest)) = script.split_once("/application/controllers/") else {
        return Vec::new();
    };
    let class = rest.rsplit_once('.').map_or(rest, |(name, _)| name).to_ascii_lowercase();
    let name = method.name.to_ascii_lowercase();
    let mut ends = vec![format!("/{class}/{name}")];
    // Its parameters are further parts of the address.
    if !method.parameters.is_empty() {
        ends.push(format!("/{class}/{name}/*"));
    }
    if name == "index" {
        ends.push(format!("/{class}"));
    }
    ends.iter().flat_map(|end| with_index(root, end)).collect()
}

/// `$route['chat/(:num)'] = 'room/poll/$1';`, as `application/config/routes.php` has it.
pub(super) fn routes(script: &str, body: &[Stmt], out: &mut Vec<Route>) {
    let root = script.split("/application/").next().filter(|root| *root != script);
    let Some(root) = root else { return };
    for statement in body.iter().take(MAX_ROUTES) {
        let Stmt::Expr(Expr { kind: Kind::Assign(to, _, target), .. }) = statement else {
            continue;
        };
        let (Some(from), Kind::Text(target)) = (route(to), &target.kind) else { continue };
        let path = match from {
            "default_controller" => String::new(),
            "404_override" | "translate_uri_dashes" => continue,
            from => pattern(from),
        };
        // Folders, the class, the method, and its parameters: `admin/chat/poll/$1`.
        let parts: Vec<&str> = target.split('/').filter(|part| !part.contains('$')).collect();
        let (class, method) = match parts.as_slice() {
            [] => continue,
            [class] => (class, &"index"),
            [.., class, method] => (class, method),
        };
        for mut address in with_index(root, &path) {
            if address.path.is_empty() {
                address.path = "/".to_owned();
            }
            let class = class.to_ascii_lowercase();
            let method = method.to_ascii_lowercase();
            out.push(Route { class, method, address });
        }
    }
}

/// The text in `$route['chat']` or `$route['chat']['post']`.
fn route(to: &Expr) -> Option<&str> {
    let Kind::Index(base, Some(index)) = &to.kind else { return None };
    match (&base.kind, &index.kind) {
        (Kind::Variable(name), Kind::Text(from)) if name == "route" => Some(from),
        (Kind::Index(..), _) => route(base),
        _ => None,
    }
}

fn with_index(root: &str, end: &str) -> [Address; 2] {
    [format!("{root}{end}"), format!("{root}/index.php{end}")]
        .map(|path| Address { path, ..Address::default() })
}
