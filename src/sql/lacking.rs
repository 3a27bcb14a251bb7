//! What the grammar lacks as a whole clause or a form of its own: SEARCH and CYCLE, ROWS FROM, SQL/XML.
//! Nothing of it says where rows are.

use sqlparser::tokenizer::Token as Grammar;

use super::cursor::Cursor;
use super::lexer::{Kind, Token};

/// Words that other databases reserve, and PostgreSQL does not.
const ORDINARY: [&str; 17] = [
    "anti",
    "asof",
    "cluster",
    "connect",
    "distribute",
    "final",
    "format",
    "global",
    "minus",
    "pivot",
    "prewhere",
    "qualify",
    "sample",
    "semi",
    "settings",
    "sort",
    "top",
];

/// What stands in the place of tokens.
#[derive(Debug, PartialEq)]
pub(super) enum Instead {
    /// Nothing.
    Nothing,
    /// One token.
    One(Grammar),
}

/// Whether the statement calls a function of SQL/XML: asked once, since each word AS would ask.
pub(super) fn has_xml(tokens: &[Token]) -> bool {
    tokens.iter().any(|token| matches!(&token.kind, Kind::Word(word) if word.starts_with("xml")))
}

/// Edits at the cursor, which moves past what is edited; `None` if nothing is.
pub(super) fn edit(cursor: &mut Cursor<'_>, has_xml: bool) -> Option<Instead> {
    let mut after = *cursor;
    let instead = edited(&mut after, has_xml)?;
    cursor.at = after.at;
    Some(instead)
}

fn edited(cursor: &mut Cursor<'_>, has_xml: bool) -> Option<Instead> {
    let here = cursor.word()?;
    let before = cursor.at.checked_sub(1).map(|at| Cursor { at, ..*cursor });
    let closed = before.is_some_and(|before| before.symbol_ahead(0, ")"));
    match here {
        "search" | "cycle" if closed => skip_search(cursor),
        "rows" if cursor.word_ahead(1) == Some("from") && cursor.symbol_ahead(2, "(") => {
            cursor.at += 2;
            Some(Instead::One(Grammar::make_word("unnest", None)))
        }
        word if ORDINARY.binary_search(&word).is_ok() && !cursor.symbol_ahead(1, "(") => {
            cursor.at += 1;
            Some(Instead::One(Grammar::make_word(word, Some('"'))))
        }
        "as" if closed && follows_using(cursor) => {
            cursor.at += 1;
            cursor.ident()?;
            Some(Instead::Nothing)
        }
        "name" | "document" | "content" | "as" | "passing" if has_xml => edit_xml(cursor, here),
        _ => None,
    }
}

/// Whether the cursor stands behind `USING (a, b)`: a name for these columns, which are columns of the
/// tables, too.
fn follows_using(cursor: &Cursor<'_>) -> bool {
    let mut at = cursor.at.saturating_sub(1);
    while at > 1 {
        at -= 1;
        let here = Cursor { at, ..*cursor };
        let kind = cursor.tokens.get(at).map(|token| &token.kind);
        if here.symbol_ahead(0, "(") {
            let before = Cursor { at: at - 1, ..*cursor };
            return before.word() == Some("using") && at + 2 < cursor.at;
        }
        if !matches!(kind, Some(Kind::Word(_) | Kind::Quoted(_))) && !here.symbol_ahead(0, ",") {
            return false;
        }
    }
    false
}

/// `a @@ ANY (…)`: the grammar takes few operators there. What stands for them compares nothing.
pub(super) fn is_odd_any(cursor: &Cursor<'_>) -> bool {
    let operator = |token: &Token| {
        let of = |byte: u8| b"~!@#^&|`?+-*/%<>=".contains(&byte);
        token.kind == Kind::Symbol && cursor.text[token.span()].bytes().all(of)
    };
    let plain = ["=", "<", ">", "<=", ">=", "<>", "!=", "~", "~*", "!~", "!~*", "~~", "~~*"];
    cursor.token().is_some_and(operator)
        && matches!(cursor.word_ahead(1), Some("any" | "all" | "some"))
        && cursor.symbol_ahead(2, "(")
        && !plain.iter().any(|plain| cursor.symbol_ahead(0, plain))
}

