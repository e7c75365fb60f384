//! The use that the site's pages make of an answer, as two looks at their JavaScript show it.

use super::Site;

/// The place at which a page asks whether the field is there or empty, as in `if (data.msg != "")`.
pub(super) fn takes_none(site: &Site, script: &str, field: &str) -> Option<(String, u32)> {
    uses(site, script, field, |before, after| {
        let after = after.trim_start();
        let asked = before.trim_end().ends_with(['(', '!', '&', '|']) && after.starts_with(')');
        let tested = before.contains("if") && asked;
        after.starts_with("!=")
            || after.starts_with("==")
            || after.starts_with("&&")
            || after.starts_with(".length")
            || tested
    })
}

/// The place at which a page makes a whole number of the field, as in `parseInt(data.timestamp)`.
pub(super) fn cuts(site: &Site, script: &str, field: &str) -> Option<(String, u32)> {
    uses(site, script, field, |before, _| {
        let makers = ["parseInt(", "Math.floor(", "Math.round(", "Math.ceil(", "Math.trunc("];
        makers.iter().any(|maker| before.trim_end().ends_with(maker))
    })
}

/// The first place where `name.field` stands between what `wanted` accepts: the rest of its line
/// before the whole name, and after it. Only files that name the poll's script are looked at: a
/// library knows nothing of it, and its fields are its own.
fn uses(
    site: &Site,
    script: &str,
    field: &str,
    wanted: impl Fn(&str, &str) -> bool,
) -> Option<(String, u32)> {
    let member = format!(".{field}");
    let name = script.rsplit('/').next().unwrap_or(script);
    let in_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    for file in site.files.iter().filter(|file| file.text.contains(name)) {
        for (number, line) in file.text.lines().enumerate() {
            // Minified code has lines of any length; a page's own script has not.
            if line.len() > 2_000 {
                continue;
            }
            for (at, _) in line.match_indices(&member) {
                let after = &line[at + member.len()..];
                let object = line[..at].trim_end_matches(|c| in_name(c) || c == '.');
                if object.len() < at && !after.starts_with(in_name) && wanted(object, after) {
                    return Some((file.path.clone(), number as u32 + 1));
                }
            }
        }
    }
    None
}
