//! Forms in the bodies of requests, as browsers send them.

use crate::protocol::http::query::Query;
use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Encoding of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-www-form-urlencoded`
    Urlencoded,
    /// `multipart/form-data` with this boundary.
    Multipart(String),
}

/// Treatment of file fields as parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFields {
    /// They count, with their content.
    Count,
    /// They are skipped.
    PassedOver,
}

impl Encoding {
    /// The encoding that a content type names; `None` if it is not a form's.
    pub fn of(content_type: &str) -> Option<Self> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Some(Self::Urlencoded);
        }
        multer::parse_boundary(content_type).ok().map(Self::Multipart)
    }

    /// Reads a whole form; `None` if it is malformed.
    pub fn parse(&self, body: &[u8], files: FileFields) -> Option<Query<'static>> {
        match self {
            Self::Urlencoded => Some(Query::parse(&String::from_utf8_lossy(body)).into_owned()),
            Self::Multipart(boundary) => multipart(body, boundary, files),
        }
    }
}

fn multipart(body: &[u8], boundary: &str, files: FileFields) -> Option<Query<'static>> {
    let fields = pin!(fields(body, boundary, files));
    // A body in memory is always ready.
    match fields.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(query) => query,
        Poll::Pending => None,
    }
}

async fn fields(body: &[u8], boundary: &str, files: FileFields) -> Option<Query<'static>> {
    let mut form = multer::Multipart::with_reader(body, boundary);
    let mut query = Query::default();
    while let Some(field) = form.next_field().await.ok()? {
        let counts = files == FileFields::Count || field.file_name().is_none();
        let name = field.name().filter(|_| counts).map(str::to_owned);
        let value = field.bytes().await.ok()?.to_vec();
        if let Some(name) = name {
            query.push(Cow::Owned(name.into_bytes()), Cow::Owned(value));
        }
    }
    Some(query)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_forms_are_read() {
        let urlencoded = Encoding::of("application/x-www-form-urlencoded; charset=UTF-8").unwrap();
        let query = urlencoded.parse(b"timestamp=1.5&a[]=2", FileFields::Count).unwrap();
        assert_eq!(query.text("timestamp").unwrap(), "1.5");
        let multipart = Encoding::of("multipart/form-data; boundary=x").unwrap();
        let body = b"--x\r\nContent-Disposition: form-data; name=\"msg\"\r\n\r\nhi\r\n--x--\r\n";
        assert_eq!(multipart.parse(body, FileFields::Count).unwrap().text("msg").unwrap(), "hi");
        assert_eq!(multipart.parse(b"--x\r\nContent-Dis", FileFields::Count), None);
        assert_eq!(Encoding::of("application/json"), None);
    }
    #[test]
    fn a_file_is_a_parameter_where_it_is_to_count() {
        let multipart = Encoding::of("multipart/form-data; boundary=x").unwrap();
        let body = b"--x\r\nContent-Disposition: form-data; name=\"msg\"; filename=\"a\"\r\n\r\n\
                     hi\r\n--x--\r\n";
        let counted = multipart.parse(body, FileFields::Count).unwrap();
        assert_eq!(counted.text("msg").unwrap(), "hi");
        let passed_over = multipart.parse(body, FileFields::PassedOver).unwrap();
        assert_eq!(passed_over.text("msg"), None);
    }
}
