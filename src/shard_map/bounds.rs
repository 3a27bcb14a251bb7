//! Which keys a shard holds, how they are cut and put together, and PostgreSQL's words for them.

use serde::{Deserialize, Serialize};

use super::{KeyValue, Method};
use crate::sql::Ident;

/// A place between keys: those that are not less, column by column, are behind it. It may have fewer
/// columns than the key; it is before all keys that begin with it then. No column of it is NULL.
pub type Cut = Vec<KeyValue>;

/// The CHECK of a leaf that holds all values but some: they may be on other nodes, where PostgreSQL
/// does not see them.
pub const OTHERS_CHECK: &str = "foreshard_others";

/// Which keys a shard holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bounds {
    /// `row_hash % modulus == remainder`, as in `PARTITION BY HASH`.
    Hash {
        /// Every modulus of a group is a factor of the next larger one.
        modulus: u32,
        /// Less than `modulus`.
        remainder: u32,
    },
    /// Keys behind `from` and before `to`, as in `PARTITION BY RANGE`; none with NULL in it.
    Range {
        /// `None` for no limit.
        from: Option<Cut>,
        /// `None` for no limit.
        to: Option<Cut>,
    },
    /// These values, as in `PARTITION BY LIST`; NULL may be one.
    List(Vec<KeyValue>),
    /// Every value but these, which are all that other shards of the group list: the DEFAULT
    /// partition.
    Others(Vec<KeyValue>),
    /// No key: the shard was split or merged away. Its id is free for a new shard of its group.
    Nothing,
}

impl Bounds {
    /// The bounds of a group's only shard: every key, or every one that the method takes.
    pub fn whole(method: Method) -> Self {
        match method {
            Method::Hash => Self::Hash { modulus: 1, remainder: 0 },
            Method::Range => Self::Range { from: None, to: None },
            Method::List => Self::Others(Vec::new()),
        }
    }

    /// How keys are cut to give such bounds; `None` if they hold nothing.
    pub fn method(&self) -> Option<Method> {
        match self {
            Self::Hash { .. } => Some(Method::Hash),
            Self::Range { .. } => Some(Method::Range),
            Self::List(_) | Self::Others(_) => Some(Method::List),
            Self::Nothing => None,
        }
    }

    /// Bounds that hold each of these keys once, `into` of them: a power of two.
    /// `None` if they can't be cut like this.
    pub fn split(&self, into: u32) -> Option<Vec<Self>> {
        let Self::Hash { modulus, remainder } = *self else { return None };
        let finer = modulus.checked_mul(into)?;
        // PostgreSQL wants every modulus of a table to be a factor of the next larger one.
        let cut = into.is_power_of_two() && into > 1 && i32::try_from(finer).is_ok();
        let part = |n| Self::Hash { modulus: finer, remainder: remainder + n * modulus };
        cut.then(|| (0..into).map(part).collect())
    }

    /// A range cut in two; `None` if `at` is not inside of it.
    pub fn split_at(&self, at: &Cut) -> Option<Vec<Self>> {
        let Self::Range { from, to } = self else { return None };
        let inside = from.as_ref().is_none_or(|from| from < at)
            && to.as_ref().is_none_or(|to| at < to)
            && !at.is_empty();
        inside.then(|| {
            let at = || Some(at.clone());
            vec![
                Self::Range { from: from.clone(), to: at() },
                Self::Range { from: at(), to: to.clone() },
            ]
        })
    }

    /// What stays when these values go to a list of their own, and that list; `None` if they are not
    /// all here, or nothing would stay.
    pub fn split_off(&self, values: &[KeyValue]) -> Option<Vec<Self>> {
        let mut apart: Vec<KeyValue> = Vec::new();
        for value in values {
            if !apart.contains(value) {
                apart.push(value.clone());
            }
        }
        let rest = match self {
            Self::List(all) if apart.iter().all(|value| all.contains(value)) => {
                let rest = all.iter().filter(|value| !apart.contains(value));
                Self::List(rest.cloned().collect())
            }
            Self::Others(but) if !apart.iter().any(|value| but.contains(value)) => {
                Self::Others(but.iter().chain(&apart).cloned().collect())
            }
            _ => return None,
        };
        (!apart.is_empty() && rest != Self::List(Vec::new())).then(|| vec![rest, Self::List(apart)])
    }

