//! The moves that are not finished, without reading all that are kept at each change of one: finished
//! ones stay as they are, and ids follow one another.

use std::collections::BTreeSet;

use crate::catalog::{Catalog, CatalogError, Versioned, numbered};
use crate::ids::MoveId;
use crate::shard_move::{Move, State};

/// What is known of the moves after the first look.
#[derive(Debug, Default)]
pub(super) struct OpenMoves {
    /// The id that no move has had yet; `None` before the first look.
    next: Option<MoveId>,
    open: BTreeSet<MoveId>,
}

impl OpenMoves {
    /// All of them as they are now; those that have begun come first. Reads what was open before and
    /// what is new; the first time everything.
    ///
    /// # Errors
    /// The catalog's; the next look makes up for it.
    pub(super) async fn look(
        &mut self,
        catalog: &Catalog,
    ) -> Result<Vec<Versioned<Move>>, CatalogError> {
        let mut moves = Vec::new();
        let mut next = if let Some(next) = self.next {
            for id in &self.open {
                moves.extend(catalog.get::<Move>(&numbered(id.0)).await?);
            }
            next
        } else {
            moves = catalog.list::<Move>().await?;
            MoveId(moves.last().map_or(1, |newest| newest.record.id.0 + 1))
        };
        while let Some(new) = catalog.get::<Move>(&numbered(next.0)).await? {
            moves.push(new);
            next = MoveId(next.0 + 1);
        }
        moves.retain(|mv| !mv.record.is_finished());
        self.open = moves.iter().map(|mv| mv.record.id).collect();
        self.next = Some(next);
        moves.sort_by_key(|mv| (mv.record.state == State::Requested, mv.record.id));
        Ok(moves)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::BoxFuture;

    use super::OpenMoves;
    use crate::catalog::{
        Catalog, CatalogError, Change, EmbeddedKv, Entry, Expect, Kv, Op, Revision,
    };
    use crate::ids::{MoveId, NodeId, ShardId};
    use crate::shard_move::{Cause, Event, Move};

    /// The embedded store, which counts the entries that it gives.
    struct Counting(EmbeddedKv, Arc<AtomicUsize>);

    impl Kv for Counting {
        fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, CatalogError>> {
            let (found, given) = (self.0.get(key), Arc::clone(&self.1));
            Box::pin(async move {
                given.fetch_add(1, Ordering::Relaxed);
                found.await
            })
        }

        fn range(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<Entry>, CatalogError>> {
            let (found, given) = (self.0.range(prefix), Arc::clone(&self.1));
            Box::pin(async move {
                let found = found.await?;
                given.fetch_add(found.len(), Ordering::Relaxed);
                Ok(found)
            })
        }

        fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Revision, CatalogError>> {
            self.0.commit(ops)
        }
    }

    fn requested(id: u64) -> Move {
        Move::requested(MoveId(id), ShardId(0), NodeId(0), NodeId(1), Cause::Operator, 1)
    }

    fn finished(id: u64) -> Move {
        let failed = Event::Failed { error: "no room".to_owned() };
        let undoing = requested(id).on_event(failed, 2).unwrap();
        undoing.on_event(Event::Undone, 3).unwrap()
    }

    #[tokio::test]
    async fn a_look_costs_what_is_open_and_not_what_is_kept() {
        let folder = std::env::temp_dir().join(format!("foreshard-open-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let read = Arc::new(AtomicUsize::new(0));
        let kv = EmbeddedKv::open(&folder.join("catalog")).unwrap();
        let catalog = Catalog::new(Arc::new(Counting(kv, Arc::clone(&read))));
        for id in 1..=60 {
            let mv = if id == 30 { requested(id) } else { finished(id) };
            catalog.put(&mv, Expect::Absent).await.unwrap();
        }
        let mut open = OpenMoves::default();
        let mut look = async || {
            let before = read.load(Ordering::Relaxed);
            let found = open.look(&catalog).await.unwrap();
            let ids: Vec<u64> = found.iter().map(|mv| mv.record.id.0).collect();
            (ids, read.load(Ordering::Relaxed) - before)
        };
        assert_eq!(look().await.0, [30]);
        // It, and the one that is not there yet.
        assert_eq!(look().await, (vec![30], 2));
        catalog.put(&requested(61), Expect::Absent).await.unwrap();
        catalog.put(&finished(62), Expect::Absent).await.unwrap();
        catalog.put(&requested(63), Expect::Absent).await.unwrap();
        assert_eq!(look().await, (vec![30, 61, 63], 5));
        catalog.put(&finished(30), Expect::Anything).await.unwrap();
        let delete = Change::new().delete(&requested(61), Expect::Anything);
        catalog.commit(delete).await.unwrap();
        assert_eq!(look().await, (vec![63], 4));
        assert_eq!(look().await, (vec![63], 2));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
