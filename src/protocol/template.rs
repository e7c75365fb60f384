//! Templates that make a channel's name or its data from parts of a request: `room-{query.room}`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A text with fields that a request fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

/// A part of a request (or of its response) by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `{query.x}`: a parameter of the query.
    Query(String),
    /// `{form.x}`: a parameter of the form in the body.
    Form(String),
    /// `{json.a.b}`: a member of the JSON body.
    Json(Vec<String>),
    /// `{header.x}`: a header, its name in lower case.
    Header(String),
    /// `{cookie.x}`: a cookie.
    Cookie(String),
    /// `{path.1}`: the text that the N-th `*` of the rule's path matches.
    Path(usize),
    /// `{response.body}`: the body of the upstream's response.
    ResponseBody,
}

/// Reasons why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace has no partner.
    #[error("a brace has no partner")]
    Brace,
    /// The field is unknown.
    #[error(
        "there is no field {{{0}}}; known are {{query.x}} {{form.x}} {{json.a.b}} {{header.x}} \
         {{cookie.x}} {{path.1}} {{response.body}}"
    )]
    Unknown(String),
}

impl Template {
    /// Fills every field with `value`; `None` if one has no value.
    pub fn fill<'a>(&self, value: impl Fn(&Field) -> Option<Cow<'a, str>>) -> Option<String> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Field(field) => filled.push_str(&value(field)?),
            }
        }
        Some(filled)
    }

    /// The only field of a template without other text.
    pub fn only_field(&self) -> Option<&Field> {
        match self.parts.as_slice() {
            [Part::Field(field)] => Some(field),
            _ => None,
        }
    }

    /// The fields in the template.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(field) => Some(field),
            Part::Text(_) => None,
        })
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(source: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some(open) = rest.find(['{', '}']) {
            let (text, field) = rest.split_at(open);
            let field = field.strip_prefix('{').ok_or(TemplateError::Brace)?;
            let (field, after) = field.split_once('}').ok_or(TemplateError::Brace)?;
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            parts.push(Part::Field(field.parse()?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { source: source.to_owned(), parts })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl FromStr for Field {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let unknown = || TemplateError::Unknown(text.to_owned());
        let (kind, name) = text.split_once('.').ok_or_else(unknown)?;
        if name.is_empty() {
            return Err(unknown());
        }
        match kind {
            "query" => Ok(Self::Query(name.to_owned())),
            "form" => Ok(Self::Form(name.to_owned())),
            "header" => Ok(Self::Header(name.to_ascii_lowercase())),
            "cookie" => Ok(Self::Cookie(name.to_owned())),
            "json" => Ok(Self::Json(name.split('.').map(str::to_owned).collect())),
            "path" => name.parse().ok().filter(|n| *n > 0).map(Self::Path).ok_or_else(unknown),
            "response" if name == "body" => Ok(Self::ResponseBody),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fill(template: &str) -> Option<String> {
        template.parse::<Template>().unwrap().fill(|field| match field {
            Field::Query(name) if name == "room" => Some("7".into()),
            Field::Path(1) => Some("x".into()),
            _ => None,
        })
    }

    #[test]
    fn fields_are_filled_in_their_places() {
        assert_eq!(fill("room-{query.room}/{path.1}!").unwrap(), "room-7/x!");
        assert_eq!(fill("data.txt").unwrap(), "data.txt");
        assert_eq!(fill("room-{query.other}"), None);
    }

    #[test]
    fn what_is_no_template_is_told() {
        for (text, error) in [
            ("a{query.b", TemplateError::Brace),
            ("a}b", TemplateError::Brace),
            ("{quary.x}", TemplateError::Unknown("quary.x".into())),
            ("{path.0}", TemplateError::Unknown("path.0".into())),
            ("{query.}", TemplateError::Unknown("query.".into())),
            ("{}", TemplateError::Unknown(String::new())),
        ] {
            assert_eq!(text.parse::<Template>(), Err(error), "{text}");
        }
    }
}