    /// The bounds that hold the keys of all `parts` and no other; `None` if there are none.
    pub fn merged(parts: &[Self]) -> Option<Self> {
        if parts.len() < 2 {
            return None;
        }
        match &parts[0] {
            Self::Hash { modulus, remainder } => {
                let count = u32::try_from(parts.len()).ok()?;
                if modulus % count != 0 {
                    return None;
                }
                let modulus = modulus / count;
                let whole = Self::Hash { modulus, remainder: remainder % modulus };
                let mut cut = whole.split(count)?;
                cut.retain(|part| !parts.contains(part));
                cut.is_empty().then_some(whole)
            }
            Self::Range { .. } => merged_ranges(parts),
            Self::List(_) | Self::Others(_) => merged_lists(parts),
            Self::Nothing => None,
        }
    }

    /// Whether `other`, bounds of the same group, holds fewer keys, all of them here.
    pub fn is_wider_than(&self, other: &Self) -> bool {
        let holds = |from: &Option<Cut>, to: &Option<Cut>, other: (&Option<Cut>, &Option<Cut>)| {
            let begins =
                from.as_ref().is_none_or(|from| other.0.as_ref().is_some_and(|o| o >= from));
            let ends = to.as_ref().is_none_or(|to| other.1.as_ref().is_some_and(|o| o <= to));
            begins && ends
        };
        let all = |some: &[KeyValue], of: &[KeyValue]| some.iter().all(|value| of.contains(value));
        self != other
            && match (self, other) {
                (Self::Hash { modulus: here, .. }, Self::Hash { modulus: there, .. }) => {
                    there > here
                }
                (Self::Range { from, to }, Self::Range { from: other_from, to: other_to }) => {
                    holds(from, to, (other_from, other_to))
                }
                (Self::List(here), Self::List(there)) => all(there, here),
                (Self::Others(but), Self::List(there)) => {
                    !there.iter().any(|value| but.contains(value))
                }
                (Self::Others(here), Self::Others(there)) => all(here, there),
                _ => false,
            }
    }

    /// The bounds as `CREATE TABLE … PARTITION OF` and `ATTACH PARTITION` take them, of a key with
    /// so many columns.
    pub fn for_values(&self, columns: usize) -> String {
        match self {
            Self::Hash { modulus, remainder } => {
                format!("FOR VALUES WITH (modulus {modulus}, remainder {remainder})")
            }
            Self::Range { from, to } => {
                let end = |cut: &Option<Cut>, open: &str| match cut {
                    None => vec![open.to_owned(); columns],
                    Some(cut) => {
                        let mut end: Vec<String> = cut.iter().map(KeyValue::literal).collect();
                        end.resize(columns, "MINVALUE".to_owned());
                        end
                    }
                };
                let (from, to) = (end(from, "MINVALUE").join(", "), end(to, "MAXVALUE").join(", "));
                format!("FOR VALUES FROM ({from}) TO ({to})")
            }
            Self::List(values) => format!("FOR VALUES IN ({})", literals(values).join(", ")),
            Self::Others(_) => "DEFAULT".to_owned(),
            // PostgreSQL refuses it.
            Self::Nothing => "FOR VALUES WITH ()".to_owned(),
        }
    }

    /// Whether PostgreSQL shows these bounds as `text`, of a key with so many columns. It writes
    /// numbers with quotes or without.
    pub fn are_shown_as(&self, text: &str, columns: usize) -> bool {
        let plain = |bounds: &str| bounds.replace('\'', "").to_lowercase();
        plain(&self.for_values(columns)) == plain(text)
    }

