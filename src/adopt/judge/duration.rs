//! The time for which a loop waits: so many tries, or until a time.

use super::waiting::{Cursor, WaitingLoop};
use crate::adopt::events::What;
use crate::adopt::value::{Origin, Source, Value};

impl WaitingLoop<'_> {
    /// The seconds, where they are constant, and the parameter with which a client chooses them.
    pub(super) fn wait(&self) -> (Option<f64>, Option<String>) {
        let direct = || self.inside().filter(|event| event.loops.last() == Some(&self.around));
        let pauses = direct().filter_map(|event| match event.what {
            What::Sleep(pause) => Some(pause),
            _ => None,
        });
        let pause: Option<f64> = pauses.sum();
        let steps: Vec<f64> = self
            .inside()
            .filter_map(|event| match event.what {
                What::Step(step) => Some(step.abs()),
                _ => None,
            })
            .collect();
        // Of several counters, it is open which one is compared.
        let step = match steps.as_slice() {
            [] => Some(1.0),
            [first, rest @ ..] if rest.iter().all(|step| step == first) => Some(*first),
            _ => None,
        };
        let mut wait_parameter = None;
        let wait = direct().find_map(|event| {
            let What::Compare(sign, left, right) = &event.what else { return None };
            if !["<", "<=", ">", ">="].contains(sign) {
                return None;
            }
            let clock = |value: &Value| value.has(|origin| *origin == Origin::Clock);
            if clock(left) || clock(right) {
                let limit = if clock(left) { right } else { left };
                let elapsed = [left, right].into_iter().any(is_elapsed);
                let later = [right, left].into_iter().find_map(|value| {
                    value.origins.iter().find_map(|origin| match origin {
                        Origin::Later(seconds) => Some(f64::from(*seconds)),
                        _ => None,
                    })
                });
                if later.is_some() {
                    return later;
                }
                // A time that the client sends is when something was, not how long to wait.
                if elapsed || (clock(left) && clock(right)) {
                    let given = || [limit, left, right].into_iter().find_map(only_parameter);
                    wait_parameter = wait_parameter.take().or_else(given);
                }
                return limit.number().filter(|seconds| *seconds < 100_000.0);
            }
            let tries = (left.number()? - right.number()?).abs();
            Some(tries / step? * pause?)
        });
        (wait.filter(|wait| *wait >= 1.0), wait_parameter)
    }

    /// The longest constant pause, in seconds.
    pub(super) fn pause(&self) -> Option<f64> {
        let pauses = self.inside().filter_map(|event| match event.what {
            What::Sleep(pause) => pause,
            _ => None,
        });
        pauses.reduce(f64::max)
    }

    /// The parameter that the loop compares with the answer of its query.
    fn compared_with_rows(&self) -> Option<String> {
        self.inside().find_map(|event| {
            let What::Compare(_, one, other) = &event.what else { return None };
            let rows = |value: &Value| value.has(|origin| matches!(origin, Origin::Rows(_)));
            let sent = match (rows(one), rows(other)) {
                (true, false) => other,
                (false, true) => one,
                _ => return None,
            };
            let in_query = |source| matches!(source, Source::Get | Source::Post | Source::Either);
            let named = sent.parameters().find(|(source, _)| in_query(*source));
            only_parameter(sent).filter(|_| named.is_some())
        })
    }

    /// The parameter that says what the client has: what is compared with the news, or what the
    /// query is made of.
    pub(super) fn asked(&self, cursor: Option<&Cursor>, wait: Option<&str>) -> Option<String> {
        if let Some(cursor) = cursor {
            return Some(cursor.name.clone());
        }
        if let Some(name) = self.compared_with_rows() {
            return Some(name);
        }
        let telling =
            ["last", "since", "after", "time", "stamp", "from", "max", "id", "ver", "seq"];
        let parameters = self.parameters();
        let sent = parameters.iter().filter(|(source, name)| {
            matches!(source, Source::Get | Source::Post | Source::Either)
                && Some(name.as_str()) != wait
        });
        let names: Vec<&str> = sent.map(|(_, name)| name.as_str()).collect();
        let by_name = |part: &&str| {
            names.iter().find(|name| name.to_ascii_lowercase().contains(*part)).copied()
        };
        // `id` is more often who or where than what was seen last.
        let strong = telling[..7].iter().find_map(by_name);
        let weak = || (names.len() == 1).then(|| telling[7..].iter().find_map(by_name)).flatten();
        let id = || names.iter().find(|name| name.eq_ignore_ascii_case("id")).copied();
        strong.or_else(weak).or_else(id).map(str::to_owned)
    }
}

fn is_elapsed(value: &Value) -> bool {
    value.has(|origin| *origin == Origin::Elapsed)
}

fn only_parameter(value: &Value) -> Option<String> {
    let mut all = value.parameters();
    let (_, first) = all.next()?;
    all.next().is_none().then(|| first.to_owned())
}
