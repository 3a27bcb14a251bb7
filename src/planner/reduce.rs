//! A pull of less: each node does its part of the SELECT (joins, filters, partial aggregates,
//! DISTINCT, the first rows of an order), and the merge session does the rest on what is left.
//!
//! The merge session's columns have the tables' own names, so that the statement's text stays as it
//! is but for its aggregates. Whether the result has the columns of the original is checked by
//! PostgreSQL before any row moves: what does not fit is pulled in full.

use std::ops::Range;

use super::order::{by_value, meaning};
use crate::router::Reduction;
use crate::sql::{Aggregate, ColumnRef, Ident, Shape};

/// The work of a node, and what is to be known before the merge session's can be written.
#[derive(Debug, Clone)]
pub struct Reduced {
    /// The SELECT of each node.
    pub select: String,
    /// Its columns that hold partial sums.
    pub sums: Vec<String>,
}

/// What the rows of a reduced pull are called: a temporary table, or given in place.
pub const REDUCED_TABLE: &str = "foreshard 0";

/// The types of partial sums whose total is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SumType {
    /// `bigint`
    Int8,
    /// `numeric`
    Numeric,
}

/// The work of each node; `None` where there is nothing to be saved, or it can't be told. `params`
/// are the parameters' values as SQL.
pub fn reduce(text: &str, reduction: &Reduction, params: &[String]) -> Option<Reduced> {
    Reducer::new(text, reduction, params)?.select()
}

/// What the merge session runs; `sum_types` are those of [`Reduced::sums`].
pub fn finish(
    text: &str,
    reduction: &Reduction,
    params: &[String],
    sum_types: &[SumType],
) -> Option<String> {
    Reducer::new(text, reduction, params)?.merge(sum_types)
}

struct Reducer<'a> {
    text: &'a str,
    reduction: &'a Reduction,
    shape: &'a Shape,
    params: &'a [String],
    /// The columns that the merge session needs: name, and as written.
    columns: Vec<(&'a str, &'a str)>,
}

impl<'a> Reducer<'a> {
    fn new(text: &'a str, reduction: &'a Reduction, params: &'a [String]) -> Option<Self> {
        let shape = &reduction.shape;
        let mut columns: Vec<(&str, &str)> = Vec::new();
        for (span, column) in &shape.columns {
            if !is_input(reduction, column) {
                continue;
            }
            // As a name alone it must mean the same: no alias may take it.
            let taken = |item: &crate::sql::Item| {
                item.alias.as_ref() == Some(&column.column) && item.expression != *span
            };
            let written = &text[span.clone()];
            let known = columns.iter().find(|(name, _)| *name == column.column);
            if shape.items.iter().any(taken)
                || known.is_some_and(|(_, other)| reduction.tables > 1 && *other != written)
            {
                return None;
            }
            if known.is_none() {
                columns.push((&column.column, written));
            }
        }
        Some(Self { text, reduction, shape, params, columns })
    }

    fn select(&self) -> Option<Reduced> {
        let shape = self.shape;
        let has_wildcard = shape.items.iter().any(|item| item.wildcard);
        if has_wildcard && (self.reduction.tables > 1 || shape.grouped || shape.distinct) {
            return None;
        }
        let mut outputs: Vec<String> =
            if has_wildcard { vec!["*".to_owned()] } else { self.named() };
        let mut sums = Vec::new();
        for (index, aggregate) in shape.aggregates.iter().enumerate() {
            outputs.extend(self.partial(index, aggregate, &mut sums)?);
        }
        let mut select = "SELECT ".to_owned();
        if shape.distinct && !shape.grouped {
            select.push_str("DISTINCT ");
        }
        select.push_str(&outputs.join(", "));
        select.push(' ');
        select.push_str(&self.part(shape.source.clone(), &[])?);
        if shape.grouped {
            if shape.aggregates.is_empty() && self.columns.is_empty() {
                return None;
            }
            if shape.group_by && self.columns.is_empty() {
                return None;
            }
            let keys: Vec<_> = self.columns.iter().map(|(_, written)| *written).collect();
            if !keys.is_empty() {
                select.push_str(" GROUP BY ");
                select.push_str(&keys.join(", "));
            }
        } else if !shape.distinct {
            self.first_rows(&mut select)?;
        } else if outputs.is_empty() {
            return None;
        }
        Some(Reduced { select, sums })
    }

    fn named(&self) -> Vec<String> {
        let named = |(name, written): &(&str, &str)| format!("{written} AS {}", Ident::new(*name));
        self.columns.iter().map(named).collect()
    }

    /// The first rows of the order are among the first of each node.
    fn first_rows(&self, select: &mut String) -> Option<()> {
        let shape = self.shape;
        let Some(count) = &shape.limit.count else { return Some(()) };
        if shape.limit.odd {
            return Some(());
        }
        let mut order = Vec::new();
        for item in &shape.order {
            let Some(expression) = meaning(self.text, shape, item) else { return Some(()) };
            let direction = &self.text[item.direction.clone()];
            let expression = self.part(expression, &[])?;
            order.push(format!("{} {direction}", by_value(&expression, shape)));
        }
        if !order.is_empty() {
            select.push_str(" ORDER BY ");
            select.push_str(&order.join(", "));
        }
        select.push_str(" LIMIT ");
        select.push_str(&self.number(count)?);
        if let Some(offset) = &shape.limit.offset {
            select.push_str(" + ");
            select.push_str(&self.number(offset)?);
        }
        Some(())
    }

