//! Parts of a write that can run before it: queries of WITH, and queries in parentheses. Read from
//! tokens; what is not plainly of a known form has no such parts.

use std::ops::Range;

use super::cursor::Cursor;
use super::lexer::{Strings, Token, tokens};
use super::statement::{Query, Source};

/// What can run first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Early {
    /// Nothing: the same statement, its WITH behind INSERT INTO.
    Moved(String),
    /// A query of WITH.
    With(EarlyWith),
    /// Queries in parentheses, if they stand on their own.
    Inside(Vec<EarlyQuery>),
}

/// A query of WITH that runs first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlyWith {
    /// What runs.
    pub query: String,
    /// What goes from the text.
    pub removed: Range<usize>,
    /// Where its rows are used.
    pub used: Vec<EarlyUse>,
    /// The names that are written for its columns.
    pub columns: Vec<String>,
    /// Where it stands, if it writes.
    pub write: Option<Range<usize>>,
}

/// A place in FROM that takes rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlyUse {
    /// What stands there.
    pub span: Range<usize>,
    /// The alias to write behind the rows, where there is none.
    pub alias: Option<String>,
}

/// A query in parentheses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlyQuery {
    /// Without the parentheses.
    pub span: Range<usize>,
    /// IN stands before it.
    pub list: bool,
}

/// What of the statement `text` can run first.
pub fn early(text: &str, strings: Strings, query: &Query) -> Option<Early> {
    let tokens = tokens(text, strings);
    let reader = Reader { text, tokens: &tokens, query };
    if reader.cursor(0).word() == Some("with") {
        return reader.with();
    }
    let inside = reader.inside();
    (!inside.is_empty()).then_some(Early::Inside(inside))
}

/// What FOR UPDATE and its like lock in the outermost query of `text`: the names behind OF, none where that
/// is all of FROM; `None` where another query locks, too.
pub fn locked(text: &str, strings: Strings) -> Option<Vec<String>> {
    let tokens = tokens(text, strings);
    let (mut cursor, mut depth, mut names) = (Cursor::new(text, &tokens), 0_usize, Vec::new());
    let mut all = false;
    while !cursor.at_end() {
        depth += usize::from(cursor.symbol_ahead(0, "("));
        depth -= usize::from(cursor.symbol_ahead(0, ")")).min(depth);
        let locks = matches!(cursor.word_ahead(1), Some("update" | "no" | "share" | "key"));
        if !(cursor.eat("for") && locks) {
            cursor.at += 1;
            continue;
        }
        if depth > 0 {
            return None;
        }
        while cursor.eat_any(&["no", "key", "update", "share"]) {}
        if !cursor.eat("of") {
            all = true;
            continue;
        }
        names.push(cursor.name()?.name);
        while cursor.eat_symbol(",") {
            names.push(cursor.name()?.name);
        }
    }
    if all {
        names.clear();
    }
    Some(names)
}

/// Functions that give another value each time.
pub const VOLATILE: [&str; 4] = ["clock_timestamp", "gen_random_uuid", "pg_backend_pid", "random"];

struct Reader<'a> {
    text: &'a str,
    tokens: &'a [Token],
    query: &'a Query,
}

/// A query of WITH, as indices of tokens.
struct Definition {
    name: String,
    columns: Vec<String>,
    all: Range<usize>,
    body: Range<usize>,
}

