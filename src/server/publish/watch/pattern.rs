//! Patterns that select watched files and name their channels.

use crate::hub::channel::{ChannelName, NameError};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// `/dev/shm/*.comet`: files of one directory. At most one `*`, in the last segment; it stands
/// for one character or more, and not for a first dot (so that hidden files are left alone).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePattern {
    source: String,
    folder: PathBuf,
    before: String,
    /// The text after the `*`; `None` without one.
    after: Option<String>,
}

/// Reason why a text selects no files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    /// It depends on the gate's working directory.
    #[error("must begin with /, as a relative path depends on where the gate was started")]
    Relative,
    /// It names a directory.
    #[error("must end in a file's name, or in a pattern such as *.comet")]
    NoName,
    /// Only the last segment is a pattern.
    #[error("a * may stand in the last segment only; write one [[watch]] for each directory")]
    StarInFolder,
    /// There is more than one star.
    #[error("has more than one *; one * may stand in the last segment")]
    Stars,
    /// The path holds a NUL.
    #[error("holds a NUL character")]
    Nul,
}

impl FromStr for FilePattern {
    type Err = FilesError;

    fn from_str(source: &str) -> Result<Self, FilesError> {
        if source.contains('\0') {
            return Err(FilesError::Nul);
        }
        if !source.starts_with('/') {
            return Err(FilesError::Relative);
        }
        let (folder, name) = source.rsplit_once('/').unwrap_or_default();
        if matches!(name, "" | "." | "..") {
            return Err(FilesError::NoName);
        }
        if folder.contains('*') {
            return Err(FilesError::StarInFolder);
        }
        let (before, after) = match name.split_once('*') {
            Some((before, after)) => (before, Some(after)),
            None => (name, None),
        };
        if after.is_some_and(|after| after.contains('*')) {
            return Err(FilesError::Stars);
        }
        let folder = PathBuf::from(if folder.is_empty() { "/" } else { folder });
        let (source, before) = (source.to_owned(), before.to_owned());
        Ok(Self { source, folder, before, after: after.map(str::to_owned) })
    }
}

impl fmt::Display for FilePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl FilePattern {
    /// The directory they are in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// True if there is a `*`, so that `{1}` stands for something.
    pub fn has_star(&self) -> bool {
        self.after.is_some()
    }

    /// The part of a file's name that the `*` matches (empty without one); `None` if the file does
    /// not match.
    pub fn star<'a>(&self, name: &'a OsStr) -> Option<&'a OsStr> {
        let Some(after) = &self.after else {
            return (name == self.before.as_str()).then(|| OsStr::new(""));
        };
        let star = name.as_bytes().strip_prefix(self.before.as_bytes())?;
        let star = star.strip_suffix(after.as_bytes())?;
        let hidden = self.before.is_empty() && star.first() == Some(&b'.');
        (!star.is_empty() && !hidden).then(|| OsStr::from_bytes(star))
    }

    /// The one file, if there is no `*`.
    pub fn only(&self) -> Option<OsString> {
        self.after.is_none().then(|| self.before.clone().into())
    }
}

/// `{1}` or `files/{1}`: the channel of a file; `{1}` is the part that the `*` of its path matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelOf(String);

/// Reason why a text names no channel of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelOfError {
    /// A brace is not part of `{1}`.
    #[error("the only field of a watched file is {{1}}, what the * of its path stands for")]
    Field,
    /// The text is no valid name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl ChannelOf {
    const FIELD: &str = "{1}";

    /// True if it depends on the `*`.
    pub fn has_field(&self) -> bool {
        self.0.contains(Self::FIELD)
    }

    /// The channel's name.
    pub fn fill(&self, star: &OsStr) -> Result<ChannelName, NameError> {
        let star = std::str::from_utf8(star.as_bytes()).map_err(|_| NameError::NotUtf8)?;
        ChannelName::new(&self.0.replace(Self::FIELD, star))
    }
}

impl FromStr for ChannelOf {
    type Err = ChannelOfError;

    fn from_str(text: &str) -> Result<Self, ChannelOfError> {
        if text.replace(Self::FIELD, "").contains(['{', '}']) {
            return Err(ChannelOfError::Field);
        }
        // The star stands for at least one character.
        ChannelName::new(&text.replace(Self::FIELD, "x"))?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ChannelOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn star(pattern: &str, name: &str) -> Option<String> {
        let files: FilePattern = pattern.parse().unwrap();
        files.star(OsStr::new(name)).map(|star| star.to_str().unwrap().to_owned())
    }

    #[test]
    fn one_star_stands_for_a_part_of_a_name() {
        assert_eq!(star("/dev/shm/*.comet", "news.comet"), Some("news".into()));
        assert_eq!(star("/dev/shm/room-*.txt", "room-7.txt"), Some("7".into()));
        assert_eq!(star("/x/*", "anything"), Some("anything".into()));
        assert_eq!(star("/x/data.txt", "data.txt"), Some(String::new()));
        for (pattern, name) in [
            ("/dev/shm/*.comet", "news.comet.tmp"),
            ("/dev/shm/*.comet", ".comet"),
            ("/dev/shm/*.comet", ".hidden.comet"),
            ("/x/a*a", "a"),
            ("/x/data.txt", "data.txt~"),
        ] {
            assert_eq!(star(pattern, name), None, "{pattern} {name}");
        }
    }

    #[test]
    fn what_selects_no_files_is_told() {
        for (text, error) in [
            ("data.txt", FilesError::Relative),
            ("", FilesError::Relative),
            ("/x/", FilesError::NoName),
            ("/x/..", FilesError::NoName),
            ("/x/*/data.txt", FilesError::StarInFolder),
            ("/x/*-*.txt", FilesError::Stars),
            ("/x/a\0b", FilesError::Nul),
        ] {
            assert_eq!(text.parse::<FilePattern>(), Err(error), "{text}");
        }
        assert_eq!("/data.txt".parse::<FilePattern>().unwrap().folder(), Path::new("/"));
    }

    #[test]
    fn the_star_names_the_channel() {
        let channel: ChannelOf = "files/{1}".parse().unwrap();
        assert_eq!(channel.fill(OsStr::new("a b")).unwrap().as_str(), "files/a b");
        assert_eq!(channel.fill(OsStr::from_bytes(b"\xff")), Err(NameError::NotUtf8));
        assert_eq!(channel.fill(OsStr::new("a\nb")), Err(NameError::Control));
        for text in ["{2}", "{query.x}", "a}", "{1"] {
            assert_eq!(text.parse::<ChannelOf>(), Err(ChannelOfError::Field), "{text}");
        }
        assert!("".parse::<ChannelOf>().is_err() && "live".parse::<ChannelOf>().is_ok());
    }
}
