//! Whether rows of several nodes in an order can be merged as they come: PostgreSQL says of which
//! types they are, once in a while for each statement.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::merge_session::MergeSession;
use super::pull::{PullMode, PullRun};
use super::reduce::{Field, fields};
use super::run::Cost;
use super::sorted::Order;
use super::{Client, Fault, Scatter, Session};
use crate::ids::NodeId;
use crate::load::Access;
use crate::merge::SortType;
use crate::planner::{Ordered, ordered};
use crate::router::{Params, Reduction};
use crate::wire::{Bind, put_frame, put_parse};

/// What is known of a statement whose rows are merged.
#[derive(Debug)]
pub(super) struct Sorting {
    ordered: Ordered,
    /// The `RowDescription` that the client gets.
    pub(super) columns: Bytes,
    width: usize,
    types: Vec<SortType>,
}

/// A statement that is to be merged.
#[derive(Debug)]
pub(super) struct Sorted {
    pub(super) sorting: Arc<Sorting>,
    pub(super) order: Order,
}

impl Session {
    /// Runs a SELECT in an order by merging what the nodes give; `false` if that can't be done.
    pub(super) async fn run_sorted(
        &mut self,
        run: &PullRun<'_>,
        client: &mut Client,
    ) -> Result<bool, Fault> {
        let Some(reduction) = run.pull.reduction.as_ref().filter(|_| run.mode == PullMode::All)
        else {
            return Ok(false);
        };
        let Some(Sorted { sorting, order }) = self.sorted(run, reduction).await? else {
            return Ok(false);
        };
        if run.describe {
            client.relay(&sorting.columns).await?;
        }
        let map = self.engine.live_map.snapshot();
        let nodes: Vec<(NodeId, Cost)> = map
            .nodes()
            .map(|(node, _)| (node, map.shards_on(node, reduction.group).collect()))
            .map(|(node, shards)| (node, Cost::of(shards, Access::Read)))
            .filter(|(_, cost)| !cost.shards.is_empty())
            .collect();
        let messages = messages(&sorting, run);
        let scatter =
            Scatter { nodes: &nodes, messages: &messages, describe: false, order: Some(&order) };
        self.scatter(&scatter, client).await.map(|()| true)
    }

    /// What each node would be sent; nothing of it is done.
    pub async fn explain_sorted(&mut self, run: &PullRun<'_>) -> Result<Option<String>, Fault> {
        let Some(reduction) = &run.pull.reduction else { return Ok(None) };
        let sorted = self.sorted(run, reduction).await?;
        Ok(sorted.map(|sorted| sorted.sorting.ordered.select.clone()))
    }

    pub(super) async fn sorted(
        &mut self,
        run: &PullRun<'_>,
        reduction: &Reduction,
    ) -> Result<Option<Sorted>, Fault> {
        let pull = &run.pull;
        if self.has_redefined_for(pull)
            || pull.expanded.is_some()
            || !pull.unknown_functions.is_empty()
        {
            return Ok(None);
        }
        let asked = self.asked(run, self.engine.live_map.load().epoch());
        let found = asked.as_ref().map(|asked| self.engine.sorted.find(asked));
        let sorting = match found {
            Some(Ok(known)) => known,
            missing => {
                let since = Instant::now();
                let learned = Arc::new(self.learn_sorting(run, reduction).await?);
                if let (Some(Err(generation)), Some(asked)) = (missing, asked) {
                    let kept = Arc::clone(&learned);
                    self.engine.sorted.keep(asked, kept, (generation, since));
                }
                learned
            }
        };
        let Some(sorting) = sorting.as_ref() else { return Ok(None) };
        let number = |text: &Option<String>| text.as_ref().map(|text| number(text, &run.params));
        let (most, skip) = (number(&sorting.ordered.count), number(&sorting.ordered.offset));
        let (Some(most), Some(skip)) = (most.unwrap_or(Some(None)), skip.unwrap_or(Some(None)))
        else {
            return Ok(None);
        };
        let order = Order {
            types: sorting.types.clone(),
            directions: sorting.ordered.directions.clone(),
            width: sorting.width,
            skip: skip.unwrap_or(0),
            most,
        };
        Ok(Some(Sorted { sorting: Arc::clone(sorting), order }))
    }

    async fn learn_sorting(
        &mut self,
        run: &PullRun<'_>,
        reduction: &Reduction,
    ) -> Result<Option<Arc<Sorting>>, Fault> {
        let Some(ordered) = ordered(run.text, reduction) else { return Ok(None) };
        let mut merge = MergeSession::begin(self).await?;
        let learned = merge.sorting(run, ordered).await;
        merge.end().await?;
        match learned {
            // What is wrong with the statement is told by the way that it takes then.
            Err(Fault::Reported(_)) => Ok(None),
            learned => Ok(learned?.map(Arc::new)),
        }
    }
}

