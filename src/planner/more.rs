//! What a definition is about besides tables, and whether a query of the same transaction can tell: the
//! connection that merges rows of several nodes does not see it yet.

use crate::shard_map::{ShardMap, Table};
use crate::sql::{DdlStatement, TableName};

/// What else than tables definitions have changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum More {
    /// Nothing.
    #[default]
    Nothing,
    /// New types and functions with these names (lower case, without schema), or views: whoever names none
    /// of them means what he meant before.
    Named(Vec<String>),
    /// What queries may use without naming it, as operators, casts, and what was there before.
    Anything,
}

impl More {
    /// What a definition of a kind of object, its text, is about.
    pub(super) fn of(object: &str, text: &str) -> Self {
        if matches!(object, "schema" | "role" | "user" | "trigger" | "policy") {
            return Self::Nothing;
        }
        let new = matches!(object, "function" | "procedure" | "type" | "domain");
        let named = new.then(|| new_name(object, text)).flatten();
        named.map_or(Self::Anything, |name| Self::Named(vec![name]))
    }

    /// Adds what another definition is about.
    pub fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Nothing) | (Self::Anything, _) => {}
            (Self::Named(names), Self::Named(more)) => names.extend(more.iter().cloned()),
            (_, other) => *self = other.clone(),
        }
    }

    /// Whether a query could mean something else by it.
    pub fn bears_on(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        match self {
            Self::Nothing => false,
            // Names may be written by the numbers of their characters.
            Self::Named(names) => {
                text.contains("u&\"") || names.iter().any(|name| text.contains(name))
            }
            Self::Anything => true,
        }
    }
}

/// The name that a CREATE, not of something in another's place, gives; `None` if it is hard to tell.
fn new_name(object: &str, text: &str) -> Option<String> {
    let mut words = text.split_ascii_whitespace();
    let is =
        |word: Option<&str>, wanted: &str| word.is_some_and(|it| it.eq_ignore_ascii_case(wanted));
    if !is(words.next(), "create") || !is(words.next(), object) {
        return None;
    }
    let name = words.next()?;
    let name = name.split('(').next().unwrap_or(name).trim_end_matches(';');
    let name = name.rsplit('.').next()?;
    let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    let name = quoted.unwrap_or(name);
    let plain = |c: char| c.is_alphanumeric() || c == '_';
    (!name.is_empty() && name.chars().all(plain)).then(|| name.to_lowercase())
}

/// The tables whose defaults may name what gets another name: sequences, types, functions.
pub(super) fn named_anew(of: &DdlStatement, text: &str, map: &ShardMap) -> Vec<TableName> {
    let mut words = text.split_ascii_whitespace().map(str::to_ascii_lowercase);
    let renames = matches!(of, DdlStatement::Global { .. })
        && words.next().is_some_and(|word| word == "alter")
        && words.any(|word| matches!(word.as_str(), "rename" | "schema"));
    let has_default = |table: &&Table| table.columns.iter().any(|it| it.default.is_some());
    let tables = map.tables().iter().filter(|_| renames).filter(has_default);
    tables.map(|table| table.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> More {
        More::Named(vec![name.to_owned()])
    }

    #[test]
    fn what_is_new_has_a_name() {
        for (object, text, expected) in [
            ("type", "CREATE TYPE s.\"Mood\" AS ENUM ('ok')", named("mood")),
            ("function", "create function vat(n numeric) RETURNS int", named("vat")),
            ("domain", "CREATE DOMAIN tiny AS int", named("tiny")),
            ("function", "CREATE OR REPLACE FUNCTION vat(n numeric)", More::Anything),
            ("type", "ALTER TYPE mood ADD VALUE 'x'", More::Anything),
            ("type", "CREATE TYPE \"a b\" AS ENUM ()", More::Anything),
            ("type", "CREATE /* x */ TYPE mood AS ENUM ()", More::Anything),
            ("operator", "CREATE OPERATOR + (FUNCTION = f)", More::Anything),
            ("trigger", "CREATE TRIGGER t", More::Nothing),
        ] {
            assert_eq!(More::of(object, text), expected, "{text}");
        }
    }

    #[test]
    fn a_query_that_does_not_name_it_means_what_it_meant() {
        let mut more = named("mood");
        more.add(&More::Nothing);
        more.add(&named("vat"));
        assert!(!more.bears_on("SELECT count(*) FROM bills"));
        assert!(more.bears_on("SELECT sum(Vat(net)) FROM bills"));
        assert!(more.bears_on("SELECT 'x'::U&\"mo\\006fd\" FROM bills"));
        more.add(&More::Anything);
        assert!(more.bears_on("SELECT count(*) FROM bills"));
    }
}
