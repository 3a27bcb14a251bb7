//! The history in the catalog: read at the start, written chunk by chunk.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::catalog::{Catalog, CatalogError, Change, Expect};
use crate::load::{CHUNK_STEPS, Chunk, History, Ladder, Recorder};

/// Chunks written or deleted by one commit, at the most.
const COMMIT_MAX: usize = 100;

/// How much of the history the catalog has, by the length of its steps.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored(BTreeMap<u64, Extent>);

/// How much of one resolution.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    /// The step after the last one written.
    end_step: u64,
    /// The oldest chunk that may be there.
    oldest_chunk: Option<u64>,
}

impl Stored {
    /// Reads the stored history into `ladder`. Chunks of another step length are of no use any
    /// more: they are deleted.
    pub(super) async fn restore(
        catalog: &Catalog,
        mut ladder: Ladder,
    ) -> Result<(Ladder, Self), CatalogError> {
        let stored = catalog.list::<Chunk>().await?;
        let mut oldest = BTreeMap::new();
        for chunk in &stored {
            oldest.entry(chunk.record.step_ms).or_insert(chunk.record.number);
        }
        // What a rung derives from finer ones at the start is written again: it costs little.
        let ends: BTreeMap<u64, u64> = stored
            .iter()
            .map(|chunk| &chunk.record)
            .map(|chunk| (chunk.step_ms, chunk.end_step()))
            .collect();
        let useless = ladder.restore(stored.into_iter().map(|chunk| chunk.record).collect());
        if !useless.is_empty() {
            tracing::warn!("load history of another step length dropped");
        }
        for useless in useless.chunks(COMMIT_MAX) {
            let delete = |change: Change, chunk| change.delete(chunk, Expect::Anything);
            catalog.commit(useless.iter().fold(Change::new(), delete)).await?;
        }
        let extent = |history: &History| {
            let step_ms = history.step_ms();
            let end_step = ends.get(&step_ms).copied().unwrap_or_default();
            (step_ms, Extent { end_step, oldest_chunk: oldest.get(&step_ms).copied() })
        };
        let extents = ladder.histories().map(extent).collect();
        Ok((ladder, Self(extents)))
    }

    /// Has everything written anew the next time: the past was changed.
    pub(super) fn forget(&mut self) {
        self.0.values_mut().for_each(|extent| extent.end_step = 0);
    }

    /// Writes what came since the last time, and deletes chunks that are older than the history.
    pub(super) async fn store(
        &mut self,
        catalog: &Catalog,
        recorder: &Mutex<Recorder>,
    ) -> Result<(), CatalogError> {
        let mut news: Vec<(u64, News)> = Vec::new();
        for history in recorder.lock().ladder().histories() {
            let extent = self.0.entry(history.step_ms()).or_default();
            news.extend(extent.news(history).map(|news| (history.step_ms(), news)));
        }
        let (mut change, mut size) = (Change::new(), 0);
        for (_, news) in &news {
            for chunk in &news.chunks {
                change = change.put(chunk, Expect::Anything)?;
                size += 1;
                if size >= COMMIT_MAX {
                    catalog.commit(std::mem::take(&mut change)).await?;
                    size = 0;
                }
            }
            for number in news.old.clone() {
                let Some(like) = news.chunks.first() else { continue };
                let old = Chunk { number, ..like.clone() };
                change = change.delete(&old, Expect::Anything);
                size += 1;
            }
        }
        if size > 0 {
            catalog.commit(change).await?;
        }
        for (step_ms, news) in news {
            let extent = Extent { end_step: news.end_step, oldest_chunk: Some(news.old.end) };
            self.0.insert(step_ms, extent);
        }
        Ok(())
    }
}

/// What one resolution has for the catalog.
struct News {
    /// Not empty.
    chunks: Vec<Chunk>,
    /// Numbers of the chunks to delete.
    old: std::ops::Range<u64>,
    end_step: u64,
}

impl Extent {
    fn news(self, history: &History) -> Option<News> {
        let end_step = history.end_step();
        let numbers = history.chunks_from(self.end_step);
        let chunks: Vec<Chunk> = numbers.filter_map(|number| history.chunk(number)).collect();
        let newest = chunks.first().filter(|_| end_step > self.end_step)?;
        let first = history.first_step() / CHUNK_STEPS;
        let oldest = self.oldest_chunk.unwrap_or(newest.number).min(first);
        let most = oldest.saturating_add(u64::try_from(COMMIT_MAX).unwrap_or(u64::MAX));
        Some(News { chunks, old: oldest..first.min(most), end_step })
    }
}
