//! `[[capture]]`: one rule.

use crate::config::read::section::Section;
use crate::config::read::values;
use crate::protocol::http::path::PathPattern;
use crate::protocol::template::{Field, Template};
use crate::server::publish::capture::Rule;

/// Reads a rule; `None` is a mistake.
pub(in crate::config) fn rule(section: &mut Section) -> Option<Rule> {
    let path = section.required("path", "write the path of the requests", values::path);
    let methods = section.list("methods", vec!["POST".to_owned()], method);
    let channel =
        section.required("channel", "write the channel's name, or a template", values::channel);
    let hint = "write what the message is, such as \"{form.msg}\"";
    let data = section.required("data", hint, template);
    let on = section.optional("on", str::parse);
    let on = match on {
        Some(on) => Some(on),
        None => {
            let usual = "2xx";
            if section.is_sound("on") {
                section.show("on", usual);
            }
            usual.parse().ok()
        }
    };
    let stars = path.as_ref().map_or(0, PathPattern::stars);
    for (key, template) in [("channel", &channel), ("data", &data)] {
        for field in template.iter().flat_map(Template::fields) {
            if let Field::Path(n) = field
                && *n > stars
                && section.is_sound("path")
            {
                let message = format!("{{path.{n}}} wants {n} * in the path, which has {stars}");
                section.mistake(key, message);
            }
        }
    }
    if methods.is_empty() && section.is_sound("methods") {
        section.mistake("methods", "must name at least one method");
    }
    Some(Rule { path: path?, methods, channel: channel?, data: data?, on: on? })
}

fn template(text: &str) -> Result<Template, String> {
    text.parse().map_err(|error| format!("\"{text}\": {error}"))
}

fn method(text: &str) -> Result<String, String> {
    let known = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    if !known.contains(&text) {
        return Err(format!("\"{text}\" is no method; write one of {}", known.join(", ")));
    }
    Ok(text.to_owned())
}
