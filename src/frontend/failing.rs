//! An error of the proxy's own in the middle of an exchange of the extended protocol: what is due comes
//! before it, what was executed is not committed, and all up to `Sync` is skipped.

use super::session::ClientSession;
use crate::executor::{ClientError, Fault};
use crate::wire::{ServerError, put_frame};

impl ClientSession {
    /// An error of the proxy's own in the middle of a batch. What the node has executed since the
    /// last `Sync` must not be committed by the next one.
    pub(super) async fn fail_batch(&mut self, mut fault: Fault) -> Result<(), ClientError> {
        if matches!(fault, Fault::Refused(_))
            && let Err(earlier) = self.parse_before().await
        {
            fault = earlier;
        }
        self.batch.skipping = true;
        self.batch.unparsed.clear();
        let mut told = Some(fault);
        if !matches!(told, Some(Fault::Backend(_) | Fault::Client(_))) {
            if self.batch.executed && !self.session.in_transaction() {
                // Executing what does not exist fails the node's implicit transaction.
                put_frame(b'E', &mut self.batch.out, |out| {
                    out.extend_from_slice(b"foreshard: fail\0\0\0\0\0");
                });
            }
            let failing = self.batch.executed && !self.session.in_transaction();
            if let Some(fault) = told.take() {
                self.settle_due(fault, failing).await?;
            }
        }
        match told {
            None => Ok(()),
            Some(fault) => {
                if let Some(node) = self.batch.node {
                    self.session.lose(node);
                }
                self.batch.reset(false);
                self.tell(fault).await
            }
        }
    }

    /// The texts that no node has got yet came before an error of the proxy's: where one can read them
    /// without the end of an exchange with another, it does.
    async fn parse_before(&mut self) -> Result<(), Fault> {
        if self.batch.unparsed.is_empty() {
            return Ok(());
        }
        let node = self.node_without_params();
        self.session.check_not_failed()?;
        if self.batch.node.is_some_and(|before| before != node) {
            return Ok(());
        }
        self.flush_unparsed().await
    }

    /// Relays what is due before an error of the proxy's, then tells the error. With `failing`, the
    /// node's own error that fails its transaction is not shown.
    async fn settle_due(&mut self, fault: Fault, failing: bool) -> Result<(), ClientError> {
        let errors = self.client.errors();
        let told = if failing { self.drain_failing().await } else { self.flush_batch().await };
        if told.is_ok() && self.client.errors() > errors {
            // A node's error came first; what comes after one is not told.
            return Ok(());
        }
        let fault = match (fault, told) {
            (fault, Ok(())) => fault,
            (_, Err(newer)) => newer,
        };
        if self.session.in_transaction() {
            self.session.fail();
        }
        match fault {
            Fault::Client(error) => Err(error),
            Fault::Refused(error) => {
                self.client.put_error(&error);
                Ok(())
            }
            Fault::Reported(frame) => Ok(self.client.relay_error(&frame).await?),
            Fault::Backend(error) => {
                if let Some(node) = self.batch.node {
                    self.session.lose(node);
                }
                self.batch.reset(false);
                self.client.put_error(&ServerError::from(&error));
                Ok(())
            }
        }
    }

    /// Relays what is due, then takes the error of the statement that was sent to fail.
    async fn drain_failing(&mut self) -> Result<(), Fault> {
        let errors = self.client.errors();
        put_frame(b'H', &mut self.batch.out, |_| ());
        self.drain().await?;
        if self.client.errors() > errors {
            // It has failed already, and answers nothing more.
            return Ok(());
        }
        if let Some(node) = self.batch.node {
            let member = self.session.member(node).await?;
            while member.guard.frame().await?.0 != b'E' {}
        }
        Ok(())
    }
}
