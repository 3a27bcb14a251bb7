//! MERGE: on one node, on each node as it is, or with the rows of its source in the statement.
//!
//! A row of the source meets all rows of the target that could match it, and is inserted where it
//! belongs, if it is on the node of its key: the one that ON compares with the shard key.

use std::ops::Range;
use std::sync::Arc;

use super::bind::{Bound, Sharded};
use super::keyed::{Bind, Keyed};
use super::names::{Meaning, Names};
use super::operand::Use;
use super::part::Part;
use super::query::{Meanings, binding, check_clauses, check_functions, every_shard, new_key};
use super::scatter::SYSTEM_COLUMNS;
use super::{MergeKey, MergeTo, MergeWith, Route, functions, insert, write};
use crate::shard_map::Table;
use crate::sql::{
    ColumnRef, Constant, Join, JoinKind, Merge, MergeInsert, MergeValue, Query, Source, Statement,
    Target, Test,
};
use crate::wire::ServerError;

/// A MERGE, its names resolved.
struct Merging<'a, 'b> {
    query: &'a Query,
    merge: &'a Merge,
    text: &'a str,
    statement: &'a Statement,
    names: &'a Names<'b>,
    meanings: &'a Meanings<'b>,
}

/// The target, if that is sharded.
struct Into<'a, 'b> {
    target: Sharded<'b>,
    bound: Bound<'a>,
    /// For each column of the key: the columns of the source that ON compares with it.
    partners: Vec<Vec<String>>,
}

