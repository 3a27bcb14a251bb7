//! Which key columns are bound to which constants, at each query level.
//!
//! A table's rows may be restricted to those whose key has certain values if every row that counts
//! must have one of them. WHERE demands this of all tables of its level; the condition of a join of
//! those whose rows it drops: both sides of an inner join, the nullable side of an outer one. A
//! column that equals a bound column is bound alike, also one of a level around it.

use std::collections::HashMap;

use super::names::Meaning;
use crate::ids::GroupId;
use crate::shard_map::{Limit, Lookup, Table};
use crate::sql::{
    ColumnRef, Condition, Constant, ConstantValue, Level, Query, Source, TableRef, Test,
};

/// A column of a shard key: level, table of the level, position in the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyColumn {
    pub(super) level: usize,
    pub(super) table: usize,
    pub(super) position: usize,
}

/// A key column as a level names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    pub(super) column: KeyColumn,
    /// The table of the level that has it, itself or in the subquery that it is; `None` if it is of
    /// a level around.
    pub(super) table: Option<usize>,
}

impl Reach {
    /// It is of a table of the level whose rows `condition` filters.
    fn is_filtered(&self, condition: &Condition) -> bool {
        self.table.is_some_and(|table| condition.tables.contains(&table))
    }
}

/// A reference to a sharded table.
#[derive(Clone, Copy)]
pub(super) struct Sharded<'a> {
    pub(super) level: usize,
    pub(super) index: usize,
    pub(super) table: &'a Table,
    pub(super) group: GroupId,
    pub(super) key: &'a [String],
}

/// A query whose names are resolved.
pub(super) struct Bound<'a> {
    query: &'a Query,
    /// All references to sharded tables.
    pub(super) sharded: Vec<Sharded<'a>>,
    /// The lookups of each table, by level and table; their columns stand behind those of the key.
    lookups: HashMap<(usize, usize), Vec<&'a Lookup>>,
    /// Those that say where rows are, each with what is looked up.
    pub(super) looked_up: Vec<(&'a Lookup, Vec<Constant>)>,
    constants: HashMap<KeyColumn, Vec<Constant>>,
    limits: HashMap<KeyColumn, Vec<(Limit, Constant)>>,
    /// How often each parameter is compared with a key column, by number.
    pub(super) key_uses: HashMap<u16, u16>,
}

