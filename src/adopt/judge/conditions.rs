//! Conditions of a rule: the properties of the requests that come to the loop, and of those that
//! write instead.

use super::parameter;
use super::waiting::WaitingLoop;
use crate::adopt::events::{Event, Guard, What};
use crate::adopt::value::Source;
use std::collections::BTreeSet;

/// The requests that are polls, as `when` and `unless` of rules have them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::adopt) struct Conditions {
    pub(in crate::adopt) when: Vec<String>,
    /// Further conditions, one of which must hold: a rule for each.
    pub(in crate::adopt) any: Vec<String>,
    pub(in crate::adopt) unless: Vec<String>,
    /// Requests that fulfil all of these are none.
    pub(in crate::adopt) others: Vec<Other>,
}

/// A request that writes, which one condition cannot tell from a poll.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::adopt) struct Other {
    pub(in crate::adopt) when: Vec<String>,
    pub(in crate::adopt) unless: Vec<String>,
}

/// Rules for requests that are no polls.
const MAX_OTHERS: usize = 8;

/// The parameter that a condition is about.
pub(in crate::adopt) fn name_of(condition: &str) -> &str {
    condition.split_once('=').map_or(condition, |(name, _)| name.trim_end_matches('!'))
}

/// The value that a condition demands.
pub(in crate::adopt) fn value_of(condition: &str) -> Option<&str> {
    condition.split_once('=').filter(|(name, _)| !name.ends_with('!')).map(|(_, value)| value)
}

impl WaitingLoop<'_> {
    /// The conditions, and the method by which polls come, where the loop's branches name it. A
    /// poll without `cursor` is the dialect's to answer.
    pub(super) fn conditions(
        &mut self,
        cursor: Option<&str>,
        questions: &mut Vec<String>,
    ) -> (Conditions, Option<Source>) {
        let mut all = Conditions::default();
        let mut methods = None;
        for guard in self.guards {
            match guard {
                Guard::Method(name) if name == "POST" => methods = Some(Source::Post),
                Guard::NotMethod(name) if name == "POST" => methods = Some(Source::Get),
                Guard::Method(_) => methods = Some(Source::Get),
                Guard::NotMethod(_) => {}
                Guard::Present(_, name) | Guard::Set(_, name) if cursor == Some(name) => {}
                // Answered by PHP, a first poll would get a time in another unit than the gate's.
                Guard::IsNot(_, name, value) if cursor == Some(name) && value == "0" => {}
                Guard::Any(any) => {
                    let any: Vec<String> = any.iter().filter_map(positive).collect();
                    if all.any.is_empty() {
                        all.any = any;
                    }
                }
                Guard::Unclear(name) => {
                    let question = format!("for which values of {name} does it wait?");
                    if !questions.contains(&question) {
                        questions.push(question);
                    }
                }
                guard => {
                    all.when.extend(positive(guard));
                    all.unless.extend(negative(guard));
                }
            }
        }
        for one in all.when.iter().chain(&all.any).chain(&all.unless) {
            if one.chars().any(char::is_control) {
                questions.push(format!("how is {} written where it waits?", name_of(one)));
            }
        }
        self.writing(cursor, &mut all);
        all.tidy();
        (all, methods)
    }

    /// A request that writes is the upstream's, also where the script would wait after it.
    fn writing(&mut self, cursor: Option<&str>, all: &mut Conditions) {
        let writes = |event: &&Event| match &event.what {
            What::Write(..) | What::Touch(_) => true,
            What::Query { writes, .. } => *writes,
            _ => false,
        };
        for event in self.walked.events.iter().filter(writes) {
            let own = event.guards.iter().filter(|guard| !self.guards.contains(guard));
            let own: Vec<Guard> = own.cloned().collect();
            let required = own.iter().find_map(Guard::required);
            // A poll that writes is one all the same.
            if required.is_some_and(|(_, name)| cursor == Some(name)) {
                continue;
            }
            if let Some((source, name)) = required {
                let text = format!("with {} it writes instead", parameter(source, name));
                self.note(event.at(), text);
            }
            let contradicts = |one: &Guard| self.guards.iter().any(|other| one.contradicts(other));
            if !own.iter().any(contradicts) {
                all.exclude(&own);
            }
        }
    }
}

