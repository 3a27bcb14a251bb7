//! Errors of nodes about rows name partitions and what hangs on these; the client knows tables.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use foldhash::HashMap;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

use super::{Engine, no_key};
use crate::ids::{NodeId, ShardId};
use crate::shard_map::{ShardMap, Table, TableKind, leaf_name};
use crate::sql::TableName;
use crate::wire::{HEADER, Reader, put_frame};

/// The classes and codes of errors about rows: constraints, rights to rows, locks.
const CODES: [&[u8]; 3] = [b"23", b"42501", b"55P03"];
/// Those of what an index finds out: its name on a partition is not the table's.
const OF_INDEXES: [&[u8]; 2] = [b"23505", b"23P01"];

/// How long names may be waited for before the error is told without them.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// How long they count: a DBA may change them on a node directly.
const HOLDS: Duration = Duration::from_secs(10);

/// The indexes of a partition, each with that of its table.
const INDEXES: &str = "\
    SELECT c.relname::text, p.relname::text FROM pg_catalog.pg_index x \
    JOIN pg_catalog.pg_class t ON t.oid = x.indrelid \
    JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace \
    JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid \
    JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid \
    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent \
    WHERE n.nspname = $1 AND t.relname = $2";

/// Names of partitions' indexes with those that the client knows.
type Names = Arc<HashMap<String, String>>;

/// The names of indexes, by node and partition.
#[derive(Debug, Default)]
pub(super) struct IndexNames(Mutex<HashMap<(NodeId, TableName), (Instant, Names)>>);

impl IndexNames {
    /// Forgets all: they may be others now.
    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }
}

impl Engine {
    /// The error with the names of tables, if it names partitions of some.
    pub(super) async fn with_tables(&self, frame: &[u8]) -> Option<BytesMut> {
        let (map, mut index) = (self.live_map.snapshot(), None);
        if let Some(missing) = no_key::missing(frame, &map) {
            return self.as_not_null(frame, &map, missing).await;
        }
        if let Some((node, leaf, name)) = index_in(frame, &map) {
            let names = self.index_names(&map, node, leaf).await;
            index = names.and_then(|names| names.get(name).cloned());
        }
        with_tables(frame, &map, index.as_deref())
    }

    async fn index_names(&self, map: &ShardMap, node: NodeId, leaf: TableName) -> Option<Names> {
        let place = (node, leaf);
        if let Some((since, names)) = self.direct.index_names.0.lock().get(&place)
            && since.elapsed() < HOLDS
        {
            return Some(Arc::clone(names));
        }
        let (asked, generation) = (Instant::now(), self.direct.generation());
        let work = async |client: &Client| {
            let rows = client.query(INDEXES, &[&place.1.schema, &place.1.name]).await?;
            Ok::<_, tokio_postgres::Error>(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
        };
        let asking = self.nodes.get(node.index())?.ask(map.database(), work);
        let names: Names = match timeout(DEADLINE, asking).await {
            Ok(Ok(names)) => Arc::new(names),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the names of indexes could not be read");
                return None;
            }
            Err(_) => return None,
        };
        let mut known = self.direct.index_names.0.lock();
        if self.direct.generation() == generation {
            known.insert(place, (asked, Arc::clone(&names)));
        }
        Some(names)
    }
}

/// The index of a partition that an error is about, and where that is.
fn index_in<'a>(frame: &'a [u8], map: &ShardMap) -> Option<(NodeId, TableName, &'a str)> {
    let fields = fields(frame.get(HEADER..)?);
    let field = |wanted: u8| {
        let found = fields.iter().find(|(kind, _)| *kind == wanted)?.1;
        std::str::from_utf8(found).ok()
    };
    let code = field(b'C')?;
    let leaf = TableName::new(field(b's')?.to_owned(), field(b't')?.to_owned());
    let (_, shard, _) = leaf_in(&leaf.name, map).filter(|(.., rest)| rest.is_empty())?;
    let of_index = OF_INDEXES.contains(&code.as_bytes());
    Some((map.node_of(shard), leaf, field(b'n').filter(|_| of_index)?))
}

/// The same with what the client calls the index. Without it a constraint or an index has its table's
/// name in place of the partition's at its beginning, as PostgreSQL names them both by default.
fn with_tables(frame: &[u8], map: &ShardMap, index: Option<&str>) -> Option<BytesMut> {
    let fields = fields(frame.get(HEADER..)?);
    let of_partition = fields.iter().find(|(kind, _)| *kind == b'n').map(|(_, name)| *name);
    let names = Called { map, index: of_partition.zip(index) };
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
                b't' | b'n' => names.of(text),
                b'M' | b'D' => requoted(text, kind == b'D', &names),
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

pub(super) fn fields(body: &[u8]) -> Vec<(u8, &[u8])> {
    let (mut reader, mut fields) = (Reader::new(body), Vec::new());
    while let Ok(kind @ 1..) = reader.u8() {
        let Ok(text) = reader.cstr() else { break };
        fields.push((kind, text));
    }
    fields
}

/// The text with the names in quotes renamed; in a detail only where it says that they are tables'.
fn requoted(text: &str, only_tables: bool, names: &Called<'_>) -> Option<String> {
    let (mut out, mut rest, mut changed) = (String::new(), text, false);
    while let Some((before, name, after)) = quoted(rest) {
        let may_be = !only_tables || before.ends_with("table ");
        let instead = if may_be { names.of(name) } else { None };
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

/// What the client calls things.
struct Called<'a> {
    map: &'a ShardMap,
    /// The name of a partition's index, and what it is called.
    index: Option<(&'a [u8], &'a str)>,
}

impl Called<'_> {
    /// The name of a partition, or one that begins with it, as that of its table.
    fn of(&self, name: &str) -> Option<String> {
        if let Some((_, index)) = self.index.filter(|(own, _)| *own == name.as_bytes()) {
            return Some(index.to_owned());
        }
        let (table, _, rest) = leaf_in(name, self.map)?;
        Some(format!("{}{rest}", table.name.name))
    }
}

/// The table and the shard whose partition a name is or begins with, and what comes behind.
fn leaf_in<'a, 'b>(name: &'a str, map: &'b ShardMap) -> Option<(&'b Table, ShardId, &'a str)> {
    let sharded = |table: &&Table| matches!(table.kind, TableKind::Sharded { .. });
    for (at, _) in name.match_indices("_s") {
        let digits = name[at + 2..].bytes().take_while(u8::is_ascii_digit).count();
        let (leaf, rest) = name.split_at(at + 2 + digits);
        let Ok(shard) = leaf[at + 2..].parse() else { continue };
        let shard = ShardId(shard);
        let is_of = |table: &&Table| leaf_name(&table.name, shard).name == leaf;
        if !(rest.is_empty() || rest.starts_with('_')) || shard.index() >= map.shard_count() {
            continue;
        }
        if let Some(table) = map.tables().iter().filter(sharded).find(is_of) {
            return Some((table, shard, rest));
        }
    }
    None
}