impl<'a> Reader<'a> {
    fn cursor(&self, at: usize) -> Cursor<'a> {
        Cursor { text: self.text, tokens: self.tokens, at }
    }

    fn bytes(&self, range: &Range<usize>) -> Option<Range<usize>> {
        Some(self.tokens.get(range.start)?.start..self.tokens.get(range.end.checked_sub(1)?)?.end)
    }

    fn written(&self, range: &Range<usize>) -> Option<&'a str> {
        self.text.get(self.bytes(range)?)
    }

    fn with(&self) -> Option<Early> {
        let mut cursor = self.cursor(1);
        let recursive = cursor.eat("recursive");
        let (definitions, main) = definitions(cursor)?;
        let word = |at: usize| self.cursor(at).word();
        let writes = |definition: &Definition| {
            matches!(word(definition.body.start), Some("insert" | "update" | "delete"))
        };
        // A query before a write must not see what that does.
        if word(main) == Some("insert") && !definitions.iter().any(writes) {
            return self.moved(main).map(Early::Moved);
        }
        let definition = definitions.first()?;
        let same = |other: &Definition| other.name == definition.name;
        if definitions.iter().filter(|it| same(it)).count() > 1 {
            return None;
        }
        let write = if writes(definition) { self.bytes(&definition.body) } else { None };
        let name = self.written(&(definition.all.start..definition.all.start + 1))?;
        let query = if !recursive || write.is_some() {
            self.written(&definition.body)?.to_owned()
        } else {
            format!("WITH RECURSIVE {} SELECT * FROM {name}", self.written(&definition.all)?)
        };
        // Else it would run itself.
        let main_text = self.text.get(self.tokens[0].start..)?;
        if query.len() >= main_text.len() {
            return None;
        }
        let start = |at: usize| self.tokens.get(at).map(|token| token.start);
        let removed = if definitions.len() == 1 {
            start(0)?..start(main)?
        } else {
            start(definition.all.start)?..start(definitions[1].all.start)?
        };
        let columns = definition.columns.clone();
        Some(Early::With(EarlyWith {
            query,
            removed,
            used: self.used(&definition.name, &definition.all)?,
            columns,
            write,
        }))
    }

    /// Where rows of `name` are used; not in its own definition.
    fn used(&self, name: &str, own: &Range<usize>) -> Option<Vec<EarlyUse>> {
        let own = self.bytes(own)?;
        let mut used = Vec::new();
        // The target of a write is a table, whatever WITH calls so.
        let read = self
            .query
            .levels
            .iter()
            .flat_map(|level| level.tables.iter().skip(usize::from(level.target.is_some())));
        for table in read {
            let Source::Cte(at) = &table.source else { continue };
            if at.name == name && !own.contains(&at.span.start) {
                let alias = (!table.aliased).then(|| name.to_owned());
                used.push(EarlyUse { span: at.span.clone(), alias });
            }
        }
        Some(used)
    }

    /// `WITH … INSERT INTO t SELECT` as `INSERT INTO t WITH … SELECT`.
    fn moved(&self, main: usize) -> Option<String> {
        let rest = self.tokens.get(main..)?;
        let layout = super::insert::layout(self.text, rest)?;
        if !layout.rows.is_empty() || layout.default_values {
            return None;
        }
        let with = self.text.get(self.tokens[0].start..rest.first()?.start)?;
        let head = self.text.get(rest.first()?.start..layout.source.start)?;
        Some(format!("{head}{with}{}", self.text.get(layout.source.start..)?))
    }

    /// The outermost queries in parentheses.
    fn inside(&self) -> Vec<EarlyQuery> {
        let mut found = Vec::new();
        let mut cursor = self.cursor(0);
        while !cursor.at_end() {
            let query = cursor.symbol_ahead(0, "(")
                && matches!(cursor.word_ahead(1), Some("select" | "with"));
            if !query {
                cursor.at += 1;
                continue;
            }
            let at = cursor.at;
            if cursor.parenthesized().is_none() {
                break;
            }
            let list = at > 0 && self.cursor(at - 1).word() == Some("in");
            let words = (at + 1..cursor.at - 1).filter(|at| self.cursor(*at).word().is_some());
            let words: Vec<(usize, &str)> =
                words.map(|at| (at, self.cursor(at).word().unwrap_or_default())).collect();
            let mut from = words.iter().filter(|(_, word)| *word == "from");
            // Rows that were put there have no FROM but one of VALUES.
            let reads = from.next().is_some_and(|(at, _)| {
                let next = self.cursor(at + 1);
                from.next().is_some()
                    || !(next.symbol_ahead(0, "(") && next.word_ahead(1) == Some("values"))
            });
            let runs = reads || words.iter().any(|(_, word)| VOLATILE.contains(word));
            if let Some(span) = self.bytes(&(at + 1..cursor.at - 1)).filter(|_| runs) {
                found.push(EarlyQuery { span, list });
            }
        }
        found
    }
}

