//! Limits of clients: permits to hold, rate limits, descriptors.

pub mod descriptors;
pub mod permit;
pub mod rate;
