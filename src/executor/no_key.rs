//! NULL in a shard key that must not be NULL: PostgreSQL looks for the row's partition first, and says that
//! there is none (23514); of a plain table it says 23502.

use bytes::{BufMut, BytesMut};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::Engine;
use super::plain_names::{DEADLINE, fields};
use crate::shard_map::{Directory, KeyType, KeyValue, ShardMap, TableKind};
use crate::sql::TableName;
use crate::wire::{HEADER, put_frame};

/// The column that PostgreSQL would name: the first one.
const NOT_NULL: &str = "\
    SELECT a.attname::text FROM pg_catalog.pg_attribute a \
    JOIN pg_catalog.pg_class t ON t.oid = a.attrelid \
    JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace \
    WHERE n.nspname = $1 AND t.relname = $2 AND a.attname = ANY ($3) AND a.attnotnull \
    ORDER BY a.attnum LIMIT 1";

/// Columns of a shard key that have got NULL, which is in no range or list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    table: TableName,
    columns: Vec<String>,
}

/// What an error says that it is about: that no partition has NULL, and nothing else that is written so.
pub(super) fn missing(frame: &[u8], map: &ShardMap) -> Option<Missing> {
    let fields = fields(frame.get(HEADER..)?);
    let field = |wanted: u8| {
        let found = fields.iter().find(|(kind, _)| *kind == wanted)?.1;
        std::str::from_utf8(found).ok()
    };
    if field(b'C')? != "23514" || field(b'R')? != "ExecFindPartition" {
        return None;
    }
    let table = TableName::new(field(b's')?.to_owned(), field(b't')?.to_owned());
    let TableKind::Sharded { group, key } = &map.table(&table)?.kind else { return None };
    let types = &map.groups()[group.index()].key;
    match &**map.directory(*group) {
        Directory::Hash(_) => return None,
        // It may be the text that is written like it.
        _ if types.contains(&KeyType::Text) => {
            let text = [KeyValue::Text(b"null".to_vec())];
            if types.len() > 1 || map.shard_of(*group, &text).is_none() {
                return None;
            }
        }
        _ => {}
    }
    let (_, values) = field(b'D')?.split_once(") = (")?;
    let values: Vec<&str> = values.rsplit_once(')')?.0.split(", ").collect();
    let named = key.iter().zip(&values).filter(|(_, value)| **value == "null");
    let columns: Vec<String> = named.map(|(column, _)| column.clone()).collect();
    (values.len() == key.len() && !columns.is_empty()).then_some(Missing { table, columns })
}

impl Engine {
    /// The error of a plain table, if the column must not be NULL.
    pub(super) async fn as_not_null(
        &self,
        frame: &[u8],
        map: &ShardMap,
        missing: Missing,
    ) -> Option<BytesMut> {
        let Missing { table, columns } = missing;
        let work = async |client: &Client| {
            let row = client.query_opt(NOT_NULL, &[&table.schema, &table.name, &columns]).await?;
            Ok::<_, tokio_postgres::Error>(row.map(|row| row.get::<_, String>(0)))
        };
        let asking = self.nodes.get(map.home().index())?.ask(map.database(), work);
        let column = timeout(DEADLINE, asking).await.ok()?.ok()??;
        let message = format!(
            "null value in column \"{column}\" of relation \"{}\" violates not-null constraint",
            table.name
        );
        let mut out = BytesMut::new();
        put_frame(b'E', &mut out, |out| {
            for (kind, text) in fields(frame.get(HEADER..).unwrap_or_default()) {
                let text = match kind {
                    b'C' => b"23502",
                    b'M' => message.as_bytes(),
                    // It is about the partition.
                    b'D' => continue,
                    _ => text,
                };
                out.put_u8(kind);
                out.put_slice(text);
                out.put_u8(0);
            }
            out.put_u8(b'c');
            out.put_slice(column.as_bytes());
            out.put_slice(&[0, 0]);
        });
        Some(out)
    }
}