/// The definitions, and where the statement behind them starts.
fn definitions(mut cursor: Cursor<'_>) -> Option<(Vec<Definition>, usize)> {
    let mut found = Vec::new();
    loop {
        let start = cursor.at;
        let name = cursor.ident()?;
        let columns = match cursor.word() {
            Some("as") => Vec::new(),
            _ => cursor.ident_list()?,
        };
        if !cursor.eat("as") {
            return None;
        }
        cursor.eat("not");
        cursor.eat("materialized");
        let body = cursor.at + 1;
        cursor.parenthesized()?;
        found.push(Definition { name, columns, all: start..cursor.at, body: body..cursor.at - 1 });
        if !cursor.eat_symbol(",") {
            return Some((found, cursor.at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{StatementKind, parse};
    use super::{Early, Strings, early};

    fn read(text: &str) -> Option<Early> {
        let parsed = parse(text, Strings::Standard);
        let StatementKind::Query(query) = &parsed.statements[0].kind else { return None };
        early(text, Strings::Standard, query)
    }

    #[test]
    fn a_query_of_with_is_taken_out_with_all_its_uses() {
        let text =
            "WITH a AS (SELECT 1 FROM t), b (x) AS (SELECT 2) UPDATE u SET v = x FROM a, b AS c";
        let Some(Early::With(with)) = read(text) else { panic!("{:?}", read(text)) };
        assert_eq!(with.query, "SELECT 1 FROM t");
        assert_eq!(&text[with.removed], "a AS (SELECT 1 FROM t), ");
        let used = with.used.iter().map(|it| (&text[it.span.clone()], it.alias.as_deref()));
        assert_eq!(used.collect::<Vec<_>>(), [("a", Some("a"))]);
    }

    #[test]
    fn a_target_is_no_query_of_with() {
        let Some(Early::With(with)) = read("WITH t AS (SELECT 1) DELETE FROM t") else { panic!() };
        assert_eq!(with.used, []);
    }

    #[test]
    fn what_writes_runs_in_its_order() {
        let text = "WITH a AS (SELECT 1), b AS (DELETE FROM t) INSERT INTO u SELECT * FROM a";
        let Some(Early::With(with)) = read(text) else { panic!() };
        assert_eq!((&*with.query, with.write), ("SELECT 1", None));
        let text = "WITH b AS (DELETE FROM t RETURNING *), a AS (SELECT 1) SELECT * FROM a, b";
        let Some(Early::With(with)) = read(text) else { panic!() };
        assert_eq!(with.query, "DELETE FROM t RETURNING *");
        assert_eq!(with.write.map(|body| &text[body]), Some("DELETE FROM t RETURNING *"));
    }

    #[test]
    fn with_goes_behind_insert_into() {
        let text = "WITH a AS (SELECT 1) INSERT INTO t (x) SELECT * FROM a RETURNING x";
        let moved = "INSERT INTO t (x) WITH a AS (SELECT 1) SELECT * FROM a RETURNING x";
        assert_eq!(read(text), Some(Early::Moved(moved.to_owned())));
    }

    #[test]
    fn what_is_locked_is_said_behind_of() {
        let locked = |text| super::locked(text, Strings::Standard);
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let two = "SELECT substring(x FOR 2) FROM a, b FOR NO KEY UPDATE OF a, \"B\" NOWAIT FOR SHARE OF c";
        assert_eq!(locked(two), names(&["a", "B", "c"]));
        assert_eq!(locked("SELECT 1 FROM a FOR UPDATE OF a FOR KEY SHARE SKIP LOCKED"), names(&[]));
        assert_eq!(locked("SELECT 1 FROM (SELECT 2 FROM b FOR UPDATE) a FOR SHARE OF a"), None);
    }

    #[test]
    fn outermost_queries_are_found_and_rows_are_not() {
        let text = "DELETE FROM t WHERE a IN (SELECT b FROM u WHERE c = (SELECT 1)) AND d > (SELECT max(e) FROM u)";
        let Some(Early::Inside(inside)) = read(text) else { panic!() };
        let found = inside.iter().map(|it| (&text[it.span.clone()], it.list));
        let expected =
            [("SELECT b FROM u WHERE c = (SELECT 1)", true), ("SELECT max(e) FROM u", false)];
        assert_eq!(found.collect::<Vec<_>>(), expected);
        assert_eq!(read("DELETE FROM t WHERE a IN (SELECT * FROM (VALUES (1)) AS v)"), None);
    }
}
