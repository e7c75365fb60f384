//! Error responses to the client: the status, and a page if the upstream sent none.

use crate::protocol::http::Reply;
use pingora::{Error, ErrorSource, ErrorType};
use std::io::ErrorKind;

/// The status of the response to a failed request; 0 = the client is gone.
pub(in crate::server::gate) fn status_of(error: &Error) -> u16 {
    use ErrorType as E;
    match (error.esource(), error.etype()) {
        (_, E::HTTPStatus(status)) => *status,
        // The body is framed wrongly.
        (ErrorSource::Downstream, _) if is(error, ErrorKind::InvalidData) => 400,
        (_, E::ConnectTimedout) => 504,
        (_, E::ConnectRefused | E::ConnectNoRoute | E::ConnectError | E::SocketError) => 502,
        (ErrorSource::Downstream, E::WriteError | E::ReadError | E::ConnectionClosed) => 0,
        (ErrorSource::Downstream, E::ReadTimedout) => 408,
        (ErrorSource::Downstream, _) => 400,
        (ErrorSource::Upstream, E::ReadTimedout) => 504,
        (ErrorSource::Upstream, _) if is(error, ErrorKind::TimedOut) => 504,
        (ErrorSource::Upstream, _) => 502,
        (ErrorSource::Internal | ErrorSource::Unset, _) => 500,
    }
}

fn is(error: &Error, kind: ErrorKind) -> bool {
    let io = error.root_cause().downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.kind() == kind)
}

/// A plain page for a status that the upstream did not send.
pub(in crate::server::gate) fn page(status: u16) -> Reply {
    let (title, text) = match status {
        502 => ("502 Bad Gateway", "The site does not answer just now. Please try again soon."),
        503 => ("503 Service Unavailable", "There are too many visitors. Please try again soon."),
        504 => ("504 Gateway Timeout", "The site takes too long. Please try again soon."),
        413 => ("413 Content Too Large", "The request is too long to be held."),
        400 => ("400 Bad Request", "The request could not be understood."),
        408 => ("408 Request Timeout", "The request did not arrive in time."),
        _ => ("500 Internal Server Error", "Something went wrong at the gate."),
    };
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <h1>{title}</h1><p>{text}</p></html>\n"
    );
    Reply::new(status, "text/html; charset=utf-8", body).with("Cache-Control", "no-store")
}
