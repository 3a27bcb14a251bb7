//! A table of the home node gets the rows of a query, which are on several nodes: the query runs like
//! any other, its rows go on by COPY.

use bytes::{BufMut, Bytes, BytesMut};

use super::select::values;
use super::session::ClientSession;
use crate::executor::{Bound, ClientError, Fault};
use crate::planner::is_portable_type;
use crate::sql::Literal;
use crate::wire::{Bind, body, put_copy_text, put_frame};

/// The most rows that are taken at a time.
const ROWS: usize = 10_000;
/// The format codes of a result: all columns in binary, in text.
const BINARY: [u8; 4] = [0, 1, 0, 1];
const TEXT: [u8; 2] = [0, 0];

impl ClientSession {
    /// Fills a table, which this session has just made of the query's columns; how many rows it got.
    pub(super) async fn fill(
        &mut self,
        table: &str,
        query: &str,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<u64, Fault> {
        let binary = self.is_portable(table).await?;
        let formats: &[u8] = if binary { &BINARY } else { &TEXT };
        let mut frame = BytesMut::new();
        put_frame(b'B', &mut frame, |out| {
            out.put_slice(&[0; 6]);
            out.put_slice(formats);
        });
        let bind = Bind::read(body(&frame)).map_err(ClientError::from)?;
        let bare = Bound { types: &[], bind: &bind };
        let read = async |session: &mut Self| match bound {
            None if binary => session.read_as(query, Some(&bare), Some(formats)).await,
            bound => session.read_as(query, bound, Some(formats)).await,
        };
        let mut spool = Box::pin(self.spool(read)).await?;
        let home = self.worker.engine.live_map.load().home();
        let mut copy = self.session.begin_copy((home, table), binary).await?;
        loop {
            let rows = match spool.portion(ROWS).await {
                Ok(rows) => {
                    if binary {
                        Ok(in_binary(&rows))
                    } else {
                        in_text(&rows)
                    }
                }
                Err(fault) => Err(fault),
            };
            match rows {
                Ok(rows) if rows.is_empty() => break,
                Ok(rows) => {
                    if !self.session.copy_more(&mut copy, &rows).await? {
                        break;
                    }
                }
                Err(fault) => {
                    self.session.end_copy(copy, false).await.ok();
                    return Err(fault);
                }
            }
        }
        self.session.end_copy(copy, true).await
    }

    /// Whether the columns' types have a binary form, and the same one on every node.
    async fn is_portable(&mut self, table: &str) -> Result<bool, Fault> {
        let text = format!(
            "SELECT pg_catalog.string_agg(CASE WHEN t.typsend = 0 THEN '16384' \
             ELSE coalesce(e.oid, t.oid)::text END, ' ') FROM pg_catalog.pg_attribute a \
             JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
             LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem \
             WHERE a.attrelid = {}::pg_catalog.regclass AND a.attnum > 0",
            Literal(table)
        );
        let found = self.row_of_home(&text).await?;
        let types = found.into_iter().flatten().next().unwrap_or_default();
        let is_portable = |oid: &str| oid.parse().is_ok_and(is_portable_type);
        Ok(types.split_whitespace().all(is_portable))
    }
}

/// A `DataRow` of binary values has what COPY wants in its body.
fn in_binary(rows: &[Bytes]) -> BytesMut {
    let mut out = BytesMut::with_capacity(rows.iter().map(Bytes::len).sum());
    rows.iter().for_each(|row| out.extend_from_slice(body(row)));
    out
}

fn in_text(rows: &[Bytes]) -> Result<BytesMut, Fault> {
    let mut out = BytesMut::with_capacity(rows.iter().map(Bytes::len).sum());
    for row in rows {
        for (at, value) in values(row)?.into_iter().enumerate() {
            if at > 0 {
                out.put_u8(b'\t');
            }
            match value {
                Some(value) => put_copy_text(value.as_bytes(), &mut out),
                None => out.put_slice(b"\\N"),
            }
        }
        out.put_u8(b'\n');
    }
    Ok(out)
}
