//! Reads files, environment and flags into values that cannot be invalid, or a list of mistakes.

pub(super) mod file;
pub(super) mod locations;
pub(super) mod mistake;
pub(super) mod raw;
pub(super) mod report;
pub(super) mod secret_file;
pub(super) mod section;
pub(super) mod sources;
pub(super) mod suggest;
pub(super) mod units;
pub(super) mod values;
