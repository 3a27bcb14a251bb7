//! The segments of a copy: ranges of keys, each copied in a transaction of its own at the destination
//! and noted there in the same transaction. So a copy that was cut off goes on with those that are
//! left. They are all written down before the first is copied.

use tokio_postgres::Row;

use super::error::MoveError;
use super::lane::Stream;
use super::look::{self, PRIMARY_KEY};
use super::names;
use super::session::Session;
use crate::ids::Lsn;
use crate::shard_move::MovedTable;
use crate::sql::{Literal, TableName};

/// Most segments of a table whose rows lie in the order of their keys, about.
const MANY: u64 = 1_000;
/// The same where they don't: each segment has to look through most of the table.
const FEW: u64 = 4;
/// Rows that are looked at to find out where a table can be cut.
const SAMPLE: f64 = 30_000.0;

/// SQL that forgets the segments of a slot's copy.
pub(super) fn remove(slot: &str) -> String {
    format!("DELETE FROM foreshard.segments WHERE move = {}", Literal(slot))
}

/// A range of a table's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// The leaf at the source: where rows go across, several of them have the same new table.
    leaf: String,
    number: i32,
    /// The key before its first.
    low: Option<Vec<String>>,
    /// Its last key.
    high: Option<Vec<String>>,
    /// The WAL position of the snapshot that it was copied in; `None` before that.
    pub(super) copied: Option<Lsn>,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// Whether a table is cut: the stream finds its rows by the primary key, and so does a copy.
pub(super) fn has_key(table: &MovedTable) -> bool {
    table.identity == "d" && !table.whole_row_identity
}

impl Segment {
    pub(super) fn is_of(&self, table: &MovedTable) -> bool {
        self.leaf == table.leaf.to_string()
    }

    /// Which rows of the source's leaf it is; `None` for all.
    pub(super) fn condition(&self, table: &MovedTable, key: &[String]) -> Option<String> {
        let columns = names::list(key);
        let row = |values: &Vec<String>| {
            let typed = key.iter().zip(values).map(|(name, value)| {
                let column = table.columns.iter().find(|column| column.name == *name);
                let type_name = column.map_or("text", |column| &column.type_name);
                format!("{}::{type_name}", Literal(value))
            });
            format!("ROW({})", typed.collect::<Vec<_>>().join(", "))
        };
        let low = self.low.as_ref().map(|low| format!("ROW({columns}) > {}", row(low)));
        let high = self.high.as_ref().map(|high| format!("ROW({columns}) <= {}", row(high)));
        let both: Vec<String> = low.into_iter().chain(high).collect();
        (!both.is_empty()).then(|| both.join(" AND "))
    }

    /// Notes, in the transaction that copied it, that it is copied. Fails if it was before.
    pub(super) async fn note(
        &self,
        destination: &Session,
        slot: &str,
        (at, rows, bytes): (Lsn, u64, u64),
    ) -> Result<(), MoveError> {
        let sql = format!(
            "UPDATE foreshard.segments SET copied = '{at}', rows = {rows}, bytes = {bytes} \
             WHERE move = $1 AND leaf = $2 AND number = $3 AND copied IS NULL"
        );
        let doing = "noting that a segment is copied";
        let noted = destination.client.execute(&sql, &[&slot, &self.leaf, &self.number]).await;
        match noted.map_err(destination.failed(doing))? {
            1 => Ok(()),
            _ => Err(MoveError::Busy("a segment was copied by somebody else".to_owned())),
        }
    }
}

/// The columns of a leaf's primary key, in its order.
pub(super) async fn key(source: &Session, table: &MovedTable) -> Result<Vec<String>, MoveError> {
    look::names(source, look::oid(source, &table.leaf).await?, PRIMARY_KEY).await
}

/// Cuts the tables of a stream, as its source sees them, and writes the segments down at the
/// destination.
pub(super) async fn plan(
    stream: &Stream<'_>,
    source: &Session,
    destination: &Session,
    bytes_each: u64,
) -> Result<(), MoveError> {
    let slot = stream.slot();
    let mut rows = Vec::new();
    for (_, table) in stream.tables() {
        let cuts = if has_key(table) { cuts(source, table, bytes_each).await? } else { Vec::new() };
        let lows = std::iter::once(None).chain(cuts.iter().map(Some));
        let highs = cuts.iter().map(Some).chain(std::iter::once(None));
        for (number, (low, high)) in lows.zip(highs).enumerate() {
            let (slot, leaf) = (Literal(&slot), table.leaf.to_string());
            rows.push(format!(
                "({slot}, {}, {number}, {}, {})",
                Literal(&leaf),
                array(low),
                array(high)
            ));
        }
    }
    let forget = remove(&slot);
    let sql = if rows.is_empty() {
        forget
    } else {
        let rows = rows.join(", ");
        format!(
            "BEGIN; {forget}; INSERT INTO foreshard.segments (move, leaf, number, low, high) \
             VALUES {rows}; COMMIT"
        )
    };
    destination.run("writing the segments of a copy down", &sql).await
}

