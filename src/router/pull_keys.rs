//! Which tables of a pull are read by the values that another has: where a filtered table is joined
//! with one that is not, only the rows that can have a partner are brought.

use super::names::Meaning;
use super::pull::{Place, PullColumn, PullKind, PullTable};
use crate::sql::{ColumnRef, Query, Statement, Test};

/// A table of which only the rows count that have a partner in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullKeys {
    /// The other, as an index of [`Pull::tables`](super::Pull::tables).
    pub of: usize,
    /// Its column.
    pub column: String,
    /// The table's own column that equals it.
    pub own: String,
    /// The type of an array of such values, whose equality is that of both columns.
    pub array: &'static str,
}

/// The type in which values of two columns are compared, whatever the session's settings.
fn array_type(one: u32, other: u32) -> Option<&'static str> {
    const INTEGERS: [u32; 3] = [20, 21, 23];
    const TEXTS: [u32; 2] = [25, 1043];
    const UUID: u32 = 2950;
    let both = |types: &[u32]| types.contains(&one) && types.contains(&other);
    if both(&INTEGERS) {
        Some("bigint[]")
    } else if both(&TEXTS) {
        Some("text[]")
    } else {
        both(&[UUID]).then_some("uuid[]")
    }
}

/// Says of each table whose values it is read by. `places` are level and table of each.
pub(super) fn link(
    (query, statement): (&Query, &Statement),
    meanings: &[Vec<Option<Meaning<'_>>>],
    places: &[(usize, usize)],
    tables: &mut [PullTable],
) {
    if query.features.clock_word {
        return;
    }
    let links = Links { query, statement, meanings, places };
    let equals = |table: &PullTable| table.tests.iter().any(|test| matches!(test, Test::OneOf(..)));
    // First what is joined with a table of few values, then what has no test of its own.
    links.link(tables, equals);
    links.link(tables, |table| !table.tests.is_empty());
}

struct Links<'a, 'b> {
    query: &'a Query,
    statement: &'a Statement,
    meanings: &'a [Vec<Option<Meaning<'b>>>],
    places: &'a [(usize, usize)],
}

impl Links<'_, '_> {
    /// What is small stays as it is; each round finds a table that is joined with such a one.
    fn link(&self, tables: &mut [PullTable], filtered: impl Fn(&PullTable) -> bool) {
        let brought = |table: &PullTable| matches!(table.kind, PullKind::Sharded(..));
        let is_small = |table: &PullTable| filtered(table) || table.keys.is_some();
        loop {
            let open = |at: &usize| brought(&tables[*at]) && !is_small(&tables[*at]);
            let small = |of: usize| brought(&tables[of]) && is_small(&tables[of]);
            let found = (0..tables.len()).filter(open);
            let mut found = found.filter_map(|at| Some((at, self.keys_of(at, tables, small)?)));
            let Some((at, keys)) = found.next() else { return };
            tables[at].keys = Some(keys);
        }
    }

    fn keys_of(
        &self,
        at: usize,
        tables: &[PullTable],
        small: impl Fn(usize) -> bool + Copy,
    ) -> Option<PullKeys> {
        let (level, index) = *self.places.get(at)?;
        let conditions = &self.query.levels.get(level)?.conditions;
        let here = conditions.iter().filter(|condition| condition.tables.contains(&index));
        let pairs = here.filter_map(|condition| match &condition.test {
            Test::Same(left, right) => Some([(left, right), (right, left)]),
            _ => None,
        });
        pairs.flatten().find_map(|(own, other)| {
            let beside = |of: &usize| *of != at && self.places[*of].0 == level && small(*of);
            let own = self.column(at, own, tables)?;
            (0..tables.len()).filter(beside).find_map(|of| {
                let column = self.column(of, other, tables)?;
                let array = array_type(own.type_oid, column.type_oid)?;
                let (column, own) = (column.name.clone(), own.name.clone());
                Some(PullKeys { of, column, own, array })
            })
        })
    }

    /// The column of a table that `column` plainly is.
    fn column<'t>(
        &self,
        at: usize,
        column: &ColumnRef,
        tables: &'t [PullTable],
    ) -> Option<&'t PullColumn> {
        let (level, index) = *self.places.get(at)?;
        let (Meaning::Sharded(known, ..) | Meaning::Reference(known)) =
            self.meanings.get(level)?.get(index).copied()??
        else {
            return None;
        };
        let level = &self.query.levels[level];
        let table = &level.tables[index];
        let (query, statement) = (self.query, self.statement);
        let place = Place { query, statement, level, index, meanings: &[] };
        let plain = !table.renamed && !level.natural && column.schema.is_none();
        let read = tables[at].columns.as_ref()?.iter();
        read.into_iter()
            .find(|read| plain && read.name == column.column && place.is_own(column, table, known))
    }
}
