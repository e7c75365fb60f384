//! Patterns that select watched files and name their channels.

use crate::hub::channel::{ChannelName, NameError};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// `/dev/shm/*.comet`: files of one directory, or of all directories that the path with its stars
/// matches. At most one `*` in a segment; it stands for one character or more, and not for a first
/// dot (so that hidden files are left alone).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePattern {
    source: String,
    folder: PathBuf,
    /// The number of stars in `folder`.
    folder_stars: usize,
    is_branch: bool,
    name: SegmentPattern,
}

/// `room-*.txt`: the names that one segment of a path matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentPattern {
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
    /// One segment has more than one star.
    #[error("has more than one * in a segment")]
    Stars,
    /// The path holds a NUL.
    #[error("holds a NUL character")]
    Nul,
}

impl SegmentPattern {
    pub(super) fn new(text: &str) -> Result<Self, FilesError> {
        let (before, after) = match text.split_once('*') {
            Some((before, after)) => (before, Some(after.to_owned())),
            None => (text, None),
        };
        if after.as_ref().is_some_and(|after| after.contains('*')) {
            return Err(FilesError::Stars);
        }
        Ok(Self { before: before.to_owned(), after })
    }

    pub(super) fn has_star(&self) -> bool {
        self.after.is_some()
    }

    /// The part of a name that the `*` matches (empty without one); `None` if the name does not
    /// match.
    pub(super) fn star<'a>(&self, name: &'a OsStr) -> Option<&'a OsStr> {
        let Some(after) = &self.after else {
            return (name == self.before.as_str()).then(|| OsStr::new(""));
        };
        let star = name.as_bytes().strip_prefix(self.before.as_bytes())?;
        let star = star.strip_suffix(after.as_bytes())?;
        let hidden = self.before.is_empty() && star.first() == Some(&b'.');
        (!star.is_empty() && !hidden).then(|| OsStr::from_bytes(star))
    }
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
        let name = SegmentPattern::new(name)?;
        let mut folder_stars = 0;
        for segment in folder.split('/') {
            folder_stars += usize::from(SegmentPattern::new(segment)?.has_star());
        }
        let folder = PathBuf::from(if folder.is_empty() { "/" } else { folder });
        Ok(Self { source: source.to_owned(), folder, folder_stars, is_branch: false, name })
    }
}

impl fmt::Display for FilePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl FilePattern {
    /// The directory they are in; a pattern itself if it has stars.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The number of stars, and so of the fields that a channel's name may have.
    pub fn stars(&self) -> usize {
        self.folder_stars + usize::from(self.name.has_star())
    }

    /// True if the files are in several directories.
    pub(super) fn has_folders(&self) -> bool {
        self.folder_stars > 0
    }

    /// The same files in one of the directories alone.
    pub(super) fn within(&self, folder: PathBuf) -> Self {
        Self { folder, folder_stars: 0, is_branch: true, ..self.clone() }
    }

    /// True if it is one directory of a pattern with several.
    pub(super) fn is_branch(&self) -> bool {
        self.is_branch
    }

    /// The part of a file's name that its `*` matches (empty without one); `None` if the file does
    /// not match.
    pub fn star<'a>(&self, name: &'a OsStr) -> Option<&'a OsStr> {
        self.name.star(name)
    }

    /// The one file, if its name has no `*`.
    pub fn only(&self) -> Option<OsString> {
        (!self.name.has_star()).then(|| self.name.before.clone().into())
    }
}

/// `{1}` or `files/{1}`: the channel of a file; `{N}` is the part that the N-th `*` of its path
/// matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelOf(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The number of the star, from 1 on.
    Star(usize),
}

/// Reason why a text names no channel of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelOfError {
    /// A brace is not part of `{1}`.
    #[error(
        "the only fields of a watched file are {{1}}, {{2}}..., what the * of its path stand for"
    )]
    Field,
    /// The text is no valid name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl ChannelOf {
    /// The highest number of a field; 0 without one.
    pub fn fields(&self) -> usize {
        let number = |part: &Part| if let Part::Star(number) = part { *number } else { 0 };
        self.0.iter().map(number).max().unwrap_or(0)
    }

    /// The channel's name, given what the one star that is left matches.
    pub fn fill(&self, star: &OsStr) -> Result<ChannelName, NameError> {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Star(_) => {
                    name.push_str(star.to_str().ok_or(NameError::NotUtf8)?);
                }
            }
        }
        ChannelName::new(&name)
    }

    /// The channel with its first stars filled in; the next is number 1 then.
    pub(super) fn bind(&self, stars: &[String]) -> Self {
        let bound = |part: &Part| match part {
            Part::Star(number) => match stars.get(number - 1) {
                Some(star) => Part::Text(star.clone()),
                None => Part::Star(number - stars.len()),
            },
            text => text.clone(),
        };
        Self(self.0.iter().map(bound).collect())
    }
}

impl FromStr for ChannelOf {
    type Err = ChannelOfError;

    fn from_str(text: &str) -> Result<Self, ChannelOfError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (number, behind) = after.split_once('}').ok_or(ChannelOfError::Field)?;
            let plain = number.len() == 1;
            let number = number.parse().ok().filter(|number| plain && *number > 0);
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Star(number.ok_or(ChannelOfError::Field)?));
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        if parts.iter().any(|part| matches!(part, Part::Text(text) if text.contains('}'))) {
            return Err(ChannelOfError::Field);
        }
        let channel = Self(parts);
        // A star stands for at least one character.
        channel.fill(OsStr::new("x"))?;
        Ok(channel)
    }
}

impl fmt::Display for ChannelOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Star(number) => write!(f, "{{{number}}}")?,
            }
        }
        Ok(())
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
            ("/x/*-*/data.txt", FilesError::Stars),
            ("/x/*-*.txt", FilesError::Stars),
            ("/x/a\0b", FilesError::Nul),
        ] {
            assert_eq!(text.parse::<FilePattern>(), Err(error), "{text}");
        }
        assert_eq!("/data.txt".parse::<FilePattern>().unwrap().folder(), Path::new("/"));
    }

    #[test]
    fn stars_of_folders_are_filled_in_first() {
        let files: FilePattern = "/rooms/*/x/log-*.txt".parse().unwrap();
        assert_eq!((files.stars(), files.has_folders()), (2, true));
        let channel: ChannelOf = "{2} in {1}".parse().unwrap();
        assert_eq!((channel.fields(), channel.to_string().as_str()), (2, "{2} in {1}"));
        let bound = channel.bind(&["{1}".to_owned()]);
        assert_eq!(bound.fill(OsStr::new("today")).unwrap().as_str(), "today in {1}");
    }

    #[test]
    fn the_star_names_the_channel() {
        let channel: ChannelOf = "files/{1}".parse().unwrap();
        assert_eq!(channel.fill(OsStr::new("a b")).unwrap().as_str(), "files/a b");
        assert_eq!(channel.fill(OsStr::from_bytes(b"\xff")), Err(NameError::NotUtf8));
        assert_eq!(channel.fill(OsStr::new("a\nb")), Err(NameError::Control));
        for text in ["{0}", "{10}", "{+1}", "{query.x}", "a}", "{1", "{1}}"] {
            assert_eq!(text.parse::<ChannelOf>(), Err(ChannelOfError::Field), "{text}");
        }
        assert!("".parse::<ChannelOf>().is_err() && "live".parse::<ChannelOf>().is_ok());
    }
}
