//! Rows that are known, as SQL in the place of what gave them.

use std::ops::Range;

use super::pull::{select, spliced};
use crate::router::{Params, PullTable};
use crate::sql::Ident;

/// The query of a table's rows that can count.
pub fn table_rows(text: &str, table: &PullTable, params: &Params<'_>) -> String {
    select(text, table, params).0
}

/// A text with other text in places of it.
pub fn replaced(text: &str, edits: Vec<(Range<usize>, String)>) -> String {
    spliced(text, edits)
}

/// Rows, each `(…)`, as a query with columns of these names and types.
pub fn given_rows(names: &[String], kinds: &[String], rows: &[String]) -> String {
    // Rows without columns count, too.
    if kinds.is_empty() {
        return format!("SELECT FROM pg_catalog.generate_series(1, {})", rows.len());
    }
    let mut columns: Vec<_> = names.iter().map(|name| Ident::new(name).to_string()).collect();
    let mut list = "*".to_owned();
    if kinds.iter().any(|kind| kind.contains('(')) {
        // VALUES with a NULL in them have types without lengths and scales.
        let placed = |at: usize| format!("\"{at}\"");
        let cast = columns.iter().zip(kinds).enumerate();
        let cast =
            cast.map(|(at, (name, kind))| format!("CAST({} AS {kind}) AS {name}", placed(at)));
        list = cast.collect::<Vec<_>>().join(", ");
        columns = (0..kinds.len()).map(placed).collect();
    }
    let (some, none) = if rows.is_empty() {
        let nulls: Vec<_> = kinds.iter().map(|kind| format!("CAST(NULL AS {kind})")).collect();
        // Twice: the values of a single row are taken for constants, and change how columns are described.
        let nulls = nulls.join(", ");
        (format!("({nulls}), ({nulls})"), " WHERE false")
    } else {
        (rows.join(", "), "")
    };
    format!("SELECT {list} FROM (VALUES {some}) AS given ({}){none}", columns.join(", "))
}

/// Rows of one column, each `(…)`, as the list of IN.
pub fn given_list(rows: &[String]) -> String {
    let value = |row: &String| {
        let inside = row.strip_prefix('(').and_then(|row| row.strip_suffix(')'));
        inside.unwrap_or(row).to_owned()
    };
    rows.iter().map(value).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{given_list, given_rows};

    #[test]
    fn no_rows_have_columns_too() {
        let (names, kinds) = (vec!["a b".to_owned()], vec!["bigint".to_owned()]);
        let null = "(CAST(NULL AS bigint))";
        let none = format!("SELECT * FROM (VALUES {null}, {null}) AS given (\"a b\") WHERE false");
        assert_eq!(given_rows(&names, &kinds, &[]), none);
        let (names, kinds) =
            (["a", "a"].map(str::to_owned), ["text", "numeric(8,2)"].map(str::to_owned));
        let cast = "SELECT CAST(\"0\" AS text) AS \"a\", CAST(\"1\" AS numeric(8,2)) AS \"a\" FROM (VALUES (1)) AS given (\"0\", \"1\")";
        assert_eq!(given_rows(&names, &kinds, &["(1)".to_owned()]), cast);
        let bare = ["()".to_owned(), "()".to_owned()];
        let two = "SELECT FROM pg_catalog.generate_series(1, 2)";
        assert_eq!(given_rows(&[], &[], &bare), two);
        let one = ["(CAST('1' AS bigint))".to_owned(), "(NULL)".to_owned()];
        assert_eq!(given_list(&one), "CAST('1' AS bigint), NULL");
    }
}
