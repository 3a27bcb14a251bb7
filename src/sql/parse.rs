//! Text → statements. Never panics, never fails: what can't be read is [`StatementKind::Other`].

use std::collections::BTreeSet;

use super::lexer::{Kind, Strings, Token, stored, tokens};
use super::statement::{Parsed, Query, Statement, StatementKind};
use super::{bridge, control, copy, ddl, shape, walk};

/// The most tokens of a statement that the grammar is tried on.
const TOKENS_MAX: usize = 500_000;

/// Stack for each token: a chain of operators is a tree as deep as it is long, and it is dropped
/// recursively.
const STACK_BYTES_PER_TOKEN: usize = 512;

/// How deep strings in strings are searched for names.
const STRING_DEPTH_MAX: usize = 4;

/// Reads a text of any number of statements.
pub fn parse(text: &str, strings: Strings) -> Parsed {
    let tokens = tokens(text, strings);
    let parts = split(text, &tokens).into_iter();
    let statements = parts.map(|part| statement(text, part, strings)).collect();
    Parsed { statements }
}

/// The statements' tokens. Semicolons in parentheses and in SQL function bodies don't end one.
fn split<'a>(text: &str, tokens: &'a [Token]) -> Vec<&'a [Token]> {
    let mut parts = Vec::new();
    let (mut start, mut depth, mut body) = (0, 0_usize, 0_usize);
    for (index, token) in tokens.iter().enumerate() {
        match &token.kind {
            Kind::Word(word) if body > 0 => match word.as_str() {
                "case" => body += 1,
                "end" => body -= 1,
                _ => {}
            },
            Kind::Word(word) if word == "atomic" && in_routine(&tokens[start..index]) => body = 1,
            Kind::Symbol => match &text[token.span()] {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                ";" if depth == 0 && body == 0 => {
                    parts.push(&tokens[start..index]);
                    start = index + 1;
                }
                _ => {}
            },
            _ => {}
        }
    }
    parts.push(&tokens[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Whether `tokens` are `CREATE … FUNCTION | PROCEDURE … BEGIN`.
fn in_routine(tokens: &[Token]) -> bool {
    let word = |index: usize| match tokens.get(index) {
        Some(Token { kind: Kind::Word(word), .. }) => word.as_str(),
        _ => "",
    };
    let routine = (1..4).any(|index| matches!(word(index), "function" | "procedure"));
    word(0) == "create" && routine && word(tokens.len() - 1) == "begin"
}

fn statement(text: &str, tokens: &[Token], strings: Strings) -> Statement {
    let span = match (tokens.first(), tokens.last()) {
        (Some(first), Some(last)) => first.start..last.end,
        _ => 0..0,
    };
    let kind = kind(text, tokens);
    let code_in_strings = matches!(
        &kind,
        StatementKind::Other { .. } | StatementKind::Ddl(super::DdlStatement::Global { .. })
    );
    let mut identifiers = BTreeSet::new();
    let collector = Collector { all_strings: code_in_strings, depth: STRING_DEPTH_MAX, strings };
    collector.collect(text, tokens, &mut identifiers);
    Statement {
        span,
        call: called(text, tokens).map(Box::new),
        kind,
        identifiers: identifiers.into_iter().collect(),
        param_uses: param_uses(tokens),
    }
}

fn kind(text: &str, tokens: &[Token]) -> StatementKind {
    let first = match tokens.first() {
        Some(Token { kind: Kind::Word(word), .. }) => word.as_str(),
        Some(token) if &text[token.span()] == "(" => "select",
        _ => "",
    };
    let other = |fault| StatementKind::Other { verb: first.to_owned(), fault };
    match first {
        "select" | "values" | "table" | "with" | "insert" | "update" | "delete" | "merge" => {
            match query(text, tokens) {
                Ok(query) => StatementKind::Query(Box::new(query)),
                Err(fault) => other(Some(fault)),
            }
        }
        "explain" => match super::explain::read(text, tokens) {
            Some(explain) => explain,
            None => match super::prepared::explained(text, tokens) {
                Some(control) => StatementKind::Control(control),
                None => other(Some("EXPLAIN of something other than a query".to_owned())),
            },
        },
        "declare" => match super::cursors::declare(text, tokens) {
            Some(declare) => StatementKind::Declare(declare),
            None => other(Some("a cursor of a query that could not be read".to_owned())),
        },
        "fetch" | "move" | "close" => match super::cursors::used(text, tokens) {
            Some(used) => StatementKind::UseCursor(used),
            None => other(None),
        },
        "copy" => match copy::read(text, tokens) {
            Some(copy) => StatementKind::Copy(copy),
            None => other(Some("COPY in a form that is not known".to_owned())),
        },
        _ => match control::read(text, tokens) {
            Some(control) => StatementKind::Control(control),
            None => match ddl::read(text, tokens) {
                Some(ddl) => StatementKind::Ddl(ddl),
                None => other(None),
            },
        },
    }
}

/// What `CALL f(…)` calls, read as `SELECT f(…)`. Its places are not those of the text.
fn called(text: &str, statement: &[Token]) -> Option<Query> {
    let [Token { kind: Kind::Word(word), .. }, rest @ ..] = statement else { return None };
    let (first, last) = (rest.first()?, rest.last()?);
    if word != "call" {
        return None;
    }
    let select = format!("SELECT {}", text.get(first.start..last.end)?);
    query(&select, &tokens(&select, Strings::Standard)).ok()
}

/// Reads one query.
///
/// # Errors
/// Why it could not be read.
pub(super) fn query(text: &str, tokens: &[Token]) -> Result<Query, String> {
    if tokens.len() > TOKENS_MAX {
        return Err(format!("more than {TOKENS_MAX} tokens"));
    }
    let read = || {
        let (ast, removed) = bridge::parse(text, tokens)?;
        let mut query = walk::query(&ast)?;
        query.layout = super::insert::layout(text, tokens);
        query.conflict = query
            .layout
            .as_ref()
            .filter(|it| it.conflict)
            .and_then(|layout| super::conflict::layout(text, tokens, layout).map(Box::new));
        query.update = super::update::layout(text, tokens).map(Box::new);
        query.merged = super::merge::source(text, tokens);
        query.features.only = removed.only;
        query.features.clock_word = tokens.iter().any(is_clock_word);
        query.columns.rows = names_row(&query);
        query.columns.all = has_wildcard(text, tokens) || query.columns.rows;
        let features = &query.features;
        // Rows that are locked are only put into their order.
        let single = features.locking || super::derived::are_all_derived(&query.levels);
        if single && !features.set_operation && !features.cte && !features.window {
            let (places, aliases) = (&query.columns.places, &query.columns.aliases);
            query.shape = shape::shape(text, tokens, places, aliases).map(Box::new);
        }
        Ok(query)
    };
    let stack = tokens.len() * STACK_BYTES_PER_TOKEN + (1 << 20);
    stacker::maybe_grow(stack, stack * 2, read)
}

/// Whether a `*` stands for columns: not in `count(*)`, and not before an operand.
fn has_wildcard(text: &str, tokens: &[Token]) -> bool {
    let symbol = |index: usize, symbol: &str| {
        tokens.get(index).is_some_and(|t| t.kind == Kind::Symbol && &text[t.span()] == symbol)
    };
    let ends = |index: usize| match tokens.get(index).map(|token| &token.kind) {
        None => true,
        Some(Kind::Symbol) => [",", ")", ";"].iter().any(|end| symbol(index, end)),
        Some(Kind::Word(word)) => AFTER_COLUMNS.contains(&word.as_str()),
        Some(_) => false,
    };
    let wildcard = |(index, token): (usize, &Token)| match &token.kind {
        Kind::Word(word) => word == "table" && index == 0 || word == "natural",
        Kind::Symbol if symbol(index, "*") => {
            let counts = index > 0 && symbol(index - 1, "(") && symbol(index + 1, ")");
            ends(index + 1) && !counts
        }
        _ => false,
    };
    let table = |pair: &[Token]| {
        pair[1].kind == Kind::Word("table".to_owned())
            && (&text[pair[0].span()] == "("
                || matches!(&pair[0].kind, Kind::Word(w) if SET_WORDS.contains(&w.as_str())))
    };
    tokens.iter().enumerate().any(wildcard) || tokens.windows(2).any(table)
}

/// What can stand behind the columns of a SELECT.
const AFTER_COLUMNS: [&str; 16] = [
    "from",
    "where",
    "group",
    "having",
    "window",
    "union",
    "intersect",
    "except",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "into",
    "as",
    "is",
];
/// What can stand before a TABLE that is a query.
const SET_WORDS: [&str; 4] = ["union", "intersect", "except", "all"];

/// Whether what stands as a column may be a whole row: it has the name of a table.
fn names_row(query: &Query) -> bool {
    let tables = query.levels.iter().flat_map(|level| &level.tables);
    tables.filter_map(|table| table.alias.as_ref()).any(|name| query.columns.names.contains(name))
}

/// A string that dates take for the present.
fn is_clock_word(token: &Token) -> bool {
    let Kind::String(value) = &token.kind else { return false };
    let words = ["now", "today", "tomorrow", "yesterday"];
    value.len() < 64
        && value
            .split(|c: char| !c.is_ascii_alphabetic())
            .any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
}

/// Finds all identifiers, also of code in strings.
#[derive(Clone, Copy)]
struct Collector {
    all_strings: bool,
    depth: usize,
    strings: Strings,
}

impl Collector {
    fn collect(self, text: &str, tokens: &[Token], identifiers: &mut BTreeSet<String>) {
        for token in tokens {
            match &token.kind {
                Kind::Word(name) | Kind::Quoted(name) if !identifiers.contains(name.as_str()) => {
                    identifiers.insert(stored(name.clone()));
                }
                Kind::Odd => {
                    identifiers.insert(UNKNOWN.to_owned());
                }
                Kind::String(body)
                    if self.depth > 0
                        && (self.all_strings || text[token.start..].starts_with('$')) =>
                {
                    let inner = Self { all_strings: true, depth: self.depth - 1, ..self };
                    inner.collect(body, &super::lexer::tokens(body, self.strings), identifiers);
                }
                _ => {}
            }
        }
    }
}

/// Stands in [`Statement::identifiers`] for a name that could not be derived.
const UNKNOWN: &str = "";

impl Statement {
    /// Whether the statement names `name`, or may do so in a way that can't be read.
    pub fn may_name(&self, name: &str) -> bool {
        self.has(name) || self.has(UNKNOWN)
    }

    /// Whether the identifier or keyword `name` stands in the statement.
    pub fn has(&self, name: &str) -> bool {
        self.identifiers.binary_search_by(|probe| probe.as_str().cmp(name)).is_ok()
    }
}

fn param_uses(tokens: &[Token]) -> Vec<u16> {
    let mut uses: Vec<u16> = Vec::new();
    for token in tokens {
        let Kind::Param(number @ 1..) = token.kind else { continue };
        let index = usize::from(number) - 1;
        if uses.len() <= index {
            uses.resize(index + 1, 0);
        }
        uses[index] = uses[index].saturating_add(1);
    }
    uses
}
