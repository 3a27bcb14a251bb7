//! `Route::Pull` → what each node is asked for, and what the merge session runs.

use std::ops::Range;

use super::in_place::InPlace;
use crate::ids::GroupId;
use crate::router::{Params, Pull, PullColumn, PullKeys, PullKind, PullTable};
use crate::sql::{ColumnRef, Constant, ConstantValue, Ident, Literal, Test};

/// What a pull does.
#[derive(Debug, Clone)]
pub struct PullPlan {
    /// What is brought to the merge session.
    pub inputs: Vec<PullInput>,
    /// What the merge session runs then.
    pub text: String,
    /// It has the statement's parameters.
    pub has_params: bool,
}

/// Rows that are brought to the merge session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullInput {
    /// The temporary table that takes them.
    pub name: String,
    /// The table that it stands for, as SQL.
    pub table: String,
    /// The SELECT that gives a node's rows.
    pub select: String,
    /// The group whose nodes have rows; `None` for the home node.
    pub group: Option<GroupId>,
    /// The SELECT has WHERE.
    pub has_tests: bool,
    /// The rows travel in binary.
    pub binary: bool,
    /// The temporary table exists already.
    pub is_made: bool,
    /// How the rows are given where they are few; then no table is made.
    pub in_place: Option<InPlace>,
    /// Only rows with values of an input before it count.
    pub keys: Option<InputKeys>,
}

/// Rows that count if a column has a value that another input has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputKeys {
    /// The other input.
    pub of: usize,
    /// Its column, as stored.
    pub column: String,
    /// The rows' own column, as stored.
    pub own: String,
    /// The type of an array of values.
    pub array: &'static str,
}

impl PullInput {
    /// The SELECT of the rows with one of these values, which are an array as text.
    pub fn select_with(&self, keys: &InputKeys, values: &str) -> String {
        let also = if self.has_tests { "AND" } else { "WHERE" };
        let own = Ident::new(&keys.own);
        format!("{} {also} {own} = ANY ({}::{})", self.select, Literal(values), keys.array)
    }
}

/// `pg_type.oid` of types whose binary form holds what differs between nodes: names by OID.
const BY_OID: [u32; 11] = [24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191];
/// The first OID of types that are made in a database: they differ between nodes.
const FIRST_OWN_OID: u32 = 16_384;

/// Plans a pull of the statement `text`. With `all`, the merge session sees nothing of the client's
/// transaction, so that home and reference tables are brought to it, too.
pub fn pull(text: &str, pull: &Pull, params: &Params<'_>, all: bool) -> PullPlan {
    let mut inputs: Vec<PullInput> = Vec::new();
    let leave_out = |span: &Range<usize>| (span.clone(), String::new());
    let mut edits: Vec<_> = pull.left_out.iter().map(leave_out).collect();
    // What is read by the values of another comes after that.
    let mut places: Vec<Option<usize>> = vec![None; pull.tables.len()];
    let mut waiting: Vec<usize> = (0..pull.tables.len()).collect();
    while !waiting.is_empty() {
        let free = |at: &usize| pull.tables[*at].keys.is_none();
        let known = |at: &usize| {
            pull.tables[*at].keys.as_ref().is_some_and(|keys| places[keys.of].is_some())
        };
        let next = waiting.iter().position(free).or_else(|| waiting.iter().position(known));
        let next = next.unwrap_or_default();
        let at = waiting.remove(next);
        let table = &pull.tables[at];
        let Some(input) = input(text, table, (params, all), &places) else { continue };
        let same = |known: &PullInput| known.select == input.select && known.keys == input.keys;
        let place = inputs.iter().position(same).unwrap_or_else(|| {
            let name = format!("foreshard {}", inputs.len());
            inputs.push(PullInput { name, ..input });
            inputs.len() - 1
        });
        places[at] = Some(place);
        edits.push((table.span.clone(), replacement(text, table, &inputs[place].name)));
    }
    PullPlan { inputs, text: spliced(text, edits), has_params: true }
}

/// What is brought of a table; `None` if it is read where it stands.
fn input(
    text: &str,
    table: &PullTable,
    (params, all): (&Params<'_>, bool),
    places: &[Option<usize>],
) -> Option<PullInput> {
    let group = match &table.kind {
        PullKind::Sharded(group, _) => Some(*group),
        PullKind::Whole if all => None,
        PullKind::Whole | PullKind::Catalog => return None,
    };
    let keys = table.keys.as_ref().and_then(|keys| {
        let of = places.get(keys.of).copied().flatten()?;
        let PullKeys { column, own, array, .. } = keys.clone();
        Some(InputKeys { of, column, own, array })
    });
    let (select, has_tests) = select(text, table, params);
    Some(PullInput {
        name: String::new(),
        table: table_source(text, table),
        select,
        has_tests,
        group,
        binary: table.columns.as_ref().is_some_and(|columns| columns.iter().all(is_portable)),
        is_made: false,
        in_place: None,
        keys,
    })
}

fn is_portable(column: &PullColumn) -> bool {
    is_portable_type(column.type_oid)
}

/// Whether the binary form of a type, by `pg_type.oid`, is the same on every node.
pub fn is_portable_type(type_oid: u32) -> bool {
    type_oid < FIRST_OWN_OID && !BY_OID.contains(&type_oid)
}

/// The temporary table, under the name by which the statement knows it.
fn replacement(text: &str, table: &PullTable, name: &str) -> String {
    let mut with = format!("pg_temp.{}", Ident::new(name));
    let is_command = {
        let before = text[..table.span.start].trim_end().as_bytes();
        before.len() >= 5 && before[before.len() - 5..].eq_ignore_ascii_case(b"table")
    };
    if let (Some(alias), false) = (&table.alias, is_command) {
        with.push_str(" AS ");
        with.push_str(&Ident::new(alias).to_string());
    }
    with
}

pub(super) fn spliced(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(span, _)| span.start);
    let (mut out, mut at) = (String::with_capacity(text.len() + 64), 0);
    for (span, with) in edits.iter().filter(|(span, _)| text.get(span.clone()).is_some()) {
        if span.start >= at {
            out.push_str(&text[at..span.start]);
            out.push_str(with);
            at = span.end;
        }
    }
    out.push_str(&text[at..]);
    out
}

