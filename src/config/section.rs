//! A cursor on a value of a document: reads typed values and collects every fault with its place.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_yaml::Value;

use super::tree::{Step, Tree, position};
use super::{Fault, Faults};

/// A file that is being read, and what was found wrong with it.
#[derive(Debug)]
pub(super) struct Source {
    file: PathBuf,
    text: String,
    faults: RefCell<Vec<Fault>>,
}

impl Source {
    pub(super) fn new(file: &Path, text: String) -> Self {
        Self { file: file.to_owned(), text, faults: RefCell::default() }
    }

    /// Reads a file; one that can't be read is an empty document with a fault.
    pub(super) fn read(file: &Path) -> Self {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::new(file, text),
            Err(error) => {
                let source = Self::new(file, String::new());
                source.push(None, String::new(), format!("can't be read: {error}"));
                source
            }
        }
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The document; an empty one if its syntax is wrong.
    pub(super) fn parse(&self) -> Tree {
        Tree::parse(&self.text).unwrap_or_else(|error| {
            let at = error.location().map(|found| (found.line(), found.column()));
            let mut message = error.to_string();
            // The position stands in front already.
            if let Some(end) = message.find(" at line ").filter(|_| at.is_some()) {
                message.truncate(end);
            }
            self.push(at, String::new(), message);
            Tree::Map(Vec::new())
        })
    }

    /// A cursor on the whole document.
    pub(super) fn root<'a>(&'a self, tree: &'a Tree) -> Cursor<'a> {
        Cursor { source: self, tree, steps: Vec::new(), path: String::new() }
    }

    /// Takes over the faults of another file.
    pub(super) fn absorb(&self, other: Self) {
        self.faults.borrow_mut().extend(other.faults.into_inner());
    }

    /// The value, if nothing was wrong.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Faults> {
        let mut faults = self.faults.into_inner();
        if faults.is_empty() {
            return Ok(value);
        }
        faults.sort_by(|a, b| (&a.file, a.at).cmp(&(&b.file, b.at)));
        Err(Faults(faults))
    }

    fn push(&self, at: Option<(usize, usize)>, path: String, message: String) {
        self.faults.borrow_mut().push(Fault { file: self.file.clone(), at, path, message });
    }
}

/// A value of a document and its place there.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    source: &'a Source,
    tree: &'a Tree,
    steps: Vec<Step>,
    path: String,
}

