//! Evaluates parts of a statement on one node, so that all nodes get the same value and keys are
//! known before rows are routed.

use bytes::{Bytes, BytesMut};

use super::merge_session::{Described, MergeSession, param_types};
use super::run::query_message;
use super::{Fault, Session};
use crate::backend::Guard;
use crate::ids::NodeId;
use crate::planner::{Evaluated, evaluation_queries};
use crate::router::Evaluation;
use crate::wire::{Bind, ServerError, SqlState, put_frame, put_parse, put_query, with_statement};

/// A portal's parameters.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'a, 'b> {
    /// The types that `Parse` declared.
    pub types: &'a [u32],
    /// The `Bind`.
    pub bind: &'a Bind<'b>,
}

impl Bound<'_, '_> {
    /// The messages that run a text with all of the parameters and describe its columns.
    pub fn described(&self, text: &str) -> BytesMut {
        let mut out = BytesMut::new();
        put_parse(b"", text.as_bytes(), self.types, &mut out);
        self.bind.put_unnamed(&mut out);
        put_frame(b'D', &mut out, |out| out.extend_from_slice(b"P\0"));
        put_frame(b'E', &mut out, |out| out.extend_from_slice(&[0; 5]));
        put_frame(b'S', &mut out, |_| ());
        out
    }

    /// The messages that run a text with some of the parameters, `Sync` included. `results` may
    /// replace the formats of its columns.
    pub fn messages(&self, text: &str, params: &[u16], results: Option<&[u8]>) -> BytesMut {
        let declared = |number: &u16| {
            self.types.get(usize::from(*number).saturating_sub(1)).copied().unwrap_or(0)
        };
        let types: Vec<u32> = params.iter().map(declared).collect();
        let mut out = BytesMut::new();
        put_parse(b"", text.as_bytes(), &types, &mut out);
        self.bind.put_part(params, results, &mut out);
        put_frame(b'E', &mut out, |out| out.extend_from_slice(&[0; 5]));
        put_frame(b'S', &mut out, |_| ());
        out
    }
}

impl Session {
    /// The values of the pieces. Numbers are taken from the home node's sequences, outside of the
    /// session's transaction where that has not come to the home node.
    pub async fn evaluate(
        &mut self,
        evaluation: &Evaluation,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<Vec<Evaluated>, Fault> {
        let mut messages = BytesMut::new();
        let mut answers = 0;
        let mut plain = String::new();
        let queries = evaluation_queries(evaluation);
        if bound.is_none() || queries.iter().all(|(_, params)| params.is_empty()) {
            for (query, _) in &queries {
                plain.push_str(query);
                plain.push(';');
            }
            put_query(&plain, &mut messages);
            answers = 1;
        } else if let Some(bound) = bound {
            for (query, params) in &queries {
                messages.extend_from_slice(&bound.messages(query, params, Some(&[0, 0])));
                answers += 1;
            }
        }
        let home = self.engine.live_map.load().home();
        let begun = self.begun_nodes();
        let node = begun.first().copied().filter(|_| evaluation.clock_only).unwrap_or(home);
        let rows = if !self.in_transaction() || begun.contains(&node) {
            self.evaluate_here(node, &messages, answers).await?
        } else {
            self.evaluate_apart(node, &messages, answers).await?
        };
        // Whose value each is.
        let given = rows.iter().map(|row| row.get(2)?.as_ref()?.parse::<usize>().ok());
        let counts = evaluation.pieces.iter().map(|piece| piece.count);
        let wanted =
            counts.clone().enumerate().flat_map(|(at, count)| std::iter::repeat_n(at, count));
        if !given.eq(wanted.map(Some)) {
            let expected: usize = counts.sum();
            return Err(if expected > VALUES_MAX { too_many() } else { several() }.into());
        }
        let value = |row: Vec<Option<String>>| {
            let mut columns = row.into_iter();
            Some((columns.next()??, columns.next()??))
        };
        Ok(rows.into_iter().map(value).collect())
    }

    /// The types of a text's parameters as the home node infers them.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub async fn param_types(&mut self, text: &str, declared: &[u32]) -> Result<Vec<u32>, Fault> {
        Ok(self.described_here(text, declared).await?.param_types)
    }

