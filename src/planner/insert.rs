//! INSERT split by row, and statements whose parts were evaluated: texts for nodes, with the
//! parameters that each needs.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use smallvec::SmallVec;

use crate::ids::{NodeId, ShardId};
use crate::router::{Evaluation, InsertRows, Segment};
use crate::shard_map::ShardMap;
use crate::sql::{Literal, params_of};

/// A statement for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Where it runs.
    pub node: NodeId,
    /// The shards that it touches.
    pub shards: SmallVec<[ShardId; 2]>,
    /// The statement; its parameters are numbered anew.
    pub text: String,
    /// The client's number of each of its parameters.
    pub params: Vec<u16>,
    /// Which of the client's rows it holds, in order.
    pub rows: Vec<usize>,
}

/// One INSERT for each node that gets rows, or each leaf; in the order of nodes.
pub fn insert(insert: &InsertRows, shards: &[ShardId], map: &ShardMap) -> Vec<Fragment> {
    type Parts = BTreeMap<(NodeId, Option<ShardId>), (Vec<usize>, SmallVec<[ShardId; 2]>)>;
    let mut parts = Parts::new();
    for (row, shard) in shards.iter().enumerate() {
        let leaf = insert.leaf.as_ref().map(|_| *shard);
        let (rows, touched) = parts.entry((map.node_of(*shard), leaf)).or_default();
        rows.push(row);
        if !touched.contains(shard) {
            touched.push(*shard);
        }
    }
    let fragment = |((node, leaf), (rows, shards)): ((NodeId, _), (Vec<usize>, _))| {
        let (text, params) = text_of(insert, &rows, leaf);
        Fragment { node, shards, text, params, rows }
    };
    parts.into_iter().map(fragment).collect()
}

/// The statement with these rows only, on the leaf of a shard.
fn text_of(insert: &InsertRows, rows: &[usize], leaf: Option<ShardId>) -> (String, Vec<u16>) {
    let layout = &insert.layout;
    let mut writer = Writer { insert, text: String::new(), numbers: Numbers::default() };
    let first = layout.rows.first().map_or(layout.source.end, |row| row.span.start);
    match (&insert.leaf, leaf) {
        (Some(site), Some(shard)) => {
            writer.copy(0..site.at.start);
            writer.text.push_str(&site.name(shard));
            writer.copy(site.at.end..first);
        }
        _ => writer.copy(0..first),
    }
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            writer.text.push_str(", ");
        }
        writer.copy(layout.rows[*row].span.clone());
    }
    writer.copy(layout.source.end..insert.text.len());
    (writer.text, writer.numbers.order)
}

/// The client's numbers of parameters, in the order of their new ones.
#[derive(Default)]
struct Numbers {
    order: Vec<u16>,
    places: HashMap<u16, usize>,
}

impl Numbers {
    /// The new number of a parameter.
    fn of(&mut self, param: u16) -> usize {
        let order = &mut self.order;
        *self.places.entry(param).or_insert_with(|| {
            order.push(param);
            order.len()
        })
    }
}

struct Writer<'a> {
    insert: &'a InsertRows,
    text: String,
    numbers: Numbers,
}

impl Writer<'_> {
    /// Copies a part of the statement, its parameters numbered anew.
    fn copy(&mut self, range: Range<usize>) {
        let params = &self.insert.layout.params;
        let from = params.partition_point(|(_, span)| span.start < range.start);
        let inside = params[from..].iter().take_while(|(_, span)| span.end <= range.end);
        number(&self.insert.text, &range, inside, (&mut self.text, &mut self.numbers));
    }
}

/// Appends `text[range]` with its parameters numbered by their place among `numbers`, which grows.
fn number<'a>(
    text: &str,
    range: &Range<usize>,
    params: impl Iterator<Item = &'a (u16, Range<usize>)>,
    (out, numbers): (&mut String, &mut Numbers),
) {
    let mut at = range.start;
    for (param, span) in params {
        out.push_str(text.get(at..span.start).unwrap_or_default());
        out.push('$');
        out.push_str(&numbers.of(*param).to_string());
        at = span.end;
    }
    out.push_str(text.get(at..range.end).unwrap_or_default());
}

/// A text with its parameters numbered from 1 without gaps, and the number that each had.
pub fn renumbered(text: &str) -> (String, Vec<u16>) {
    let (mut out, mut numbers) = (String::with_capacity(text.len()), Numbers::default());
    number(text, &(0..text.len()), params_of(text).iter(), (&mut out, &mut numbers));
    (out, numbers.order)
}

/// What evaluates the pieces: rows of value and type, as many as there are values.
pub fn evaluation_queries(evaluation: &Evaluation) -> Vec<(String, Vec<u16>)> {
    let query = |(number, piece): (usize, &crate::router::Piece)| {
        let (expression, params) = renumbered(&piece.expression);
        let text = format!(
            "SELECT v::pg_catalog.text, pg_catalog.format_type(pg_catalog.pg_typeof(v), -1), {number} \
             FROM (SELECT ({expression}) AS v FROM pg_catalog.generate_series(1, {})) AS x",
            piece.count
        );
        (text, params)
    };
    evaluation.pieces.iter().enumerate().map(query).collect()
}

/// A value that was evaluated: text and type; `None` for NULL.
pub type Evaluated = Option<(String, String)>;

/// The new statement. `None` if there are fewer values than it needs.
pub fn evaluated(evaluation: &Evaluation, values: &[Evaluated]) -> Option<String> {
    let mut text = String::new();
    for segment in &evaluation.segments {
        match segment {
            Segment::Text(part) => text.push_str(part),
            Segment::Value(index) => text.push_str(&literal(values.get(*index)?)),
        }
    }
    Some(text)
}

/// A value as a literal of its type.
pub fn literal(value: &Evaluated) -> String {
    match value {
        None => "NULL".to_owned(),
        Some((value, kind)) if kind == "unknown" => Literal(value).to_string(),
        Some((value, kind)) => format!("CAST({} AS {kind})", Literal(value)),
    }
}
