//! MERGE whose source is read first: then it runs with the rows in it, on each node with its own.

use std::sync::Arc;

use smallvec::SmallVec;

use super::select::{described_columns, values};
use super::session::ClientSession;
use super::simple::Way;
use super::writes::params_of;
use crate::executor::{Bound, Cost, Entered, Fault};
use crate::ids::ShardId;
use crate::load::Access;
use crate::planner;
use crate::router::{MergeRows, MergeTo, MergeWith, Params, Route};
use crate::sql::Ident;
use crate::wire::{ServerError, SqlState};

/// The most rows of a source: a node must see all of its own at once.
const ROWS_MAX: usize = 100_000;

impl ClientSession {
    /// Runs a MERGE; leaves `ReadyForQuery` to the caller.
    pub(super) async fn merge(
        &mut self,
        merge: &MergeWith,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        let source = merge.text.get(merge.source.clone()).unwrap_or_default();
        let types = self.types_in(&merge.text, bound).await?;
        let typed = bound.map(|bound| Bound { types: &types, bind: bound.bind });
        let typed = typed.as_ref();
        let selected = self.fetch(&format!("SELECT * FROM {source}"), typed).await?;
        if selected.rows.len() > ROWS_MAX {
            return Err(too_many().into());
        }
        let columns = selected.columns.as_ref().map_or(Ok(Vec::new()), |c| described_columns(c))?;
        let types: Vec<(u32, i32)> = columns.iter().map(|(_, oid)| (*oid, -1)).collect();
        let kinds = self.value_types(&types, false).await?;
        let rows = selected.rows.iter().map(|row| values(row)).collect::<Result<Vec<_>, _>>()?;
        let scalar = self.is_scalar(merge, &columns, &kinds, typed).await?;
        let names = columns.iter().map(|(name, _)| name.clone());
        let named: Vec<(String, String)> = names.zip(kinds).collect();
        let written = planner::merge(merge, &named, &rows, scalar);
        let text = written.text.clone();
        let source = MergeRows { columns: &columns, rows: &rows };
        let way = match &merge.to {
            _ if rows.is_empty() => None,
            MergeTo::Home => None,
            MergeTo::EveryNode => Some(Route::EveryNode),
            MergeTo::EveryShard(_) | MergeTo::Shards { .. } => {
                let shards = self.enter_rows(merge, source, &params_of(typed)).await?;
                Some(match &merge.to {
                    MergeTo::Shards { .. } => Route::Insert(Arc::new(written), shards),
                    _ => Route::Write(shards.into_iter().collect()),
                })
            }
        };
        let home = self.worker.engine.live_map.load().home();
        // Without rows it is checked, and does nothing.
        let way = way.map_or(Way::Node(home, Cost::none(Access::Write)), Way::Steps);
        self.write_way(way, &text, typed).await
    }

    /// Whether a row of the source, named as a whole, is its one value: that of a function which gives no
    /// composite values.
    async fn is_scalar(
        &mut self,
        merge: &MergeWith,
        columns: &[(String, u32)],
        kinds: &[String],
        typed: Option<&Bound<'_, '_>>,
    ) -> Result<bool, Fault> {
        let source = merge.text.get(merge.source.clone()).unwrap_or_default();
        let ([(_, oid)], [kind]) = (columns, kinds) else { return Ok(false) };
        if source.starts_with('(') || !source.contains('(') {
            return Ok(false);
        }
        // Neither a table's row nor a function's composite value has the type of its column.
        let whole = Ident::new(&merge.alias);
        let told = format!("SELECT COALESCE({whole}.*) FROM {source} WHERE false");
        let told = self.fetch(&told, typed).await?;
        let described = told.columns.as_ref().map_or(Ok(Vec::new()), |c| described_columns(c))?;
        let scalar = matches!(described.as_slice(), [(_, whole)] if whole == oid);
        if scalar && kind.ends_with("[]") {
            return Err(ServerError::refused(
                "this MERGE needs several nodes",
                "Its source is a function that gives arrays, each as a row.",
                "Write a query as its source: USING (SELECT …) AS name.",
            )
            .into());
        }
        Ok(scalar)
    }

    /// Passes the gates of the shards that rows belong to; the shard of each row, or all.
    async fn enter_rows(
        &mut self,
        merge: &MergeWith,
        source: MergeRows<'_>,
        params: &Params<'_>,
    ) -> Result<Vec<ShardId>, Fault> {
        loop {
            let map = self.worker.engine.live_map.snapshot();
            let shards = match &merge.to {
                MergeTo::EveryShard(group) => {
                    let of_group = map.shards().filter(|(_, shard)| shard.group == *group);
                    of_group.map(|(id, _)| id).collect()
                }
                _ => merge.shards(source, params, &map)?,
            };
            let mut distinct: SmallVec<[ShardId; 2]> = shards.iter().copied().collect();
            distinct.sort_unstable();
            distinct.dedup();
            if self.session.enter(&distinct, map.epoch()).await? == Entered::Ready {
                return Ok(shards);
            }
        }
    }
}

fn too_many() -> ServerError {
    let message = format!("the source of MERGE has more than {ROWS_MAX} rows");
    ServerError::new(SqlState("54000"), message).with_hint("Merge fewer rows a statement.")
}
