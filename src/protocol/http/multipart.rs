//! `multipart/form-data` (RFC 7578) in the one form that browsers and HTTP libraries write.
//!
//! A body that two readers could read in two ways is refused: PHP takes the last of two `name=`,
//! continues headers over lines without a colon, and ends a value at a boundary with anything
//! behind it; other readers do not. So every part has one `Content-Disposition: form-data`, with
//! one quoted `name` and at most one quoted `filename`, no escapes, and nothing stands before the
//! first boundary or behind the last.

use super::form::{FormError, MAX_VARIABLES};
use memchr::memmem;

/// Parts of one form, as many as PHP reads variables (`max_input_vars`).
const MAX_PARTS: usize = MAX_VARIABLES;
/// Bytes of one part's headers. PHP reads them through a buffer of 5 KiB and cuts longer lines.
const MAX_HEAD: usize = 4096;
/// Characters of a boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;

/// One part: a field, or a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) name: &'a str,
    pub(super) is_file: bool,
    pub(super) value: &'a [u8],
}

/// The boundary in the parameters of a content type, which begin with their `;`.
pub(super) fn boundary(parameters: &str) -> Result<String, FormError> {
    let mut boundary = None;
    let mut parameters = parameters.split(';').skip(1).map(|one| one.trim_matches(' ')).peekable();
    while let Some(parameter) = parameters.next() {
        let (name, value) = parameter.split_once('=').ok_or(FormError::ContentType)?;
        // PHP takes the first place where the word stands, in whatever parameter.
        match name {
            "boundary" if parameters.peek().is_none() => boundary = Some(value),
            "charset" if !value.to_ascii_lowercase().contains("boundary") => {}
            _ => return Err(FormError::ContentType),
        }
    }
    let boundary = boundary.ok_or(FormError::ContentType)?;
    let quoted = boundary.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let boundary = quoted.unwrap_or(boundary);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_-./:=?".contains(&byte);
    let fits = (1..=MAX_BOUNDARY).contains(&boundary.len()) && boundary.bytes().all(plain);
    fits.then(|| boundary.to_owned()).ok_or(FormError::ContentType)
}

/// The parts of `body` in their order.
pub(super) fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Part<'a>>, FormError> {
    let delimiter = format!("--{boundary}");
    let line = format!("\n{delimiter}");
    let finder = memmem::Finder::new(line.as_bytes());
    let mut parts = Vec::new();
    let mut rest = body.strip_prefix(delimiter.as_bytes()).ok_or(FormError::Boundary)?;
    loop {
        rest = match rest {
            [b'-', b'-'] | [b'-', b'-', b'\r', b'\n'] => return Ok(parts),
            [b'\r', b'\n', rest @ ..] => rest,
            _ => return Err(FormError::Boundary),
        };
        if parts.len() == MAX_PARTS {
            return Err(FormError::TooMany);
        }
        let window = &rest[..rest.len().min(MAX_HEAD)];
        let end = memmem::find(window, b"\r\n\r\n").ok_or(FormError::PartHead)?;
        let (name, is_file) = head(&rest[..end])?;
        rest = &rest[end + 4..];
        let end = finder.find(rest).ok_or(FormError::Boundary)?;
        let value = rest[..end].strip_suffix(b"\r").ok_or(FormError::Boundary)?;
        if value.starts_with(delimiter.as_bytes()) {
            return Err(FormError::Boundary);
        }
        rest = &rest[end + line.len()..];
        parts.push(Part { name, is_file, value });
    }
}

/// The name in the headers of a part, and whether it is a file's.
fn head(head: &[u8]) -> Result<(&str, bool), FormError> {
    let head = std::str::from_utf8(head).map_err(|_| FormError::PartHead)?;
    let mut disposition = None;
    let mut seen: Vec<String> = Vec::new();
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(':').ok_or(FormError::PartHead)?;
        let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let control = |byte: u8| byte < b' ' && byte != b'\t' || byte == 0x7f;
        let name = name.to_ascii_lowercase();
        if name.is_empty()
            || !name.bytes().all(token)
            || value.bytes().any(control)
            || seen.contains(&name)
        {
            return Err(FormError::PartHead);
        }
        if name == "content-disposition" {
            disposition = Some(self::disposition(value)?);
        }
        seen.push(name);
    }
    disposition.ok_or(FormError::PartHead)
}

