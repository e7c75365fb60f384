//! Limits of clients: permits to hold, rate limits, descriptors.

pub mod descriptors;
pub mod permit;
pub mod publish_rate;
pub mod rate;
