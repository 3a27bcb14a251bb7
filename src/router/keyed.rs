//! Keys of a statement → shards, once the parameters are there.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::insert::{Evaluation, InsertRows};
use super::lookup::{self, Lookups};
use super::operand::{self, Operand, Use};
use super::{Declared, Explained, Params, Route};
use crate::ids::{GroupId, NodeId, ShardId};
use crate::shard_map::{Directory, KeyType, KeyValue, Limit, ShardMap, hash_key};
use crate::sql::{Constant, ConstantValue};
use crate::wire::ServerError;

/// The most combinations of key values that are looked up for one table.
const KEYS_MAX: usize = 10_000;

/// Values of the columns of a key.
type Row = SmallVec<[KeyValue; 2]>;
/// Shards with the nodes that own them.
type Owners = SmallVec<[(ShardId, NodeId); 2]>;

/// Keys that a statement touches.
#[derive(Debug, Clone, Default)]
pub(super) struct Keyed {
    groups: Vec<GroupKeys>,
    /// The node of each shard.
    placement: Option<Arc<[NodeId]>>,
    keys: Vec<Key>,
    /// Parameters that PostgreSQL infers to be of the key's type: those used for nothing else.
    alone: Vec<u16>,
    /// Of several statements: one that fails need not undo the others.
    several: bool,
    /// What to do where the shards are on several nodes.
    over: Over,
    /// Where it goes if one node is not enough.
    otherwise: Option<Route>,
    /// It is the query of this cursor.
    declared: Option<Arc<Declared>>,
    /// What says where its rows are.
    lookups: Option<Lookups>,
    /// It names places of rows: several shards may have the same.
    by_place: bool,
    /// It goes to leaves, each row on its own: also where one node has all of them.
    by_leaf: bool,
}

/// How a write runs on several nodes.
#[derive(Debug, Clone, Default)]
pub(super) enum Over {
    /// It does not.
    #[default]
    No,
    /// A write: verbatim on each.
    Write,
    /// An INSERT with a key for each row: each row on the node of its shard.
    Rows(Arc<InsertRows>),
    /// After parts of it are evaluated.
    Evaluate(Arc<Evaluation>),
}

/// Which shards of a group hold which keys.
#[derive(Debug, Clone)]
struct GroupKeys {
    group: GroupId,
    types: Vec<KeyType>,
    directory: Arc<Directory>,
}

/// The shards alone, without doubles.
fn sorted(found: &[(ShardId, NodeId)]) -> SmallVec<[ShardId; 2]> {
    let mut shards: SmallVec<[ShardId; 2]> = found.iter().map(|(shard, _)| *shard).collect();
    shards.sort_unstable();
    shards.dedup();
    shards
}

/// What a key of one table may be.
#[derive(Debug, Clone)]
pub(super) enum Bind {
    /// For each column of the key: what it may equal.
    Columns(Vec<Vec<Constant>>),
    /// Limits of the first column.
    Limits(Vec<(Limit, Constant)>),
}

/// Values of the key of one table.
#[derive(Debug, Clone)]
struct Key {
    /// The table's name, for errors.
    table: String,
    /// An index of `groups`.
    group: usize,
    bind: Bind,
    used: Use,
    /// Trailing blanks may be cut off when the value is stored.
    cuts_blanks: bool,
}

/// A key that is to be looked up.
pub(super) struct NewKey {
    /// The table's name, for errors.
    pub(super) table: String,
    pub(super) group: GroupId,
    pub(super) bind: Bind,
    pub(super) used: Use,
    /// The column may be a varchar with a length.
    pub(super) cuts_blanks: bool,
}

impl Keyed {
    pub(super) fn push(&mut self, key: NewKey, map: &ShardMap) {
        let group =
            if let Some(group) = self.groups.iter().position(|known| known.group == key.group) {
                group
            } else {
                self.groups.push(GroupKeys {
                    group: key.group,
                    types: map.groups()[key.group.index()].key.clone(),
                    directory: Arc::clone(map.directory(key.group)),
                });
                self.placement.get_or_insert_with(|| Arc::clone(map.placement()));
                self.groups.len() - 1
            };
        let NewKey { table, bind, used, cuts_blanks, .. } = key;
        self.keys.push(Key { table, group, bind, used, cuts_blanks });
    }

    /// Says which parameters are used for keys only.
    pub(super) fn set_alone(&mut self, key_uses: &HashMap<u16, u16>, uses: &[u16]) {
        let all = |(number, count): (&u16, &u16)| {
            let index = usize::from(*number).checked_sub(1)?;
            (uses.get(index) == Some(count)).then_some(*number)
        };
        self.alone = key_uses.iter().filter_map(all).collect();
    }