/// `SEARCH DEPTH FIRST BY a, b SET c`, `CYCLE a SET b [TO x DEFAULT y] USING c`: they add columns.
fn skip_search(cursor: &mut Cursor<'_>) -> Option<Instead> {
    if cursor.eat("search") {
        let first = cursor.eat_any(&["depth", "breadth"]) && cursor.eat_all(&["first", "by"]);
        first.then_some(())?;
        columns(cursor, "set")?;
        cursor.ident()?;
    }
    if cursor.eat("cycle") {
        columns(cursor, "set")?;
        while cursor.word() != Some("using") && !cursor.at_end() {
            cursor.at += 1;
        }
        cursor.at += 1;
        cursor.ident()?;
    }
    Some(Instead::Nothing)
}

/// `a, b …` up to `end`, which is eaten.
fn columns(cursor: &mut Cursor<'_>, end: &str) -> Option<()> {
    loop {
        cursor.ident()?;
        if cursor.eat(end) {
            return Some(());
        }
        if !cursor.eat_symbol(",") {
            return None;
        }
    }
}

/// `xmlelement(NAME a, xmlattributes(b AS c))`, `xmlforest(a AS b)`, `xmlserialize(CONTENT a AS text)`,
/// `xmlexists(a PASSING b)`.
fn edit_xml(cursor: &mut Cursor<'_>, here: &str) -> Option<Instead> {
    let within = call_around(cursor).filter(|call| call.starts_with("xml"))?;
    match (here, within) {
        ("name", "xmlelement" | "xmlpi") => {
            cursor.at += 1;
            cursor.ident()?;
            cursor.eat_symbol(",");
            Some(Instead::Nothing)
        }
        ("document" | "content", "xmlparse" | "xmlserialize") => {
            cursor.at += 1;
            Some(Instead::Nothing)
        }
        ("as", "xmlattributes" | "xmlforest") => {
            cursor.at += 1;
            cursor.ident()?;
            Some(Instead::Nothing)
        }
        ("as", "xmlserialize") => {
            while !cursor.symbol_ahead(0, ")") && !cursor.at_end() {
                if cursor.symbol_ahead(0, "(") {
                    cursor.parenthesized()?;
                } else {
                    cursor.at += 1;
                }
            }
            Some(Instead::Nothing)
        }
        ("passing", "xmlexists") => {
            cursor.at += 1;
            cursor.eat_all(&["by", "ref"]);
            cursor.eat_all(&["by", "value"]);
            Some(Instead::One(Grammar::Comma))
        }
        _ => None,
    }
}

/// The word before the parenthesis that the cursor stands in.
fn call_around<'a>(cursor: &Cursor<'a>) -> Option<&'a str> {
    let mut depth = 0_usize;
    for at in (0..cursor.at).rev() {
        let here = Cursor { at, ..*cursor };
        depth += usize::from(here.symbol_ahead(0, ")"));
        if here.symbol_ahead(0, "(") {
            match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return Cursor { at: at.checked_sub(1)?, ..*cursor }.word(),
            }
        }
    }
    None
}

/// Whether PATH stands for itself: no type before a string.
pub(super) fn names_paths(tokens: &[Token]) -> bool {
    let table = |token: &Token| matches!(&token.kind, Kind::Word(word) if word == "xmltable");
    tokens.iter().any(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_casts_take_no_longer_each() {
        let row = format!("({})", vec!["CAST('2020-01-01' AS date)"; 16].join(", "));
        let text = format!("INSERT INTO t VALUES {}", vec![row; 2_000].join(", "));
        let started = tokio::time::Instant::now();
        let parsed = crate::sql::parse(&text, crate::sql::Strings::Standard);
        assert_eq!(parsed.statements.len(), 1);
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }

    #[test]
    fn words_are_sorted() {
        assert!(ORDINARY.is_sorted());
    }
}