/// ` form-data; name="msg"; filename="a.txt"`
fn disposition(value: &str) -> Result<(&str, bool), FormError> {
    let value = value.trim_matches(' ');
    let mut rest = value.strip_prefix("form-data").ok_or(FormError::Disposition)?;
    let mut name = None;
    let mut is_file = false;
    while !rest.is_empty() {
        let parameter = rest.strip_prefix(';').ok_or(FormError::Disposition)?;
        let parameter = parameter.trim_start_matches(' ');
        let (key, quoted) = parameter.split_once("=\"").ok_or(FormError::Disposition)?;
        let (text, after) = quoted.split_once('"').ok_or(FormError::Disposition)?;
        if text.contains('\\') {
            return Err(FormError::Disposition);
        }
        match key {
            "name" if name.is_none() => name = Some(text),
            "filename" if !is_file => is_file = true,
            _ => return Err(FormError::Disposition),
        }
        rest = after;
    }
    Ok((name.ok_or(FormError::Disposition)?, is_file))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FIELD: &str = "Content-Disposition: form-data; name=\"msg\"";

    /// Name, whether it is a file, value.
    type Read<'a> = (&'a str, bool, &'a [u8]);

    fn read(body: &str) -> Result<Vec<Read<'_>>, FormError> {
        let parts = parts(body.as_bytes(), "x")?;
        Ok(parts.into_iter().map(|part| (part.name, part.is_file, part.value)).collect())
    }

    #[test]
    fn parts_are_read_as_browsers_write_them() {
        let body = format!(
            "--x\r\n{FIELD}\r\n\r\n\r\n--x\r\n{FIELD}; filename=\"\"\r\nContent-Type: \
             text/plain\r\n\r\na\r\n--\r\n\r\n--x--\r\n"
        );
        let expected: Vec<Read<'_>> = vec![("msg", false, b""), ("msg", true, b"a\r\n--\r\n")];
        assert_eq!(read(&body).unwrap(), expected);
        assert_eq!(read("--x--"), Ok(vec![]));
    }

    #[test]
    fn a_part_that_could_be_read_in_two_ways_is_refused() {
        for head in [
            "Content-Disposition: form-data; name=\"a\"; name=\"msg\"",
            "Content-Disposition: form-data; name=\"msg\"; FILENAME=\"a\"",
            "Content-Disposition: form-data; name=\"msg\"; filename*=UTF-8''a",
            "Content-Disposition: form-data; name=msg",
            "Content-Disposition: form-data; name='msg'",
            "Content-Disposition: form-data; name=\"m\\sg\"",
            "Content-Disposition: form-data; name=\"msg",
            "Content-Disposition: form-data; filename=\"msg\"",
            "Content-Disposition: attachment; name=\"msg\"",
            "Content-Disposition : form-data; name=\"msg\"",
            "Content-Disposition: form-data; name=\"a\"\r\ncontent-disposition: form-data; \
             name=\"msg\"",
            "Content-Disposition: form-data;\r\n name=\"msg\"",
            "Content-Disposition: form-data\r\nno colon; name=\"msg\"",
            "Content-Disposition: form-data; name=\"a\"\nX: y",
            "Content-Type: text/plain",
            "",
        ] {
            let body = format!("--x\r\n{head}\r\n\r\nhi\r\n--x--\r\n");
            assert!(read(&body).is_err(), "{head}");
        }
        let long = format!("--x\r\nX: {}\r\n{FIELD}\r\n\r\nhi\r\n--x--", "y".repeat(MAX_HEAD));
        assert_eq!(read(&long), Err(FormError::PartHead));
    }

    #[test]
    fn a_boundary_stands_on_a_line_of_its_own_or_the_form_is_refused() {
        for body in [
            "".to_owned(),
            format!("preamble\r\n--x\r\n{FIELD}\r\n\r\nhi\r\n--x--\r\n"),
            format!("--x\r\n{FIELD}\r\n\r\nhi\r\n--x--\r\nepilogue"),
            format!("--x\r\n{FIELD}\r\n\r\nhi\r\n--x \r\n{FIELD}\r\n\r\nho\r\n--x--\r\n"),
            format!("--x\r\n{FIELD}\r\n\r\nhi\n--x--\r\n"),
            format!("--x\r\n{FIELD}\r\n\r\nhi\r\n--xy\r\n--x--\r\n"),
            format!("--x\r\n{FIELD}\r\n\r\n--x--\r\n"),
            format!("--x\r\n{FIELD}\r\n\r\nhi\r\n--x\r\n"),
            format!("--x\r\n{FIELD}\r\n\r\nhi"),
            format!("--x\n{FIELD}\r\n\r\nhi\r\n--x--\r\n"),
        ] {
            assert!(read(&body).is_err(), "{body}");
        }
        let many = format!("--x\r\n{FIELD}\r\n\r\n\r\n").repeat(MAX_PARTS);
        assert_eq!(read(&format!("{many}--x--")).map(|parts| parts.len()), Ok(MAX_PARTS));
        let more = format!("{many}--x\r\n{FIELD}\r\n\r\n\r\n--x--");
        assert_eq!(read(&more), Err(FormError::TooMany));
    }

    #[test]
    fn one_boundary_stands_last_in_the_content_type() {
        for (good, expected) in [
            ("; boundary=x", "x"),
            (";boundary=\"a=b\"", "a=b"),
            ("; charset=utf-8; boundary=--1", "--1"),
        ] {
            assert_eq!(boundary(good).unwrap(), expected);
        }
        let long = format!("; boundary={}", "x".repeat(71));
        for bad in [
            "",
            "; boundary=",
            "; Boundary=x",
            "; boundary=x; boundary=y",
            "; boundary=x; charset=utf-8",
            "; charset=boundary=y; boundary=x",
            "; x=y; boundary=x",
            "; boundary=x,y",
            "; boundary=\"x",
            "; boundary=a b",
            &long,
        ] {
            assert!(boundary(bad).is_err(), "{bad}");
        }
    }
}