    /// Says which parameters are of the key's type, as the client vouches.
    pub(super) fn vouch_for(&mut self, params: Vec<u16>) {
        self.alone = params;
    }

    /// Says whether it names places of rows.
    pub(super) fn set_by_place(&mut self, by_place: bool) {
        self.by_place = by_place;
    }

    /// Says whether it goes to leaves.
    pub(super) fn set_by_leaf(&mut self, by_leaf: bool) {
        self.by_leaf = by_leaf;
    }

    /// Says how a write runs on several nodes.
    pub(super) fn set_over(&mut self, over: Over) {
        self.over = over;
    }

    /// The same, but what is done over several nodes stands where another route would.
    pub(super) fn explainable(self) -> Self {
        let otherwise = match self.over {
            Over::Rows(rows) => Some(Route::Insert(rows, Vec::new())),
            Over::Evaluate(first) => Some(Route::Evaluate(first)),
            Over::No | Over::Write => self.otherwise,
        };
        Self { over: Over::No, otherwise, ..self }
    }

    /// Whether it is an INSERT whose rows may belong on several nodes.
    pub(super) fn splits_rows(&self) -> bool {
        matches!(self.over, Over::Rows(_))
    }

    /// The same, but refused where a write needs several nodes.
    pub(super) fn on_one_node(self) -> Self {
        let read = |route: &Route| {
            !matches!(
                route,
                Route::Write(_)
                    | Route::Evaluate(_)
                    | Route::Merge(_)
                    | Route::Lock(_)
                    | Route::First(_)
            )
        };
        let otherwise = self.otherwise.filter(read);
        Self { over: Over::No, otherwise, ..self }
    }

    /// Says where it goes if one node is not enough, or its keys can't be told.
    pub(super) fn set_otherwise(&mut self, route: Route) {
        self.otherwise = Some(route);
    }

