//! Logs and metrics, shared by the services.

pub mod channel_series;
pub mod exposition;
pub mod log;
pub mod metrics;
pub mod refusal;
