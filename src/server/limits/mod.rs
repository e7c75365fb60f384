//! Limits of clients: permits to hold, rate limits, descriptors.

pub mod body_memory;
pub mod body_rate;
pub mod descriptors;
pub mod http2_budget;
pub mod permit;
pub mod rate;
