//! The directories of a rule whose path has stars in its directories: `/srv/rooms/*/log.txt`.
//!
//! Each directory is a rule of its own, found by its path. A new one is found as soon as the kernel
//! reports it in the directory above, at the latest with the next regular look. At most
//! [`MAX_FOLDERS`] are watched; of more, a line is logged.

use super::Rule;
use super::inotify::{Queue, Wd};
use super::pattern::SegmentPattern;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Directories of one rule.
pub(super) const MAX_FOLDERS: usize = 1_000;

/// Entries that are read of one directory to find those.
const MAX_ENTRIES: usize = 100_000;

pub(super) struct Tree {
    pub(super) rule: Rule,
    /// The kernel's watches of the directories in which new ones may appear.
    parents: BTreeSet<Wd>,
    crowded: bool,
}

/// A directory that fits, with the parts that the stars of its path match.
struct Branch {
    path: PathBuf,
    stars: Vec<String>,
}

impl Tree {
    /// The tree of a rule, which may have been there `before`.
    pub(super) fn new(rule: Rule, before: Option<&Self>) -> Self {
        Self { rule, parents: BTreeSet::new(), crowded: before.is_some_and(|tree| tree.crowded) }
    }

    /// True if the kernel watches a directory for it in which others may appear.
    pub(super) fn has_parent(&self, wd: Wd) -> bool {
        self.parents.contains(&wd)
    }

    pub(super) fn parents(&self) -> impl Iterator<Item = Wd> {
        self.parents.iter().copied()
    }

    /// The rules for the directories that are there now. The kernel watches of directories in which
    /// none appears any more are returned as well.
    pub(super) fn look(&mut self, queue: &Queue) -> (Vec<Rule>, Vec<Wd>) {
        let mut parents = BTreeSet::new();
        let mut branches = vec![Branch { path: PathBuf::from("/"), stars: Vec::new() }];
        let mut crowded = false;
        for segment in self.rule.files.folder().iter().skip(1) {
            let text = segment.to_string_lossy();
            let Ok(pattern) = SegmentPattern::new(&text) else { return (Vec::new(), Vec::new()) };
            if !pattern.has_star() {
                for branch in &mut branches {
                    branch.path.push(segment);
                }
                continue;
            }
            let mut next = Vec::new();
            for branch in branches {
                parents.extend(queue.watch_for_entries(&branch.path));
                for (name, star) in folders(&branch.path, &pattern) {
                    crowded |= next.len() >= MAX_FOLDERS;
                    if crowded {
                        break;
                    }
                    let mut stars = branch.stars.clone();
                    stars.push(star);
                    next.push(Branch { path: branch.path.join(name), stars });
                }
            }
            branches = next;
        }
        if crowded && !self.crowded {
            let path = &self.rule.files;
            tracing::warn!(%path, "more than {MAX_FOLDERS} directories; the others are not watched");
        }
        self.crowded = crowded;
        let unused = self.parents.difference(&parents).copied().collect();
        self.parents = parents;
        let rule = |branch: Branch| Rule {
            files: self.rule.files.within(branch.path),
            channel: self.rule.channel.bind(&branch.stars),
            content: self.rule.content,
            site: self.rule.site.clone(),
        };
        (branches.into_iter().map(rule).collect(), unused)
    }
}

/// The directories in `folder` that fit, by name. A name that is no UTF-8 names no channel.
fn folders(folder: &Path, pattern: &SegmentPattern) -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let fitting = entries.flatten().take(MAX_ENTRIES).filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let star = pattern.star(OsStr::new(&name))?.to_str()?.to_owned();
        // Not by a link: a user who may make one could publish any file.
        entry.file_type().is_ok_and(|kind| kind.is_dir()).then_some((name, star))
    });
    let mut all: Vec<(String, String)> = fitting.collect();
    all.sort();
    all
}
