//! Services: the only floor that uses pingora, sockets and files.

pub mod admin;
pub mod backplane;
pub mod gate;
pub mod internal;
pub mod limits;
pub mod net;
pub mod persist;
pub mod publish;
pub mod telemetry;
pub mod webhook;
