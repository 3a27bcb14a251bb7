//! The clauses of a single SELECT as places in its text, so that the nodes can be given a part of
//! its work: partial aggregates, DISTINCT, the first rows of an order.
//!
//! Read from tokens, with the columns that the grammar found. What does not fit has no shape.

use std::ops::Range;

use super::lexer::{Kind, Token};
use super::statement::ColumnRef;

/// A SELECT without set operations, windows and queries inside of it.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// Where SELECT stands.
    pub start: usize,
    /// FROM and WHERE.
    pub source: Range<usize>,
    /// The select list.
    pub items: Vec<Item>,
    /// Plain DISTINCT.
    pub distinct: bool,
    /// GROUP BY, HAVING or an aggregate.
    pub grouped: bool,
    /// GROUP BY is written.
    pub group_by: bool,
    /// Aggregates outside of [`Shape::source`].
    pub aggregates: Vec<Aggregate>,
    /// Columns outside of [`Shape::source`] and of aggregates; of output columns, too.
    pub columns: Vec<(Range<usize>, ColumnRef)>,
    /// ORDER BY.
    pub order: Vec<OrderItem>,
    /// LIMIT, OFFSET and FETCH.
    pub limit: Limit,
    /// `FOR UPDATE` and the like, to the end.
    pub lock: Option<Range<usize>>,
    /// Every parameter.
    pub params: Vec<(Range<usize>, u16)>,
}

/// An element of the select list.
#[derive(Debug, Clone)]
pub struct Item {
    /// Without its alias.
    pub expression: Range<usize>,
    /// Its alias.
    pub alias: Option<String>,
    /// `*` or `table.*`
    pub wildcard: bool,
}

/// An aggregate whose parts can be put together.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// The whole call, FILTER included.
    pub span: Range<usize>,
    /// Its function.
    pub name: String,
    /// What stands in its parentheses, and behind them.
    pub arguments: Range<usize>,
    /// The FILTER clause; empty if there is none.
    pub filter: Range<usize>,
}

/// An element of ORDER BY.
#[derive(Debug, Clone)]
pub struct OrderItem {
    /// What is ordered by.
    pub expression: Range<usize>,
    /// `DESC NULLS LAST` and the like.
    pub direction: Range<usize>,
    /// It is the select list's element of this number, from 1.
    pub ordinal: Option<usize>,
    /// It is a single name.
    pub name: Option<String>,
}

/// How many rows are wanted.
#[derive(Debug, Clone, Default)]
pub struct Limit {
    /// The place of a plain number or parameter.
    pub count: Option<Range<usize>>,
    /// The same of OFFSET.
    pub offset: Option<Range<usize>>,
    /// It is written in a way that is not known here.
    pub odd: bool,
}

/// Aggregates whose result follows from those of parts of the rows.
pub const REDUCIBLE: [&str; 11] = [
    "avg", "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "count", "every", "max", "min",
    "sum",
];

/// The shape of the SELECT that `tokens` are; `columns` are all its columns, `aliases` those of its
/// select list.
pub(super) fn shape(
    text: &str,
    tokens: &[Token],
    columns: &[(Range<usize>, ColumnRef)],
    aliases: &[Option<(String, Range<usize>)>],
) -> Option<Shape> {
    let reader = Reader { text, tokens };
    let clauses = reader.clauses()?;
    let source = tokens[clauses.from].start..tokens[clauses.rest.checked_sub(1)?].end;
    let mut list = 1 + usize::from(reader.word(1) == "all");
    let distinct = reader.word(list) == "distinct";
    list += usize::from(distinct);
    if distinct && reader.word(list) == "on" {
        return None;
    }
    let items = reader.items(list..clauses.from, aliases)?;
    let outside = (list..clauses.from).chain(clauses.rest..tokens.len());
    let aggregates = reader.aggregates(outside)?;
    let inside = |at: usize| {
        source.contains(&at) || aggregates.iter().any(|aggregate| aggregate.span.contains(&at))
    };
    let outer = columns.iter().filter(|(span, _)| !inside(span.start)).cloned().collect();
    let params = tokens.iter().filter_map(|token| match token.kind {
        Kind::Param(number) => Some((token.span(), number)),
        _ => None,
    });
    Some(Shape {
        start: tokens[0].start,
        items,
        distinct,
        grouped: clauses.group || clauses.having || !aggregates.is_empty(),
        group_by: clauses.group,
        columns: outer,
        order: clauses.order.map(|order| reader.order(order)).unwrap_or_default(),
        limit: clauses.limit.map(|limit| reader.limit(limit)).unwrap_or_default(),
        lock: clauses.lock.and_then(|lock| reader.bytes(&lock)),
        params: params.collect(),
        source,
        aggregates,
    })
}

