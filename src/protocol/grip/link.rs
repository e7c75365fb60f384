//! The URIs of `Grip-Link`, resolved against the request's own (RFC 3986, section 5).

/// A link as a request can be made to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The host, if the link names one.
    pub host: Option<String>,
    /// Path and query.
    pub target: String,
}

/// Resolves `link` for a request of `target` (path and query); `None` if it cannot be asked for.
///
/// A link leads to the site, whatever host it names: the gate asks no other host.
pub fn resolve(target: &str, link: &str) -> Option<Link> {
    let link = link.split('#').next().unwrap_or_default();
    if !link.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let absolute = ["http://", "https://", "//"].iter().find_map(|scheme| {
        link.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme))?;
        link.get(scheme.len()..)
    });
    if let Some(rest) = absolute {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, target) = rest.split_at(end);
        let target = match target.strip_prefix('?') {
            Some(query) => format!("/?{query}"),
            None if target.is_empty() => "/".to_owned(),
            None => target.to_owned(),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        let good = !host.is_empty() && host.bytes().all(plain);
        return good.then(|| Link { host: Some(host.to_owned()), target });
    }
    let path = target.split('?').next().unwrap_or("/");
    let target = if link.starts_with('/') {
        link.to_owned()
    } else if link.is_empty() || link.starts_with('?') {
        format!("{path}{link}")
    } else if link.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
        return None;
    } else {
        let folder = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
        without_dots(&format!("{folder}{link}"))
    };
    target.starts_with('/').then_some(Link { host: None, target })
}

/// Takes out `.` and `..` (section 5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    format!("/{}{query}", kept.join("/"))
}
