//! Reasons for which a request is not answered by the upstream.

use crate::protocol::http::query::masked;
use crate::server::gate::{Gate, Settings};
use crate::server::telemetry::refusal::Refusal;
use std::io;

/// See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server::gate) enum Failure {
    /// There is no server.
    NoServer,
    /// No server can be reached; the system's error, if it has one.
    Connect(Option<i32>),
    /// No server accepts a connection in time.
    ConnectTimeout,
    /// The upstream was silent for too long.
    Silent,
    /// The upstream closed the connection before the end of its response.
    Broken(Option<i32>),
    /// The response breaks a rule of HTTP.
    Malformed(&'static str),
    /// The client is gone.
    Gone,
    /// The request's body is framed wrongly.
    BodyMalformed,
    /// The request's body does not come in time.
    BodyTimeout,
}

impl Failure {
    pub(super) fn broken(error: &io::Error) -> Self {
        Self::Broken(error.raw_os_error())
    }

    /// The status of the response in place of the upstream's; 0 = the client is gone.
    pub(in crate::server::gate) fn status(self) -> u16 {
        match self {
            Self::NoServer | Self::Connect(_) | Self::Broken(_) | Self::Malformed(_) => 502,
            Self::ConnectTimeout | Self::Silent => 504,
            Self::BodyMalformed => 400,
            Self::BodyTimeout => 408,
            Self::Gone => 0,
        }
    }

    /// True if the client is the cause, which is no error of the gate's.
    pub(in crate::server::gate) fn is_of_client(self) -> bool {
        matches!(self, Self::Gone | Self::BodyMalformed | Self::BodyTimeout)
    }

    /// Its name in the log.
    fn as_str(self) -> &'static str {
        match self {
            Self::NoServer => "NoServer",
            Self::Connect(_) => "ConnectError",
            Self::ConnectTimeout => "ConnectTimedout",
            Self::Silent => "ReadTimedout",
            Self::Broken(_) => "ConnectionClosed",
            Self::Malformed(_) => "InvalidResponse",
            Self::Gone => "ClientGone",
            Self::BodyMalformed => "InvalidBody",
            Self::BodyTimeout => "BodyTimedout",
        }
    }

    /// Details for the log; nothing that the upstream has sent.
    fn cause(self) -> String {
        match self {
            Self::Connect(Some(code)) | Self::Broken(Some(code)) => {
                io::Error::from_raw_os_error(code).to_string()
            }
            Self::Malformed(fault) => fault.to_owned(),
            _ => String::new(),
        }
    }

    /// Logs and counts that this request was not answered by the upstream. A client that leaves, or
    /// writes nonsense, is no error of the gate's.
    pub(in crate::server::gate) fn report(
        self,
        gate: &Gate,
        settings: &Settings,
        method: &str,
        target: &str,
    ) {
        match self {
            Self::BodyMalformed => gate.refused(Refusal::MalformedBody),
            Self::BodyTimeout => gate.refused(Refusal::BodyTimeout),
            _ => {}
        }
        if self.is_of_client() {
            return;
        }
        let target = masked(target, &settings.mask);
        tracing::error!(
            method,
            %target,
            status = self.status(),
            source = "Upstream",
            error = self.as_str(),
            cause = self.cause(),
            "a request failed"
        );
    }
}