impl Conditions {
    /// Excludes the requests that fulfil all of `guards`.
    fn exclude(&mut self, guards: &[Guard]) {
        let when: Vec<String> = guards.iter().filter_map(positive).collect();
        let unless: Vec<String> = guards.iter().flat_map(negative).collect();
        let any = guards.iter().find_map(|guard| match guard {
            Guard::Any(any) => Some(any.iter().filter_map(positive).collect::<Vec<_>>()),
            _ => None,
        });
        for one in any.map_or(vec![None], |any| any.into_iter().map(Some).collect()) {
            let when: Vec<String> = when.iter().cloned().chain(one).collect();
            match (when.as_slice(), unless.is_empty()) {
                ([], true) => {}
                ([one], true) => self.unless.extend(undoing(one)),
                _ => {
                    let other = Other { when, unless: unless.clone() };
                    if !self.others.contains(&other) && self.others.len() < MAX_OTHERS {
                        self.others.push(other);
                    }
                }
            }
        }
    }

    /// Leaves out what other conditions say already.
    fn tidy(&mut self) {
        let known: BTreeSet<String> = self
            .when
            .iter()
            .chain(&self.any)
            .filter(|one| value_of(one).is_some_and(|value| !value.is_empty()))
            .map(|one| name_of(one).to_owned())
            .collect();
        self.when.retain(|one| value_of(one).is_some() || !known.contains(name_of(one)));
        let filled: BTreeSet<String> =
            self.when.iter().filter_map(|one| one.strip_suffix("!=")).map(str::to_owned).collect();
        self.when.retain(|one| !filled.contains(one));
        // A value that is there is none of those that must not be.
        self.unless.retain(|one| !known.contains(name_of(one)));
        let unless = &self.unless;
        self.others.retain(|other| !other.when.iter().any(|one| excludes(unless, one)));
        for list in [&mut self.when, &mut self.any, &mut self.unless] {
            let mut seen = BTreeSet::new();
            list.retain(|one| seen.insert(one.clone()));
        }
    }
}

/// True if a rule can look at it: a parameter of the query or of a form.
fn is_seen(source: Source) -> bool {
    matches!(source, Source::Get | Source::Post | Source::Either)
}

/// A condition that must hold.
fn positive(guard: &Guard) -> Option<String> {
    match guard {
        Guard::Present(source, name) if is_seen(*source) => Some(format!("{name}!=")),
        Guard::Set(source, name) if is_seen(*source) => Some(name.clone()),
        Guard::Is(source, name, value) if is_seen(*source) => Some(format!("{name}={value}")),
        _ => None,
    }
}

/// Conditions none of which may hold.
fn negative(guard: &Guard) -> Vec<String> {
    match guard {
        Guard::Absent(source, name) if is_seen(*source) => vec![name.clone()],
        Guard::Unset(source, name) if is_seen(*source) => vec![name.clone(), format!("{name}=")],
        Guard::IsNot(source, name, value) if is_seen(*source) => vec![format!("{name}={value}")],
        _ => Vec::new(),
    }
}

/// The conditions of `unless` that exclude what the condition of `when` selects.
fn undoing(when: &str) -> Vec<String> {
    match when.strip_suffix("!=") {
        Some(name) => vec![name.to_owned()],
        None if value_of(when).is_none() => vec![when.to_owned(), format!("{when}=")],
        None => vec![when.to_owned()],
    }
}

/// True if no poll fulfils the condition.
fn excludes(unless: &[String], when: &str) -> bool {
    undoing(when).iter().all(|one| unless.contains(one))
}
