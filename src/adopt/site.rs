//! The config of a site as one of several behind a gate: the same lines below `[[site]]`.

/// `config` as the site `name` with these hosts, to stand beside others in one file.
pub fn as_site(config: &str, name: &str, hosts: &[String]) -> String {
    let mut lines = Vec::new();
    let mut begun = false;
    for line in config.lines() {
        let Some((mark, open, table)) = header(line) else {
            lines.push(line.to_owned());
            continue;
        };
        if !std::mem::replace(&mut begun, true) {
            lines.extend(site(name, hosts));
        }
        let close = if open == "[[" { "]]" } else { "]" };
        lines.push(format!("{mark}{open}site.{table}{close}"));
    }
    if !begun {
        lines.extend(site(name, hosts));
    }
    lines.join("\n") + "\n"
}

fn site(name: &str, hosts: &[String]) -> [String; 3] {
    let hosts: Vec<String> = hosts.iter().map(|host| format!("\"{host}\"")).collect();
    let hosts = format!("hosts = [{}]", hosts.join(", "));
    ["[[site]]".to_owned(), format!("name = \"{name}\""), hosts]
}

/// The mark of a comment, the brackets and the name of a table's header; `None` = another line.
fn header(line: &str) -> Option<(&str, &'static str, &str)> {
    let (mark, rest) = match line.strip_prefix('#') {
        Some(rest) => ("#", rest),
        None => ("", line),
    };
    let list = rest.strip_prefix("[[").and_then(|rest| rest.strip_suffix("]]"));
    let table = || rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let (open, name) = match list {
        Some(name) => ("[[", name),
        None => ("[", table()?),
    };
    let bare = |b: u8| b.is_ascii_lowercase() || matches!(b, b'_' | b'.');
    (!name.is_empty() && name.bytes().all(bare)).then_some((mark, open, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_goes_below_the_site_and_nothing_else_changes() {
        let config = "# Read below [[watch]] first.\n\n[upstream]\nservers = [\"a\"]\n\n# ? which\n\
                      #[[poll]]\n#path = \"/a\"\n[[capture]]\nmethods = [\"GET\"]\n";
        let hosts = ["shop.example".to_owned(), "*.shop.example".to_owned()];
        assert_eq!(
            as_site(config, "shop", &hosts),
            "# Read below [[watch]] first.\n\n[[site]]\nname = \"shop\"\n\
             hosts = [\"shop.example\", \"*.shop.example\"]\n[site.upstream]\nservers = [\"a\"]\n\n\
             # ? which\n#[[site.poll]]\n#path = \"/a\"\n[[site.capture]]\nmethods = [\"GET\"]\n"
        );
    }
}
