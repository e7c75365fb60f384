#![allow(clippy::unwrap_used)]

use super::*;

/// A file of that size, modified so many milliseconds after 1970.
fn look(size: u64, millis: i128) -> FileStat {
    let modified = millis * 1_000_000;
    FileStat {
        device: 1,
        inode: 2,
        size,
        modified,
        changed: modified,
        mode: 0o100_644,
        owner: (0, 0),
        links: 1,
    }
}

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

/// Number of times that a file is published that was last seen `seen` and gets `signs`, each with
/// the file's state then.
fn published(seen: Option<FileStat>, signs: &[(Sign, FileStat)]) -> usize {
    let mut file = File { seen, ..File::new(true) };
    let mut count = 0;
    let mut now = look(0, 0);
    for (sign, look) in signs {
        now = *look;
        // Each event is handled before the next comes.
        let step = file.on(*sign, 0, || Some(*look), at(1_000_000));
        if step == Step::Publish {
            file.saw(*look, 0);
            count += 1;
        }
    }
    // No more events: all pending checks are due.
    for _ in 0..3 {
        if matches!(file.is_due(file.turn, || Some(now)), Step::PublishSettled) {
            file.saw(now, 0);
            count += 1;
        }
    }
    count
}

#[test]
fn one_write_is_one_message_however_it_is_made() {
    use Sign::{Attributes, Closed, Created, Modified, MovedIn};
    let old = look(3, 1_000);
    let new = look(3, 2_000);
    let later = look(3, 2_001);
    let blank = |millis| look(0, millis);
    let linked = FileStat { links: 2, ..new };
    for (what, seen, signs) in [
        ("truncate, write, close", Some(old), vec![(Modified, new), (Closed, new)]),
        ("within one tick", Some(new), vec![(Modified, new), (Closed, new)]),
        ("a new file", None, vec![(Created, blank(2_000)), (Modified, new), (Closed, new)]),
        (
            "a copy with its times",
            None,
            vec![(Created, new), (Modified, new), (Attributes, old), (Closed, old)],
        ),
        ("touch()", Some(old), vec![(Attributes, new)]),
        (
            "touch() of a new file",
            None,
            vec![(Created, blank(2_000)), (Closed, blank(2_000)), (Attributes, blank(2_001))],
        ),
        ("touch of the shell", Some(old), vec![(Attributes, new), (Closed, new)]),
        (
            "the shell's of a new file",
            None,
            vec![(Created, blank(1)), (Attributes, blank(2)), (Closed, blank(2))],
        ),
        ("an empty new file", None, vec![(Created, blank(1)), (Closed, blank(1))]),
        ("rename into place", Some(old), vec![(MovedIn, new)]),
        ("rename, then chmod", None, vec![(MovedIn, new), (Attributes, new)]),
        ("hard link into place", None, vec![(Created, linked)]),
        ("link into place, temporary name gone", None, vec![(Created, new)]),
        ("mapped memory", Some(old), vec![(Closed, later)]),
    ] {
        assert_eq!(published(seen, &signs), 1, "{what}");
    }
}

#[test]
fn what_is_no_write_is_no_message() {
    use Sign::{Attributes, Closed, Created, Gone, Modified, MovedIn};
    let seen = look(3, 1_000);
    let chmod = FileStat { mode: 0o100_600, changed: 5_000_000_000, ..seen };
    for (what, signs) in [
        ("chmod", vec![(Attributes, chmod)]),
        ("opened for writing, and not written", vec![(Closed, seen)]),
        ("deleted", vec![(Gone, seen)]),
        ("still being written", vec![(Modified, look(1, 2_000)), (Modified, look(2, 2_001))]),
        ("created and still open", vec![(Created, look(0, 2_000))]),
        ("seen in its new place before that is told", vec![(MovedIn, seen)]),
    ] {
        assert_eq!(published(Some(seen), &signs), 0, "{what}");
    }
}

/// The wait that a step asks for.
fn wait(step: Step) -> Wait {
    let Step::Later(wait) = step else { unreachable!("{step:?}") };
    wait
}

