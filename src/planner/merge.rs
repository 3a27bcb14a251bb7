//! A MERGE with the rows of its source in the source's place.

use crate::router::{InsertRows, MergeWith};
use crate::sql::{Ident, InsertLayout, Literal, RowLayout, params_of};

/// The statement with these rows, which can be split by row as those of an INSERT. Each row has a
/// value for each of the columns, given with their types; all have the column's type, whichever of
/// them a node gets. Where a row of the source is its one value, as a function's is, it is still that.
pub fn merge(
    merge: &MergeWith,
    columns: &[(String, String)],
    rows: &[Vec<Option<String>>],
    scalar: bool,
) -> InsertRows {
    let mut text = merge.text.get(..merge.source.start).unwrap_or_default().to_owned();
    let value = |(value, (_, kind)): (&Option<String>, &(String, String))| match value {
        Some(value) => format!("CAST({} AS {kind})", Literal(value)),
        None => format!("CAST(NULL AS {kind})"),
    };
    let names: Vec<_> = columns.iter().map(|(name, _)| Ident::new(name).to_string()).collect();
    let mut layouts = Vec::with_capacity(rows.len());
    if rows.is_empty() {
        let null = |(_, kind): &(String, String)| format!("CAST(NULL AS {kind})");
        let nulls: Vec<_> = columns.iter().map(null).collect();
        text.push_str(&format!("(SELECT {} WHERE false", nulls.join(", ")));
    } else {
        text.push_str(if scalar { "pg_catalog.unnest(ARRAY[" } else { "(VALUES " });
    }
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        let start = text.len();
        let values: Vec<_> = row.iter().zip(columns).map(value).collect();
        let values = values.join(", ");
        text.push_str(&if scalar { values } else { format!("({values})") });
        layouts.push(RowLayout { span: start..text.len(), cells: Vec::new() });
    }
    let end = text.len();
    text.push_str(if scalar && !rows.is_empty() { "]" } else { "" });
    text.push_str(&format!(") AS {} ({})", Ident::new(&merge.alias), names.join(", ")));
    text.push_str(merge.text.get(merge.source.end..).unwrap_or_default());
    let layout = InsertLayout {
        after_table: 0,
        columns: None,
        overriding: None,
        source: 0..end,
        rows: layouts,
        default_values: false,
        // Rows that are there may be waited for.
        conflict: true,
        params: params_of(&text),
    };
    InsertRows { text, layout, leaf: None }
}