    fn number(&self, place: &Range<usize>) -> Option<String> {
        Some(format!("({})::bigint", self.part(place.clone(), &[])?))
    }

    /// The columns that hold an aggregate's parts.
    fn partial(
        &self,
        index: usize,
        aggregate: &Aggregate,
        sums: &mut Vec<String>,
    ) -> Option<Vec<String>> {
        let arguments = self.part(aggregate.arguments.clone(), &[])?;
        let filter = self.part(aggregate.filter.clone(), &[])?;
        let call = |function: &str, part: &str| {
            format!("pg_catalog.{function}({arguments}) {filter} AS \"{part} {index}\"")
        };
        Some(match aggregate.name.as_str() {
            "avg" => {
                sums.push(format!("sum {index}"));
                vec![call("sum", "sum"), call("count", "count")]
            }
            "sum" => {
                sums.push(format!("sum {index}"));
                vec![call("sum", "sum")]
            }
            name => vec![call(name, "part")],
        })
    }

    fn merge(&self, sum_types: &[SumType]) -> Option<String> {
        let shape = self.shape;
        let mut edits: Vec<(Range<usize>, String)> = Vec::new();
        let mut sums = sum_types.iter().copied();
        for (index, aggregate) in shape.aggregates.iter().enumerate() {
            let sum = if matches!(&*aggregate.name, "sum" | "avg") { sums.next() } else { None };
            let mut total = whole(index, aggregate, sum)?;
            let alone = |item: &&crate::sql::Item| {
                item.alias.is_none() && item.expression == aggregate.span
            };
            if shape.items.iter().any(|item| alone(&item)) {
                total = format!("{total} AS {}", Ident::new(&aggregate.name));
            }
            edits.push((aggregate.span.clone(), total));
        }
        for (span, column) in &shape.columns {
            if is_input(self.reduction, column) {
                edits.push((span.clone(), Ident::new(&column.column).to_string()));
            }
        }
        for item in shape.items.iter().filter(|item| item.wildcard) {
            edits.push((item.expression.clone(), "*".to_owned()));
        }
        let table = format!("FROM {}", Ident::new(REDUCED_TABLE));
        edits.push((shape.source.clone(), table));
        self.part(shape.start..self.text.len(), &edits)
    }

    /// A part of the text with some places replaced, all parameters among them.
    fn part(&self, range: Range<usize>, edits: &[(Range<usize>, String)]) -> Option<String> {
        let mut all: Vec<(Range<usize>, &str)> =
            edits.iter().map(|(span, with)| (span.clone(), with.as_str())).collect();
        for (span, number) in &self.shape.params {
            let value = self.params.get(usize::from(*number).checked_sub(1)?);
            let covered = edits.iter().any(|(edit, _)| edit.contains(&span.start));
            if range.contains(&span.start) && !covered {
                all.push((span.clone(), value?));
            }
        }
        all.sort_by_key(|(span, _)| span.start);
        let (mut out, mut at) = (String::new(), range.start);
        for (span, with) in all {
            out.push_str(self.text.get(at..span.start)?);
            out.push_str(with);
            at = span.end;
        }
        out.push_str(self.text.get(at..range.end)?);
        Some(out)
    }
}

/// An aggregate of the parts.
fn whole(index: usize, aggregate: &Aggregate, sum: Option<SumType>) -> Option<String> {
    let total = format!("pg_catalog.sum(\"sum {index}\")");
    Some(match (aggregate.name.as_str(), sum) {
        ("count", _) => format!("coalesce(pg_catalog.sum(\"part {index}\"), 0)::bigint"),
        ("sum", Some(SumType::Int8)) => format!("{total}::bigint"),
        ("sum", Some(SumType::Numeric)) => total,
        ("avg", Some(_)) => {
            format!("({total} / nullif(pg_catalog.sum(\"count {index}\"), 0))")
        }
        ("sum" | "avg", None) => return None,
        (name, _) => format!("pg_catalog.{name}(\"part {index}\")"),
    })
}

/// Whether it is a column of the tables, not of the result.
fn is_input(reduction: &Reduction, column: &ColumnRef) -> bool {
    column.table.is_some() || reduction.columns.binary_search(&column.column).is_ok()
}

/// The text of a parameter's value of a built-in type, by `pg_type.oid`, from its text or binary form.
pub fn param_text(value: &[u8], type_oid: u32, is_text: bool) -> Option<String> {
    if is_text || matches!(type_oid, TEXT | VARCHAR) {
        return std::str::from_utf8(value).ok().map(str::to_owned);
    }
    match type_oid {
        INT2 => Some(i16::from_be_bytes(value.try_into().ok()?).to_string()),
        INT4 => Some(i32::from_be_bytes(value.try_into().ok()?).to_string()),
        INT8 => Some(i64::from_be_bytes(value.try_into().ok()?).to_string()),
        BOOL => Some((value == [1]).to_string()),
        _ => None,
    }
}

const BOOL: u32 = 16;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;
