//! The memory of a connection.

use super::*;

/// Bytes of the future that a function of five arguments returns.
fn size_of_future<A, B, C, D, E, F: Future>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn the_task_of_a_connection_has_room_for_a_held_poll_and_nothing_else() {
    let task = size_of_future(run);
    // With tokio's part of a task, some 110 bytes, this is in the allocator's class of 896.
    assert!(task <= 736, "{task}");
}
