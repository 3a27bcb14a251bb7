//! A text of several statements that do not all go to the same node: one after the other, in one
//! transaction, as PostgreSQL runs them.

use std::ops::Range;

use super::session::ClientSession;
use super::simple::{Way, is_ours};
use crate::executor::{Fault, query_message};
use crate::router::Params;

impl ClientSession {
    /// Runs the statements; leaves `ReadyForQuery` to the caller. After an error nothing of them
    /// stays, and those behind it are not run.
    pub(super) async fn several(
        &mut self,
        text: &str,
        spans: &[Range<usize>],
    ) -> Result<(), Fault> {
        let implicit = self.session.begin_unless_begun();
        for span in spans {
            let statement = text.get(span.clone()).unwrap_or_default();
            let ran = Box::pin(self.one_of_several(statement)).await;
            let failed = ran.is_err() || self.session.check_not_failed().is_err();
            if failed && implicit {
                self.session.rollback().await?;
            }
            if failed {
                return ran;
            }
        }
        if implicit { self.session.commit().await } else { Ok(()) }
    }

    async fn one_of_several(&mut self, text: &str) -> Result<(), Fault> {
        let template = self.template(text);
        if template.statement_count == 0 {
            return Ok(());
        }
        if is_ours(&template.control) {
            return self.control(&template.control, text).await;
        }
        match self.way(text, Params::default(), template).await? {
            (Way::Node(node, _), template) => {
                self.prepare_node(&template, node).await?;
                let sent = self.shown(&template).await?.unwrap_or(text);
                self.session.run_text(node, sent, &mut self.client).await?;
                self.after_statement(&template).await
            }
            (way, _) => self.run_ways(way, text, &query_message(text)).await,
        }
    }
}