    /// A condition on the columns of `key` that says what the bounds say, in words from which
    /// PostgreSQL can prove the partition's constraint. `parent` is the partitioned table's object id.
    pub fn condition(&self, key: &[String], parent: u32) -> String {
        let columns: Vec<String> =
            key.iter().map(|column| Ident::new(column).to_string()).collect();
        match self {
            Self::Hash { modulus, remainder } => format!(
                "satisfies_hash_partition('{parent}'::oid, {modulus}, {remainder}, {})",
                columns.join(", ")
            ),
            Self::Range { from, to } => {
                let mut all: Vec<String> =
                    columns.iter().map(|column| format!("{column} IS NOT NULL")).collect();
                all.extend(from.as_ref().map(|cut| side(&columns, cut, true)));
                all.extend(to.as_ref().map(|cut| side(&columns, cut, false)));
                all.join(" AND ")
            }
            Self::List(values) => {
                let column = columns.join(", ");
                let null = values.contains(&KeyValue::Null);
                let some: Vec<String> =
                    literals(values).into_iter().filter(|value| value != "NULL").collect();
                match (null, some.is_empty()) {
                    (true, true) => format!("{column} IS NULL"),
                    (true, false) => {
                        format!("{column} IS NULL OR {column} IN ({})", some.join(", "))
                    }
                    (false, _) => {
                        format!("{column} IS NOT NULL AND {column} IN ({})", some.join(", "))
                    }
                }
            }
            Self::Others(but) => {
                let column = columns.join(", ");
                let null = but.contains(&KeyValue::Null);
                // One by one: PostgreSQL proves nothing from long lists.
                let some = but.iter().filter(|value| **value != KeyValue::Null);
                let some = some.map(|value| format!("{column} <> {}", value.literal()));
                let some: Vec<String> = some.collect();
                match (null, some.is_empty()) {
                    (true, true) => format!("{column} IS NOT NULL"),
                    (true, false) => format!("{column} IS NOT NULL AND {}", some.join(" AND ")),
                    (false, true) => "true".to_owned(),
                    (false, false) => format!("{column} IS NULL OR ({})", some.join(" AND ")),
                }
            }
            Self::Nothing => "false".to_owned(),
        }
    }
}

/// Neighbours as one range.
fn merged_ranges(parts: &[Bounds]) -> Option<Bounds> {
    let mut ranges = Vec::new();
    for part in parts {
        let Bounds::Range { from, to } = part else { return None };
        ranges.push((from, to));
    }
    // None, no limit, is less than any cut.
    ranges.sort();
    let together = ranges.windows(2).all(|pair| pair[0].1.is_some() && pair[0].1 == pair[1].0);
    let (first, last) = (ranges.first()?, ranges.last()?);
    together.then(|| Bounds::Range { from: first.0.clone(), to: last.1.clone() })
}

/// Lists as one, perhaps back into what holds all others.
fn merged_lists(parts: &[Bounds]) -> Option<Bounds> {
    let (mut listed, mut but) = (Vec::new(), None);
    for part in parts {
        match part {
            Bounds::List(values) => listed.extend(values.iter().cloned()),
            Bounds::Others(values) if but.is_none() => but = Some(values),
            _ => return None,
        }
    }
    let twice = (1..listed.len()).any(|at| listed[..at].contains(&listed[at]));
    if twice {
        return None;
    }
    let Some(but) = but else { return Some(Bounds::List(listed)) };
    let known = listed.iter().all(|value| but.contains(value));
    let left = but.iter().filter(|value| !listed.contains(value)).cloned().collect();
    known.then_some(Bounds::Others(left))
}

fn literals(values: &[KeyValue]) -> Vec<String> {
    values.iter().map(KeyValue::literal).collect()
}

/// `(a > 1 OR (a = 1 AND b >= 2))` for what is behind (1, 2), and the like for what is before.
fn side(columns: &[String], cut: &Cut, behind: bool) -> String {
    let mut condition = String::new();
    for (index, (column, value)) in columns.iter().zip(cut).enumerate() {
        let last = index + 1 == cut.len();
        let operator = match (behind, last) {
            (true, true) => ">=",
            (true, false) => ">",
            (false, _) => "<",
        };
        let value = value.literal();
        if last {
            condition.push_str(&format!("{column} {operator} {value}"));
        } else {
            let equal = format!("({column} {operator} {value} OR ({column} = {value} AND ");
            condition.push_str(&equal);
        }
    }
    condition + &"))".repeat(cut.len().saturating_sub(1))
}
