//! Where statements that only read name tables and call functions, found without a grammar: also in
//! what the grammar can't read.

use std::ops::Range;

use super::Strings;
use super::cursor::Cursor;
use super::lexer::{Kind, Token, tokens};

/// A name in a statement that reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The bytes of schema and name.
    pub span: Range<usize>,
    /// The schema, if it is written.
    pub schema: Option<String>,
    /// The name.
    pub name: String,
    /// What it names there.
    pub use_: PlaceUse,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceUse {
    /// A table that is read.
    Table,
    /// The table of a column: `schema.table.column`.
    Qualifier,
    /// A function that is called.
    Call,
}

/// The names in the statements of a text that only read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// In order.
    pub places: Vec<Place>,
    /// A system column is named: `tableoid`, `xmin`, …
    pub system_columns: bool,
}

/// Statements that may only read, by their first word.
const READS: [&str; 8] =
    ["copy", "declare", "explain", "prepare", "select", "table", "values", "with"];
/// Words of statements that write or lock.
const WRITES: [&str; 5] = ["delete", "insert", "merge", "share", "update"];
/// Columns that every table has and no view.
const SYSTEM: [&str; 6] = ["cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"];
/// Words that end a FROM.
const ENDS_FROM: [&str; 13] = [
    "except",
    "fetch",
    "for",
    "group",
    "having",
    "intersect",
    "limit",
    "offset",
    "order",
    "select",
    "union",
    "where",
    "window",
];
/// Functions with a FROM among their arguments.
const WITH_FROM: [&str; 4] = ["extract", "overlay", "substring", "trim"];

/// Finds the names.
pub fn places(text: &str, strings: Strings) -> Places {
    let all = tokens(text, strings);
    let mut found = Places::default();
    for statement in all.split(|t| t.kind == Kind::Symbol && &text[t.span()] == ";") {
        let word = |token: &Token| match &token.kind {
            Kind::Word(word) => Some(word.clone()),
            _ => None,
        };
        let first = statement.iter().find_map(word).unwrap_or_default();
        let writes = statement.iter().filter_map(word).any(|w| WRITES.contains(&w.as_str()));
        let copies_in = first == "copy" && !Cursor::new(text, statement).symbol_ahead(1, "(");
        if writes || copies_in || !READS.contains(&first.as_str()) {
            continue;
        }
        let mut walk = Walk {
            cursor: Cursor::new(text, statement),
            frames: vec![Frame::default()],
            expects: false,
            named: named_queries(text, statement),
            found: &mut found,
        };
        walk.run();
    }
    found
}

/// The names that WITH gives to queries: what stands before `AS (`.
fn named_queries(text: &str, statement: &[Token]) -> Vec<String> {
    let cursor = |at| Cursor { at, ..Cursor::new(text, statement) };
    let mut names = Vec::new();
    for at in 1..statement.len() {
        let here = cursor(at);
        let queries =
            here.symbol_ahead(1, "(") || matches!(here.word_ahead(1), Some("not" | "materialized"));
        if here.word() != Some("as") || !queries {
            continue;
        }
        let mut before = at - 1;
        if cursor(before).symbol_ahead(0, ")") {
            while before > 0 && !cursor(before).symbol_ahead(0, "(") {
                before -= 1;
            }
            before = before.saturating_sub(1);
        }
        names.extend(cursor(before).ident());
    }
    names
}

/// What is between two parentheses.
#[derive(Default)]
struct Frame {
    /// In a FROM, where a comma is followed by a table.
    from: bool,
    /// Arguments of a function with a FROM among them.
    call: bool,
}

struct Walk<'a, 'b> {
    cursor: Cursor<'a>,
    frames: Vec<Frame>,
    /// A table comes next.
    expects: bool,
    named: Vec<String>,
    found: &'b mut Places,
}

impl Walk<'_, '_> {
    fn run(&mut self) {
        while let Some(token) = self.cursor.token() {
            match &token.kind {
                Kind::Symbol => self.symbol(token),
                Kind::Word(word) if self.is_keyword(word) => self.cursor.at += 1,
                Kind::Word(_) | Kind::Quoted(_) => self.name(),
                _ => {
                    self.expects = false;
                    self.cursor.at += 1;
                }
            }
        }
    }

    fn symbol(&mut self, token: &Token) {
        match &self.cursor.text[token.span()] {
            "(" => {
                let before =
                    self.cursor.at.checked_sub(1).and_then(|at| self.cursor.tokens.get(at));
                let call = before.is_some_and(
                    |token| matches!(&token.kind, Kind::Word(w) if WITH_FROM.contains(&w.as_str())),
                );
                self.frames.push(Frame { from: self.expects, call });
            }
            ")" => {
                if self.frames.len() > 1 {
                    self.frames.pop();
                }
                self.expects = false;
            }
            "," => self.expects = self.frames.last().is_some_and(|frame| frame.from),
            _ => self.expects = false,
        }
        self.cursor.at += 1;
    }