/// The table's name as SQL.
pub fn table_source(text: &str, table: &PullTable) -> String {
    match &table.kind {
        PullKind::Sharded(_, name) => name.to_string(),
        PullKind::Whole | PullKind::Catalog => text[table.span.clone()].to_owned(),
    }
}

/// The SELECT of a table's rows, and whether it has WHERE.
pub(super) fn select(text: &str, table: &PullTable, params: &Params<'_>) -> (String, bool) {
    let mut sql = "SELECT ".to_owned();
    match &table.columns {
        None => sql.push('*'),
        Some(columns) => {
            let names: Vec<_> =
                columns.iter().map(|column| Ident::new(&column.name).to_string()).collect();
            sql.push_str(&names.join(", "));
        }
    }
    sql.push_str(" FROM ");
    if matches!(table.kind, PullKind::Whole) && is_only(text, table.span.start) {
        sql.push_str("ONLY ");
    }
    sql.push_str(&table_source(text, table));
    let tests: Vec<_> =
        table.tests.iter().filter_map(|test| condition(test, &table.param_uses, params)).collect();
    if !tests.is_empty() {
        sql.push_str(" WHERE ");
        sql.push_str(&tests.join(" AND "));
    }
    (sql, !tests.is_empty())
}

/// Whether ONLY stands before the table's name at `start`: a home table may have children.
fn is_only(text: &str, start: usize) -> bool {
    let mut before = text.get(..start).unwrap_or_default().trim_end();
    loop {
        let line = before.rfind('\n').map_or(0, |at| at + 1);
        let comment = match before.strip_suffix("*/") {
            Some(inside) => inside.rfind("/*"),
            None => before[line..].find("--").map(|at| line + at),
        };
        let Some(comment) = comment else { break };
        before = before[..comment].trim_end();
    }
    let word = before.rfind(|c: char| !c.is_ascii_alphabetic()).map_or(0, |at| at + 1);
    before.get(word..).is_some_and(|word| word.eq_ignore_ascii_case("only"))
}

/// A test as SQL, if all its constants can be written.
fn condition(test: &Test, uses: &[u16], params: &Params<'_>) -> Option<String> {
    let name = |column: &ColumnRef| Ident::new(&column.column);
    let written = |constant: &Constant| literal(constant, uses, params);
    match test {
        Test::OneOf(column, constants) => {
            let values: Option<Vec<_>> = constants.iter().map(written).collect();
            let values = values.filter(|values| !values.is_empty())?;
            Some(match values.as_slice() {
                [one] => format!("{} = {one}", name(column)),
                many => format!("{} IN ({})", name(column), many.join(", ")),
            })
        }
        Test::Compares(column, operator, constant) => {
            Some(format!("{} {operator} {}", name(column), written(constant)?))
        }
        Test::IsNull(column, true) => Some(format!("{} IS NULL", name(column))),
        Test::IsNull(column, false) => Some(format!("{} IS NOT NULL", name(column))),
        Test::Same(..) | Test::Using(_) => None,
    }
}

fn literal(constant: &Constant, uses: &[u16], params: &Params<'_>) -> Option<String> {
    let cast = constant.cast.as_ref().map(|cast| format!("::{cast}")).unwrap_or_default();
    let value = match &constant.value {
        ConstantValue::Null => "NULL".to_owned(),
        ConstantValue::String(text) => Literal(text).to_string(),
        ConstantValue::Integer(digits) | ConstantValue::Decimal(digits) => format!("({digits})"),
        ConstantValue::Bool(value) => value.to_string(),
        ConstantValue::LookedUp { .. } => return None,
        ConstantValue::Param(number) => return parameter(*number, &cast, uses, params),
    };
    Some(format!("{value}{cast}"))
}

/// A parameter's value, where PostgreSQL takes a literal in its place for the same: text of a type
/// that is inferred here and nowhere else.
fn parameter(number: u16, cast: &str, uses: &[u16], params: &Params<'_>) -> Option<String> {
    let index = usize::from(number).checked_sub(1)?;
    let text = match params.formats {
        [] => true,
        [one] => *one == 0,
        many => many.get(index).copied() == Some(0),
    };
    let declared = params.types.get(index).copied().unwrap_or(0);
    if !text || declared != 0 || uses.get(index) != Some(&1) {
        return None;
    }
    let value = (*params.values.get(index)?)?;
    Some(format!("{}{cast}", Literal(std::str::from_utf8(value).ok()?)))
}
