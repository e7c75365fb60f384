//! Obstacles to taking a loop over as it is: in its comparison, its writes, its answers.

use super::answer::json_in;
use super::waiting::WaitingLoop;
use super::{Answer, News};
use crate::adopt::events::{Event, What};
use crate::adopt::value::{Origin, Piece, Source, Value};

impl WaitingLoop<'_> {
    /// True if what is printed is made of what the loop waits for.
    pub(super) fn echoes_the_update(&self, echoed: &Value) -> bool {
        echoed.all_origins().iter().any(|origin| self.is_the_update(origin))
    }

    fn is_the_update(&self, origin: &Origin) -> bool {
        match (&self.news, origin) {
            (
                News::File(place),
                Origin::ChangeTime(other) | Origin::State(other) | Origin::Content(other),
            ) => other == place,
            (News::Table(table), Origin::Rows(other)) => other == table,
            (News::Cache(_), Origin::Cache) => true,
            _ => false,
        }
    }

    /// True if some text is printed beside the loop.
    pub(super) fn answers_a_constant(&self) -> bool {
        self.beside().any(|event| matches!(&event.what, What::Echo(text) if !text.pieces.as_ref().is_none_or(Vec::is_empty)))
    }

    /// True if the loop goes on until something differs from what it was when the poll came, so
    /// that no client says what it has.
    pub(super) fn compares_with_itself(&self) -> bool {
        self.inside().any(|event| {
            let What::Compare(_, left, right) = &event.what else { return false };
            let news = |value: &Value| value.origins.iter().any(|one| self.is_the_update(one));
            let client = [left, right].iter().any(|value| value.parameters().next().is_some());
            let clock = |value: &Value| {
                !value.origins.is_empty() && value.origins.iter().all(|one| *one == Origin::Clock)
            };
            !client && (news(left) && (news(right) || clock(right)) || news(right) && clock(left))
        })
    }

    /// True if the script answers after the loop whatever happened in it.
    pub(super) fn answers_always(&self) -> bool {
        let echo = |event: &&Event| match &event.what {
            What::Echo(value) => json_in(value).is_some() || value.pieces.is_some(),
            _ => false,
        };
        let mut echoes = self.beside().filter(echo);
        let all_after = |event: &Event| {
            !event.loops.contains(&self.around)
                && event.guards.iter().all(|guard| self.guards.contains(guard))
        };
        echoes.next().is_some_and(all_after) && echoes.all(all_after)
    }

    /// True if something is printed behind the loop.
    fn answers_behind(&self) -> bool {
        let inside = |event: &Event| event.loops.contains(&self.around);
        let last = self.walked.events.iter().rposition(inside).unwrap_or_default();
        self.walked.events[last..].iter().any(|event| matches!(event.what, What::Echo(_)))
    }

    /// The constant answer of a poll without news, if there is just one beside that with news. A
    /// script that `ends` its wait without a word answers with nothing.
    pub(super) fn constant_answer(&self, ends: bool) -> Option<String> {
        let mut constants = Vec::new();
        let mut others = Vec::new();
        let first = self.inside().next()?;
        let last = self.inside().last()?;
        for event in self.beside() {
            let What::Echo(value) = &event.what else { continue };
            // Before the loop it is an error's, not a quiet poll's.
            let at_or_after = event.at() >= first.at() || event.script != last.script;
            match constant_text(value) {
                Some(text) if !text.is_empty() && at_or_after => constants.push(text),
                Some(_) => {}
                None => others.push(event),
            }
        }
        match constants.as_slice() {
            [] if ends && self.ends_in_silence(&others) => Some(String::new()),
            [text] if !others.is_empty() => Some(text.clone()),
            _ => None,
        }
    }

    /// True if the loop's end without news prints nothing: all answers are in it, or it exits and
    /// they are behind it.
    fn ends_in_silence(&self, answers: &[&Event]) -> bool {
        let status = |event: &Event| match &event.what {
            What::Header(text) => text.pieces.iter().flatten().next().is_some_and(
                |piece| matches!(piece, Piece::Text(text) if text.starts_with("HTTP/")),
            ),
            What::Html => true,
            _ => false,
        };
        let inside = |event: &Event| event.loops.contains(&self.around);
        let all_inside = answers.iter().all(|event| inside(event));
        let none_inside = !answers.iter().any(|event| inside(event));
        let endless = self.walked.loops[self.around].endless;
        !answers.is_empty()
            && !self.beside().any(status)
            && (all_inside && (!endless || self.ends_silently(true))
                || none_inside && self.ends_silently(false))
    }

    /// True if the loop is left at a time or after so many tries with nothing printed since that
    /// was asked. A `break` goes on behind the loop, which is silence only if nothing follows.
    fn ends_silently(&self, by_break: bool) -> bool {
        let mut since = None;
        for event in self.inside() {
            match &event.what {
                What::Compare(_, one, other) => {
                    let bound = |value: &Value| {
                        value.number().is_some() || value.has(|origin| *origin == Origin::Clock)
                    };
                    since = Some(bound(one) || bound(other));
                }
                What::Echo(_) | What::Sleep(_) => since = None,
                What::End if since == Some(true) => return true,
                What::Break if by_break && since == Some(true) => return true,
                _ => {}
            }
        }
        false
    }

    /// The question about what a poll writes while it waits.
    pub(super) fn presence(&mut self) -> Option<String> {
        let last =
            self.walked.events.iter().rposition(|event| event.loops.contains(&self.around))?;
        let guards = self.guards;
        let found = self.walked.events.iter().take(last + 1).find_map(|event| {
            let what = match &event.what {
                What::Query { table, writes: true, .. } => format!("the table {table}"),
                // Made where it is missing, so that it can be waited for.
                What::Write(place, _) | What::Touch(place)
                    if matches!(&self.news, News::File(awaited) if awaited == place) =>
                {
                    return None;
                }
                What::Write(place, _) | What::Touch(place) => self.shown(place),
                _ => return None,
            };
            // A request that stores something and ends there is another one.
            let other = event.guards.iter().any(|one| !guards.contains(one));
            (!other).then_some((event.at(), what))
        });
        let (at, what) = found?;
        self.note(at, format!("writes {what} while it polls"));
        Some(format!(
            "it writes {what} with each poll, perhaps to say that the visitor is there: may that \
             wait until there is news?"
        ))
    }

    /// The line of PHP that is missing, or why no line helps.
    pub(super) fn obstacles(
        &self,
        since_asked: bool,
        answer: &Answer,
    ) -> (Option<String>, Option<String>) {
        if self.news == News::Session {
            let why = "it waits for what other requests put into the visitor's session, of which \
                       no file tells; let them publish with the hook";
            return (None, Some(why.to_owned()));
        }
        if self.parameters().iter().any(|(source, _)| *source == Source::Json) {
            let why = "its polls carry a JSON body, which the gate does not hold";
            return (None, Some(why.to_owned()));
        }
        if since_asked && matches!(answer, Answer::Replay(_)) {
            let around = &self.walked.loops[self.around];
            let path = self.project.scripts[around.script].path.trim_start_matches('/');
            return (
                Some(format!(
                    "{path}:{} waits for what changes after the poll came, and would wait again \
                     when the gate forwards it with news. {}",
                    around.line,
                    if self.answers_behind() {
                        "Write `if (isset($_GET['pollgate'])) break;` as the first statement of \
                         its loop"
                    } else {
                        "Let its loop answer as with news where `isset($_GET['pollgate'])`"
                    }
                )),
                None,
            );
        }
        (None, None)
    }
}

/// A text, or JSON, of which all is known.
fn constant_text(value: &Value) -> Option<String> {
    let mut text = String::new();
    for piece in value.pieces.as_ref()? {
        match piece {
            Piece::Text(part) | Piece::Bare(part) => text.push_str(part),
            Piece::Json(inside) => text.push_str(&constant_json(inside)?),
            Piece::Open(_) => return None,
        }
    }
    Some(text)
}

/// Constant JSON, as PHP writes it.
pub(super) fn constant_json(value: &Value) -> Option<String> {
    if !value.fields.is_empty() && value.entry.is_none() && value.pieces.is_none() {
        let field = |(name, value): &(String, Value)| {
            let name = serde_json::to_string(name).ok()?;
            Some(format!("{name}:{}", constant_json(value)?))
        };
        let fields: Option<Vec<String>> = value.fields.iter().map(field).collect();
        return Some(format!("{{{}}}", fields?.join(",")));
    }
    if !value.origins.is_empty() || !value.fields.is_empty() || value.entry.is_some() {
        return None;
    }
    match value.pieces.as_deref()? {
        [Piece::Bare(bare)] => Some(bare.clone()),
        _ => serde_json::to_string(&value.constant()?).ok(),
    }
}
