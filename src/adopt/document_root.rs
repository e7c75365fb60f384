//! The files of a site, read for `pollgate adopt`: only read, and within bounds.
//!
//! A link is followed where it leads below the root; a folder is entered once, so that links in a
//! circle end. A file that is too large, too deep, not readable or one too many is left out and
//! named.

use crate::adopt::{File, Site};
use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The amount that is read.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Files in all.
    pub files: usize,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Folders in folders.
    pub depth: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { files: 10_000, file_bytes: 512 * 1024, bytes: 64 * 1024 * 1024, depth: 20 }
    }
}

/// The reason for which a folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there, or not to be read.
    #[error("cannot read {0}: {1}; name the document root of the site")]
    Unreadable(PathBuf, io::Error),
    /// It is something else.
    #[error("{0} is no folder; name the document root of the site")]
    NoFolder(PathBuf),
}

/// The extensions of files with PHP or a page's script.
const EXTENSIONS: &[&str] =
    &["php", "php3", "php4", "php5", "phtml", "inc", "html", "htm", "xhtml", "tpl", "js"];

/// Folders of what others wrote.
const FOREIGN: &[&str] = &["vendor", "node_modules", "bower_components"];

/// Lines about what was left out.
const MAX_LINES: usize = 20;

/// Reads the files below `root`.
///
/// # Errors
///
/// If `root` is no folder or cannot be read; a fault further down is only named.
pub fn read(root: &Path, bounds: &Bounds) -> Result<Site, Error> {
    let unreadable = |error| Error::Unreadable(root.to_owned(), error);
    let root = root.canonicalize().map_err(unreadable)?;
    if !root.is_dir() {
        return Err(Error::NoFolder(root));
    }
    fs::read_dir(&root).map_err(|error| Error::Unreadable(root.clone(), error))?;
    let shown = root.to_string_lossy().trim_end_matches('/').to_owned();
    let site = Site { root: shown, ..Site::default() };
    let mut reader = Reader { root, bounds, site, bytes: 0, entered: HashSet::new(), unnamed: 0 };
    reader.folder(&reader.root.clone(), 0);
    Ok(reader.finish())
}

struct Reader<'a> {
    root: PathBuf,
    bounds: &'a Bounds,
    site: Site,
    bytes: u64,
    entered: HashSet<PathBuf>,
    /// The number of files left out beyond the lines about it.
    unnamed: usize,
}

impl Reader<'_> {
    fn folder(&mut self, folder: &Path, depth: usize) {
        let Ok(real) = folder.canonicalize() else { return self.left_out(folder, "not readable") };
        if !real.starts_with(&self.root) {
            return self.left_out(folder, "it leads out of the document root");
        }
        if !self.entered.insert(real) {
            return;
        }
        if depth > self.bounds.depth {
            return self.left_out(folder, "too deep");
        }
        let Ok(entries) = fs::read_dir(folder) else {
            return self.left_out(folder, "not readable");
        };
        let mut paths: Vec<PathBuf> =
            entries.flatten().take(self.bounds.files).map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            // Asks for what a link leads to; one that leads nowhere is neither.
            let Ok(about) = fs::metadata(&path) else { continue };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if about.is_dir() && FOREIGN.contains(&name.as_str()) {
                self.left_out(&path, "code of others");
            } else if about.is_dir() && !name.starts_with('.') {
                self.folder(&path, depth + 1);
            } else if about.is_file() && is_wanted(&path) {
                self.file(&path, about.len());
            }
        }
    }

    fn file(&mut self, path: &Path, size: u64) {
        if self.site.files.len() >= self.bounds.files {
            return self.left_out(path, "too many files");
        }
        if size > self.bounds.file_bytes || self.bytes + size > self.bounds.bytes {
            return self.left_out(path, "too large");
        }
        if !path.canonicalize().is_ok_and(|real| real.starts_with(&self.root)) {
            return self.left_out(path, "it leads out of the document root");
        }
        let mut bytes = Vec::new();
        // It may have grown since it was asked for.
        let limit = self.bounds.file_bytes;
        let read = fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
        if read.is_err() {
            return self.left_out(path, "not readable");
        }
        self.bytes += bytes.len() as u64;
        let path = self.shown(path);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.site.files.push(File { path, text });
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }

    fn left_out(&mut self, path: &Path, why: &str) {
        if self.site.left_out.len() >= MAX_LINES {
            self.unnamed += 1;
            return;
        }
        let path = self.shown(path);
        self.site.left_out.push(format!("{path} ({why})"));
    }

    fn finish(mut self) -> Site {
        if self.unnamed > 0 {
            self.site.left_out.push(format!("{} more", self.unnamed));
        }
        self.site
    }
}

fn is_wanted(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}
