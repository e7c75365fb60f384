//! The values of GRIP's headers: `first; key=value; key="quoted"`, in lists with commas.

/// One value with its parameters. The first has no value unless it is written as `key=value`.
pub type Params = Vec<(String, Option<String>)>;

/// The values of a list.
pub fn list(text: &str) -> Result<Vec<Params>, String> {
    let parts = split(text, b',')?;
    parts.into_iter().filter(|part| !part.trim().is_empty()).map(params).collect()
}

/// One value, in which a comma is a comma.
pub fn params(text: &str) -> Result<Params, String> {
    let parts = split(text, b';')?.into_iter().enumerate();
    let parts = parts.filter(|(index, part)| *index == 0 || !part.trim().is_empty());
    parts
        .map(|(index, part)| {
            let part = part.trim();
            match part.split_once('=') {
                // A first part is a name or a URI, whatever it holds.
                Some(_) if index == 0 && !is_pair(part) => Ok((part.to_owned(), None)),
                Some((key, value)) => Ok((key.trim().to_owned(), Some(unquoted(value.trim())?))),
                None => Ok((part.to_owned(), None)),
            }
        })
        .collect()
}

/// True if a first part is a pair: `Grip-Set-Meta: user="a"`.
fn is_pair(part: &str) -> bool {
    let key = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    part.split_once('=').is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(key))
}

/// The value of `key` among the parameters behind the first.
pub fn get<'a>(params: &'a Params, key: &str) -> Option<&'a str> {
    let found = params.iter().skip(1).find(|(name, _)| name == key)?;
    Some(found.1.as_deref().unwrap_or_default())
}

/// The text in quotation marks, or as it is.
fn unquoted(text: &str) -> Result<String, String> {
    let Some(rest) = text.strip_prefix('"') else { return Ok(text.to_owned()) };
    let mut value = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next() {
            Some('"') if chars.as_str().trim().is_empty() => return Ok(value),
            Some('\\') => value.extend(chars.next()),
            Some('"') | None => return Err(format!("quotation marks do not match in {text}")),
            Some(char) => value.push(char),
        }
    }
}

/// Splits at `at`, which is a plain byte within quotation marks and within `<` and `>` at the
/// beginning of a part.
fn split(text: &str, at: u8) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    let mut escaped = false;
    let mut uri = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if !uri => quoted = !quoted && text[..index].trim_end().ends_with('='),
            b'<' if !quoted && text[start..index].trim().is_empty() => uri = true,
            b'>' if uri => uri = false,
            byte if byte == at && !quoted && !uri => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    if quoted {
        return Err(format!("quotation marks do not match in {text}"));
    }
    parts.push(&text[start..]);
    Ok(parts)
}
