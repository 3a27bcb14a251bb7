//! INSERT … ON CONFLICT by a unique lookup: its values are claimed, rows with free ones are inserted, and
//! for the others what is there is changed, or nothing is done.

use std::collections::BTreeSet;
use std::time::Duration;

use super::capture::Answer;
use super::select::values;
use super::session::ClientSession;
use super::simple::Way;
use crate::executor::{Bound, Fault};
use crate::planner::UpsertSql;
use crate::router::Upsert;
use crate::wire::{ServerError, SqlState};

/// The most rows of such a statement.
const ROWS_MAX: usize = 10_000;
/// How often a row is tried whose value comes and goes, or which its node does not show yet.
const TRIES_MAX: u32 = 20;
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// A row: its values of the lookups, and its key where that is known.
struct Row {
    at: usize,
    looked_up: Vec<Option<String>>,
    key: Option<Vec<String>>,
}

impl Row {
    /// What it would be in a lookup.
    fn entry(&self, lookup: usize) -> Option<Vec<String>> {
        let (value, key) = (self.looked_up.get(lookup)?.clone()?, self.key.clone()?);
        Some([vec![value], key].concat())
    }
}

/// A statement on its way.
struct Run<'a, 'b> {
    upsert: &'a Upsert,
    kinds: Vec<String>,
    bound: Option<&'a Bound<'a, 'b>>,
    /// Values of rows that it has inserted or changed.
    changed: BTreeSet<String>,
    count: u64,
}

