//! The scripts of a site, and where its functions and classes are.

use super::parse::parse;
use super::syntax::{Class, Function, Stmt};
use std::collections::HashMap;

#[derive(Debug)]
pub(super) struct Script {
    /// From the document root on, with a slash: `/live/send.php`.
    pub(super) path: String,
    pub(super) body: Vec<Stmt>,
}

/// The place of a definition: its script, and the way to it through the statements.
type Defined = (usize, Vec<usize>);

#[derive(Debug, Default)]
pub(super) struct Project {
    /// The document root, without a slash at its end.
    pub(super) root: String,
    pub(super) scripts: Vec<Script>,
    functions: HashMap<String, Vec<Defined>>,
    classes: HashMap<String, Vec<Defined>>,
    /// The classes that have a method of this name.
    methods: HashMap<String, Vec<String>>,
}

impl Project {
    pub(super) fn new<'s>(root: &str, files: impl Iterator<Item = (&'s str, &'s str)>) -> Self {
        let mut project = Self { root: root.to_owned(), ..Self::default() };
        for (path, text) in files {
            let path = format!("/{}", path.trim_start_matches('/'));
            project.scripts.push(Script { path, body: parse(text) });
        }
        for number in 0..project.scripts.len() {
            let mut found = Vec::new();
            collect(&project.scripts[number].body, &mut Vec::new(), &mut found);
            for way in found {
                project.index(number, way);
            }
        }
        project
    }

    fn index(&mut self, script: usize, way: Vec<usize>) {
        match at(&self.scripts[script].body, &way) {
            Some(Stmt::Function(function)) => {
                let name = function.name.to_ascii_lowercase();
                self.functions.entry(name).or_default().push((script, way));
            }
            Some(Stmt::Class(class)) => {
                let name = class.name.to_ascii_lowercase();
                for method in &class.methods {
                    let method = method.name.to_ascii_lowercase();
                    self.methods.entry(method).or_default().push(class.name.clone());
                }
                self.classes.entry(name).or_default().push((script, way));
            }
            _ => {}
        }
    }

    /// A function; of several with one name, that of a script which `prefers` likes.
    pub(super) fn function(
        &self,
        name: &str,
        prefers: impl Fn(usize) -> bool,
    ) -> Option<(usize, &Function)> {
        let (script, way) = pick(self.functions.get(&short(name))?, prefers)?;
        match at(&self.scripts[*script].body, way)? {
            Stmt::Function(function) => Some((*script, function)),
            _ => None,
        }
    }

    /// A class, chosen likewise.
    pub(super) fn class(
        &self,
        name: &str,
        prefers: impl Fn(usize) -> bool,
    ) -> Option<(usize, &Class)> {
        let (script, way) = pick(self.classes.get(&short(name))?, prefers)?;
        match at(&self.scripts[*script].body, way)? {
            Stmt::Class(class) => Some((*script, class)),
            _ => None,
        }
    }

    /// The class with a method of this name, if it is the only one.
    pub(super) fn only_class_with(&self, method: &str) -> Option<&str> {
        match self.methods.get(&method.to_ascii_lowercase())?.as_slice() {
            [class] => Some(class),
            _ => None,
        }
    }

    /// All classes with their scripts.
    pub(super) fn classes(&self) -> impl Iterator<Item = (usize, &Class)> {
        let mut all: Vec<&Defined> = self.classes.values().flatten().collect();
        all.sort();
        all.into_iter().filter_map(|(script, way)| match at(&self.scripts[*script].body, way)? {
            Stmt::Class(class) => Some((*script, class)),
            _ => None,
        })
    }

    /// The script at an absolute path. A path of which the beginning is not known names a script
    /// if it fits just one.
    pub(super) fn script_at(&self, path: &str) -> Option<usize> {
        if let Some((_, known)) = path.rsplit_once('*') {
            let fits = |script: &&Script| known.starts_with('/') && script.path.ends_with(known);
            let mut fitting = self.scripts.iter().filter(fits);
            let first = fitting.next()?;
            return match fitting.next() {
                None => self.scripts.iter().position(|script| script.path == first.path),
                Some(_) => None,
            };
        }
        let path = path.strip_prefix(&self.root)?;
        self.scripts.iter().position(|script| script.path == path)
    }

    /// The names under which other scripts mention what is in this one, in small letters: its
    /// file, its functions and classes.
    pub(super) fn names_in(&self, script: usize) -> Vec<String> {
        let file = self.scripts[script].path.rsplit('/').next().unwrap_or_default();
        let stem = file.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let defined = self.functions.iter().chain(&self.classes);
        let here = defined.filter(|(_, places)| places.iter().any(|(at, _)| *at == script));
        // `index` and `get` are mentioned everywhere.
        let telling =
            |name: &String| name.len() > 3 && !["index", "init", "main"].contains(&&**name);
        here.map(|(name, _)| name.clone()).chain([stem]).filter(telling).collect()
    }

    /// The folder of a script, absolute.
    pub(super) fn folder(&self, script: usize) -> String {
        let path = &self.scripts[script].path;
        format!("{}{}", self.root, path.rsplit_once('/').map_or("", |(folder, _)| folder))
    }
}

/// The last part of a name with namespaces, in small letters.
fn short(name: &str) -> String {
    name.rsplit('\\').next().unwrap_or(name).to_ascii_lowercase()
}

fn pick(defined: &[Defined], prefers: impl Fn(usize) -> bool) -> Option<&Defined> {
    defined.iter().find(|(script, _)| prefers(*script)).or(defined.first())
}

/// The ways to all functions and classes, also those within blocks and branches.
fn collect(body: &[Stmt], way: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
    for (number, statement) in body.iter().enumerate() {
        way.push(number);
        match statement {
            Stmt::Function(_) | Stmt::Class(_) => found.push(way.clone()),
            Stmt::Block(body) | Stmt::If { then: body, .. } => collect(body, way, found),
            _ => {}
        }
        way.pop();
    }
}

fn at<'s>(body: &'s [Stmt], way: &[usize]) -> Option<&'s Stmt> {
    let (number, rest) = way.split_first()?;
    let statement = body.get(*number)?;
    match statement {
        _ if rest.is_empty() => Some(statement),
        Stmt::Block(body) | Stmt::If { then: body, .. } => at(body, rest),
        _ => None,
    }
}
