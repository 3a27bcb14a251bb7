//! PostgreSQL's partition hash, bit for bit (`src/common/hashfn.c`, `partbounds.c`).

use super::KeyValue;

/// `HASH_PARTITION_SEED`
const SEED: u64 = 0x7A5B_2236_7996_DCFD;

/// The row hash of a key: what `satisfies_hash_partition` takes modulo the modulus.
pub fn hash_key(key: &[KeyValue]) -> u64 {
    row_hash(key.iter().map(hash_value))
}

/// Combines the column hashes of one row; `None` for a NULL column
/// (`compute_partition_hash_value`, `hash_combine64`).
pub fn row_hash(columns: impl Iterator<Item = Option<u64>>) -> u64 {
    columns.flatten().fold(0, |row: u64, hash| {
        let mixed =
            hash.wrapping_add(0x49a0_f4dd_15e5_a8e3).wrapping_add(row << 54).wrapping_add(row >> 7);
        row ^ mixed
    })
}

/// `hash…extended(value, HASH_PARTITION_SEED)`; `None` for NULL.
fn hash_value(value: &KeyValue) -> Option<u64> {
    match value {
        KeyValue::Null => None,
        KeyValue::Int(value) | KeyValue::Timestamp(value) => Some(hash_int8(*value)),
        KeyValue::Date(days) => Some(hash_int8(i64::from(*days))),
        KeyValue::Text(bytes) => Some(hash_bytes(bytes)),
        KeyValue::Uuid(bytes) => Some(hash_bytes(bytes)),
    }
}

/// `hashint8extended`: equal to that of int2 and int4 for equal values.
fn hash_int8(value: i64) -> u64 {
    let low = low_half(value.cast_unsigned());
    let high = low_half((value >> 32).cast_unsigned());
    let folded = low ^ if value >= 0 { high } else { !high };
    let mut state = State::new(4);
    state.a = state.a.wrapping_add(folded);
    state.finish()
}

fn low_half(value: u64) -> u32 {
    u32::try_from(value & 0xFFFF_FFFF).unwrap_or_default()
}

/// `hash_bytes_extended`
fn hash_bytes(key: &[u8]) -> u64 {
    // Values are at most 1 GB, so that the length fits.
    let mut state = State::new(u32::try_from(key.len()).unwrap_or(u32::MAX));
    let mut rest = key;
    while let Some((block, after)) = rest.split_at_checked(12) {
        state.add(block);
        state.mix();
        rest = after;
    }
    // The low byte of c holds the length.
    let mut tail = [0; 12];
    let (head, last) = rest.split_at(rest.len().min(8));
    tail[..head.len()].copy_from_slice(head);
    tail[9..9 + last.len()].copy_from_slice(last);
    state.add(&tail);
    state.finish()
}

/// Bob Jenkins's lookup3 state.
struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    fn new(length: u32) -> Self {
        let start = 0x9e37_79b9_u32.wrapping_add(length).wrapping_add(3_923_095);
        let mut state = Self { a: start, b: start, c: start };
        state.a = state.a.wrapping_add(low_half(SEED >> 32));
        state.b = state.b.wrapping_add(low_half(SEED));
        state.mix();
        state
    }

    /// Adds twelve bytes as three little-endian words.
    fn add(&mut self, block: &[u8]) {
        let word = |at: usize| {
            block[at..at + 4].iter().rev().fold(0, |word: u32, byte| word << 8 | u32::from(*byte))
        };
        self.a = self.a.wrapping_add(word(0));
        self.b = self.b.wrapping_add(word(4));
        self.c = self.c.wrapping_add(word(8));
    }

    #[rustfmt::skip]
    fn mix(&mut self) {
        let Self { mut a, mut b, mut c } = *self;
        a = a.wrapping_sub(c); a ^= c.rotate_left(4);  c = c.wrapping_add(b);
        b = b.wrapping_sub(a); b ^= a.rotate_left(6);  a = a.wrapping_add(c);
        c = c.wrapping_sub(b); c ^= b.rotate_left(8);  b = b.wrapping_add(a);
        a = a.wrapping_sub(c); a ^= c.rotate_left(16); c = c.wrapping_add(b);
        b = b.wrapping_sub(a); b ^= a.rotate_left(19); a = a.wrapping_add(c);
        c = c.wrapping_sub(b); c ^= b.rotate_left(4);  b = b.wrapping_add(a);
        *self = Self { a, b, c };
    }

    #[rustfmt::skip]
    fn finish(self) -> u64 {
        let Self { mut a, mut b, mut c } = self;
        c ^= b; c = c.wrapping_sub(b.rotate_left(14));
        a ^= c; a = a.wrapping_sub(c.rotate_left(11));
        b ^= a; b = b.wrapping_sub(a.rotate_left(25));
        c ^= b; c = c.wrapping_sub(b.rotate_left(16));
        a ^= c; a = a.wrapping_sub(c.rotate_left(4));
        b ^= a; b = b.wrapping_sub(a.rotate_left(14));
        c ^= b; c = c.wrapping_sub(b.rotate_left(24));
        u64::from(b) << 32 | u64::from(c)
    }
}

#[cfg(test)]
mod tests {
    use super::hash_key;
    use crate::shard_map::{KeyType, KeyValue};

    /// Splits `bigint,5,…` at commas outside of double quotes, which are doubled inside.
    fn fields(line: &str) -> Vec<String> {
        let (mut fields, mut quoted) = (vec![String::new()], false);
        for c in line.chars() {
            match c {
                '"' => {
                    if !quoted && !fields.last().unwrap().is_empty() {
                        fields.last_mut().unwrap().push('"');
                    }
                    quoted = !quoted;
                }
                ',' if !quoted => fields.push(String::new()),
                c => fields.last_mut().unwrap().push(c),
            }
        }
        fields
    }

    fn key(types: &[KeyType], value: &str) -> Vec<KeyValue> {
        if let [only] = types {
            return vec![only.parse(value.as_bytes()).unwrap()];
        }
        let values: Vec<serde_json::Value> = serde_json::from_str(value).unwrap();
        let column = |(key_type, value): (&KeyType, &serde_json::Value)| match value {
            serde_json::Value::Null => KeyValue::Null,
            serde_json::Value::String(text) => key_type.parse(text.as_bytes()).unwrap(),
            other => key_type.parse(other.to_string().as_bytes()).unwrap(),
        };
        types.iter().zip(&values).map(column).collect()
    }

    #[test]
    fn every_recorded_vector_of_postgresql_is_met() {
        let mut checked = 0;
        for line in include_str!("../../integration/data/hash_vectors.csv").lines().skip(1) {
            let fields = fields(line);
            let [types, value, _, rem16, row] = fields.as_slice() else { panic!("{line}") };
            let types: Option<Vec<_>> = types.split('+').map(KeyType::from_name).collect();
            let hash = hash_key(&key(&types.unwrap(), value));
            assert_eq!(hash.to_string(), *row, "{line}");
            assert_eq!((hash % 16).to_string(), *rem16, "{line}");
            checked += 1;
        }
        assert!(checked >= 80, "{checked}");
    }

    proptest::proptest! {
        #[test]
        fn an_integer_hashes_alike_whatever_its_type(value: i16) {
            let text = value.to_string();
            let hash = |key_type: KeyType| hash_key(&[key_type.parse(text.as_bytes()).unwrap()]);
            assert_eq!(hash(KeyType::Int2), hash(KeyType::Int8));
            assert_eq!(hash(KeyType::Int4), hash(KeyType::Int8));
        }
    }
}