    /// The columns that a statement gives, as a `RowDescription`; empty if it gives none.
    ///
    /// # Errors
    /// What is wrong with the text: the session's transaction has failed then.
    pub async fn columns_here(&mut self, text: &str, declared: &[u32]) -> Result<Bytes, Fault> {
        Ok(self.described_here(text, declared).await?.columns)
    }

    /// What the home node says of a text, in the session's own transaction.
    async fn described_here(&mut self, text: &str, declared: &[u32]) -> Result<Described, Fault> {
        let mut out = BytesMut::new();
        put_parse(b"", text.as_bytes(), declared, &mut out);
        with_statement(b'D', b"", &mut out);
        put_frame(b'S', &mut out, |_| ());
        let home = self.engine.live_map.load().home();
        let member = self.ask(home, &out).await?;
        let (mut described, mut error) = (Described::default(), None);
        loop {
            let (tag, frame) = member.guard.frame().await?;
            match tag {
                b't' => described.param_types = param_types(&frame),
                b'T' => described.columns = frame,
                b'E' => error = error.or(Some(frame)),
                b'Z' => break,
                _ => {}
            }
        }
        error.map_or(Ok(described), |frame| Err(Fault::Reported(frame)))
    }

    /// The columns of a statement that can run by itself, as a `RowDescription`; `None` where it
    /// reads what is around it. Nothing of it is done.
    pub async fn columns_of(
        &mut self,
        text: &str,
        declared: &[u32],
    ) -> Result<Option<Bytes>, Fault> {
        if self.has_redefined() {
            // Another connection would wait for its locks, or not know of it.
            return self.columns_in_block(text, declared).await;
        }
        let mut merge = MergeSession::begin(self).await?;
        let described = merge.describe(text, declared).await;
        merge.end().await?;
        match described {
            Ok(described) => Ok(Some(described.columns)),
            Err(Fault::Reported(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    pub(super) async fn evaluate_here(
        &mut self,
        node: NodeId,
        messages: &[u8],
        answers: usize,
    ) -> Result<Vec<Vec<Option<String>>>, Fault> {
        let member = self.ask(node, messages).await?;
        let (mut rows, mut failure) = (Vec::new(), None);
        for _ in 0..answers {
            match member.guard.finish_command().await {
                Ok(command) => match command.whole_rows() {
                    Ok(more) => rows.extend(more),
                    Err(error) => failure = failure.or(Some(Fault::from(error))),
                },
                Err(error) => failure = failure.or(Some(error.into())),
            }
        }
        failure.map_or(Ok(rows), Err)
    }

    /// The same on the transaction's own connection.
    async fn columns_in_block(
        &mut self,
        text: &str,
        declared: &[u32],
    ) -> Result<Option<Bytes>, Fault> {
        let home = self.engine.live_map.load().home();
        self.evaluate_here(home, &query_message("SAVEPOINT foreshard_columns"), 1).await?;
        let described = self.described_here(text, declared).await;
        let back = "ROLLBACK TO foreshard_columns; RELEASE foreshard_columns";
        self.evaluate_here(home, &query_message(back), 1).await?;
        match described {
            Ok(described) => Ok(Some(described.columns)),
            Err(Fault::Reported(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    async fn evaluate_apart(
        &mut self,
        node: NodeId,
        messages: &[u8],
        answers: usize,
    ) -> Result<Vec<Vec<Option<String>>>, Fault> {
        let mut guard: Guard = self.checkout_beside(node).await?;
        guard.send(messages).await?;
        let mut rows = Vec::new();
        for _ in 0..answers {
            rows.extend(guard.finish_command().await?.whole_rows()?);
        }
        Ok(rows)
    }
}

/// The most values that are evaluated for a statement.
const VALUES_MAX: usize = 10_000;

fn several() -> ServerError {
    ServerError::refused(
        "a value of this INSERT has several rows, or none",
        "It is evaluated before it is known which node its row goes to.",
        "Write INSERT INTO … SELECT ….",
    )
}

fn too_many() -> ServerError {
    ServerError::new(SqlState("54000"), "too many values have to be evaluated in one statement")
        .with_hint("Insert fewer rows a statement.")
}