/// Where a table is cut: the last key of each segment but the last.
async fn cuts(
    source: &Session,
    table: &MovedTable,
    bytes_each: u64,
) -> Result<Vec<Vec<String>>, MoveError> {
    let key = key(source, table).await?;
    let TableName { schema, name } = &table.leaf;
    let sql = "SELECT pg_relation_size(c.oid), c.reltuples::float8, \
         coalesce((SELECT abs(s.correlation)::float8 FROM pg_stats s WHERE s.schemaname = $1 \
         AND s.tablename = $2 AND s.attname = $3 AND NOT s.inherited), 0) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relname = $2";
    let doing = "looking where a table can be cut";
    let first = key.first().cloned().unwrap_or_default();
    let rows = source.rows(doing, sql, &[schema, name, &first]).await?;
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    let bytes = u64::try_from(row.get::<_, i64>(0)).unwrap_or_default();
    let (tuples, in_order): (f64, bool) = (row.get(1), row.get::<_, f64>(2) > 0.9);
    let most = if in_order { MANY } else { FEW };
    let count = bytes.checked_div(bytes_each).unwrap_or(0).clamp(1, most);
    if count == 1 || key.is_empty() {
        return Ok(Vec::new());
    }
    let percent = if tuples > SAMPLE { 100.0 * SAMPLE / tuples } else { 100.0 };
    let columns = names::list(&key);
    let texts: Vec<String> =
        key.iter().map(|name| format!("{}::text", names::quoted(name))).collect();
    let sql = format!(
        "SELECT ARRAY[{}] FROM (SELECT {columns}, \
         row_number() OVER (ORDER BY {columns}) AS \"foreshard n\", \
         count(*) OVER () AS \"foreshard c\" \
         FROM ONLY {} TABLESAMPLE SYSTEM ({percent})) AS seen \
         WHERE \"foreshard n\" % greatest(\"foreshard c\" / {count}, 1) = 0 \
         AND \"foreshard n\" < \"foreshard c\" ORDER BY \"foreshard n\" LIMIT {}",
        texts.join(", "),
        table.leaf,
        count - 1
    );
    let rows = source.client.query(&sql, &[]).await.map_err(source.failed(doing))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The segments of a stream's copy, as they were written down.
pub(super) async fn list(destination: &Session, slot: &str) -> Result<Vec<Segment>, MoveError> {
    let sql = "SELECT leaf, number, low, high, copied::text, rows, bytes \
         FROM foreshard.segments WHERE move = $1 ORDER BY leaf, number";
    let rows = destination.rows("reading the segments of a copy", sql, &[&slot]).await?;
    Ok(rows.iter().map(segment).collect())
}

fn segment(row: &Row) -> Segment {
    let count = |at: usize| u64::try_from(row.get::<_, i64>(at)).unwrap_or_default();
    Segment {
        leaf: row.get(0),
        number: row.get(1),
        low: row.get(2),
        high: row.get(3),
        copied: row.get::<_, Option<String>>(4).and_then(|text| text.parse().ok()),
        rows: count(5),
        bytes: count(6),
    }
}

/// Values as an array of texts.
fn array(values: Option<&Vec<String>>) -> String {
    let Some(values) = values else { return "NULL".to_owned() };
    let values: Vec<String> = values.iter().map(|value| Literal(value).to_string()).collect();
    format!("ARRAY[{}]", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::Segment;

    fn values(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn a_segment_is_what_lies_between_two_keys_with_the_second() {
        let table = crate::mover::change::tests::orders();
        let key = ["tenant".to_owned(), "id".to_owned()];
        let mut segment = Segment {
            leaf: String::new(),
            number: 0,
            low: None,
            high: None,
            copied: None,
            rows: 0,
            bytes: 0,
        };
        assert_eq!(segment.condition(&table, &key), None);
        segment.high = Some(values(&["7", "it's"]));
        let high = "ROW(\"tenant\", \"id\") <= ROW('7'::bigint, 'it''s'::bigint)";
        assert_eq!(segment.condition(&table, &key).unwrap(), high);
        segment.low = Some(values(&["6", "9"]));
        let low = "ROW(\"tenant\", \"id\") > ROW('6'::bigint, '9'::bigint)";
        assert_eq!(segment.condition(&table, &key).unwrap(), format!("{low} AND {high}"));
    }
}