#[test]
fn a_new_file_is_not_published_while_its_first_write_takes_its_time() {
    let mut file = File::new(true);
    let part = |size| look(size, 2_000);
    let created = wait(file.on(Sign::Created, 0, || Some(part(0)), at(2_000)));
    let mut turn = created.turn;
    for size in [4096, 8192] {
        turn = wait(file.is_due(turn, || Some(part(size)))).turn;
    }
    assert_eq!(file.on(Sign::Modified, 1, || Some(part(12_288)), at(2_600)), Step::Nothing);
    assert_eq!(file.is_due(turn, || Some(part(12_288))), Step::Nothing);
    assert_eq!(file.on(Sign::Closed, 2, || Some(part(12_288)), at(2_700)), Step::Publish);
}

#[test]
fn a_second_touch_within_one_tick_of_the_clock_counts() {
    let mut file = File::new(false);
    let touched = look(0, 5_000);
    assert_eq!(file.on(Sign::Attributes, 0, || Some(touched), at(5_001)), Step::Publish);
    file.saw(touched, 1);
    assert_eq!(file.on(Sign::Attributes, 1, || Some(touched), at(5_002)), Step::Publish);
    assert_eq!(file.on(Sign::Attributes, 2, || Some(touched), at(5_100)), Step::Nothing);
}

#[test]
fn what_was_told_before_the_file_was_looked_at_is_published_with_it() {
    let mut file = File::new(false);
    let written = look(3, 5_000);
    assert_eq!(file.on(Sign::MovedIn, 7, || Some(written), at(5_000)), Step::Publish);
    // A chmod, and another write that was over by then, whose last event is still to come.
    file.saw(written, 10);
    assert_eq!(file.on(Sign::Attributes, 8, || Some(written), at(5_001)), Step::Nothing);
    assert!(matches!(file.on(Sign::Modified, 9, || Some(written), at(5_001)), Step::Later(_)));
    assert_eq!(file.on(Sign::Closed, 10, || Some(written), at(5_001)), Step::Publish);
}

#[test]
fn what_was_found_is_published_once_it_stays_as_it_is() {
    let mut file = File::new(true);
    file.saw(look(3, 1_000), 0);
    assert_eq!(file.find(look(3, 1_000), None, at(2_000)), Step::Nothing);
    let first = wait(file.find(look(4, 2_000), None, at(2_100)));
    assert_eq!(first.length, Duration::from_millis(400));
    // The process goes on writing; the end of that causes an event.
    let second = wait(file.is_due(first.turn, || Some(look(5, 2_300))));
    assert_eq!(second.length, SETTLED);
    assert_eq!(file.is_due(first.turn, || Some(look(5, 2_300))), Step::Nothing, "overtaken");
    assert_eq!(file.on(Sign::Modified, 0, || None, at(2_900)), Step::Nothing);
    assert_eq!(file.on(Sign::Closed, 0, || None, at(3_000)), Step::Publish);
}

#[test]
fn a_file_that_stays_open_is_published_only_where_its_content_does_not_matter() {
    for (content, expected) in [(false, Step::PublishSettled), (true, Step::Nothing)] {
        let mut file = File::new(content);
        file.on(Sign::Modified, 0, || None, at(1_000));
        for _ in 0..2 {
            let step = file.is_due(file.turn, || Some(look(3, 1_000)));
            if !matches!(step, Step::Later(_)) {
                assert_eq!(step, expected);
            }
        }
    }
}

#[test]
fn where_signs_were_lost_equal_times_prove_nothing() {
    let mut file = File::new(true);
    file.saw(look(3, 1_000), 0);
    assert_eq!(file.find(look(3, 1_000), Some(at(1_100)), at(2_000)), Step::Nothing);
    let found = wait(file.find(look(3, 1_000), Some(at(1_010)), at(2_000)));
    assert_eq!(found.length, Duration::ZERO);
    assert_eq!(file.is_due(found.turn, || Some(look(3, 1_000))), Step::PublishSettled);
}
