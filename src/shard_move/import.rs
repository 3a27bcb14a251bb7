//! An import as a value: plain tables of the home node that become a group's sharded ones, and how
//! their only shard is cut until its parts are those of the policy.

use serde::{Deserialize, Serialize};

use crate::shard_map::{Bounds, KeyType, ShardMap, TableKind};
use crate::sql::TableName;

/// What is to be imported, as the policy has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// The group's name.
    pub group: String,
    /// The type of each column of its shard key, in order.
    pub key: Vec<KeyType>,
    /// Which keys its shards hold in the end; never empty, all of one method.
    pub bounds: Vec<Bounds>,
    /// Its tables.
    pub tables: Vec<ImportedTable>,
    /// Functions and procedures that run where a key is, each with its arguments that are the key's
    /// columns, from 1.
    pub functions: Vec<(TableName, Vec<u16>)>,
    /// Whether the shard is split afterwards, and its parts moved to all nodes.
    pub split: bool,
    /// Say what would be done, and do nothing.
    pub check_only: bool,
}

/// A table of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedTable {
    /// Its schema and name.
    pub name: TableName,
    /// The names of its shard-key columns, in the order of the group's key.
    pub key: Vec<String>,
}

impl Import {
    /// The bounds of the only shard that it makes.
    pub fn whole(&self) -> Option<Bounds> {
        self.bounds.first().and_then(Bounds::method).map(Bounds::whole)
    }

    /// Whether the map has the group with this key, cut by this method.
    pub fn is_in_force(&self, map: &ShardMap) -> bool {
        let Some(group) = map.group_named(&self.group) else { return false };
        let method = self.bounds.first().and_then(Bounds::method);
        let keyed = |wanted: &ImportedTable| match map.table(&wanted.name).map(|it| &it.kind) {
            Some(TableKind::Sharded { group: of, key }) => *of == group && *key == wanted.key,
            _ => false,
        };
        map.groups()[group.index()].key == self.key
            && method == Some(map.method(group))
            && self.tables.iter().all(keyed)
    }

    /// The names of its tables.
    pub fn names(&self) -> Vec<TableName> {
        self.tables.iter().map(|table| table.name.clone()).collect()
    }
}

/// The next cut of a shard on the way to the bounds `wanted`, into `most` parts if that can be: each
/// part with the first of the wanted that lies in it, by its index. `None` if it is not to be cut, or
/// can't be cut so.
pub fn finer(bounds: &Bounds, wanted: &[Bounds], most: usize) -> Option<Vec<(Bounds, usize)>> {
    if wanted.contains(bounds) {
        return None;
    }
    let most = most.max(2);
    match bounds {
        Bounds::Hash { modulus, remainder } => finer_hash((*modulus, *remainder), wanted, most),
        Bounds::Range { .. } => finer_range(bounds, wanted, most),
        Bounds::Others(but) => finer_list(but, wanted, most),
        Bounds::List(_) | Bounds::Nothing => None,
    }
}

fn finer_hash(
    (modulus, remainder): (u32, u32),
    wanted: &[Bounds],
    most: usize,
) -> Option<Vec<(Bounds, usize)>> {
    let Some(Bounds::Hash { modulus: last, .. }) = wanted.first() else { return None };
    if modulus == 0 || last % modulus != 0 {
        return None;
    }
    let left = last / modulus;
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    let largest = (2..=left.min(most)).rev().find(|into| left.is_multiple_of(*into));
    // A prime number of parts has to be made at once.
    let into = largest.or_else(|| (2..=left).find(|into| left.is_multiple_of(*into)))?;
    let part = |n: u32| {
        let remainder = remainder + n * modulus;
        let part = Bounds::Hash { modulus: modulus * into, remainder };
        let is_first =
            |it: &Bounds| matches!(it, Bounds::Hash { remainder: r, .. } if *r == remainder);
        Some((part, wanted.iter().position(is_first)?))
    };
    (0..into).map(part).collect()
}

