//! The observed state of one master of a cluster, and the judgement of a partition that has moved:
//! can it have lost something on the way?

use super::topology::{Master, Partitions};
use super::view::View;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct MasterState {
    /// Its latest view of itself and the others; `None` = none that counts.
    pub(super) view: Option<View>,
    /// The replication id that it had last.
    replid: String,
    /// True if that view is of the latest look.
    pub(super) fresh: bool,
    /// The partitions that were in use at it, with the data that it has.
    had: Partitions,
    /// The partitions that it was seen without, with the data that it has.
    without: Partitions,
}

/// The judgement of a partition that has moved.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged<'a> {
    /// One of the two masters does not know of it yet.
    Wait,
    /// The new server gives its own positions.
    New,
    /// A note there (`continue.lua`) says whose positions go on: those of the server with this
    /// replication id, at its time; `None` = no server's.
    Note {
        /// The old server.
        from: Option<(&'a str, u64)>,
        /// The replication id of the new one.
        to: &'a str,
        /// Its config epoch.
        term: u64,
    },
}

impl MasterState {
    /// Records the result of asking it. An earlier view counts no longer if the connection was
    /// lost.
    pub(super) fn saw(&mut self, view: Option<View>, is_up: bool) {
        self.fresh = view.is_some();
        let Some(view) = view else {
            self.view = self.view.take().filter(|_| is_up);
            return;
        };
        if self.replid != view.replid {
            (self.had, self.without) = (0, 0);
            self.replid.clone_from(&view.replid);
        }
        self.without |= !view.own().map_or(Partitions::MAX, |own| own.has);
        self.view = Some(view);
    }

    /// A partition is in use at it; from here on it was not without it.
    pub(super) fn uses(&mut self, partition: u32) {
        let bit = 1 << partition;
        self.had |= self.claims().map_or(0, |own| own.has) & bit;
    }

    /// A partition has come to it.
    pub(super) fn gets(&mut self, partition: u32) {
        self.without &= !(1 << partition);
        self.uses(partition);
    }

    /// Its claims for itself, as of the latest look.
    pub(super) fn claims(&self) -> Option<&Master> {
        self.view.as_ref().filter(|_| self.fresh)?.own()
    }

    fn claims_it(&self, partition: u32) -> Option<bool> {
        self.claims().map(|own| is_in(partition, own.has))
    }

    /// Its view, if it has given a partition away since that was in use there, with the data that
    /// it has.
    fn gave(&self, partition: u32) -> Option<&View> {
        let gave = self.claims_it(partition) == Some(false) && is_in(partition, self.had);
        self.view.as_ref().filter(|_| gave)
    }
}

fn is_in(partition: u32, partitions: Partitions) -> bool {
    partitions >> partition & 1 == 1
}

/// Judges a partition that has moved `from` one master to another, which is `there`.
///
/// `is_patient`: there is time for both to learn of it. `is_close`: the look before was so short a
/// time ago that the partition cannot have been anywhere else in between.
pub(super) fn judge<'a>(
    partition: u32,
    from: Option<&'a MasterState>,
    there: &'a MasterState,
    is_patient: bool,
    is_close: bool,
) -> Judged<'a> {
    let had = is_in(partition, there.had);
    let (Some(own), Some(view)) = (there.claims(), &there.view) else {
        // Its earlier data must not be taken for the whole.
        return if is_patient || had { Judged::Wait } else { Judged::New };
    };
    let learns = from.and_then(|from| from.claims_it(partition)) == Some(true);
    if is_patient && (learns || !is_in(partition, own.has)) {
        return Judged::Wait;
    }
    let note = |from| Judged::Note { from, to: &view.replid, term: own.epoch };
    match from.and_then(|from| from.gave(partition)) {
        Some(gave) if is_close && is_in(partition, there.without) => {
            note(Some((&gave.replid, gave.time)))
        }
        // It was in use here before, and elsewhere since.
        _ if had => note(None),
        _ => Judged::New,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Server;
    use super::*;

    const P: u32 = 7;

    fn view(replid: &str, has: Partitions, epoch: u64) -> View {
        let server = Server { host: "h".to_owned(), port: 1 };
        let id = "id".to_owned();
        let master = Master { id, server, epoch, has, is_asked: true };
        View { replid: replid.to_owned(), time: 5, masters: vec![master] }
    }

    /// A master that has had all partitions, or none.
    fn seen(replid: &str, has: Partitions) -> MasterState {
        let mut state = MasterState::default();
        state.saw(Some(view(replid, has, 1)), true);
        state.uses(P);
        state
    }

    #[test]
    fn a_partition_that_both_saw_move_has_lost_nothing() {
        let mut a = seen("a", Partitions::MAX);
        let mut b = seen("b", 0);
        b.saw(Some(view("b", 1 << P, 2)), true);
        assert_eq!(judge(P, Some(&a), &b, true, true), Judged::Wait, "the old one will hear of it");
        a.saw(Some(view("a", !(1 << P), 1)), true);
        let whole = Judged::Note { from: Some(("a", 5)), to: "b", term: 2 };
        assert_eq!(judge(P, Some(&a), &b, true, true), whole);
        assert_eq!(judge(P, Some(&a), &b, true, false), Judged::New, "too long ago");
    }

    #[test]
    fn a_server_that_has_become_another_one_proves_nothing() {
        // The old one came back with other data, the new one was promoted, or was not seen before.
        let mut a = seen("a", Partitions::MAX);
        let mut b = seen("b", 0);
        a.saw(Some(view("a2", !(1 << P), 1)), true);
        b.saw(Some(view("b", 1 << P, 2)), true);
        assert_eq!(judge(P, Some(&a), &b, false, true), Judged::New);
        let mut a = seen("a", Partitions::MAX);
        let mut b = seen("b", 0);
        a.saw(Some(view("a", !(1 << P), 1)), true);
        b.saw(Some(view("b2", 1 << P, 2)), true);
        assert_eq!(judge(P, Some(&a), &b, false, true), Judged::New);
        let b = seen("b", 1 << P);
        assert_eq!(judge(P, None, &b, false, true), Judged::Note { from: None, to: "b", term: 1 });
        let mut b = MasterState::default();
        b.saw(Some(view("b", 1 << P, 2)), true);
        assert_eq!(judge(P, Some(&a), &b, false, true), Judged::New);
    }

    #[test]
    fn what_comes_back_from_one_that_was_lost_is_not_what_it_was() {
        let mut a = seen("a", Partitions::MAX);
        let mut b = seen("b", 0);
        a.saw(Some(view("a", !(1 << P), 1)), true);
        b.saw(Some(view("b", 1 << P, 2)), true);
        b.gets(P);
        b.saw(None, false);
        a.saw(Some(view("a", Partitions::MAX, 3)), true);
        let anonymous = Judged::Note { from: None, to: "a", term: 3 };
        assert_eq!(judge(P, Some(&b), &a, false, true), anonymous);
        // As long as the note cannot be written, nothing goes on there.
        a.saw(None, true);
        assert_eq!(judge(P, Some(&b), &a, false, true), Judged::Wait);
    }
}
