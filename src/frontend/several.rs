//! A text of several statements that do not all go to the same node: one after the other. Those that
//! stand in no transaction block are one transaction, as PostgreSQL has it.

use std::ops::Range;

use super::session::ClientSession;
use super::simple::{Way, is_ours};
use crate::executor::{Fault, query_message};
use crate::router::{Control, Params, Template};
use crate::sql::parse;

impl ClientSession {
    /// Runs the statements; leaves `ReadyForQuery` to the caller. After an error those behind it are
    /// not run, and of those that are in no transaction block nothing stays.
    pub(super) async fn several(
        &mut self,
        text: &str,
        spans: &[Range<usize>],
    ) -> Result<(), Fault> {
        let mut implicit = false;
        for span in spans {
            let statement = text.get(span.clone()).unwrap_or_default();
            let before = self.session.check_not_failed().is_err();
            let ran = Box::pin(self.one_of_several(statement, &mut implicit)).await;
            let ran = match ran {
                Err(fault) => Err(self.client.told(fault).await),
                ran => ran,
            };
            let failed = ran.is_err() || !before && self.session.check_not_failed().is_err();
            if failed && implicit {
                self.session.rollback().await?;
            }
            if failed {
                return ran;
            }
        }
        if implicit { self.session.commit().await } else { Ok(()) }
    }

    /// The same for a text in a block, which may end it or parts of it.
    pub(super) async fn each_of_several(&mut self, text: &str) -> Result<(), Fault> {
        let parsed = parse(text, self.session.strings());
        let spans: Vec<_> = parsed.statements.iter().map(|it| it.span.clone()).collect();
        self.several(text, &spans).await
    }

    /// One statement; `implicit` says whether the transaction is that of the text alone.
    async fn one_of_several(&mut self, text: &str, implicit: &mut bool) -> Result<(), Fault> {
        let template = self.template(text);
        if template.statement_count == 0 {
            return Ok(());
        }
        if is_ours(&template.control) {
            return self.control_of_several(&template, text, implicit).await;
        }
        if let Some(node) = self.session.failed_node().filter(|_| template.moves_transaction) {
            // PREPARE TRANSACTION ends a block that has failed.
            return self.session.run_text(node, text, &mut self.client).await;
        }
        self.session.check_not_failed()?;
        *implicit |= self.session.begin_unless_begun();
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

    async fn control_of_several(
        &mut self,
        template: &Template,
        text: &str,
        implicit: &mut bool,
    ) -> Result<(), Fault> {
        match &template.control {
            // It makes a block of what was run before, or ends that.
            control @ (Control::Begin | Control::Commit { .. } | Control::Rollback { .. })
                if *implicit =>
            {
                self.move_implicit(control, text).await?;
                *implicit = false;
                Ok(())
            }
            Control::Begin => self.control(&template.control, text).await,
            _ => {
                let block = matches!(
                    &template.control,
                    Control::Commit { .. } | Control::Rollback { .. } | Control::RollbackTo { .. }
                );
                if !block {
                    *implicit |= self.session.begin_unless_begun();
                }
                self.control(&template.control, text).await
            }
        }
    }
}