fn finer_range(bounds: &Bounds, wanted: &[Bounds], most: usize) -> Option<Vec<(Bounds, usize)>> {
    let mut inside: Vec<usize> =
        (0..wanted.len()).filter(|at| bounds.is_wider_than(&wanted[*at])).collect();
    // No limit comes before every cut.
    inside.sort_by_key(|at| match &wanted[*at] {
        Bounds::Range { from, .. } => from.clone(),
        _ => None,
    });
    let parts = inside.chunks(inside.len().div_ceil(most).max(1)).map(|chunk| {
        let (first, last) = (*chunk.first()?, *chunk.last()?);
        let (Bounds::Range { from, .. }, Bounds::Range { to, .. }) =
            (&wanted[first], &wanted[last])
        else {
            return None;
        };
        Some((Bounds::Range { from: from.clone(), to: to.clone() }, first))
    });
    let parts: Vec<_> = parts.collect::<Option<_>>()?;
    (parts.len() > 1).then_some(parts)
}

fn finer_list(
    but: &[crate::shard_map::KeyValue],
    wanted: &[Bounds],
    most: usize,
) -> Option<Vec<(Bounds, usize)>> {
    let others = wanted.iter().position(|it| matches!(it, Bounds::Others(_)))?;
    let (mut but, mut parts) = (but.to_vec(), Vec::new());
    for (at, bounds) in wanted.iter().enumerate() {
        let Bounds::List(values) = bounds else { continue };
        if parts.len() + 1 < most && !values.iter().any(|value| but.contains(value)) {
            but.extend(values.iter().cloned());
            parts.push((bounds.clone(), at));
        }
    }
    if parts.is_empty() {
        return None;
    }
    parts.push((Bounds::Others(but), others));
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::finer;
    use crate::shard_map::{Bounds, KeyValue, Method};

    /// Cuts until nothing is left to cut; how many cuts that took.
    fn cut_all(method: Method, wanted: &[Bounds], most: usize) -> (Vec<Bounds>, usize) {
        let (mut shards, mut cuts) = (vec![Bounds::whole(method)], 0);
        while let Some((at, parts)) = shards
            .iter()
            .enumerate()
            .find_map(|(at, shard)| Some((at, finer(shard, wanted, most)?)))
        {
            shards.remove(at);
            shards.extend(parts.into_iter().map(|(part, _)| part));
            cuts += 1;
            assert!(cuts < 1_000, "{shards:?}");
        }
        (shards, cuts)
    }

    fn equal(mut found: Vec<Bounds>, wanted: &[Bounds]) -> bool {
        found.retain(|bounds| !wanted.contains(bounds));
        found.is_empty()
    }

    #[test]
    fn a_hash_is_cut_into_any_number_of_parts() {
        for (modulus, most, cuts) in [(1, 4, 0), (16, 4, 5), (16, 16, 1), (12, 5, 5), (7, 4, 1)] {
            let part = |remainder| Bounds::Hash { modulus, remainder };
            let wanted: Vec<_> = (0..modulus).map(part).collect();
            let (found, needed) = cut_all(Method::Hash, &wanted, most);
            assert_eq!((found.len(), needed), (wanted.len(), cuts), "{modulus} by {most}");
            assert!(equal(found, &wanted), "{modulus} by {most}");
        }
    }

    #[test]
    fn ranges_are_cut_into_neighbours_and_lists_leave_the_rest() {
        let cut = |at: i64| Some(vec![KeyValue::Int(at)]);
        let range = |from, to| Bounds::Range { from, to };
        let wanted = [
            range(cut(20), cut(30)),
            range(None, cut(10)),
            range(cut(30), None),
            range(cut(10), cut(20)),
        ];
        for most in [2, 3, 8] {
            let (found, _) = cut_all(Method::Range, &wanted, most);
            assert_eq!(found.len(), 4);
            assert!(equal(found, &wanted), "by {most}");
        }
        let list = |values: &[i64]| {
            Bounds::List(values.iter().map(|value| KeyValue::Int(*value)).collect())
        };
        let rest = [1, 2, 3, 4].map(KeyValue::Int).to_vec();
        let wanted = [list(&[1, 2]), Bounds::Others(rest), list(&[3]), list(&[4])];
        for most in [2, 3, 8] {
            let (found, _) = cut_all(Method::List, &wanted, most);
            assert_eq!(found.len(), 4, "{found:?}");
            assert!(found.iter().filter(|it| wanted.contains(it)).count() >= 3, "by {most}");
        }
    }
}
