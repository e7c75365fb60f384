//! Forms in the bodies of requests, as PHP reads them.
//!
//! A form that PHP might read otherwise is an error, never a guess.

use crate::protocol::http::multipart;
use crate::protocol::http::query::{Query, variables};
use std::borrow::Cow;

/// Variables of one form that PHP reads with its defaults (`max_input_vars`); it passes over the
/// rest.
pub const MAX_VARIABLES: usize = Query::MAX;

/// Encoding of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-www-form-urlencoded`
    Urlencoded,
    /// `multipart/form-data` with this boundary.
    Multipart(String),
}

/// The reason for which a form is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To find a poll: file fields count, with their content. Of an urlencoded form the variables
    /// beyond [`MAX_VARIABLES`] are ignored, as PHP ignores them.
    Poll,
    /// To publish from it: file fields are skipped, and a form with too many variables is an error.
    Capture,
}

/// Why a form is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// The content type is nearly a form's.
    #[error("the content type of the form can be read in two ways")]
    ContentType,
    /// A boundary is missing, or stands where it is none to all readers.
    #[error("the boundaries of the form can be read in two ways, or it is torn")]
    Boundary,
    /// A part's headers.
    #[error("the headers of a part of the form can be read in two ways")]
    PartHead,
    /// A part's `Content-Disposition`.
    #[error("a Content-Disposition in the form is not plain: form-data; name=\"...\"")]
    Disposition,
    /// Bytes that stand there unescaped and are no text.
    #[error("the form has unescaped bytes that are not UTF-8")]
    Bytes,
    /// A name that PHP changes in ways that depend on its version.
    #[error("the form has a variable whose name is cut off or has stray brackets")]
    Name,
    /// More than PHP reads.
    #[error("the form has more than {MAX_VARIABLES} variables, of which PHP reads the first")]
    TooMany,
}

impl Encoding {
    /// The encoding that a content type names; `None` if it is no form's.
    pub fn of(content_type: &str) -> Result<Option<Self>, FormError> {
        // PHP cuts the type off here.
        let end = content_type.find([';', ',', ' ']).unwrap_or(content_type.len());
        let (kind, parameters) = content_type.split_at(end);
        let is = |kind: &str, known: &str| kind.eq_ignore_ascii_case(known);
        if is(kind, URLENCODED) && !parameters.starts_with(',') {
            return Ok(Some(Self::Urlencoded));
        }
        if is(kind, MULTIPART) && parameters.starts_with(';') {
            return multipart::boundary(parameters).map(|boundary| Some(Self::Multipart(boundary)));
        }
        let content_type = content_type.to_ascii_lowercase();
        match [URLENCODED, MULTIPART].iter().any(|known| content_type.contains(known)) {
            true => Err(FormError::ContentType),
            false => Ok(None),
        }
    }

    /// Reads a whole form.
    pub fn parse(&self, body: &[u8], purpose: Purpose) -> Result<Query<'static>, FormError> {
        match self {
            Self::Urlencoded => {
                if purpose == Purpose::Capture && variables(body) > MAX_VARIABLES {
                    return Err(FormError::TooMany);
                }
                let text = std::str::from_utf8(body).map_err(|_| FormError::Bytes)?;
                plain(Query::parse(text))
            }
            Self::Multipart(boundary) => {
                let mut query = Query::default();
                for part in multipart::parts(body, boundary)? {
                    if purpose == Purpose::Poll || !part.is_file {
                        let name = Cow::Borrowed(part.name.as_bytes());
                        query.push(name, Cow::Borrowed(part.value));
                    }
                }
                plain(query)
            }
        }
    }
}

fn plain(form: Query<'_>) -> Result<Query<'static>, FormError> {
    if form.has_odd_name() { Err(FormError::Name) } else { Ok(form.into_owned()) }
}

const URLENCODED: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_forms_are_read() {
        let urlencoded =
            Encoding::of("application/x-www-form-urlencoded; charset=UTF-8").unwrap().unwrap();
        let query = urlencoded.parse(b"timestamp=1.5&a[]=2", Purpose::Poll).unwrap();
        assert_eq!(query.text("timestamp").unwrap(), "1.5");
        let multipart = Encoding::of("multipart/form-data; boundary=x").unwrap().unwrap();
        let body = b"--x\r\nContent-Disposition: form-data; name=\"msg\"\r\n\r\nhi\r\n--x--\r\n";
        assert_eq!(multipart.parse(body, Purpose::Poll).unwrap().text("msg").unwrap(), "hi");
        assert_eq!(multipart.parse(b"--x\r\nContent-Dis", Purpose::Poll), Err(FormError::PartHead));
        assert_eq!(Encoding::of("application/json"), Ok(None));
    }

    #[test]
    fn a_form_that_php_may_read_otherwise_is_not_read() {
        let read = |kind: &str, body: &str| {
            let encoding = Encoding::of(kind)?.unwrap();
            encoding.parse(body.as_bytes(), Purpose::Capture).map(drop)
        };
        assert_eq!(read(URLENCODED, &"a&".repeat(999)), Ok(()));
        assert_eq!(read(URLENCODED, &"a&".repeat(1000)), Err(FormError::TooMany));
        for name in ["a%00b", "[a]", "%5Ba", "a[b", "+[a]", "a[b][c"] {
            assert_eq!(read(URLENCODED, &format!("{name}=1")), Err(FormError::Name), "{name}");
        }
        assert_eq!(read(URLENCODED, "a.b=1&c[d][e]=2&f[]=3"), Ok(()));
        for kind in [
            "application/x-www-form-urlencoded\t;x",
            "application/x-www-form-urlencoded, text/plain",
            "text/plain, application/x-www-form-urlencoded",
            "multipart/form-data",
            "multipart/form-data ; boundary=x",
        ] {
            assert_eq!(read(kind, ""), Err(FormError::ContentType), "{kind}");
        }
    }

    #[test]
    fn a_file_is_a_parameter_where_it_is_to_count() {
        let multipart = Encoding::of("multipart/form-data; boundary=x").unwrap().unwrap();
        let body = b"--x\r\nContent-Disposition: form-data; name=\"msg\"; filename=\"a\"\r\n\r\n\
                     hi\r\n--x--\r\n";
        let counted = multipart.parse(body, Purpose::Poll).unwrap();
        assert_eq!(counted.text("msg").unwrap(), "hi");
        let passed_over = multipart.parse(body, Purpose::Capture).unwrap();
        assert_eq!(passed_over.text("msg"), None);
    }
}
