//! One table of the config while it is read.
//!
//! Each key is read once, with its default and its type; the section notes mistakes, known keys and
//! effective values. At its end the keys that were not read are unknown. A reader that finds a
//! mistake continues with the default, so that one walk finds all mistakes; its result is discarded
//! then.

use super::file::Tree;
use super::locations::{child, entry};
use super::raw::{Raw, name};
use super::report::Report;
use super::values::MASK;
use super::{secret_file, suggest, units};
use crate::protocol::auth::secret::Secret;
use ::config::{Value as RawValue, ValueKind};
use std::ops::RangeInclusive;
use std::time::Duration;
use toml_edit::{Array, ArrayOfTables, Item, Table, Value};

/// See the [module](self).
pub(in crate::config) struct Section<'r> {
    report: &'r Report,
    path: String,
    raw: Tree,
    known: Vec<&'static str>,
    effective: Table,
}

impl<'r> Section<'r> {
    /// The table at `path`.
    pub(in crate::config) fn new(report: &'r Report, path: impl Into<String>, raw: Tree) -> Self {
        let known = Vec::new();
        let effective = Table::new();
        Self { report, path: path.into(), raw, known, effective }
    }

    /// Notes that the value of `key` is wrong, or conflicts with others.
    pub(in crate::config) fn mistake(&self, key: &str, message: impl Into<String>) {
        self.report.mistake(&child(&self.path, key), message);
    }

    /// Notes that the value of `key` is valid and probably not intended.
    pub(in crate::config) fn warn(&self, key: &str, message: &str) {
        self.report.warn(&child(&self.path, key), message);
    }

    /// True if no mistake is noted for `key` so far.
    pub(in crate::config) fn is_sound(&self, key: &str) -> bool {
        self.report.is_sound(&[&child(&self.path, key)])
    }

