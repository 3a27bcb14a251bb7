//! A number of permits that can be changed while they are out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::runtime::Tasks;

/// So many permits. Cheap to clone: all clones have the same ones.
#[derive(Debug, Clone)]
pub struct Permits {
    permits: Arc<Semaphore>,
    size: Arc<AtomicU32>,
}

impl Permits {
    /// At least one.
    pub fn new(size: u32) -> Self {
        let size = size.max(1);
        let permits = Arc::new(Semaphore::new(size as usize));
        Self { permits, size: Arc::new(AtomicU32::new(size)) }
    }

    /// How many there are.
    pub fn size(&self) -> u32 {
        self.size.load(Ordering::Relaxed)
    }

    /// How many nobody has.
    pub fn free(&self) -> usize {
        self.permits.available_permits()
    }

    /// One, if nobody has it.
    pub fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// One, in the order in which they were asked for. Cancel safe.
    ///
    /// # Errors
    /// Never: they are not closed.
    pub async fn wait(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.permits).acquire_owned().await
    }

    /// There are so many from now on. Of those that are out too many are kept back as they come back, each
    /// in its turn; `make_room` is called for each.
    pub fn resize(&self, size: u32, tasks: &Tasks, make_room: impl Fn() + Send + Sync + 'static) {
        let size = size.max(1);
        let before = self.size.swap(size, Ordering::Relaxed);
        if let Some(more) = size.checked_sub(before) {
            self.permits.add_permits(more as usize);
            return;
        }
        let (permits, token) = (Arc::clone(&self.permits), tasks.token().clone());
        let shrink = async move {
            for _ in size..before {
                make_room();
                tokio::select! {
                    () = token.cancelled() => return,
                    permit = permits.acquire() => {
                        if let Ok(permit) = permit {
                            permit.forget();
                        }
                    }
                }
            }
        };
        tasks.spawn("shrink", shrink);
    }
}

#[cfg(test)]
mod tests {
    use super::Permits;
    use crate::runtime::Tasks;

    #[tokio::test]
    async fn there_are_more_at_once_and_fewer_as_they_come_back() {
        let (permits, tasks) = (Permits::new(2), Tasks::new());
        let out: Vec<_> = (0..2).map(|_| permits.take().unwrap()).collect();
        assert!(permits.take().is_none());
        permits.resize(3, &tasks, || {});
        let third = permits.take().unwrap();
        permits.resize(1, &tasks, || {});
        assert_eq!(permits.size(), 1);
        tokio::task::yield_now().await;
        drop(out);
        while permits.free() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(permits.take().is_none(), "two were kept back");
        drop(third);
        assert!(permits.take().is_some());
        permits.resize(1, &tasks, || {});
        assert_eq!(permits.free(), 1);
    }
}
