//! Which requests come to the loop: what its branches asked for, and what is written instead.

use super::parameter;
use super::waiting::{Cursor, WaitingLoop};
use crate::adopt::events::{Guard, What};
use crate::adopt::value::Source;
use std::collections::BTreeSet;

impl WaitingLoop<'_> {
    pub(super) fn conditions(
        &mut self,
        cursor: Option<&Cursor>,
        questions: &mut Vec<String>,
    ) -> (Vec<String>, Vec<String>, Option<Source>) {
        let (mut when, mut unless) = (Vec::new(), Vec::new());
        let mut methods = cursor.map(|cursor| cursor.source);
        for guard in self.guards {
            match guard {
                Guard::Present(_, name) => when.push(name.clone()),
                Guard::Absent(_, name) => unless.push(name.clone()),
                Guard::Is(name, value) => {
                    if value.chars().any(char::is_control) {
                        questions.push(format!("how is {name} written where it waits?"));
                    }
                    when.push(format!("{name}={value}"));
                }
                Guard::Method(name) if name == "POST" => methods = Some(Source::Post),
                Guard::NotMethod(name) if name == "POST" => methods = Some(Source::Get),
                Guard::Method(_) => methods = Some(Source::Get),
                Guard::IsNot(name, value) => unless.push(format!("{name}={value}")),
                Guard::NotMethod(_) => {}
            }
        }
        // A request that writes is the site's, also where the script would wait after it.
        let mut stored = Vec::new();
        for event in &self.walked.events {
            let writes = match &event.what {
                What::Write(..) | What::Touch(_) => true,
                What::Query { writes, .. } => *writes,
                _ => false,
            };
            for guard in event.guards.iter().filter(|_| writes) {
                if let Guard::Present(source, name) = guard {
                    stored.push((event.at(), *source, name.clone()));
                }
            }
        }
        for (at, source, name) in stored {
            if cursor.is_none_or(|cursor| cursor.name != name) && !when.contains(&name) {
                self.note(at, format!("with {} it writes instead", parameter(source, &name)));
                unless.push(name);
            }
        }
        // A value that is there is none of those that must not be.
        unless.retain(|name| {
            let name = name.split('=').next().unwrap_or_default();
            !when.iter().any(|one| one.split_once('=').is_some_and(|(known, _)| known == name))
        });
        for list in [&mut when, &mut unless] {
            let mut seen = BTreeSet::new();
            list.retain(|name| seen.insert(name.clone()));
        }
        let methods = methods.filter(|source| matches!(source, Source::Get | Source::Post));
        (when, unless, methods)
    }
}
