//! UPDATE with FROM of a reference table: whether what its rows get depends on which of several they meet.

use super::rekey::named;
use crate::router::Once;
use crate::sql::Ident;

/// What locks the rows of the statement `text`, and what asks for one that may get this or that: no row
/// says that all nodes do the same.
pub fn once(text: &str, once: &Once) -> [String; 2] {
    let part = |span: &std::ops::Range<usize>| text.get(span.clone()).unwrap_or_default();
    let layout = &once.layout;
    let alias = Ident::new(layout.alias.as_ref().unwrap_or(&once.table.name)).to_string();
    let from = layout.from.as_ref().map_or("", part);
    let condition = layout.condition.as_ref().map_or("true", part);
    let target = named(&once.table, layout.alias.as_ref());
    let joined = format!("SELECT FROM {target}, {from} WHERE {condition}");
    let values: Vec<&str> = layout.assignments.iter().map(|(_, value)| value.as_str()).collect();
    let values = values.into_iter().filter(|value| !value.eq_ignore_ascii_case("default"));
    let row =
        format!("ROW({})::pg_catalog.text COLLATE \"C\"", values.collect::<Vec<_>>().join(", "));
    let differs = if once.returns {
        String::new()
    } else {
        format!(" AND pg_catalog.min({row}) <> pg_catalog.max({row})")
    };
    [
        format!("{joined} FOR UPDATE OF {alias}"),
        format!("{joined} GROUP BY {alias}.ctid HAVING pg_catalog.count(*) > 1{differs} LIMIT 1"),
    ]
}