/// Routes a MERGE.
///
/// # Errors
/// Why it is refused.
pub(super) fn route(
    (text, statement): (&str, &Statement),
    query: &Query,
    names: &Names<'_>,
    meanings: &Meanings<'_>,
) -> Result<Part, ServerError> {
    let target = query.levels.first().and_then(|level| level.target.as_ref());
    let Some(Target::Merge(merge)) = target else { return Ok(Part::Home) };
    let text = text.get(..statement.span.end).unwrap_or(text);
    let merging = Merging { query, merge, text, statement, names, meanings };
    let known = |wanted: fn(&Meaning<'_>) -> bool| meanings.iter().flatten().flatten().any(wanted);
    let spread = known(|m| matches!(m, Meaning::Sharded(..) | Meaning::View(_)));
    match meanings.first().and_then(|tables| tables.first()) {
        Some(Some(Meaning::Sharded(..))) => merging.to_sharded(),
        Some(Some(Meaning::Reference(table))) => merging.to_reference(table),
        _ if spread => merging.with_rows(MergeTo::Home),
        _ => Ok(Part::Home),
    }
}

impl Merging<'_, '_> {
    fn target(&self) -> &str {
        match self.query.levels.first().and_then(|level| level.tables.first()) {
            Some(table) => match &table.source {
                Source::Table(name) => &name.name,
                _ => "",
            },
            None => "",
        }
    }

    fn refused(&self, why: &str, hint: &str) -> ServerError {
        ServerError::refused(
            format!("this MERGE into \"{}\" is not supported", self.target()),
            format!("{why}."),
            hint,
        )
    }

    /// The statement with the source's rows in its place.
    fn with_rows(&self, to: MergeTo) -> Result<Part, ServerError> {
        let with = self.read_first(to)?;
        let clock = insert::still_clock(self.text);
        Ok(clock.map_or(Part::Merge(with), Part::Evaluate))
    }

    /// The same, if nothing else in the statement needs more than one node has.
    fn read_first(&self, to: MergeTo) -> Result<Arc<MergeWith>, ServerError> {
        let once = "Read the rows first and give them as VALUES, or write them in statements of \
            their own.";
        let (levels, calls) = self.merge.source_end;
        let at_home = matches!(to, MergeTo::Home);
        for meaning in self.meanings.iter().skip(levels.max(1)).flatten().flatten() {
            let whole = match meaning {
                Meaning::Reference(_) => true,
                Meaning::Home => at_home,
                Meaning::Sharded(..) | Meaning::View(_) => false,
            };
            if !whole {
                let why = "A subquery in ON or WHEN reads a table that is not whole on each node";
                return Err(self.refused(why, once));
            }
        }
        let unknown = |call: &&crate::sql::Call| !self.names.in_spread_write(call);
        let rest = self.query.functions.get(calls..).unwrap_or_default();
        if let Some(call) = rest.iter().find(unknown).filter(|_| !at_home) {
            let why = format!("What {}() does on each node is not known", call.name);
            return Err(self.refused(&why, once));
        }
        let inside = self.query.levels.get(levels.max(1)..).unwrap_or_default().iter();
        let inside = inside.flat_map(|level| &self.query.functions[level.calls.clone()]);
        if let Some(call) = inside.into_iter().find(|call| functions::is_volatile(call)) {
            let why = format!("{}() in a subquery is computed once for all rows", call.name);
            return Err(self.refused(&why, once));
        }
        if self.query.features.clock_word {
            let why = "A word such as 'now' is another time on each node";
            return Err(self.refused(why, "Write now() or the time itself."));
        }
        if SYSTEM_COLUMNS.iter().any(|column| self.statement.has(column)) {
            return Err(self.refused("System columns have another meaning on each node", once));
        }
        if self.merge.returning {
            let why = "Its rows are on several nodes, and it has RETURNING";
            return Err(self.refused(why, "Bind the shard key to a constant, or leave it out."));
        }
        let (source, alias) = self.source()?;
        Ok(Arc::new(MergeWith { text: self.text.to_owned(), source, alias, to }))
    }

    /// The name of the source's rows.
    fn source_name(&self) -> Option<&String> {
        self.query.levels.first()?.tables.get(self.merge.source?)?.alias.as_ref()
    }

    /// Where the source stands, and the name of its rows.
    fn source(&self) -> Result<(Range<usize>, String), ServerError> {
        if self.merge.source.is_none() {
            let why = "Its source is a join, whose rows have to be brought together first";
            let hint = "Write the join as a query with a name: USING (SELECT … FROM …) AS name.";
            return Err(self.refused(why, hint));
        }
        let alias = self.source_name().cloned();
        let unread = || self.refused("Its source could not be read", "Give the source an alias.");
        let qualified = self.query.columns.qualifiers.iter();
        if qualified.map(|q| &q.table).any(|name| Some(name) == alias.as_ref()) {
            let why = "Its source is named with a schema before a column";
            return Err(self.refused(why, "Give the source an alias, and name columns by that."));
        }
        Ok((self.query.merged.clone().ok_or_else(unread)?, alias.ok_or_else(unread)?))
    }

    fn to_reference(&self, table: &Table) -> Result<Part, ServerError> {
        let plain = "Write plain values, or INSERT … ON CONFLICT.";
        let rest = self.query.functions.get(self.merge.source_end.1..).unwrap_or_default();
        if let Some(call) = rest.iter().find(|call| !functions::is_pure(call)) {
            let why = format!("It runs on every node, and {}() may differ", call.name);
            if insert::still_clock(self.text).is_none() {
                return Err(self.refused(&why, plain));
            }
        }
        for insert in &self.merge.inserts {
            if let Some(column) = insert::varying(table, &given(insert, table)) {
                let why = format!("The default of \"{column}\" is another value on each node");
                return Err(self.refused(&why, "Give the column a value."));
            }
        }
        let features = &self.query.features;
        let whole = |meaning: &Meaning<'_>| matches!(meaning, Meaning::Reference(_));
        let same = self.meanings.iter().flatten().flatten().all(whole)
            && self.query.functions.iter().all(functions::is_pure)
            && !(features.limit || features.window || features.distinct || features.sample);
        let with = self.read_first(MergeTo::EveryNode)?;
        let part = if same { Part::EveryNode } else { Part::Merge(with) };
        Ok(insert::still_clock(self.text).map_or(part, Part::Evaluate))
    }

    fn to_sharded(&self) -> Result<Part, ServerError> {
        check_clauses(self.query, false)?;
        check_functions(self.query, self.meanings)?;
        let bound = Bound::new(self.query, self.meanings);
        let first = bound.sharded.iter().find(|table| (table.level, table.index) == (0, 0));
        let Some(target) = first.copied() else { return Ok(Part::Home) };
        if self.merge.updates.iter().any(|column| target.key.contains(column)) {
            let why = "It sets the shard key, and the rows may have to move to another node";
            return Err(self.refused(why, "Use UPDATE to change the shard key."));
        }
        self.check_defaults(target.table)?;
        let partners = self.partners(&target);
        let mut into = Into { target, bound, partners };
        let one = self.on_one_node(&mut into);
        let spread = self.spread(&into).map(|()| every_shard(&into.bound, self.names));
        let over = match spread {
            Ok(all) => Ok(all),
            Err(why) => self.split(&into, why).map(Route::Merge),
        };
        let over = over.map(|route| insert::still_clock(self.text).map_or(route, Route::Evaluate));
        let Some(mut keyed) = one else {
            return over.map(|route| match route {
                Route::Merge(with) => Part::Merge(with),
                Route::Evaluate(first) => Part::Evaluate(first),
                _ => Part::Write(into.target.group),
            });
        };
        if let Ok(route) = over {
            keyed.set_otherwise(route);
        }
        Ok(Part::Keyed(keyed))
    }

    /// Numbers of sequences are given out by the home node.
    fn check_defaults(&self, table: &Table) -> Result<(), ServerError> {
        for insert in &self.merge.inserts {
            let given = given(insert, table);
            let left_out = table.columns.iter().find(|column| {
                !given.contains(&column.name)
                    && column.default.as_deref().is_some_and(insert::takes_number)
            });
            if let Some(column) = left_out {
                let why =
                    format!("The default of \"{}\" takes a number of a sequence", column.name);
                let hint = "Give the column a value, or use INSERT … ON CONFLICT.";
                return Err(self.refused(&why, hint));
            }
        }
        Ok(())
    }

    /// The columns of the source that ON compares with each column of the target's key.
    fn partners(&self, target: &Sharded<'_>) -> Vec<Vec<String>> {
        let mut partners = vec![Vec::new(); target.key.len()];
        let Some(level) = self.query.levels.first() else { return partners };
        for condition in &level.conditions {
            let Test::Same(left, right) = &condition.test else { continue };
            for (own, other) in [(left, right), (right, left)] {
                if let (Some(at), Some(column)) =
                    (self.key_position(own, target), self.source_column(other, target))
                {
                    partners[at].push(column.to_owned());
                }
            }
        }
        partners
    }

    /// A column of the target.
    fn is_target(&self, column: &ColumnRef, target: &Sharded<'_>) -> bool {
        let alias = self.query.levels[0].tables[0].alias.as_ref();
        match &column.table {
            Some(table) => Some(table) == alias,
            None => target.table.columns.iter().any(|known| known.name == column.column),
        }
    }

    fn key_position(&self, column: &ColumnRef, target: &Sharded<'_>) -> Option<usize> {
        let position = target.key.iter().position(|key| *key == column.column)?;
        self.is_target(column, target).then_some(position)
    }

    /// A column of the source. One without a table is, if the target has none of its name.
    fn source_column<'c>(&self, column: &'c ColumnRef, target: &Sharded<'_>) -> Option<&'c str> {
        let known = !target.table.columns.is_empty();
        let alias = self.source_name()?;
        let own = match &column.table {
            Some(table) => table == alias && column.schema.is_none(),
            None => known && !self.is_target(column, target),
        };
        own.then_some(column.column.as_str())
    }

    fn constants_of(&self, column: &str) -> Option<&[Constant]> {
        let mut found = self.merge.constants.iter().filter(|(name, _)| name == column);
        let (_, constants) = found.next().filter(|_| found.next().is_none())?;
        Some(constants)
    }

    /// A table is not whole, or has no part, on the target's nodes.
    fn reads_home(&self) -> bool {
        let at_home = |meaning: &Meaning<'_>| matches!(meaning, Meaning::Home | Meaning::View(_));
        self.meanings.iter().flatten().flatten().any(at_home)
    }

    /// The keys of everything, where one node could be enough.
    fn on_one_node(&self, into: &mut Into<'_, '_>) -> Option<Keyed> {
        if self.reads_home() {
            return None;
        }
        let mut keyed = Keyed::default();
        let mut used: Vec<Constant> = Vec::new();
        for table in into.bound.sharded.clone() {
            let is_target = (table.level, table.index) == (0, 0);
            let bind = binding(&into.bound, &table, self.names);
            let bind = bind.or_else(|| {
                let columns = self.constant_key(into).filter(|_| is_target)?;
                used.extend(columns.iter().flatten().cloned());
                Some(Bind::Columns(columns))
            })?;
            keyed.push(new_key(&table, bind, Use::Compare, self.names), self.names.map);
        }
        for insert in &self.merge.inserts {
            let columns = inserted_key(insert, into)?;
            let key = columns.into_iter().map(|value| self.values_of(value, into));
            let key: Vec<Vec<Constant>> = key.collect::<Option<_>>()?;
            used.extend(key.iter().flatten().cloned());
            let key = new_key(&into.target, Bind::Columns(key), Use::Store, self.names);
            keyed.push(key, self.names.map);
        }
        into.bound.count_uses(&used);
        keyed.set_alone(&into.bound.key_uses, &self.statement.param_uses);
        Some(keyed)
    }

    /// The target's key by constants of the source.
    fn constant_key(&self, into: &Into<'_, '_>) -> Option<Vec<Vec<Constant>>> {
        let constants = |columns: &Vec<String>| {
            columns.iter().find_map(|column| self.constants_of(column)).map(<[_]>::to_vec)
        };
        into.partners.iter().map(constants).collect()
    }

    /// The constants that a value can be.
    fn values_of(&self, value: &MergeValue, into: &Into<'_, '_>) -> Option<Vec<Constant>> {
        match value {
            MergeValue::Constant(constant) => Some(vec![constant.clone()]),
            MergeValue::Column(column) => {
                let constants = self.source_column(column, &into.target);
                let constants = constants.and_then(|name| self.constants_of(name));
                constants.or_else(|| into.bound.constants_at(column)).map(<[_]>::to_vec)
            }
            MergeValue::Default | MergeValue::Other => None,
        }
    }

    /// Whether each node, with its part of target and source, does what one with all would.
    ///
    /// # Errors
    /// Why not.
    fn spread(&self, into: &Into<'_, '_>) -> Result<(), ServerError> {
        let around = (self.meanings.as_slice(), self.names);
        write::check_spread(self.query, self.statement, &into.bound, around)?;
        if self.merge.returning {
            return Err(self.refused("It has RETURNING", "Leave it out."));
        }
        if self.reads_home() {
            return Err(self.refused("It reads a table of the home node", "Read that first."));
        }
        let group = into.target.group;
        for insert in &self.merge.inserts {
            let values = inserted_key(insert, into).unwrap_or_default();
            let here = |(at, value): (usize, &&MergeValue)| match value {
                MergeValue::Column(column) => into.bound.is_key(column, group, at),
                _ => false,
            };
            if values.is_empty() || !values.iter().enumerate().all(here) {
                return Err(self.no_key(insert, into));
            }
        }
        Ok(())
    }

    /// The statement with the rows of its source, each on the node of its key.
    ///
    /// # Errors
    /// Why not; `spread` is why the nodes' own parts of it are not enough.
    fn split(
        &self,
        into: &Into<'_, '_>,
        spread: ServerError,
    ) -> Result<Arc<MergeWith>, ServerError> {
        let mut key = Vec::new();
        for (position, partners) in into.partners.iter().enumerate() {
            match self.part_of_key(position, partners, into)? {
                Some(part) => key.push(part),
                None if self.keeps_source() => return Err(self.not_joined(into)),
                // Each row of the target is on one node, and may meet any row of the source.
                None => return self.read_first(MergeTo::EveryShard(into.target.group)),
            }
        }
        let table = &into.target;
        let new = new_key(table, Bind::Columns(Vec::new()), Use::Store, self.names);
        let cuts_blanks = new.cuts_blanks;
        let (table, group) = (table.table.name.name.clone(), table.group);
        let with = self.read_first(MergeTo::Shards { table, group, key, cuts_blanks });
        with.map_err(|error| if self.merge.returning { spread } else { error })
    }

    fn keeps_source(&self) -> bool {
        let joins = self.query.levels.first().map(|level| level.joins.as_slice());
        matches!(joins, Some([.., Join { kind: JoinKind::Right, .. }]))
    }

    /// What a row of the source says of a column of the key.
    fn part_of_key(
        &self,
        position: usize,
        partners: &[String],
        into: &Into<'_, '_>,
    ) -> Result<Option<MergeKey>, ServerError> {
        let mut part = None;
        for insert in &self.merge.inserts {
            let values = inserted_key(insert, into);
            let of_row = match values.as_ref().and_then(|values| values.get(position)) {
                Some(MergeValue::Column(column)) => self
                    .source_column(column, &into.target)
                    .filter(|name| partners.iter().any(|partner| partner == name))
                    .map(|name| MergeKey::Column(name.to_owned())),
                Some(MergeValue::Constant(constant)) => {
                    let bound = into.bound.constants_of(&into.target);
                    let same = bound.is_some_and(|b| b[position] == std::slice::from_ref(constant));
                    same.then(|| MergeKey::Constant(constant.clone()))
                }
                _ => None,
            };
            let of_row = of_row.ok_or_else(|| self.no_key(insert, into))?;
            if part.as_ref().is_some_and(|part| *part != of_row) {
                return Err(self.no_key(insert, into));
            }
            part = Some(of_row);
        }
        let partner = || partners.first().map(|name| MergeKey::Column(name.clone()));
        Ok(part.or_else(partner))
    }

    fn no_key(&self, insert: &MergeInsert, into: &Into<'_, '_>) -> ServerError {
        let key = into.target.key.join(", ");
        let columns = insert_columns(insert, into.target.table);
        let why = if into.target.key.iter().all(|key| columns.contains(key)) {
            format!("INSERT gives the shard key ({key}) another value than ON compares it with")
        } else {
            format!("INSERT leaves out the shard key ({key})")
        };
        let hint = "Insert the column of the source that ON compares with the shard key, as it is.";
        self.refused(&why, hint)
    }

    fn not_joined(&self, into: &Into<'_, '_>) -> ServerError {
        let key = into.target.key.join(" = … AND ");
        let why = "ON does not compare the whole shard key with columns of the source";
        self.refused(why, &format!("Add {key} = … to ON."))
    }
}

/// What an INSERT gives the columns of the key.
fn inserted_key<'c>(insert: &'c MergeInsert, into: &Into<'_, '_>) -> Option<Vec<&'c MergeValue>> {
    let columns = insert_columns(insert, into.target.table);
    let value = |key: &String| {
        let position = columns.iter().position(|column| column == key)?;
        insert.values.get(position)
    };
    into.target.key.iter().map(value).collect()
}

/// The columns that an INSERT gives other values than defaults.
fn given(insert: &MergeInsert, table: &Table) -> Vec<String> {
    let named = insert_columns(insert, table).into_iter().zip(&insert.values);
    let given = named.filter(|(_, value)| !matches!(value, MergeValue::Default));
    given.map(|(name, _)| name).collect()
}

fn insert_columns(insert: &MergeInsert, table: &Table) -> Vec<String> {
    let all = || table.columns.iter().map(|column| column.name.clone()).collect();
    insert.columns.clone().unwrap_or_else(all)
}
