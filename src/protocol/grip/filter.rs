//! Filters: which items a hold gets, and what becomes of their content on the way.

use super::format;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Names and values of a hold or an item.
pub type Meta = BTreeMap<String, String>;

/// A filter of a hold's channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Withholds an item whose `sender` is the hold's `user`.
    SkipSelf,
    /// Withholds an item whose `skip_users` list the hold's `user`.
    SkipUsers,
    /// Withholds an item whose `require_sub` is none of the hold's channels.
    RequireSub,
    /// Writes an id, made after the hold's `id_format`, in place of `%I`.
    BuildId,
    /// Writes the hold's values in place of `%(name)s`.
    VarSubst,
}

/// The filters of one channel.
pub const MAX: usize = 5;

/// A hold and an item that may be for it.
pub struct Context<'a> {
    /// The hold's values.
    pub hold: &'a Meta,
    /// The item's values.
    pub item: &'a Meta,
    /// The hold's channels, and the id of the last item of each.
    pub channels: &'a [(&'a str, Option<&'a str>)],
}

impl Filter {
    const NAMES: [(&'static str, Self); 5] = [
        ("skip-self", Self::SkipSelf),
        ("skip-users", Self::SkipUsers),
        ("require-sub", Self::RequireSub),
        ("build-id", Self::BuildId),
        ("var-subst", Self::VarSubst),
    ];

    /// The filter of that name. One that is not known is an error: without it, a client would get
    /// what it skips.
    pub fn named(name: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, filter)| *filter).ok_or_else(|| format!("there is no filter {name:?}"))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, filter)| *filter == self).map_or("", |(name, _)| *name)
    }

    /// True if it changes the content of items.
    pub fn is_of_content(self) -> bool {
        matches!(self, Self::BuildId | Self::VarSubst)
    }

    fn withholds(self, context: &Context<'_>) -> bool {
        let user = context.hold.get("user").map(String::as_str).filter(|user| !user.is_empty());
        let item = |key: &str| context.item.get(key).map(String::as_str).unwrap_or_default();
        match self {
            Self::SkipSelf => user.is_some_and(|user| user == item("sender")),
            Self::SkipUsers => {
                user.is_some_and(|user| item("skip_users").split(',').any(|it| it.trim() == user))
            }
            Self::RequireSub => {
                let required = item("require_sub");
                !required.is_empty() && !context.channels.iter().any(|(name, _)| *name == required)
            }
            Self::BuildId | Self::VarSubst => false,
        }
    }
}

/// The content of an item for a hold; `None` = it is not for it. The error is that the content
/// cannot be made, so that there is nothing to send either.
pub fn apply(
    filters: &[Filter],
    context: &Context<'_>,
    content: Bytes,
) -> Result<Option<Bytes>, String> {
    if filters.iter().any(|filter| filter.withholds(context)) {
        return Ok(None);
    }
    let mut content = content;
    for filter in filters {
        content = match filter {
            Filter::BuildId => build_id(context, &content)?,
            Filter::VarSubst => format::render(&content, |directive, name| match directive {
                b's' => {
                    let name = name?;
                    Ok(value(context.hold.get(name).map(String::as_bytes), name)?.to_vec())
                }
                other => Err(unknown(other)),
            })?,
            _ => continue,
        };
    }
    Ok(Some(content))
}

/// The initial content of a hold whose channels have these filters.
pub fn apply_to_response(
    filters: &[Filter],
    context: &Context<'_>,
    content: Bytes,
) -> Result<Bytes, String> {
    match filters.contains(&Filter::BuildId) && !content.is_empty() {
        true => build_id(context, &content),
        false => Ok(content),
    }
}

fn build_id(context: &Context<'_>, content: &[u8]) -> Result<Bytes, String> {
    let form = context.hold.get("id_format").ok_or("the hold has no id_format")?;
    let hex = match context.hold.get("id_encoding").map(String::as_str) {
        None => false,
        Some("hex") => true,
        Some(other) => return Err(format!("there is no id_encoding {other:?}")),
    };
    let of_channel = |name: &str| {
        let channel = context.channels.iter().find(|(known, _)| *known == name)?;
        Some(channel.1.unwrap_or_default().as_bytes())
    };
    let id = format::render(form.as_bytes(), |directive, name| match directive {
        b's' => {
            let name = name?;
            Ok(value(of_channel(name), name)?.to_vec())
        }
        other => Err(unknown(other)),
    })?;
    format::render(content, |directive, given| match directive {
        b'I' => {
            let id = given.as_ref().map_or(&id[..], |given| given.as_bytes());
            Ok(match hex {
                true => id.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
                false => id.to_vec(),
            })
        }
        other => Err(unknown(other)),
    })
}

fn value<'a>(value: Option<&'a [u8]>, name: &str) -> Result<&'a [u8], String> {
    value.ok_or_else(|| format!("there is no {name:?}"))
}

fn unknown(directive: u8) -> String {
    format!("there is no %{}", char::from(directive))
}
