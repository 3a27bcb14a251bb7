//! The arguments of an EXECUTE that are not plain literals: the home node makes values of them, as
//! its own EXECUTE would.

use bytes::{Bytes, BytesMut};

use super::{Fault, Session, query_message};
use crate::ids::NodeId;
use crate::router::Leaves;
use crate::wire::{Bind, FIRST_USER_OID, Reader, body, put_frame, put_parse, with_statement};

/// A prepared statement of the protocol that is there for the one EXECUTE.
const NAME: &str = "foreshard_arguments";

impl Session {
    /// The values of `arguments`, a list of expressions, as parameters of these types of the home
    /// node: those of users' types in text, as their ids are others elsewhere, all else in binary.
    ///
    /// # Errors
    /// What PostgreSQL finds wrong with them.
    pub async fn argument_values(
        &mut self,
        types: &[u32],
        arguments: &str,
    ) -> Result<Vec<(i16, Option<Bytes>)>, Fault> {
        let formats: Vec<i16> = types.iter().map(|oid| i16::from(*oid < FIRST_USER_OID)).collect();
        let home = self.engine.live_map.load().home();
        self.member(home).await?;
        self.will_leave(home, Leaves::State, &[]);
        let member = self.ask(home, &messages(types, &formats, arguments)).await?;
        let (mut row, mut error, mut ended) = (None, None, 0);
        while ended < 2 {
            let (tag, frame) = member.guard.frame().await?;
            match tag {
                b'D' => row = Some(frame),
                b'E' => error = error.or(Some(frame)),
                b'Z' => ended += 1,
                _ => {}
            }
        }
        if let Some(frame) = error {
            return Err(Fault::Reported(frame));
        }
        let values = row.map(|frame| values(&frame)).unwrap_or_default();
        Ok(formats.into_iter().zip(values).collect())
    }

    /// The rows of a query of the proxy's on the home node, in the session's transaction.
    pub async fn rows_at_home(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Fault> {
        let home = self.engine.live_map.load().home();
        self.evaluate_here(home, &query_message(sql), 1).await
    }

    /// DEALLOCATE ALL has run on `node`: its connection has none of the proxy's statements.
    pub fn forget_prepared(&mut self, node: NodeId) {
        if let Some(member) = self.held(node) {
            member.guard.prepared.clear();
        }
    }
}

/// EXECUTE coerces its arguments by rules of its own, so a statement that gives them back is
/// executed. It goes whatever happens: the second `Sync` is for that.
fn messages(types: &[u32], formats: &[i16], arguments: &str) -> BytesMut {
    let mut out = BytesMut::new();
    let columns: Vec<String> = (1..=types.len()).map(|number| format!("${number}")).collect();
    let gives = format!("SELECT {}", columns.join(","));
    put_parse(NAME.as_bytes(), gives.as_bytes(), types, &mut out);
    put_parse(b"", format!("EXECUTE {NAME}({arguments})").as_bytes(), &[], &mut out);
    let mut results = u16::try_from(formats.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    results.extend(formats.iter().flat_map(|format| format.to_be_bytes()));
    put_frame(b'B', &mut out, |out| out.extend_from_slice(&Bind::made(b"", &[], &results)));
    put_frame(b'E', &mut out, |out| out.extend_from_slice(&[0; 5]));
    put_frame(b'S', &mut out, |_| ());
    with_statement(b'C', NAME.as_bytes(), &mut out);
    put_frame(b'S', &mut out, |_| ());
    out
}

/// The values of a `DataRow`.
fn values(frame: &[u8]) -> Vec<Option<Bytes>> {
    let mut reader = Reader::new(body(frame));
    let count = reader.count(4).unwrap_or(0);
    let value = |reader: &mut Reader<'_>| reader.value().ok().flatten().map(Bytes::copy_from_slice);
    (0..count).map(|_| value(&mut reader)).collect()
}
