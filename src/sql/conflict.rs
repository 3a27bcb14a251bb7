//! Where the parts of ON CONFLICT stand in the text of an INSERT, for what conflicts with rows of other
//! nodes.

use std::ops::Range;

use super::cursor::{Cursor, comma_parts};
use super::insert::InsertLayout;
use super::lexer::Token;
use super::update::{assignments, bytes, clause};

/// The places of the parts behind an INSERT's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictLayout {
    /// The name by which columns of the table are qualified, where it is not its own.
    pub alias: Option<String>,
    /// The columns that conflict, as stored; none where any may.
    pub columns: Vec<String>,
    /// What DO UPDATE does; `None` for DO NOTHING.
    pub update: Option<ConflictUpdate>,
    /// RETURNING and its list.
    pub returning: Option<Range<usize>>,
}

/// DO UPDATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictUpdate {
    /// What stands behind SET.
    pub set: Range<usize>,
    /// The same by column: what is assigned to it.
    pub assignments: Vec<(String, String)>,
    /// The condition, without WHERE.
    pub condition: Option<Range<usize>>,
}

/// Reads what stands behind the rows; `None` where it is of another form.
pub(super) fn layout(
    text: &str,
    tokens: &[Token],
    insert: &InsertLayout,
) -> Option<ConflictLayout> {
    let mut head = Cursor::new(text, tokens);
    head.at = 2;
    head.name()?;
    let alias = if head.eat("as") { Some(head.ident()?) } else { None };
    let mut cursor = Cursor::new(text, tokens);
    cursor.at = tokens.partition_point(|token| token.start < insert.source.end);
    if !cursor.eat_all(&["on", "conflict"]) {
        return None;
    }
    let columns = if cursor.symbol_ahead(0, "(") { cursor.ident_list()? } else { Vec::new() };
    let mut layout = ConflictLayout { alias, columns, update: None, returning: None };
    if cursor.eat_all(&["do", "update", "set"]) {
        let set = clause(&mut cursor, &["where", "returning"]);
        let mut all = Vec::new();
        for part in comma_parts(text, set) {
            all.extend(assignments(text, part)?);
        }
        let condition = if cursor.eat("where") {
            Some(bytes(clause(&mut cursor, &["returning"]))?)
        } else {
            None
        };
        layout.update = Some(ConflictUpdate { set: bytes(set)?, assignments: all, condition });
    } else if !cursor.eat_all(&["do", "nothing"]) {
        return None;
    }
    if cursor.word() == Some("returning") {
        layout.returning = Some(cursor.token()?.start..tokens.last()?.end);
        cursor.at = tokens.len();
    }
    cursor.at_end().then_some(layout)
}

#[cfg(test)]
mod tests {
    use super::super::{Strings, lexer};
    use super::{ConflictLayout, layout};

    fn read(text: &str) -> Option<ConflictLayout> {
        let tokens = lexer::tokens(text, Strings::Standard);
        let insert = super::super::insert::layout(text, &tokens).unwrap();
        layout(text, &tokens, &insert)
    }

    #[test]
    fn the_parts_of_on_conflict_are_found_where_they_stand() {
        let text = "INSERT INTO a.t AS u (x) VALUES (1) ON CONFLICT (\"X\", y) DO UPDATE \
            SET n = u.n + 1, (a, b) = (1, excluded.b) WHERE u.n < 3 RETURNING *, x";
        let found = read(text).unwrap();
        assert_eq!((found.alias.as_deref(), &*found.columns.join(" ")), (Some("u"), "X y"));
        let update = found.update.unwrap();
        assert_eq!(&text[update.set], "n = u.n + 1, (a, b) = (1, excluded.b)");
        let parts = update.assignments.iter().map(|(column, value)| (&**column, &**value));
        let expected = [("n", "u.n + 1"), ("a", "1"), ("b", "excluded.b")];
        assert_eq!(parts.collect::<Vec<_>>(), expected);
        assert_eq!(&text[update.condition.unwrap()], "u.n < 3");
        assert_eq!(&text[found.returning.unwrap()], "RETURNING *, x");
        let found = read("INSERT INTO t VALUES (1), (2) ON CONFLICT DO NOTHING").unwrap();
        assert_eq!((found.columns.len(), found.update, found.returning), (0, None, None));
    }

    #[test]
    fn other_forms_have_no_layout() {
        for conflict in [
            "ON CONFLICT (lower(x)) DO NOTHING",
            "ON CONFLICT (x) WHERE y DO NOTHING",
            "ON CONFLICT ON CONSTRAINT c DO NOTHING",
            "RETURNING x",
        ] {
            assert_eq!(read(&format!("INSERT INTO t VALUES (1) {conflict}")), None, "{conflict}");
        }
    }
}
