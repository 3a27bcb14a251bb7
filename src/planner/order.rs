//! What an element of ORDER BY means, and a SELECT whose rows each node gives in the order, so that
//! they only have to be merged.

use std::ops::Range;

use crate::router::Reduction;
use crate::sql::{OrderItem, Shape, params_of};

/// Types that a column is named after where nothing in its text says so: `'1'::integer` is `int4`.
const INTERNAL_NAMES: [&str; 17] = [
    "bit",
    "bool",
    "bpchar",
    "char",
    "float4",
    "float8",
    "int2",
    "int4",
    "int8",
    "numeric",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "varbit",
    "varchar",
    "xml",
];

/// The expression that an element of ORDER BY stands for, as a place in `text`: it may be the number
/// or the name of an output, and a name of an output goes before a column's. `None` where that can't
/// be told.
pub(super) fn meaning(text: &str, shape: &Shape, item: &OrderItem) -> Option<Range<usize>> {
    if let Some(ordinal) = item.ordinal {
        let wildcards = shape.items.iter().any(|item| item.wildcard);
        let item = shape.items.get(ordinal.checked_sub(1)?)?;
        return (!wildcards).then(|| item.expression.clone());
    }
    let Some(name) = &item.name else { return Some(item.expression.clone()) };
    let mut doubtful = false;
    for output in shape.items.iter().filter(|output| !output.wildcard) {
        let column = shape.columns.iter().find(|(span, _)| *span == output.expression);
        let named = match (&output.alias, column) {
            (Some(alias), _) => alias == name,
            (None, Some((_, column))) => column.column == *name,
            (None, None) => {
                let written = text.get(output.expression.clone())?.to_lowercase();
                doubtful |= written.contains(&name.to_lowercase())
                    || INTERNAL_NAMES.contains(&name.as_str());
                false
            }
        };
        if named {
            return Some(output.expression.clone());
        }
    }
    (!doubtful).then(|| item.expression.clone())
}

/// An expression of ORDER BY that is neither the number nor the name of an output, which bare ones
/// are for PostgreSQL also in parentheses.
pub(super) fn by_value(expression: &str, shape: &Shape) -> String {
    let bare = expression.trim_matches(|c: char| matches!(c, '(' | ')' | '"') || c.is_whitespace());
    let number = bare.bytes().all(|byte| byte.is_ascii_digit());
    let aliases = shape.items.iter().filter_map(|output| output.alias.as_ref());
    if number || aliases.into_iter().any(|alias| alias.eq_ignore_ascii_case(bare)) {
        return format!("(CASE WHEN true THEN {expression} END)");
    }
    format!("({expression})")
}

/// A SELECT of a node whose rows come in the order, behind each the values that it is ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// What each node is sent; the client's parameters keep their numbers.
    pub select: String,
    /// The same without its order, with NULL for the parameters: for questions about its columns.
    pub unordered: String,
    /// Of each value that the rows are ordered by.
    pub directions: Vec<Direction>,
    /// How many rows the client gets; its text or parameter.
    pub count: Option<String>,
    /// How many it does not get before those.
    pub offset: Option<String>,
}

/// The direction of a value that rows are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// DESC
    pub descending: bool,
    /// NULLS FIRST
    pub nulls_first: bool,
}

/// The part of each node, where all that is to be done behind it is to merge; `None` where more is.
pub fn ordered(text: &str, reduction: &Reduction) -> Option<Ordered> {
    let shape = &reduction.shape;
    let locks = shape.lock.as_ref();
    let unordered = shape.order.is_empty() && locks.is_none();
    if shape.grouped || shape.distinct || unordered || shape.limit.odd {
        return None;
    }
    let written = |range: &Range<usize>| text.get(range.clone());
    let (mut keys, mut order, mut directions) = (Vec::new(), Vec::new(), Vec::new());
    for item in &shape.order {
        let place = meaning(text, shape, item)?;
        let key = by_value(written(&place)?, shape);
        let direction = written(&item.direction)?;
        directions.push(Direction::read(direction)?);
        order.push(format!("{key} {direction}"));
        keys.push(key);
    }
    let list = text.get(shape.start..shape.source.start)?.trim_end();
    let (count, offset) = (shape.limit.count.as_ref(), shape.limit.offset.as_ref());
    let (count, offset) = (count.and_then(written), offset.and_then(written));
    let keys = if keys.is_empty() { String::new() } else { format!(", {}", keys.join(", ")) };
    let source = written(&shape.source)?;
    let mut select = format!("{list}{keys} {source}");
    if !order.is_empty() {
        select.push_str(&format!(" ORDER BY {}", order.join(", ")));
    }
    if let Some(lock) = locks.and_then(written) {
        // Its rows are taken one by one.
        select.push_str(&format!(" {lock}"));
    } else if let Some(count) = count {
        select.push_str(&format!(" LIMIT ({count})::bigint"));
        if let Some(offset) = offset {
            select.push_str(&format!(" + ({offset})::bigint"));
        }
    }
    let own = |text: &str| text.to_owned();
    let (count, offset) = (count.map(own), offset.map(own));
    let unordered = without_params(&format!("{list}{keys} {source}"))?;
    Some(Ordered { select, unordered, directions, count, offset })
}

impl Direction {
    /// `ASC` or `DESC`, `NULLS FIRST` or `NULLS LAST`.
    fn read(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let mut words = text.split_ascii_whitespace().peekable();
        let descending = words.next_if(|word| matches!(*word, "asc" | "desc")) == Some("desc");
        let nulls_first = match (words.next(), words.next(), words.next()) {
            (None, None, None) => descending,
            (Some("nulls"), Some("first"), None) => true,
            (Some("nulls"), Some("last"), None) => false,
            _ => return None,
        };
        Some(Self { descending, nulls_first })
    }
}

/// NULL in the place of each parameter.
fn without_params(text: &str) -> Option<String> {
    let (mut out, mut at) = (String::new(), 0);
    for (_, span) in params_of(text) {
        out.push_str(text.get(at..span.start)?);
        out.push_str("NULL");
        at = span.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::Direction;

    #[test]
    fn nulls_come_last_unless_descending_or_said() {
        let read = |text: &str| Direction::read(text).map(|it| (it.descending, it.nulls_first));
        assert_eq!(read(""), Some((false, false)));
        assert_eq!(read("ASC NULLS FIRST"), Some((false, true)));
        assert_eq!(read("desc"), Some((true, true)));
        assert_eq!(read("DESC  nulls\nLAST"), Some((true, false)));
        assert_eq!(read("USING >"), None);
    }
}
