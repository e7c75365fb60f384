//! What bounds clients: permits to hold, rates, descriptors.

pub mod descriptors;
pub mod permit;
pub mod publish_rate;
pub mod rate;
