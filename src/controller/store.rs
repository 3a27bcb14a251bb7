//! The history in the catalog: read at the start, written chunk by chunk.

use parking_lot::Mutex;

use crate::catalog::{Catalog, CatalogError, Change, Expect};
use crate::load::{CHUNK_STEPS, Chunk, History, Recorder};

/// Old chunks deleted by one commit, at the most.
const DELETED_MAX: usize = 100;

/// How much of the history the catalog has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stored {
    /// The step after the last one written.
    end_step: u64,
    /// The oldest chunk that may be there.
    oldest_chunk: Option<u64>,
}

impl Stored {
    /// Reads the stored history into `history`. Chunks of another step length are of no use any
    /// more: they are deleted.
    pub(super) async fn restore(
        catalog: &Catalog,
        mut history: History,
    ) -> Result<(History, Self), CatalogError> {
        let mut useless = None;
        let mut oldest_chunk = None;
        for chunk in catalog.list::<Chunk>().await? {
            if history.restore(&chunk.record) {
                oldest_chunk.get_or_insert(chunk.record.number);
            } else {
                let change: Change = useless.take().unwrap_or_default();
                useless = Some(change.delete(&chunk.record, Expect::Anything));
            }
        }
        if let Some(useless) = useless {
            tracing::warn!("load history of another step length dropped");
            catalog.commit(useless).await?;
        }
        let stored = Self { end_step: history.end_step(), oldest_chunk };
        Ok((history, stored))
    }

    /// Writes what came since the last time, and deletes chunks that are older than the history.
    pub(super) async fn store(
        &mut self,
        catalog: &Catalog,
        recorder: &Mutex<Recorder>,
    ) -> Result<(), CatalogError> {
        let (chunks, first_step, end_step) = {
            let recorder = recorder.lock();
            let history = recorder.history();
            let numbers = history.chunks_from(self.end_step);
            let chunks: Vec<Chunk> = numbers.filter_map(|number| history.chunk(number)).collect();
            (chunks, history.first_step(), history.end_step())
        };
        let Some(newest) = chunks.first().filter(|_| end_step > self.end_step) else {
            return Ok(());
        };
        let mut change = Change::new();
        for chunk in &chunks {
            change = change.put(chunk, Expect::Anything)?;
        }
        let first_chunk = first_step / CHUNK_STEPS;
        let oldest = self.oldest_chunk.unwrap_or(newest.number);
        for number in (oldest..first_chunk).take(DELETED_MAX) {
            change = change.delete(&Chunk { number, ..newest.clone() }, Expect::Anything);
        }
        catalog.commit(change).await?;
        let deleted = u64::try_from(DELETED_MAX).unwrap_or(u64::MAX);
        self.oldest_chunk = Some(first_chunk.min(oldest.saturating_add(deleted)).max(oldest));
        self.end_step = end_step;
        Ok(())
    }
}
