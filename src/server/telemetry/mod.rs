//! Logs and metrics, as the services share them.

pub mod channel_series;
pub mod exposition;
pub mod log;
pub mod metrics;
pub mod refusal;
