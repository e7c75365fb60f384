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
                    when.push(name.clone());
                    questions.push(format!(
                        "it waits only where {name} is {value}, and the gate does not look at \
                         values: do other requests with {name} come to this script?"
                    ));
                }
                Guard::Method(name) if name == "POST" => methods = Some(Source::Post),
                Guard::NotMethod(name) if name == "POST" => methods = Some(Source::Get),
                Guard::Method(_) => methods = Some(Source::Get),
                Guard::IsNot(..) | Guard::NotMethod(_) => {}
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
        for list in [&mut when, &mut unless] {
            let mut seen = BTreeSet::new();
            list.retain(|name| seen.insert(name.clone()));
        }
        let methods = methods.filter(|source| matches!(source, Source::Get | Source::Post));
        (when, unless, methods)
    }
}
