//! One poll, from its admission to its answer.

pub(super) mod admission;
pub(super) mod browser_publish;
pub(super) mod held;
pub mod hold;
pub(super) mod lookup;
pub(super) mod replies;
pub(super) mod timer;