impl<'a> Cursor<'a> {
    /// The file that it stands in.
    pub(super) fn source(&self) -> &'a Source {
        self.source
    }

    /// Whether it is a map.
    pub(super) fn is_map(&self) -> bool {
        matches!(self.tree, Tree::Map(_))
    }

    /// Whether it is a list.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.tree, Tree::List(_))
    }

    /// Notes that this value is wrong.
    pub(super) fn fault(&self, message: impl Into<String>) {
        let at = position(&self.source.text, &self.steps);
        self.source.push(at, self.path.clone(), message.into());
    }

    /// Notes that the key of this value is wrong.
    pub(super) fn fault_of_key(&self, message: impl Into<String>) {
        let mut steps = self.steps.clone();
        if let Some(Step::Entry(index)) = steps.pop() {
            steps.push(Step::Key(index));
        }
        let at = position(&self.source.text, &steps);
        self.source.push(at, self.path.clone(), message.into());
    }

    /// This value as a `T`; a fault if it is not one.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let read = serde_yaml::from_value(self.tree.to_value());
        read.map_err(|error| self.fault(plain(&error))).ok()
    }

    /// This value as a text that is not empty.
    pub(super) fn text(&self) -> Option<String> {
        let text: String = self.read()?;
        if text.is_empty() {
            self.fault("must not be empty");
            return None;
        }
        Some(text)
    }

    /// The items of a list; a single value counts as a list of one.
    pub(super) fn one_or_more(&self) -> Vec<Self> {
        if matches!(self.tree, Tree::List(_)) { self.items() } else { vec![self.clone()] }
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Vec<Self> {
        let Tree::List(items) = self.tree else {
            self.fault("must be a list");
            return Vec::new();
        };
        let item = |(index, tree)| Self {
            source: self.source,
            tree,
            steps: self.steps_and(Step::Item(index)),
            path: format!("{}[{index}]", self.path),
        };
        items.iter().enumerate().map(item).collect()
    }

    /// The entries of a map, in order, without duplicates.
    pub(super) fn entries(&self) -> Vec<(&'a str, Self)> {
        let Tree::Map(entries) = self.tree else {
            self.fault("must be a map of keys and values");
            return Vec::new();
        };
        let dot = if self.path.is_empty() { "" } else { "." };
        let mut found: Vec<(&str, Self)> = Vec::new();
        for (index, (key, tree)) in entries.iter().enumerate() {
            let entry = Self {
                source: self.source,
                tree,
                steps: self.steps_and(Step::Entry(index)),
                path: format!("{}{dot}{key}", self.path),
            };
            if found.iter().any(|(earlier, _)| earlier == key) {
                entry.fault_of_key("stands twice");
            } else {
                found.push((key.as_str(), entry));
            }
        }
        found
    }

    /// The entries of a map whose keys are all `known`; others are faults.
    pub(super) fn fields(&self, known: &[&str]) -> Fields<'a> {
        let mut entries = self.entries();
        entries.retain(|(key, entry)| {
            let is_known = known.contains(key);
            if !is_known {
                entry.fault_of_key(unknown(key, known));
            }
            is_known
        });
        Fields { map: self.clone(), entries }
    }

    /// This map as the configuration of a room: each key by itself, so that each fault is found;
    /// then what `check` says of the whole.
    fn room<C>(&self, check: impl Fn(&C) -> Vec<(&'static str, String)>) -> C
    where
        C: Default + Serialize + DeserializeOwned,
    {
        let defaults = serde_yaml::to_value(C::default()).unwrap_or_default();
        let known: Vec<&str> = defaults
            .as_mapping()
            .into_iter()
            .flatten()
            .filter_map(|(key, _)| key.as_str())
            .collect();
        let fields = self.fields(&known);
        let mut good = serde_yaml::Mapping::new();
        for (key, entry) in &fields.entries {
            let mut alone = serde_yaml::Mapping::new();
            alone.insert((*key).into(), entry.tree.to_value());
            match serde_yaml::from_value::<C>(Value::Mapping(alone.clone())) {
                Ok(_) => good.extend(alone),
                Err(error) => {
                    let message = plain(&error);
                    let named = format!("{key}: ");
                    entry.fault(message.strip_prefix(&named).unwrap_or(&message));
                }
            }
        }
        let room: C = serde_yaml::from_value(Value::Mapping(good)).unwrap_or_default();
        for (key, message) in check(&room) {
            match fields.optional(key) {
                Some(entry) => entry.fault(message),
                None => self.fault(format!("{key}: {message}")),
            }
        }
        room
    }

    fn steps_and(&self, step: Step) -> Vec<Step> {
        let mut steps = self.steps.clone();
        steps.push(step);
        steps
    }
}

/// The entries of a map with known keys.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    map: Cursor<'a>,
    entries: Vec<(&'a str, Cursor<'a>)>,
}

impl<'a> Fields<'a> {
    /// The value of a key that may be missing.
    pub(super) fn optional(&self, key: &str) -> Option<&Cursor<'a>> {
        self.entries.iter().find(|(found, _)| *found == key).map(|(_, entry)| entry)
    }

    /// The value of a key; a fault if it is missing.
    pub(super) fn required(&self, key: &str) -> Option<&Cursor<'a>> {
        let found = self.optional(key);
        if found.is_none() {
            self.map.fault(format!("the key {key} is missing"));
        }
        found
    }

    /// The configuration of a room, or its default if the key is missing.
    pub(super) fn room<C>(&self, key: &str, check: impl Fn(&C) -> Vec<(&'static str, String)>) -> C
    where
        C: Default + Serialize + DeserializeOwned,
    {
        self.optional(key).map(|section| section.room(check)).unwrap_or_default()
    }

    /// The value of a key as a `T`, or `default` if it is missing.
    pub(super) fn or<T: DeserializeOwned>(&self, key: &str, default: T) -> T {
        self.optional(key).and_then(Cursor::read).unwrap_or(default)
    }
}

/// Of an unknown key: what it could have been.
fn unknown(key: &str, known: &[&str]) -> String {
    let letters = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let near = known.iter().find(|candidate| {
        let (key, candidate) = (letters(key), letters(candidate));
        candidate.starts_with(&key) || key.starts_with(&candidate) || distance(&key, &candidate) < 3
    });
    match near {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None => format!("unknown key; known are {}", known.join(", ")),
    }
}

/// Levenshtein's distance: how many letters have to be changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// An error of the YAML crate without the words that are of no use here.
fn plain(error: &serde_yaml::Error) -> String {
    error.to_string().replace("invalid type: ", "is of the wrong type: ")
}