    /// Whether a write is refused where one node is not enough.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(self.over, Over::No) && self.otherwise.is_none()
    }

    /// Replaces where it goes if one node is not enough.
    pub(super) fn explain_otherwise(&mut self, explain: impl FnOnce(Route) -> Option<Route>) {
        self.otherwise = self.otherwise.take().and_then(explain);
    }

    /// Says what tells where its rows are.
    pub(super) fn set_lookups(&mut self, lookups: Lookups) {
        self.lookups = Some(lookups);
    }

    /// It is behind EXPLAIN, whose answer is to be text if `as_text` says so; and to tell where it goes, if
    /// `tells` does.
    pub(super) fn explain_lookups(&mut self, as_text: bool, tells: bool) {
        match &mut self.lookups {
            Some(lookups) => lookups.explain(as_text),
            none if as_text && tells => *none = Some(Lookups::none_explained()),
            _ => {}
        }
    }

    /// Says that it is the query of a cursor.
    pub(super) fn declare(&mut self, declared: Arc<Declared>) {
        self.declared = Some(declared);
    }

    /// Whether it is the query of a cursor.
    pub(super) fn is_declared(&self) -> bool {
        self.declared.is_some()
    }

    /// The same in a text of several statements, which goes to one node as it is, or else is not one
    /// text any more.
    pub(super) fn among_others(self) -> Self {
        Self { several: true, over: Over::No, otherwise: None, ..self }
    }

    /// Joins the keys of another statement of the same text; neither has parameters.
    pub(super) fn extend(&mut self, other: Self, map: &ShardMap) {
        for key in other.keys {
            let Key { table, group, bind, used, cuts_blanks } = key;
            let group = other.groups[group].group;
            self.push(NewKey { table, group, bind, used, cuts_blanks }, map);
        }
    }

    pub(super) fn depends_on_params(&self) -> bool {
        let param = |constant: &Constant| matches!(constant.value, ConstantValue::Param(_));
        let by_key = self.keys.iter().any(|key| match &key.bind {
            Bind::Columns(columns) => columns.iter().flatten().any(param),
            Bind::Limits(limits) => limits.iter().any(|(_, constant)| param(constant)),
        });
        by_key || self.lookups.is_some()
    }

    /// The shard of a single value of a key of one column, and its node; `None` says nothing. Most
    /// statements are such, and pay for no list of anything.
    pub(super) fn point(&self, params: &Params<'_>) -> Option<(ShardId, NodeId)> {
        let ([key], None, None) = (&*self.keys, &self.lookups, &self.declared) else { return None };
        if self.by_leaf {
            return None;
        }
        let Bind::Columns(columns) = &key.bind else { return None };
        let group = &self.groups[key.group];
        let ([constants], [key_type]) = (&**columns, &*group.types) else { return None };
        let [constant] = &**constants else { return None };
        let alone = |number| self.alone.contains(&number);
        let value = match operand::read(constant, *key_type, key.used, params, alone) {
            Operand::Value(value) => key.stored(value).ok()?,
            _ => return None,
        };
        self.placed(group.directory.shard_of(&[value])?)
    }

    /// The node's shards, or what is done where one node is not enough.
    pub(super) fn route(&self, params: &Params<'_>) -> Result<Route, ServerError> {
        if let Some(lookups) = self.lookups.as_ref().filter(|_| params.looked_up.is_none()) {
            let alone = |number| self.alone.contains(&number);
            return Ok(Route::LookUp(Arc::new(lookups.wanted(params, alone))));
        }
        let route = match (self.one_node(params), &self.otherwise) {
            (Err(_), Some(Route::Scatter(group))) => Ok(self.scatter(*group, params)),
            (Err(error), Some(Route::Explain(explained))) => {
                let route = match &explained.route {
                    Route::Scatter(group) => self.scatter(*group, params),
                    Route::Insert(rows, _) => match self.found(params) {
                        Ok(Some(found)) => {
                            let shards = found.iter().map(|(shard, _)| *shard).collect();
                            Route::Insert(Arc::clone(rows), shards)
                        }
                        _ if explained.analyzes => return Err(error),
                        _ => explained.route.clone(),
                    },
                    other => other.clone(),
                };
                Ok(Route::Explain(Arc::new(Explained { route, ..**explained })))
            }
            (Err(_), Some(route)) => Ok(route.clone()),
            (route, _) => route,
        };
        let Some(declared) = &self.declared else { return route };
        route.map(|route| Route::Declare(Arc::new(Declared { route, ..(**declared).clone() })))
    }

    /// A scatter over the shards of the keys; over all where these can't be told.
    fn scatter(&self, group: GroupId, params: &Params<'_>) -> Route {
        let of_group = self.groups.iter().all(|known| known.group == group);
        match self.found(params) {
            Ok(Some(found)) if of_group => Route::ScatterOver(sorted(&found)),
            _ => Route::Scatter(group),
        }
    }

    /// The shards of all keys; `None` where PostgreSQL will say what is wrong.
    fn found(&self, params: &Params<'_>) -> Result<Option<Owners>, ServerError> {
        let mut found = Owners::new();
        for key in &self.keys {
            match self.shards_of(key, params)? {
                Some(shards) => found.extend(shards),
                None if self.several => return Err(key.unknown("it is not of the column's type")),
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// The node's shards.
    fn one_node(&self, params: &Params<'_>) -> Result<Route, ServerError> {
        let Some(found) = self.found(params)? else { return Ok(Route::Home) };
        let Some((_, node)) = found.first().copied() else { return Ok(Route::Anywhere) };
        if self.by_leaf || found.iter().any(|(_, other)| *other != node) {
            match &self.over {
                Over::No => {}
                Over::Write => return Ok(Route::Write(sorted(&found))),
                Over::Rows(insert) => {
                    let shards = found.iter().map(|(shard, _)| *shard).collect();
                    return Ok(Route::Insert(Arc::clone(insert), shards));
                }
                Over::Evaluate(first) => return Ok(Route::Evaluate(Arc::clone(first))),
            }
            return Err(ServerError::refused(
                "the statement needs shards on several nodes",
                "Its shard keys belong to shards that different nodes hold.",
                "Name one shard key a statement.",
            ));
        }
        let shards = sorted(&found);
        if self.by_place && shards.len() > 1 {
            return Err(ServerError::refused(
                "ctid can't tell rows of several shards apart",
                "Its shard keys belong to several shards, each with rows of the same places.",
                "Name one shard key a statement, or tell rows apart by their primary key.",
            ));
        }
        Ok(Route::Shards(shards))
    }

    /// The shards of one key; `None` where PostgreSQL will say what is wrong with it.
    fn shards_of(&self, key: &Key, params: &Params<'_>) -> Result<Option<Owners>, ServerError> {
        let group = &self.groups[key.group];
        let columns = match &key.bind {
            Bind::Columns(columns) => columns,
            Bind::Limits(limits) => return Ok(Some(self.within(group, limits, params))),
        };
        let mut rows: SmallVec<[Row; 1]> = SmallVec::from_elem(Row::new(), 1);
        for (constants, key_type) in columns.iter().zip(&group.types) {
            let mut values = Row::new();
            for constant in constants {
                if let ConstantValue::LookedUp { lookup, column } = constant.value {
                    let found = lookup::values(params, (lookup, column), *key_type);
                    values.extend(found.ok_or_else(|| key.unknown("it can't be looked up"))?);
                    continue;
                }
                let alone = |number| self.alone.contains(&number);
                match operand::read(constant, *key_type, key.used, params, alone) {
                    Operand::Value(value) => values.push(key.stored(value)?),
                    Operand::NoRow => {}
                    Operand::Invalid => return Ok(None),
                    Operand::Unknown(why) => return Err(key.unknown(why)),
                }
            }
            if rows.len() * values.len() > KEYS_MAX {
                return Err(key.unknown("it has too many combinations"));
            }
            match (values.len(), values.pop()) {
                (1, Some(value)) => rows.iter_mut().for_each(|row| row.push(value.clone())),
                (_, last) => {
                    values.extend(last);
                    rows = rows.iter().flat_map(|row| with_each(row, &values)).collect();
                }
            }
        }
        let mut found = Owners::new();
        for row in rows {
            match group.directory.shard_of(&row) {
                Some(shard) => found.extend(self.placed(shard)),
                None if key.used == Use::Compare => {}
                // No partition takes it: PostgreSQL says so, wherever the row goes.
                None => {
                    let any = group.directory.shards().first().copied();
                    found.extend(any.and_then(|shard| self.placed(shard)));
                }
            }
        }
        Ok(Some(found))
    }

    fn placed(&self, shard: ShardId) -> Option<(ShardId, NodeId)> {
        let node = self.placement.as_ref()?.get(shard.index())?;
        Some((shard, *node))
    }

    /// The shards of keys within limits; what can't be told is no limit.
    fn within(
        &self,
        group: &GroupKeys,
        limits: &[(Limit, Constant)],
        params: &Params<'_>,
    ) -> Owners {
        let Some(first) = group.types.first().copied() else { return Owners::new() };
        // A number that the column can't hold is compared as one of a wider type.
        let wide = if first.is_integer() { KeyType::Int8 } else { first };
        let known = limits.iter().filter_map(|(limit, constant)| {
            let alone = |number| self.alone.contains(&number);
            match operand::read(constant, wide, Use::Compare, params, alone) {
                Operand::Value(value) => Some((*limit, value)),
                _ => None,
            }
        });
        let known: Vec<_> = known.collect();
        let within = group.directory.shards_within(&known);
        let shards = within.unwrap_or_else(|| group.directory.shards());
        shards.into_iter().filter_map(|shard| self.placed(shard)).collect()
    }
}

/// The row with each of the values behind it.
fn with_each(row: &Row, values: &[KeyValue]) -> impl Iterator<Item = Row> {
    values.iter().map(|value| {
        let mut longer = row.clone();
        longer.push(value.clone());
        longer
    })
}

impl Keyed {
    /// One of the keys, for the samples of the load: its first column, and the hash of all.
    pub(super) fn sample(&self, params: &Params<'_>) -> Option<(KeyValue, u64)> {
        let key = self.keys.first()?;
        let alone = |number| self.alone.contains(&number);
        let Bind::Columns(columns) = &key.bind else { return None };
        let columns = columns.iter().zip(&self.groups[key.group].types);
        let values = columns.map(|(constants, key_type)| {
            match operand::read(constants.first()?, *key_type, key.used, params, alone) {
                Operand::Value(value) => Some(value),
                _ => None,
            }
        });
        let values: Vec<KeyValue> = values.collect::<Option<_>>()?;
        Some((values.first()?.clone(), hash_key(&values)))
    }
}

impl Key {
    fn stored(&self, value: KeyValue) -> Result<KeyValue, ServerError> {
        match &value {
            KeyValue::Text(text) if self.cuts_blanks && text.ends_with(b" ") => {
                Err(self.unknown("it ends with blanks, which its column may cut off"))
            }
            _ => Ok(value),
        }
    }

    fn unknown(&self, why: &str) -> ServerError {
        ServerError::refused(
            format!("the shard key of \"{}\" can't be derived", self.table),
            format!("A value is given for it, but {why}."),
            "Give the key as a plain literal or parameter of the column's type.",
        )
    }
}
