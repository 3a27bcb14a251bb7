//! CREATE, REFRESH, DROP and ALTER … OWNER of materialized views, read by hand: the pieces from which
//! the statements of a kept one are put together.

use super::cursor::Cursor;
use super::lexer::{Kind, Strings, tokens};

/// A statement about materialized views that is more than it says where their rows are on several
/// nodes. Names are as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Materialized {
    /// CREATE
    Create(Box<MaterializedQuery>),
    /// REFRESH, with data
    Refresh {
        /// The view.
        name: String,
        /// The statement.
        text: String,
    },
    /// DROP
    Drop {
        /// The views.
        names: Vec<String>,
        /// The statement.
        text: String,
    },
    /// ALTER … OWNER TO
    Owner {
        /// The view.
        name: String,
        /// The new owner.
        owner: String,
        /// The statement.
        text: String,
    },
}

/// What CREATE MATERIALIZED VIEW says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaterializedQuery {
    /// The view.
    pub name: String,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// What stands between IF NOT EXISTS and AS: name, columns, storage.
    pub head: String,
    /// Names of columns in parentheses, or nothing.
    pub columns: String,
    /// The query.
    pub query: String,
    /// WITH NO DATA
    pub no_data: bool,
}

/// Reads one statement; `None` if it is none of these.
pub fn materialized(text: &str, strings: Strings) -> Option<Materialized> {
    let all = tokens(text, strings);
    let mut cursor = Cursor::new(text, &all);
    let verb = cursor.word()?;
    cursor.at += 1;
    let owned = verb == "alter" && cursor.eat("table");
    if !owned && !cursor.eat_all(&["materialized", "view"]) {
        return None;
    }
    let text = cursor.slice(all.first()?.start..all.last()?.end).to_owned();
    match verb {
        "create" => created(&mut cursor).map(|it| Materialized::Create(Box::new(it))),
        "refresh" => {
            cursor.eat("concurrently");
            let name = name(&mut cursor)?;
            cursor.eat_all(&["with", "data"]);
            cursor.at_end().then_some(Materialized::Refresh { name, text })
        }
        "drop" => {
            cursor.eat_all(&["if", "exists"]);
            let mut names = vec![name(&mut cursor)?];
            while cursor.eat_symbol(",") {
                names.push(name(&mut cursor)?);
            }
            cursor.eat_any(&["cascade", "restrict"]);
            cursor.at_end().then_some(Materialized::Drop { names, text })
        }
        "alter" => {
            cursor.eat_all(&["if", "exists"]);
            let name = name(&mut cursor)?;
            let owner = cursor.eat_all(&["owner", "to"]).then(|| cursor.token()).flatten()?;
            let owner = cursor.slice(owner.span()).to_owned();
            cursor.at += 1;
            cursor.at_end().then_some(Materialized::Owner { name, owner, text })
        }
        _ => None,
    }
}

fn name(cursor: &mut Cursor<'_>) -> Option<String> {
    let name = cursor.name()?;
    Some(cursor.slice(name.span).to_owned())
}

fn created(cursor: &mut Cursor<'_>) -> Option<MaterializedQuery> {
    let if_not_exists = cursor.eat_all(&["if", "not", "exists"]);
    let head = cursor.token()?.start;
    let name = name(cursor)?;
    let mut columns = String::new();
    if let Some(open) = cursor.token().filter(|_| cursor.symbol_ahead(0, "(")) {
        cursor.parenthesized()?;
        let close = cursor.tokens.get(cursor.at.checked_sub(1)?)?.end;
        cursor.slice(open.start..close).clone_into(&mut columns);
    }
    while !cursor.at_end() && cursor.word() != Some("as") {
        if cursor.symbol_ahead(0, "(") {
            cursor.parenthesized()?;
        } else {
            cursor.at += 1;
        }
    }
    let head = cursor.slice(head..cursor.token()?.start).trim_end().to_owned();
    cursor.at += 1;
    let query = cursor.tokens.get(cursor.at..)?;
    let word = |back: usize| {
        let token = query.len().checked_sub(back).and_then(|at| query.get(at));
        token.and_then(|token| match &token.kind {
            Kind::Word(word) => Some(word.as_str()),
            _ => None,
        })
    };
    let no_data = (word(3), word(2), word(1)) == (Some("with"), Some("no"), Some("data"));
    let with_data = (word(2), word(1)) == (Some("with"), Some("data"));
    let ending = if no_data { 3 } else { 2 * usize::from(with_data) };
    let (first, last) = (query.first()?, query.get(query.len().checked_sub(ending + 1)?)?);
    let query = cursor.slice(first.start..last.end).to_owned();
    Some(MaterializedQuery { name, if_not_exists, head, columns, query, no_data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Materialized> {
        materialized(text, Strings::Standard)
    }

    #[test]
    fn a_view_is_its_head_and_its_query() {
        let text = "CREATE MATERIALIZED VIEW IF NOT EXISTS s.\"V\" (a, b) USING heap \
            WITH (fillfactor = 70) AS (SELECT 1 AS x, cast(2 AS int)) WITH NO DATA";
        let Some(Materialized::Create(made)) = read(text) else { panic!("{text}") };
        assert_eq!(made.name, "s.\"V\"");
        assert_eq!(made.head, "s.\"V\" (a, b) USING heap WITH (fillfactor = 70)");
        assert_eq!(made.columns, "(a, b)");
        assert_eq!(made.query, "(SELECT 1 AS x, cast(2 AS int))");
        assert!(made.if_not_exists && made.no_data);
        let text = "create materialized view v as table o with data";
        let Some(Materialized::Create(made)) = read(text) else { panic!("{text}") };
        assert_eq!((made.head.as_str(), made.query.as_str()), ("v", "table o"));
        assert!(made.columns.is_empty() && !made.if_not_exists && !made.no_data);
    }

    #[test]
    fn what_is_done_to_views_names_them() {
        let text = "REFRESH MATERIALIZED VIEW CONCURRENTLY s.v WITH DATA";
        let refresh = Materialized::Refresh { name: "s.v".to_owned(), text: text.to_owned() };
        assert_eq!(read(text), Some(refresh));
        assert_eq!(read("REFRESH MATERIALIZED VIEW v WITH NO DATA"), None);
        let text = "DROP MATERIALIZED VIEW IF EXISTS a, s.b CASCADE";
        let names = vec!["a".to_owned(), "s.b".to_owned()];
        assert_eq!(read(text), Some(Materialized::Drop { names, text: text.to_owned() }));
        let text = "ALTER MATERIALIZED VIEW v OWNER TO \"Ann\"";
        let (name, owner) = ("v".to_owned(), "\"Ann\"".to_owned());
        assert_eq!(read(text), Some(Materialized::Owner { name, owner, text: text.to_owned() }));
        assert_eq!(read("ALTER MATERIALIZED VIEW v RENAME TO w"), None);
        assert_eq!(read("DROP VIEW v"), None);
    }
}