    /// Text read by `parse`.
    pub(in crate::config) fn parsed<T: ToString>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        self.read(key, default, |raw| parse(&raw.text()?), |value| value.to_string().into())
    }

    /// Text read by `parse`, or `None` if the key is missing.
    pub(in crate::config) fn optional<T: ToString>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let parse = |raw: Raw| parse(&raw.text()?).map(Some);
        let value = self.take(key).and_then(|raw| self.checked(key, parse(raw)).flatten());
        if let Some(value) = &value {
            self.show(key, value.to_string());
        }
        value
    }

    /// Text read by `parse`; a mistake if the key is missing.
    pub(in crate::config) fn required<T: ToString>(
        &mut self,
        key: &'static str,
        hint: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.mistake(key, format!("missing; {hint}"));
        }
        self.optional(key, parse)
    }

    /// Text that is always displayed masked.
    pub(in crate::config) fn secret(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<Secret, String>,
    ) -> Secret {
        let text = self.secret_text(key);
        let read = |text: String| self.checked(key, parse(&text));
        let secret = text.and_then(read).unwrap_or_default();
        self.show(key, if secret.is_empty() { "" } else { MASK });
        secret
    }

    /// Text read by `parse` that may hold a secret and is displayed masked; empty is `None`.
    pub(in crate::config) fn masked<T: ToString>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.secret_text(key).filter(|text| !text.is_empty());
        let value = text.and_then(|text| self.checked(key, parse(&text)));
        self.show(key, value.as_ref().map_or(String::new(), T::to_string));
        value
    }

    /// The secret `key` as it stands, or as it stands in a file; `None` if it is not there, or
    /// cannot be had.
    fn secret_text(&mut self, key: &'static str) -> Option<String> {
        let raw = self.take(key)?;
        self.secret_of(key, raw)
    }

    /// The same of a value that was taken by hand.
    pub(in crate::config) fn secret_of(&self, key: &str, raw: Raw) -> Option<String> {
        let found = self.checked(key, secret_file::read(raw))?;
        if let Some(warning) = found.warning {
            self.report.warn(&child(&self.path, key), &warning);
        }
        Some(found.text)
    }

    /// A duration.
    pub(in crate::config) fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        let parse = |raw: Raw| units::duration(&raw.quantity()?);
        self.read(key, default, parse, |value| units::show_duration(*value).into())
    }

    /// A duration that is not zero.
    pub(in crate::config) fn some_duration(
        &mut self,
        key: &'static str,
        default: Duration,
    ) -> Duration {
        let value = self.duration(key, default);
        if value.is_zero() {
            self.mistake(key, "must be longer than 0");
        }
        value
    }

    /// A size in bytes of at least `least`.
    pub(in crate::config) fn size(&mut self, key: &'static str, default: u64, least: u64) -> u64 {
        let parse = |raw: Raw| {
            let size = units::size(&raw.quantity()?)?;
            let shown = units::show_size(least);
            if size < least { Err(format!("must be at least \"{shown}\"")) } else { Ok(size) }
        };
        self.read(key, default, parse, |value| units::show_size(*value).into())
    }

    /// A whole number within `range`.
    pub(in crate::config) fn number(
        &mut self,
        key: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> usize {
        let parse = |raw: Raw| {
            let number = raw.number()?;
            let least = range.start();
            let most = range.end();
            match number {
                _ if number < *least => Err(format!("must be at least {least}")),
                _ if number > *most => Err(format!("must be at most {most}")),
                _ => Ok(number),
            }
        };
        // Numbers come from TOML or are defaults, so they fit.
        self.read(key, default, parse, |value| i64::try_from(*value).unwrap_or(i64::MAX).into())
    }

    /// One of some words, or a number, read by `parse` and shown by `show`.
    pub(in crate::config) fn word_or_number<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
        show: impl FnOnce(&T) -> Value,
    ) -> T {
        self.read(key, default, |raw| parse(&raw.quantity()?), show)
    }

    /// A share, in percent.
    pub(in crate::config) fn percent(&mut self, key: &'static str, default: f64) -> f64 {
        let parse = |raw: Raw| units::percent(&raw.quantity()?);
        self.read(key, default, parse, |value| units::show_percent(*value).into())
    }

    /// True or false.
    pub(in crate::config) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.read(key, default, Raw::flag, |value| (*value).into())
    }

    /// True or false, false if the key is missing, or `None` for the one word beside them.
    pub(in crate::config) fn flag_or(&mut self, key: &'static str, word: &str) -> Option<bool> {
        let show = |value: &Option<bool>| value.map_or_else(|| word.into(), Value::from);
        let parse = |raw: Raw| match &raw.kind {
            ValueKind::String(text) if text == word => Ok(None),
            _ => raw.flag().map(Some).map_err(|error| format!("{error}, nor \"{word}\"")),
        };
        self.read(key, Some(false), parse, show)
    }

    /// True or false, or `None` if the key is missing.
    pub(in crate::config) fn optional_flag(&mut self, key: &'static str) -> Option<bool> {
        let flag = self.take(key).and_then(|raw| self.checked(key, raw.flag()))?;
        self.show(key, flag);
        Some(flag)
    }

    /// One of a few words.
    pub(in crate::config) fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&'static str, T)],
    ) -> T {
        let show = |value: &T| {
            let word = words.iter().find(|(_, meaning)| meaning == value);
            word.map_or("", |(word, _)| *word).into()
        };
        self.read(key, default, |raw| suggest::one_of(words, &raw.text()?), show)
    }

    /// A list of texts, each read by `parse`.
    pub(in crate::config) fn list<T: ToString>(
        &mut self,
        key: &'static str,
        default: Vec<T>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let path = child(&self.path, key);
        let report = self.report;
        let values = match self.take(key).map(|raw| (raw.typed, raw.list())) {
            None => default,
            Some((_, Err(message))) => {
                self.mistake(key, message);
                default
            }
            Some((typed, Ok(list))) => {
                let read = |(index, value): (usize, RawValue)| {
                    let text = Raw { kind: value.kind, typed }.text();
                    let wrong = |message| report.mistake(&entry(&path, index), message);
                    text.and_then(|text| parse(&text)).map_err(wrong).ok()
                };
                list.into_iter().enumerate().filter_map(read).collect()
            }
        };
        let shown: Array = values.iter().map(ToString::to_string).collect();
        self.show(key, shown);
        values
    }

    /// The table `key`, empty if it is missing, displayed as a section of its own.
    pub(in crate::config) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section) -> T,
    ) -> T {
        let (value, effective) = self.nested(key, read);
        self.effective.insert(key, Item::Table(effective));
        value
    }

    /// The table `key`, empty if it is missing, displayed in one line.
    pub(in crate::config) fn inline<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section) -> T,
    ) -> T {
        let (value, effective) = self.nested(key, read);
        self.show(key, effective.into_inline_table());
        value
    }

    /// As [`Section::table`], or `None` if the table is missing.
    pub(in crate::config) fn optional_table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section) -> T,
    ) -> Option<T> {
        if self.has(key) {
            return Some(self.table(key, read));
        }
        self.take(key);
        None
    }

    fn nested<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section) -> T) -> (T, Table) {
        let raw = match self.take(key).map(|raw| raw.kind) {
            None => Tree::new(),
            Some(ValueKind::Table(table)) => table,
            Some(other) => {
                let message = format!("must be a table, written [{key}], not {}", name(&other));
                self.mistake(key, message);
                Tree::new()
            }
        };
        let mut section = Section::new(self.report, child(&self.path, key), raw);
        let value = read(&mut section);
        (value, section.finish())
    }

    /// The tables of the list `key`.
    pub(in crate::config) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section) -> T,
    ) -> Vec<T> {
        let path = child(&self.path, key);
        let wrong = |kind: &ValueKind| format!("must be written [[{key}]], not as {}", name(kind));
        let list = match self.take(key).map(|raw| raw.kind) {
            None => Vec::new(),
            Some(ValueKind::Array(list)) => list,
            Some(other) => {
                self.mistake(key, wrong(&other));
                Vec::new()
            }
        };
        let mut values = Vec::new();
        let mut shown = ArrayOfTables::new();
        for (index, entry_value) in list.into_iter().enumerate() {
            let path = entry(&path, index);
            let ValueKind::Table(raw) = entry_value.kind else {
                self.report.mistake(&path, wrong(&entry_value.kind));
                continue;
            };
            let mut section = Section::new(self.report, path, raw);
            values.push(read(&mut section));
            shown.push(section.finish());
        }
        if !shown.is_empty() {
            self.effective.insert(key, Item::ArrayOfTables(shown));
        }
        values
    }

    /// Every key of the table, for a caller that interprets them itself.
    pub(in crate::config) fn all(&mut self) -> Vec<(String, RawValue)> {
        let mut all: Vec<_> = std::mem::take(&mut self.raw).into_iter().collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// Notes why `key` does not belong here, if it is present.
    pub(in crate::config) fn refuse(&mut self, key: &'static str, message: &str) {
        self.report.know(&child(&self.path, key));
        if self.raw.remove(key).is_some() {
            self.mistake(key, message);
        }
    }

    /// True if `key` is present and has not been read.
    pub(in crate::config) fn has(&self, key: &str) -> bool {
        self.raw.contains_key(key)
    }

    /// Sets the effective value of a key for display.
    pub(in crate::config) fn show(&mut self, key: &str, value: impl Into<Value>) {
        self.effective.insert(key, Item::Value(value.into()));
    }

    /// Takes the value of `key` as written; each can be taken once.
    pub(in crate::config) fn take(&mut self, key: &'static str) -> Option<Raw> {
        let path = child(&self.path, key);
        self.known.push(key);
        self.report.know(&path);
        let kind = self.raw.remove(key)?.kind;
        Some(Raw { kind, typed: self.report.is_typed(&path) })
    }

    /// Reports the keys that were not read, and returns the effective table.
    pub(in crate::config) fn finish(self) -> Table {
        for key in self.raw.into_keys() {
            self.report.unknown(&self.path, key, &self.known);
        }
        self.effective
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(Raw) -> Result<T, String>,
        show: impl FnOnce(&T) -> Value,
    ) -> T {
        let value = self.take(key).and_then(|raw| self.checked(key, parse(raw))).unwrap_or(default);
        self.show(key, show(&value));
        value
    }

    fn checked<T>(&self, key: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.mistake(key, message)).ok()
    }
}