impl<'a> Bound<'a> {
    /// Derives all bindings. `meaning` is that of each table of each level, `None` for what is no
    /// table.
    pub(super) fn new(query: &'a Query, meaning: &[Vec<Option<Meaning<'a>>>]) -> Self {
        Self::with_lookups(query, meaning, |_| Vec::new())
    }

    /// The same; what is bound to a looked-up value is bound to the keys that the lookup gives.
    pub(super) fn with_lookups(
        query: &'a Query,
        meaning: &[Vec<Option<Meaning<'a>>>],
        lookups: impl Fn(&'a Table) -> Vec<&'a Lookup>,
    ) -> Self {
        let mut sharded = Vec::new();
        for (level, tables) in meaning.iter().enumerate() {
            for (index, meaning) in tables.iter().enumerate() {
                if let Some(Meaning::Sharded(table, group, key)) = *meaning {
                    sharded.push(Sharded { level, index, table, group, key });
                }
            }
        }
        let mut bound = Self {
            query,
            lookups: HashMap::new(),
            looked_up: Vec::new(),
            sharded,
            constants: HashMap::new(),
            limits: HashMap::new(),
            key_uses: HashMap::new(),
        };
        for table in &bound.sharded {
            let found = lookups(table.table);
            if !found.is_empty() {
                bound.lookups.insert((table.level, table.index), found);
            }
        }
        for (index, level) in query.levels.iter().enumerate() {
            bound.bind_constants(index, level);
            // Each round binds a further column or is the last.
            while bound.propagate(index, level) {}
        }
        // What a subquery in FROM is bound to binds what is joined with it.
        for (index, level) in query.levels.iter().enumerate().rev() {
            while bound.propagate(index, level) {}
        }
        while bound.look_up() {
            for (index, level) in
                query.levels.iter().enumerate().chain(query.levels.iter().enumerate().rev())
            {
                while bound.propagate(index, level) {}
            }
        }
        bound
    }

    /// Binds the key of a table that is bound to a looked-up value only; whether there was one.
    fn look_up(&mut self) -> bool {
        for table in &self.sharded {
            let at = |position| KeyColumn { level: table.level, table: table.index, position };
            let length = table.key.len();
            let is_bound = (0..length).all(|position| self.constants.contains_key(&at(position)));
            let lookups = self.lookups.get(&(table.level, table.index)).filter(|_| !is_bound);
            let value = |(place, lookup): (usize, &&'a Lookup)| {
                Some((*lookup, self.constants.get(&at(length + place))?.clone()))
            };
            let Some(found) = lookups.and_then(|all| all.iter().enumerate().find_map(value)) else {
                continue;
            };
            let lookup = self.looked_up.len();
            self.looked_up.push(found);
            for column in 0..length {
                let value = ConstantValue::LookedUp { lookup, column };
                self.constants.insert(at(column), vec![Constant { value, cast: None }]);
            }
            return true;
        }
        false
    }

    /// The constants of each key column of a table, in the order of the key; `None` if one is not
    /// bound.
    pub(super) fn constants_of(&self, table: &Sharded<'_>) -> Option<Vec<&[Constant]>> {
        (0..table.key.len())
            .map(|position| {
                let column = KeyColumn { level: table.level, table: table.index, position };
                self.constants.get(&column).map(Vec::as_slice)
            })
            .collect()
    }

    /// What a column of the outermost level equals, if it is one of a key; `None` if it is not
    /// bound, or may be NULL instead.
    pub(super) fn constants_at(&self, column: &ColumnRef) -> Option<&[Constant]> {
        let [reach] = self.columns(0, column)[..] else { return None };
        let firm = reach.table.is_none_or(|table| !self.query.levels[0].is_optional(table));
        self.constants.get(&reach.column).filter(|_| firm).map(Vec::as_slice)
    }

    /// Whether a column of the outermost level is the one at `position` in the key of a table of
    /// `group` that is not the first, and which each row has.
    pub(super) fn is_key(&self, column: &ColumnRef, group: GroupId, position: usize) -> bool {
        let [Reach { column, table: Some(place @ 1..) }] = self.columns(0, column)[..] else {
            return false;
        };
        if self.query.levels[0].is_optional(place) {
            return false;
        }
        let of = |table: &&Sharded<'_>| (table.level, table.index) == (column.level, column.table);
        let table = self.sharded.iter().find(of);
        column.position == position && table.is_some_and(|table| table.group == group)
    }

    /// The limits of the first key column of a table; `None` if there are none.
    pub(super) fn limits_of(&self, table: &Sharded<'_>) -> Option<Vec<(Limit, Constant)>> {
        let column = KeyColumn { level: table.level, table: table.index, position: 0 };
        let one_of = self.constants.get(&column);
        if let Some([constant]) = one_of.map(Vec::as_slice) {
            let limit = |limit| (limit, constant.clone());
            return Some(vec![limit(Limit::AtLeast), limit(Limit::AtMost)]);
        }
        self.limits.get(&column).cloned()
    }

    fn bind_constants(&mut self, index: usize, level: &Level) {
        // What was written around a subquery is read there.
        for condition in level.conditions.iter().filter(|condition| !condition.pushed) {
            let (column, constants, limit) = match &condition.test {
                Test::OneOf(column, constants) => (column, constants.as_slice(), None),
                Test::Compares(column, operator, constant) => match limit(operator) {
                    Some(limit) => (column, std::slice::from_ref(constant), Some(limit)),
                    None => continue,
                },
                _ => continue,
            };
            let reached = self.columns(index, column);
            if !reached.is_empty() {
                self.count_uses(constants);
            }
            for reach in reached.iter().filter(|reach| reach.is_filtered(condition)) {
                match limit {
                    None => {
                        self.constants.entry(reach.column).or_insert_with(|| constants.to_vec());
                    }
                    Some(limit) => {
                        let limits = constants.iter().map(|constant| (limit, constant.clone()));
                        self.limits.entry(reach.column).or_default().extend(limits);
                    }
                }
            }
        }
    }

    /// Counts parameters among values of key columns.
    pub(super) fn count_uses(&mut self, constants: &[Constant]) {
        for constant in constants {
            if let ConstantValue::Param(number) = constant.value {
                *self.key_uses.entry(number).or_default() += 1;
            }
        }
    }

    fn propagate(&mut self, index: usize, level: &Level) -> bool {
        let mut grown = false;
        for condition in &level.conditions {
            for (left, right) in self.all_pairs(index, level, condition) {
                grown |= self.propagate_to(condition, left, right);
                grown |= self.propagate_to(condition, right, left);
            }
        }
        grown
    }

    fn propagate_to(&mut self, condition: &Condition, from: Reach, to: Reach) -> bool {
        if !to.is_filtered(condition) {
            return false;
        }
        let mut grown = false;
        if let Some(limits) = self.limits.get(&from.column).cloned()
            && !self.limits.contains_key(&to.column)
        {
            self.limits.insert(to.column, limits);
            grown = true;
        }
        if self.constants.contains_key(&to.column) {
            return grown;
        }
        let Some(constants) = self.constants.get(&from.column).cloned() else { return grown };
        self.constants.insert(to.column, constants);
        true
    }

    /// The pairs of key columns that a condition equates.
    pub(super) fn pairs(
        &self,
        index: usize,
        level: &Level,
        condition: &Condition,
    ) -> Vec<(Reach, Reach)> {
        let of_key = |reach: &Reach| {
            let KeyColumn { level, table, position } = reach.column;
            let is_it = |sharded: &&Sharded<'_>| (sharded.level, sharded.index) == (level, table);
            self.sharded.iter().find(is_it).is_some_and(|it| position < it.key.len())
        };
        let mut pairs = self.all_pairs(index, level, condition);
        pairs.retain(|(left, right)| of_key(left) && of_key(right));
        pairs
    }

    /// The same also of looked-up columns.
    fn all_pairs(&self, index: usize, level: &Level, condition: &Condition) -> Vec<(Reach, Reach)> {
        match &condition.test {
            Test::OneOf(..) | Test::Compares(..) | Test::IsNull(..) => Vec::new(),
            Test::Same(left, right) => {
                let (left, right) = (self.columns(index, left), self.columns(index, right));
                match (left.as_slice(), right.as_slice()) {
                    ([left], [right]) => vec![(*left, *right)],
                    _ => Vec::new(),
                }
            }
            Test::Using(name) => {
                let join = condition.join.and_then(|join| level.joins.get(join));
                let Some(join) = join else { return Vec::new() };
                let all = self.named(index, name);
                let side = |range: &std::ops::Range<usize>| {
                    let range = range.clone();
                    let inside = move |reach: &Reach| {
                        reach.table.is_some_and(|table| range.contains(&table))
                    };
                    all.iter().copied().filter(inside)
                };
                side(&join.left)
                    .flat_map(|left| side(&join.right).map(move |right| (left, right)))
                    .collect()
            }
        }
    }

    /// The key columns that `column` can be: several only where USING makes them one.
    fn columns(&self, index: usize, column: &ColumnRef) -> Vec<Reach> {
        if column.table.is_some() {
            return self.qualified(index, column).into_iter().collect();
        }
        let level = &self.query.levels[index];
        if level.natural {
            return Vec::new();
        }
        let named = self.named(index, &column.column);
        let using = |condition: &Condition| match &condition.test {
            Test::Using(name) => *name == column.column,
            _ => false,
        };
        if named.len() < 2 || level.conditions.iter().any(using) { named } else { Vec::new() }
    }

    /// A column with a table before it, of this level or one around it.
    fn qualified(&self, index: usize, column: &ColumnRef) -> Option<Reach> {
        let mut at = Some(index);
        while let Some(place) = at {
            let level = &self.query.levels[place];
            let is_it = |table: &TableRef| {
                let schema = match &table.source {
                    Source::Table(name) => name.schema.as_ref(),
                    Source::Cte(_) | Source::Derived(_) | Source::Rows | Source::Other => None,
                };
                table.alias == column.table
                    && column.schema.as_ref().is_none_or(|wanted| schema == Some(wanted))
            };
            let mut found = (0..level.tables.len()).filter(|table| is_it(&level.tables[*table]));
            match (found.next(), found.next()) {
                (Some(table), None) => {
                    let named = self.named(place, &column.column).into_iter();
                    let reach = named.into_iter().find(|reach| reach.table == Some(table))?;
                    return Some(Reach { table: reach.table.filter(|_| place == index), ..reach });
                }
                // PostgreSQL knows which is visible.
                (Some(_), Some(_)) => return None,
                (None, _) => at = level.parent,
            }
        }
        None
    }

    /// The key columns of this name among the tables of a level.
    fn named(&self, index: usize, name: &str) -> Vec<Reach> {
        let tables = self.query.levels[index].tables.iter().enumerate();
        let reach = |(place, table): (usize, &TableRef)| match &table.source {
            _ if table.renamed => None,
            Source::Table(_) => {
                let this =
                    |sharded: &&Sharded<'_>| sharded.level == index && sharded.index == place;
                let sharded = self.sharded.iter().find(this)?;
                let of_key = sharded.key.iter().position(|column| column == name);
                let position = of_key.or_else(|| {
                    let lookups = self.lookups.get(&(index, place))?;
                    let found = lookups.iter().position(|lookup| lookup.column == name)?;
                    Some(sharded.key.len() + found)
                })?;
                let column = KeyColumn { level: index, table: place, position };
                Some(Reach { column, table: Some(place) })
            }
            Source::Derived(derived) => {
                let inner = self.columns(derived.level, derived.origin(name)?);
                let own = inner.into_iter().find(|reach| reach.table.is_some())?;
                Some(Reach { table: Some(place), ..own })
            }
            Source::Cte(_) | Source::Rows | Source::Other => None,
        };
        tables.filter_map(reach).collect()
    }
}

/// What a comparison says of a key.
fn limit(operator: &str) -> Option<Limit> {
    Some(match operator {
        "<" => Limit::Below,
        "<=" => Limit::AtMost,
        ">" | ">=" => Limit::AtLeast,
        _ => return None,
    })
}
