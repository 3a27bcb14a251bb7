//! Errors of nodes about rows name partitions and what hangs on these; the client knows tables.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use crate::ids::ShardId;
use crate::shard_map::{ShardMap, Table, TableKind, leaf_name};
use crate::wire::{HEADER, Reader, put_frame};

/// The classes and codes of errors about rows: constraints, rights to rows, locks.
const CODES: [&[u8]; 3] = [b"23", b"42501", b"55P03"];

/// The error with the names of tables, if it names partitions of some. A constraint or an index has its
/// table's name in place of the partition's at its beginning, as PostgreSQL names them both by default.
pub(super) fn with_tables(frame: &[u8], map: &ShardMap) -> Option<BytesMut> {
    let fields = fields(frame.get(HEADER..)?);
    let code = fields.iter().find(|(kind, _)| *kind == b'C')?.1;
    if !CODES.iter().any(|of| code.starts_with(of)) {
        return None;
    }
    let mut changed = false;
    let mut out = BytesMut::new();
    put_frame(b'E', &mut out, |out| {
        for (kind, bytes) in fields {
            let text = std::str::from_utf8(bytes).ok();
            let instead = text.and_then(|text| match kind {
                b't' | b'n' => renamed(text, map),
                b'M' | b'D' => requoted(text, kind == b'D', map),
                _ => None,
            });
            changed |= instead.is_some();
            let bytes = instead.map_or(Cow::Borrowed(bytes), |text| Cow::Owned(text.into_bytes()));
            out.put_u8(kind);
            out.put_slice(&bytes);
            out.put_u8(0);
        }
        out.put_u8(0);
    });
    changed.then_some(out)
}

fn fields(body: &[u8]) -> Vec<(u8, &[u8])> {
    let (mut reader, mut fields) = (Reader::new(body), Vec::new());
    while let Ok(kind @ 1..) = reader.u8() {
        let Ok(text) = reader.cstr() else { break };
        fields.push((kind, text));
    }
    fields
}

/// The text with the names in quotes renamed; in a detail only where it says that they are tables'.
fn requoted(text: &str, only_tables: bool, map: &ShardMap) -> Option<String> {
    let (mut out, mut rest, mut changed) = (String::new(), text, false);
    while let Some((before, name, after)) = quoted(rest) {
        let may_be = !only_tables || before.ends_with("table ");
        let instead = if may_be { renamed(name, map) } else { None };
        changed |= instead.is_some();
        out.push_str(before);
        out.push('"');
        out.push_str(instead.as_deref().unwrap_or(name));
        out.push('"');
        rest = after;
    }
    out.push_str(rest);
    changed.then_some(out)
}

/// What stands before the first name in quotes, the name, and what stands behind it.
fn quoted(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('"')?;
    let (name, after) = rest.split_once('"')?;
    Some((before, name, after))
}

/// The name of a partition, or one that begins with it, as that of its table.
fn renamed(name: &str, map: &ShardMap) -> Option<String> {
    let sharded = |table: &&Table| matches!(table.kind, TableKind::Sharded { .. });
    for (at, _) in name.match_indices("_s") {
        let digits = name[at + 2..].bytes().take_while(u8::is_ascii_digit).count();
        let (leaf, rest) = name.split_at(at + 2 + digits);
        let Ok(shard) = leaf[at + 2..].parse() else { continue };
        let is_of = |table: &&Table| leaf_name(&table.name, ShardId(shard)).name == leaf;
        if !(rest.is_empty() || rest.starts_with('_')) {
            continue;
        }
        if let Some(table) = map.tables().iter().filter(sharded).find(is_of) {
            return Some(format!("{}{rest}", table.name.name));
        }
    }
    None
}