impl ClientSession {
    /// Runs the statement; the count of its rows. Leaves its end to the caller.
    pub(super) async fn upsert<'a>(
        &mut self,
        upsert: &'a Upsert,
        bound: Option<&'a Bound<'a, '_>>,
    ) -> Result<u64, Fault> {
        let (text, layout) = (&upsert.rows.text, &upsert.rows.layout);
        if layout.rows.len() > ROWS_MAX {
            let message = format!("ON CONFLICT by a lookup with more than {ROWS_MAX} rows");
            let error = ServerError::new(SqlState("54000"), message);
            return Err(error.with_hint("Insert fewer rows a statement.").into());
        }
        let types: Vec<(u32, i32)> =
            upsert.table.columns.iter().map(|column| (column.type_oid, -1)).collect();
        let kinds = self.value_types(&types, false).await?;
        let answer = self.fetch(&UpsertSql(upsert).values(&kinds), bound).await?;
        let rows = read(upsert, &answer)?;
        if upsert.conflict.returning.is_some() && bound.is_none() {
            let columns = self.session.columns_here(text, &[]).await?;
            self.client.relay(&columns).await?;
        }
        let mut seen = BTreeSet::new();
        let mut each = rows.iter().flat_map(|row| (0..).zip(&row.looked_up));
        let twice = each.any(|(lookup, value)| value.is_some() && !seen.insert((lookup, value)));
        let mut run = Run { upsert, kinds, bound, changed: BTreeSet::new(), count: 0 };
        let portion = if twice { 1 } else { rows.len() };
        for rows in rows.chunks(portion.max(1)) {
            Box::pin(self.upsert_rows(&mut run, rows)).await?;
        }
        Ok(run.count)
    }

    async fn upsert_rows(&mut self, run: &mut Run<'_, '_>, rows: &[Row]) -> Result<(), Fault> {
        let mut free: Vec<&Row> = rows.iter().collect();
        let mut taken = Vec::new();
        for (number, (lookup, _)) in run.upsert.lookups.iter().enumerate() {
            let wanted: Vec<_> = free.iter().filter_map(|row| row.entry(number)).collect();
            let found = self.session.free_values(lookup, &wanted).await?;
            let is_taken = |row: &&Row| row.entry(number).is_some_and(|it| !found.contains(&it[0]));
            let (kept, own): (Vec<_>, Vec<_>) = free.into_iter().partition(|row| !is_taken(row));
            (free, taken) = (kept, [taken, own].concat());
        }
        if !free.is_empty() {
            let at: Vec<usize> = free.iter().map(|row| row.at).collect();
            let inserted = self.inserted(run, &UpsertSql(run.upsert).insert(&at)).await?;
            run.count += inserted.count();
            self.relay_rows(&inserted).await?;
            let values = free.iter().filter_map(|row| row.looked_up.first()?.clone());
            run.changed.extend(values);
        }
        if run.upsert.conflict.update.is_some() {
            for row in taken {
                Box::pin(self.upsert_taken(run, row)).await?;
            }
        }
        Ok(())
    }

    /// Changes the row that has the value, if there is one still; else inserts.
    async fn upsert_taken(&mut self, run: &mut Run<'_, '_>, row: &Row) -> Result<(), Fault> {
        let (Some((lookup, _)), Some(entry)) = (run.upsert.lookups.first(), row.entry(0)) else {
            return Ok(());
        };
        let value = &entry[0];
        if run.changed.contains(value) {
            let message = "ON CONFLICT DO UPDATE command cannot affect row a second time";
            return Err(ServerError::new(SqlState("21000"), message).into());
        }
        let sql = UpsertSql(run.upsert);
        for attempt in 0..TRIES_MAX {
            let Some(key) = self.session.holder(lookup, value).await? else {
                let wanted = std::slice::from_ref(&entry);
                if self.session.free_values(lookup, wanted).await?.contains(value) {
                    let inserted = self.inserted(run, &sql.insert(&[row.at])).await?;
                    run.count += inserted.count();
                    run.changed.insert(value.clone());
                    return self.relay_rows(&inserted).await;
                }
                continue;
            };
            let found = [vec![value.clone()], key].concat();
            if self.fetch(&sql.lock(&found), None).await?.rows.is_empty() {
                // Who has made it is committed on the lookup's node, and on the row's soon.
                self.session.pause(PAUSE_MAX.min(Duration::from_millis(1 << attempt))).await?;
                continue;
            }
            let Some(update) = sql.update(row.at, &found, &run.kinds) else { return Ok(()) };
            let bound = run.bound;
            let change =
                async |session: &mut Self| Box::pin(session.rewritten(&update, bound)).await;
            let updated = self.capture(change).await?.count();
            run.count += updated;
            if let Some(select) = sql.returning(&found).filter(|_| updated > 0) {
                let answer = Box::pin(self.fetch_as(&select, run.bound, None)).await?;
                self.relay_rows(&answer).await?;
            }
            if updated > 0 {
                run.changed.insert(value.clone());
            }
            return Ok(());
        }
        let message = "could not serialize access: the row that conflicts is not seen";
        let error = ServerError::new(SqlState::SERIALIZATION_FAILURE, message);
        Err(error.with_hint("Try the transaction again.").into())
    }

    /// Inserts rows of which it is known that no lookup speaks against them.
    async fn inserted(&mut self, run: &Run<'_, '_>, text: &str) -> Result<Answer, Fault> {
        let bound = run.bound;
        let insert = async |session: &mut Self| match session.plain_way(text, bound).await?.0 {
            Way::Steps(route) => Box::pin(session.write(route, text, bound)).await,
            way => Box::pin(session.write_way(way, text, bound)).await,
        };
        self.capture(insert).await
    }

    async fn relay_rows(&mut self, answer: &Answer) -> Result<(), Fault> {
        for row in &answer.rows {
            self.client.relay(row).await?;
        }
        Ok(())
    }
}

/// The rows of what [`UpsertSql::values`] asks for.
fn read(upsert: &Upsert, answer: &Answer) -> Result<Vec<Row>, Fault> {
    let count = upsert.lookups.len();
    let read = |(at, row): (usize, &bytes::Bytes)| {
        let mut columns = values(row)?.into_iter().skip(1);
        let looked_up = columns.by_ref().take(count).collect();
        Ok(Row { at, looked_up, key: columns.collect() })
    };
    answer.rows.iter().enumerate().map(read).collect()
}