impl MergeSession {
    async fn sorting(
        &mut self,
        run: &PullRun<'_>,
        ordered: Ordered,
    ) -> Result<Option<Sorting>, Fault> {
        let statement = run.text.get(run.start..).unwrap_or_default();
        let original = self.describe(statement, run.params.types).await?;
        let widened = self.describe(&ordered.select, run.params.types).await?;
        let (own, all) = (fields(&original.columns), fields(&widened.columns));
        let width = own.len();
        if all.len() != width + ordered.directions.len()
            || all[..width] != own[..]
            || original.param_types != widened.param_types
        {
            return Ok(None);
        }
        let types: Option<Vec<SortType>> =
            all[width..].iter().map(|field| SortType::of(field.type_oid)).collect();
        let Some(types) = types else { return Ok(None) };
        let collated = types.iter().any(|it| it.is_collated());
        if collated && !self.compares_bytes(&ordered, &all, &types).await? {
            return Ok(None);
        }
        Ok(Some(Sorting { ordered, columns: original.columns, width, types }))
    }

    /// Whether all texts that the rows are ordered by are compared byte by byte.
    async fn compares_bytes(
        &mut self,
        ordered: &Ordered,
        all: &[Field],
        types: &[SortType],
    ) -> Result<bool, Fault> {
        let names: Vec<String> = (0..all.len()).map(|at| format!("f{at}")).collect();
        let keys = names[all.len() - types.len()..].iter().zip(types);
        let collations = keys.filter(|(_, of)| of.is_collated()).map(|(name, _)| {
            format!(
                "CASE pg_catalog.pg_collation_for(s.{name}) WHEN '\"default\"' THEN d.datcollate \
                 WHEN '\"C\"' THEN 'C' WHEN '\"POSIX\"' THEN 'C' END IN ('C', 'POSIX')"
            )
        });
        let sql = format!(
            "SELECT {} FROM pg_catalog.pg_database d LEFT JOIN ({}) s ({}) ON false \
             WHERE d.datname = pg_catalog.current_database()",
            collations.collect::<Vec<_>>().join(" AND "),
            ordered.unordered,
            names.join(", ")
        );
        let rows = self.guard.command(&sql).await?.rows;
        Ok(rows.into_iter().flatten().flatten().next().as_deref() == Some("t"))
    }
}

/// What each node is sent: the client's own columns in its formats, the others in binary.
fn messages(sorting: &Sorting, run: &PullRun<'_>) -> BytesMut {
    let mut out = opened(sorting, run, b"");
    put_frame(b'E', &mut out, |out| out.extend_from_slice(&[0; 5]));
    put_frame(b'S', &mut out, |_| ());
    out
}

/// The same up to where its portal is made.
pub(super) fn opened(sorting: &Sorting, run: &PullRun<'_>, portal: &[u8]) -> BytesMut {
    let mut formats: Vec<i16> = vec![0; sorting.width];
    if let Some(bind) = &run.bind
        && let Ok(bind) = Bind::read(bind.full.get(5..).unwrap_or_default())
    {
        let codes = bind.results.get(2..).unwrap_or_default().chunks_exact(2);
        let codes: Vec<i16> = codes.map(|code| i16::from_be_bytes([code[0], code[1]])).collect();
        for (at, format) in formats.iter_mut().enumerate() {
            *format = if codes.len() == 1 { codes[0] } else { *codes.get(at).unwrap_or(&0) };
        }
    }
    formats.extend(sorting.types.iter().map(|_| 1));
    let mut results = u16::try_from(formats.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    results.extend(formats.iter().flat_map(|format| format.to_be_bytes()));
    let params = &run.params;
    let value = |(at, value): (usize, Option<&[u8]>)| {
        (format_of(params, at), value.map(Bytes::copy_from_slice))
    };
    let values: Vec<_> = params.values.iter().copied().enumerate().map(value).collect();
    let bind = Bind::made(portal, &values, &results);
    let mut out = BytesMut::new();
    put_parse(b"", sorting.ordered.select.as_bytes(), params.types, &mut out);
    put_frame(b'B', &mut out, |out| out.extend_from_slice(&bind));
    out
}

fn format_of(params: &Params<'_>, at: usize) -> i16 {
    match params.formats {
        [] => 0,
        [one] => *one,
        many => many.get(at).copied().unwrap_or(0),
    }
}

/// The number of LIMIT or OFFSET: a plain one, or a parameter, of which NULL is none. `None` if it
/// can't be told here, or PostgreSQL would not take it.
#[expect(clippy::option_option, reason = "not known, no limit, and a number are three things")]
fn number(text: &str, params: &Params<'_>) -> Option<Option<u64>> {
    let Some(param) = text.trim().strip_prefix('$') else {
        return text.trim().parse().ok().map(Some);
    };
    let at = param.parse::<usize>().ok()?.checked_sub(1)?;
    let Some(bytes) = params.values.get(at)? else { return Some(None) };
    let value = match (format_of(params, at), bytes.len()) {
        (0, _) => std::str::from_utf8(bytes).ok()?.trim().parse().ok()?,
        (_, 8) => i64::from_be_bytes((*bytes).try_into().ok()?),
        (_, 4) => i32::from_be_bytes((*bytes).try_into().ok()?).into(),
        (_, 2) => i16::from_be_bytes((*bytes).try_into().ok()?).into(),
        _ => return None,
    };
    u64::try_from(value).ok().map(Some)
}
