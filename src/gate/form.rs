//! Forms in the bodies of POST polls.

use crate::query::Query;
use std::borrow::Cow;

/// The longest form that is looked into, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// How a form is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-www-form-urlencoded`
    Urlencoded,
    /// `multipart/form-data` with this boundary.
    Multipart(String),
}

impl Encoding {
    /// What a content type says; `None` if it is no form's.
    pub fn of(content_type: &str) -> Option<Self> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Some(Self::Urlencoded);
        }
        multer::parse_boundary(content_type).ok().map(Self::Multipart)
    }

    /// Reads a whole form; `None` if it is torn. Files in it count as parameters too.
    pub async fn parse(&self, body: &[u8]) -> Option<Query<'static>> {
        match self {
            Self::Urlencoded => Some(Query::parse(&String::from_utf8_lossy(body)).into_owned()),
            Self::Multipart(boundary) => multipart(body, boundary).await,
        }
    }
}

async fn multipart(body: &[u8], boundary: &str) -> Option<Query<'static>> {
    let mut form = multer::Multipart::with_reader(body, boundary);
    let mut query = Query::default();
    while let Some(field) = form.next_field().await.ok()? {
        let Some(name) = field.name().map(str::to_owned) else { continue };
        let value = field.bytes().await.ok()?.to_vec();
        query.push(Cow::Owned(name.into_bytes()), Cow::Owned(value));
    }
    Some(query)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_kinds_of_forms_are_read() {
        let urlencoded = Encoding::of("application/x-www-form-urlencoded; charset=UTF-8").unwrap();
        let query = urlencoded.parse(b"timestamp=1.5&a[]=2").await.unwrap();
        assert_eq!(query.text("timestamp").unwrap(), "1.5");
        let multipart = Encoding::of("multipart/form-data; boundary=x").unwrap();
        let body = b"--x\r\nContent-Disposition: form-data; name=\"msg\"\r\n\r\nhi\r\n--x--\r\n";
        assert_eq!(multipart.parse(body).await.unwrap().text("msg").unwrap(), "hi");
        assert_eq!(multipart.parse(b"--x\r\nContent-Dis").await, None);
        assert_eq!(Encoding::of("application/json"), None);
    }
}
