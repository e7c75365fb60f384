//! Which requests come to the loop: what its branches asked for, and what is written instead.

use super::parameter;
use super::waiting::Seen;
use crate::adopt::events::{Guard, What};
use crate::adopt::value::{Source, Value};
use std::collections::BTreeSet;

impl Seen<'_> {
    pub(super) fn conditions(
        &mut self,
        cursor: Option<&(Source, String, Value)>,
        questions: &mut Vec<String>,
    ) -> (Vec<String>, Vec<String>, Option<Source>) {
        let (mut when, mut unless) = (Vec::new(), Vec::new());
        let mut methods = cursor.map(|(source, _, _)| *source);
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
                    stored.push(((event.script, event.line), *source, name.clone()));
                }
            }
        }
        for (at, source, name) in stored {
            if cursor.is_none_or(|(_, cursor, _)| *cursor != name) && !when.contains(&name) {
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

pub(super) fn contradict(one: &Guard, other: &Guard) -> bool {
    use Guard::{Absent, Is, IsNot, Method, NotMethod, Present};
    match (one, other) {
        (Present(_, a), Absent(_, b)) | (Absent(_, a), Present(_, b)) => a == b,
        (Is(a, x), Is(b, y)) => a == b && x != y,
        (Is(a, x), IsNot(b, y)) | (IsNot(a, x), Is(b, y)) => a == b && x == y,
        (Is(a, _), Absent(_, b)) | (Absent(_, a), Is(b, _)) => a == b,
        (Method(a), Method(b)) => a != b,
        (Method(a), NotMethod(b)) | (NotMethod(a), Method(b)) => a == b,
        _ => false,
    }
}
