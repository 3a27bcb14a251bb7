//! The savepoints of a transaction block, for what ends with them: cursors and portals that do not stand on
//! one of its nodes, which would see to it.

use super::batch::Portal;
use super::session::ClientSession;
use crate::executor::{Fault, OpenPull};

/// The names of a block's savepoints, the outermost first. A name may be there more than once.
#[derive(Debug, Default)]
pub(super) struct Savepoints(Vec<String>);

impl Savepoints {
    /// Behind how many of them stands what is made now.
    pub(super) fn depth(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The block is over.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// How many stand before the last one of this name.
    fn before(&self, name: &str) -> Option<usize> {
        self.0.iter().rposition(|known| known == name)
    }
}

impl ClientSession {
    /// SAVEPOINT.
    pub(super) async fn savepoint(&mut self, name: &str, text: &str) -> Result<(), Fault> {
        self.in_block(text, "SAVEPOINT").await?;
        if self.block_goes_on() {
            self.cursors.savepoints.0.push(name.to_owned());
        }
        Ok(())
    }

    /// RELEASE: what was made behind it belongs to what is around it.
    pub(super) async fn release_savepoint(&mut self, name: &str, text: &str) -> Result<(), Fault> {
        self.join_to_check().await?;
        self.in_block(text, "RELEASE").await?;
        if self.block_goes_on()
            && let Some(before) = self.cursors.savepoints.before(name)
        {
            self.cursors.savepoints.0.truncate(before);
            self.cursors.raise_to(before);
            for portal in self.batch.portals.values_mut() {
                if let Portal::Ours { depth, .. } = portal {
                    *depth = before.min(*depth);
                }
            }
        }
        Ok(())
    }

    /// ROLLBACK TO: what was made behind it is gone.
    pub(super) async fn back_to_savepoint(&mut self, name: &str, text: &str) -> Result<(), Fault> {
        self.session.check_whole()?;
        self.session.unfail();
        self.join_to_check().await?;
        self.in_block(text, "ROLLBACK").await?;
        if !self.block_goes_on() {
            return Ok(());
        }
        if let Some(before) = self.cursors.savepoints.before(name) {
            self.cursors.savepoints.0.truncate(before + 1);
            let behind =
                |portal: &Portal| matches!(portal, Portal::Ours { depth, .. } if *depth > before);
            let mut ended: Vec<OpenPull> = self.cursors.end_behind(before);
            for (name, _) in self.batch.portals.extract_if(|_, portal| behind(portal)) {
                ended.extend(self.cursors.close_portal(&name));
            }
            Self::end_pulls(ended).await;
        }
        if self.session.own_map().is_some() {
            self.session.see_own_columns().await?;
        }
        Ok(())
    }

    fn block_goes_on(&self) -> bool {
        self.session.in_transaction() && self.session.check_not_failed().is_ok()
    }
}