    /// Takes note of a keyword; `false` if the word is a name.
    fn is_keyword(&mut self, word: &str) -> bool {
        let before = self.cursor.at.checked_sub(1).and_then(|at| self.cursor.tokens.get(at));
        let follows = |word: &str| {
            before.is_some_and(|token| matches!(&token.kind, Kind::Word(w) if w == word))
        };
        let distinct = follows("distinct");
        let Some(frame) = self.frames.last_mut() else { return false };
        match word {
            "from" if distinct || frame.call => {}
            "from" => (frame.from, self.expects) = (true, true),
            "join" => self.expects = true,
            "table" if self.cursor.at == 0 => self.expects = true,
            "lateral" | "only" if self.expects => {}
            "on" | "using" => self.expects = false,
            _ if ENDS_FROM.contains(&word) => {
                (frame.from, frame.call, self.expects) = (false, false, false);
            }
            _ if SYSTEM.contains(&word) => {
                self.found.system_columns = true;
                self.expects = false;
            }
            _ => return false,
        }
        true
    }

    /// `name`, `schema.name`, `schema.name.column`, `name(`.
    fn name(&mut self) {
        let first = self.cursor.at;
        let mut parts = Vec::new();
        while let Some(part) = self.cursor.ident() {
            parts.push((part, self.cursor.at - 1));
            if !self.cursor.symbol_ahead(0, ".") {
                break;
            }
            self.cursor.at += 1;
        }
        let expects = std::mem::take(&mut self.expects);
        let system = |(part, _): &(String, usize)| SYSTEM.contains(&part.as_str());
        self.found.system_columns |= parts.last().is_some_and(system);
        let before = first.checked_sub(1).and_then(|at| self.cursor.tokens.get(at));
        let cast = before.is_some_and(|token| &self.cursor.text[token.span()] == "::");
        let use_ = match parts.len() {
            1 | 2 if self.cursor.symbol_ahead(0, "(") => PlaceUse::Call,
            1 | 2 if expects => PlaceUse::Table,
            3 => PlaceUse::Qualifier,
            _ => return,
        };
        let named = parts.len() == 1 && self.named.contains(&parts[0].0);
        if cast || named && use_ == PlaceUse::Table {
            return;
        }
        let (schema, name) = match parts.as_slice() {
            [(name, at)] => (None, (name, at)),
            [(schema, _), (name, at), ..] => (Some(schema.clone()), (name, at)),
            [] => return,
        };
        let tokens = self.cursor.tokens;
        let span = tokens[first].start..tokens[*name.1].end;
        self.found.places.push(Place { span, schema, name: name.0.clone(), use_ });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let found = places(text, Strings::Standard);
        let mut out: Vec<String> = found
            .places
            .iter()
            // Keywords look like functions, and nobody minds.
            .filter(|place| !matches!(place.name.as_str(), "in" | "as" | "materialized" | "copy"))
            .map(|place| {
                let mark = match place.use_ {
                    PlaceUse::Table => "",
                    PlaceUse::Qualifier => ".",
                    PlaceUse::Call => "()",
                };
                format!("{}{mark}", &text[place.span.clone()])
            })
            .collect();
        if found.system_columns {
            out.push("+system".to_owned());
        }
        out.join(" ")
    }

    #[test]
    fn tables_qualifiers_and_calls_are_found_where_they_stand() {
        for (text, expected) in [
            ("SELECT relname FROM pg_class", "pg_class"),
            (
                "select c.relname from pg_catalog.pg_class c, pg_namespace n where c.x = n.y",
                "pg_catalog.pg_class pg_namespace",
            ),
            (
                "SELECT pg_catalog.pg_class.relname FROM pg_catalog.pg_class",
                "pg_catalog.pg_class. pg_catalog.pg_class",
            ),
            ("SELECT pg_class.relname, pg_class FROM ONLY pg_class", "pg_class"),
            (
                "SELECT * FROM (pg_class c JOIN pg_index i ON (c.oid = i.indrelid)), pg_am",
                "pg_class pg_index pg_am",
            ),
            (
                "SELECT (SELECT max(oid) FROM pg_type), x FROM a WHERE y IN (SELECT 1 FROM b, c)",
                "max() pg_type a b c",
            ),
            (
                "SELECT extract(epoch FROM pg_class), trim(both from pg_x) FROM t",
                "extract() trim() t",
            ),
            ("SELECT a IS DISTINCT FROM pg_class FROM t", "t"),
            ("SELECT 'pg_class'::regclass, x::pg_catalog.pg_class FROM t", "t"),
            ("WITH pg_class AS (SELECT 1) SELECT * FROM pg_class, pg_index", "pg_index"),
            (
                "WITH pg_class (a, b) AS MATERIALIZED (SELECT 1) SELECT * FROM pg_class",
                "pg_class()",
            ),
            (
                "SELECT pg_catalog.pg_get_indexdef(1, 0, true) FROM unnest(x, y) AS s(a, b), pg_class",
                "pg_catalog.pg_get_indexdef() unnest() s() pg_class",
            ),
            ("SELECT a FROM b GROUP BY pg_class, c ORDER BY pg_index, d", "b"),
            ("SELECT c.tableoid FROM pg_class c", "pg_class +system"),
            ("INSERT INTO x SELECT * FROM pg_class", ""),
            ("SELECT * FROM pg_class FOR UPDATE", ""),
            ("CREATE VIEW v AS SELECT * FROM pg_class; SELECT * FROM pg_index", "pg_index"),
            ("COPY pg_class TO STDOUT", ""),
            ("COPY (SELECT 1 FROM pg_class) TO STDOUT", "pg_class"),
            ("TABLE pg_class", "pg_class"),
            (
                "SELECT \"pg_class\".\"relname\" FROM \"pg_catalog\".\"pg_class\"",
                "\"pg_catalog\".\"pg_class\"",
            ),
            ("SELECT '", ""),
            ("SELECT ((((", ""),
            ("))) FROM", ""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
