//! The site's classes, what they hold and the objects made of them.

use super::calls::Callee;
use super::project::Project;
use super::syntax::{Class, Expr, Kind};
use super::value::Value;
use super::walk::{Object, Walker};
use std::collections::HashMap;

/// Objects made in one script.
const OBJECTS: usize = 1_000;

impl<'a> Walker<'a> {
    pub(super) fn static_member(&mut self, class: &'a Expr, name: &str) -> Value {
        let Some(class) = self.class_named(class) else { return Value::default() };
        if name.starts_with('$') {
            let known = self.statics.get(&format!("{}::{name}", class.to_ascii_lowercase()));
            return known.cloned().unwrap_or_default();
        }
        let mut next = Some(class);
        for _ in 0..8 {
            let Some((script, class)) = next.and_then(|name| self.find_class(&name)) else { break };
            if let Some((_, value)) = class.constants.iter().find(|(known, _)| known == name) {
                let here = std::mem::replace(&mut self.script, script);
                let value = self.quietly(value);
                self.script = here;
                return value;
            }
            next = class.parent.clone();
        }
        Value::default()
    }

    /// The class that stands before a `::`.
    pub(super) fn class_named(&mut self, expr: &'a Expr) -> Option<String> {
        let Kind::Name(name) = &expr.kind else { return None };
        match name.to_ascii_lowercase().as_str() {
            "self" | "static" => self.scope.class.clone(),
            "parent" => {
                let class = self.scope.class.clone()?;
                self.find_class(&class)?.1.parent.clone()
            }
            _ => Some(name.clone()),
        }
    }

    pub(super) fn find_class(&self, name: &str) -> Option<(usize, &'a Class)> {
        let project: &'a Project = self.project;
        project.class(name, |script| self.walked.included.contains(&script))
    }

    pub(super) fn new_object(&mut self, class: &str, arguments: Vec<Value>) -> Value {
        let class = match class.to_ascii_lowercase().as_str() {
            "self" | "static" => self.scope.class.clone().unwrap_or_default(),
            _ => class.to_owned(),
        };
        if self.find_class(&class).is_some() && self.objects.len() < OBJECTS {
            let at = self.instance(&class, arguments);
            return Value { object: Some(at), ..Value::default() };
        }
        self.foreign_object(&class, &arguments)
    }

    /// Makes an object of a class of the site and runs its constructor.
    pub(super) fn instance(&mut self, name: &str, arguments: Vec<Value>) -> usize {
        let at = self.objects.len();
        self.objects.push(Object { class: name.to_owned(), properties: HashMap::new() });
        let mut classes = Vec::new();
        let mut next = Some(name.to_owned());
        while let Some((script, class)) = next.and_then(|name| self.find_class(&name)) {
            classes.push((script, class));
            next = if classes.len() < 8 { class.parent.clone() } else { None };
        }
        for (script, class) in classes.iter().rev() {
            let here = std::mem::replace(&mut self.script, *script);
            let outer = self.scope.class.replace(class.name.clone());
            for (property, value) in &class.properties {
                let value = self.quietly(value);
                self.statics
                    .entry(format!("{}::${property}", class.name.to_ascii_lowercase()))
                    .or_insert_with(|| value.clone());
                self.objects[at].properties.insert(property.clone(), value);
            }
            self.scope.class = outer;
            self.script = here;
        }
        if let Some(constructor) = self.find_method(name, "__construct") {
            self.call(Callee { this: Some(at), ..constructor }, arguments);
        }
        at
    }

    /// The method of a class or of those it extends.
    pub(super) fn find_method(&self, class: &str, method: &str) -> Option<Callee<'a>> {
        let mut next = Some(class.to_owned());
        for _ in 0..8 {
            let (script, class) = self.find_class(&next?)?;
            let mut methods = class.methods.iter();
            if let Some(found) = methods.find(|one| one.name.eq_ignore_ascii_case(method)) {
                let class = Some(class.name.clone());
                return Some(Callee { class, ..Callee::new(script, found) });
            }
            next = class.parent.clone();
        }
        None
    }
}