/// Where clauses start, as indices of tokens.
struct Clauses {
    from: usize,
    /// What comes after WHERE.
    rest: usize,
    group: bool,
    having: bool,
    order: Option<Range<usize>>,
    limit: Option<Range<usize>>,
    lock: Option<Range<usize>>,
}

struct Reader<'a> {
    text: &'a str,
    tokens: &'a [Token],
}

impl Reader<'_> {
    fn word(&self, index: usize) -> &str {
        match self.tokens.get(index).map(|token| &token.kind) {
            Some(Kind::Word(word)) => word,
            _ => "",
        }
    }

    fn is(&self, index: usize, symbol: &str) -> bool {
        self.tokens.get(index).is_some_and(|token| {
            token.kind == Kind::Symbol && self.text.get(token.span()) == Some(symbol)
        })
    }

    /// 1 behind an opening bracket, -1 at a closing one.
    fn step(&self, index: usize) -> isize {
        if self.is(index, "(") || self.is(index, "[") {
            1
        } else {
            -isize::from(self.is(index, ")") || self.is(index, "]"))
        }
    }

    /// The index of the bracket that closes the one at `open`.
    fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0;
        (open..self.tokens.len()).find(|index| {
            depth += self.step(*index);
            depth == 0
        })
    }

    fn clauses(&self) -> Option<Clauses> {
        if self.word(0) != "select" {
            return None;
        }
        let (mut depth, mut from, mut rest) = (0, None, None);
        let (mut group, mut having, mut order, mut limit) = (false, false, None, None);
        let mut lock = None;
        for index in 0..self.tokens.len() {
            depth += self.step(index);
            let after_dot = index > 0 && self.is(index - 1, ".");
            let alias = index > 0 && self.word(index - 1) == "as";
            if depth != 0 || after_dot || alias {
                continue;
            }
            match self.word(index) {
                "from" if from.is_none() && self.word(index - 1) != "distinct" => {
                    from = Some(index);
                    continue;
                }
                "group" if self.word(index + 1) == "by" => group = true,
                "having" => having = true,
                "order" if self.word(index + 1) == "by" => order = Some(index),
                // After the rows are locked, in another place than usual.
                "limit" | "offset" | "fetch" if lock.is_some() => return None,
                "limit" | "offset" | "fetch" => {
                    limit.get_or_insert(index);
                }
                "for" => {
                    lock.get_or_insert(index);
                }
                "window" | "union" | "intersect" | "except" | "into" => return None,
                _ => continue,
            }
            from?;
            rest.get_or_insert(index);
        }
        let all = self.tokens.len();
        let end = lock.unwrap_or(all);
        let order = order.map(|start| start + 2..limit.unwrap_or(end));
        let limit = limit.map(|start| start..end);
        let lock = lock.map(|start| start..all);
        let rest = rest.unwrap_or(end);
        Some(Clauses { from: from?, rest, group, having, order, limit, lock })
    }

    /// The parts of `range` between the commas that are in no brackets.
    fn parts(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let (mut depth, mut start, mut parts) = (0, range.start, Vec::new());
        for index in range.clone() {
            depth += self.step(index);
            if depth == 0 && self.is(index, ",") {
                parts.push(start..index);
                start = index + 1;
            }
        }
        parts.push(start..range.end);
        parts
    }

    /// The bytes of these tokens.
    fn bytes(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let first = self.tokens.get(range.start).filter(|_| !range.is_empty())?;
        Some(first.start..self.tokens.get(range.end.checked_sub(1)?)?.end)
    }

    fn items(
        &self,
        list: Range<usize>,
        aliases: &[Option<(String, Range<usize>)>],
    ) -> Option<Vec<Item>> {
        let parts = self.parts(list);
        if parts.len() != aliases.len() {
            return None;
        }
        let item = |(mut part, alias): (Range<usize>, &Option<(String, Range<usize>)>)| {
            if alias.is_some() {
                part.end -= 1;
                part.end -= usize::from(part.end > 0 && self.word(part.end - 1) == "as");
            }
            let last = part.end.checked_sub(1)?;
            let wildcard = self.is(last, "*") && (part.len() == 1 || self.is(last - 1, "."));
            let alias = alias.as_ref().map(|(alias, _)| alias.clone());
            Some(Item { expression: self.bytes(&part)?, alias, wildcard })
        };
        parts.into_iter().zip(aliases).map(item).collect()
    }

    fn aggregates(&self, outside: impl Iterator<Item = usize>) -> Option<Vec<Aggregate>> {
        let mut found: Vec<Aggregate> = Vec::new();
        for index in outside {
            let token = &self.tokens[index];
            let known = REDUCIBLE.binary_search(&self.word(index)).is_ok();
            if !known || !self.is(index + 1, "(") {
                continue;
            }
            if index > 0 && self.is(index - 1, ".") || self.word(index + 2) == "distinct" {
                return None;
            }
            let close = self.closing(index + 1)?;
            let ordered = (index..close).any(|at| self.word(at) == "order");
            let mut end = close;
            if self.word(close + 1) == "filter" {
                end = self.closing(close + 2)?;
            }
            if ordered || matches!(self.word(end + 1), "over" | "within") {
                return None;
            }
            found.push(Aggregate {
                span: token.start..self.tokens[end].end,
                name: self.word(index).to_owned(),
                arguments: self.tokens[index + 1].end..self.tokens[close].start,
                filter: self.tokens[close].end..self.tokens[end].end,
            });
        }
        Some(found)
    }

    fn order(&self, range: Range<usize>) -> Vec<OrderItem> {
        let item = |part: Range<usize>| {
            let direction =
                |index: &usize| matches!(self.word(*index), "asc" | "desc" | "nulls" | "using");
            let end = part.clone().skip(1).find(direction).unwrap_or(part.end);
            let expression = self.bytes(&(part.start..end))?;
            let after = self.bytes(&(end..part.end)).unwrap_or(expression.end..expression.end);
            // PostgreSQL does not see parentheses round all of it.
            let mut inside = part.start..end;
            let is = |at: usize, symbol| self.text.get(self.tokens[at].span()) == Some(symbol);
            while inside.len() > 2 && is(inside.start, "(") && is(inside.end - 1, ")") {
                inside = inside.start + 1..inside.end - 1;
            }
            let only = self.tokens.get(inside.start).filter(|_| inside.len() == 1);
            let (mut ordinal, mut name) = (None, None);
            match only.map(|token| &token.kind) {
                Some(Kind::Integer) => {
                    ordinal = only.and_then(|it| self.text.get(it.span())?.parse().ok());
                }
                Some(Kind::Word(word) | Kind::Quoted(word)) => name = Some(word.clone()),
                _ => {}
            }
            Some(OrderItem { expression, direction: after, ordinal, name })
        };
        self.parts(range).into_iter().filter_map(item).collect()
    }

    fn limit(&self, range: Range<usize>) -> Limit {
        let mut limit = Limit::default();
        let plain = |index: usize| {
            let token = self.tokens.get(index)?;
            matches!(token.kind, Kind::Integer | Kind::Param(_)).then(|| token.span())
        };
        let mut at = range.start;
        while at < range.end {
            let value = plain(at + 1);
            let used = match self.word(at) {
                "limit" if value.is_some() => {
                    limit.count = value;
                    2
                }
                "offset" if value.is_some() => {
                    limit.offset = value;
                    2 + usize::from(matches!(self.word(at + 2), "row" | "rows"))
                }
                "fetch" if plain(at + 2).is_some() && self.word(at + 4) == "only" => {
                    limit.count = plain(at + 2);
                    5
                }
                _ => {
                    limit.odd = true;
                    return limit;
                }
            };
            at += used;
        }
        limit
    }
}
