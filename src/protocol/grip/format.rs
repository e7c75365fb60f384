//! Texts with directives: `%I`, `%(name)s`, `%%`.

use bytes::Bytes;

/// The name in a directive; the error is that it has none.
pub type Name<'a> = Result<&'a str, String>;

/// `text` with what `directive` makes of each of its directives. A backslash within the
/// parentheses of a name makes the next byte a plain one.
pub fn render(
    text: &[u8],
    directive: impl Fn(u8, Name<'_>) -> Result<Vec<u8>, String>,
) -> Result<Bytes, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let mut name = Err("the directive needs a name".to_owned());
        if let Some(inside) = rest.strip_prefix(b"(") {
            let mut named = Vec::new();
            let mut bytes = inside.iter();
            loop {
                match bytes.next().ok_or("a name has no end")? {
                    b')' => break,
                    b'\\' => named.push(*bytes.next().ok_or("a name has no end")?),
                    byte => named.push(*byte),
                }
            }
            rest = bytes.as_slice();
            name = Ok(String::from_utf8(named).map_err(|_| "a name is not UTF-8")?);
        }
        let (kind, behind) = rest.split_first().ok_or("a % stands at the end")?;
        rest = behind;
        match (*kind, &name) {
            (b'%', Err(_)) => out.push(b'%'),
            (kind, name) => {
                let name = name.as_deref().map_err(Clone::clone);
                out.extend_from_slice(&directive(kind, name)?);
            }
        }
    }
    out.extend_from_slice(rest);
    Ok(out.into())
}
