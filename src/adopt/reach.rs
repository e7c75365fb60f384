//! The scripts that are worth a walk: a site may have thousands, of which a handful waits.

use super::project::Project;
use std::collections::HashSet;

/// A round that would bring in more scripts than these is not made: so many that mention a name
/// are a framework's, and the name is a common one.
const CROWD: usize = 200;

/// The scripts that wait somewhere, and those that mention what is defined in them, directly or
/// by way of one other script. Those that wait come first.
pub(super) fn of_waiting(project: &Project, texts: &[&str]) -> Vec<usize> {
    let words: Vec<HashSet<&str>> = texts.iter().map(|text| words(text)).collect();
    let waits = |set: &HashSet<&str>| {
        ["sleep", "usleep", "time_nanosleep", "clearstatcache"]
            .iter()
            .any(|name| set.contains(name))
    };
    let mut all: Vec<usize> = (0..texts.len()).filter(|at| waits(&words[*at])).collect();
    let mut newest = all.clone();
    for _ in 0..2 {
        let names: HashSet<String> =
            newest.iter().flat_map(|script| project.names_in(*script)).collect();
        let mentions = |at: &usize| {
            !all.contains(at) && words[*at].iter().any(|word| names.contains(&word.to_lowercase()))
        };
        newest = (0..texts.len()).filter(mentions).collect();
        if newest.len() > CROWD {
            break;
        }
        all.extend(&newest);
    }
    all
}

/// The scripts that may change a file or a table, and those that call what is in them.
pub(super) fn of_writing(project: &Project, texts: &[&str]) -> Vec<usize> {
    let verbs = [
        "file_put_contents",
        "fwrite",
        "fputs",
        "touch",
        "rename",
        "copy",
        "insert",
        "INSERT",
        "UPDATE",
        "update",
        "REPLACE",
        "add",
        "save",
    ];
    let words: Vec<HashSet<&str>> = texts.iter().map(|text| words(text)).collect();
    let writes = |at: &usize| verbs.iter().any(|verb| words[*at].contains(verb));
    let mut all: Vec<usize> = (0..texts.len()).filter(writes).collect();
    let names: HashSet<String> = all.iter().flat_map(|script| project.names_in(*script)).collect();
    let calls = |at: &usize| {
        !writes(at) && words[*at].iter().any(|word| names.contains(&word.to_lowercase()))
    };
    let callers: Vec<usize> = (0..texts.len()).filter(calls).collect();
    if callers.len() <= CROWD {
        all.extend(callers);
    }
    all
}

fn words(text: &str) -> HashSet<&str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| word.len() > 2).collect()
}
