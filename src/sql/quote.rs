//! Identifiers and literals whose `Display` is safe inside a statement.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An identifier, case and all, as PostgreSQL stores it. Displays in double quotes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ident(pub String);

impl Ident {
    /// The identifier `name`, taken as it is stored (not folded).
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

/// A string literal. Displays in single quotes, in the `E''` form where it holds a backslash, so
/// that `standard_conforming_strings` does not matter.
#[derive(Debug, Clone, Copy)]
pub struct Literal<'a>(pub &'a str);

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = self.0.replace('\'', "''");
        if quoted.contains('\\') {
            write!(f, " E'{}'", quoted.replace('\\', "\\\\"))
        } else {
            write!(f, "'{quoted}'")
        }
    }
}

/// A table's full name. Displays as `"schema"."name"`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The schema, as stored.
    pub schema: String,
    /// The table's own name, as stored.
    pub name: String,
}

impl TableName {
    /// The table `schema.name`, both taken as they are stored.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (schema, name) = (self.schema.replace('"', "\"\""), self.name.replace('"', "\"\""));
        write!(f, "\"{schema}\".\"{name}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::{Ident, Literal, TableName};

    #[test]
    fn hostile_names_stay_inside_their_quotes() {
        assert_eq!(Ident::new(r#"a"b'c\d$1 E"#).to_string(), r#""a""b'c\d$1 E""#);
        assert_eq!(TableName::new("S", "t\"").to_string(), "\"S\".\"t\"\"\"");
    }

    #[test]
    fn hostile_literals_stay_inside_their_quotes() {
        assert_eq!(Literal("it's").to_string(), "'it''s'");
        assert_eq!(Literal(r"x\' OR 1=1 --").to_string(), r" E'x\\'' OR 1=1 --'");
        assert_eq!(Literal("$1\"").to_string(), "'$1\"'");
    }
}
