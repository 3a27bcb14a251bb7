//! Rows on their way from the nodes to the merge session: kept here while they are few, else sent on
//! into a temporary table as they come.

use bytes::{BufMut, BytesMut};

use super::Fault;
use super::merge_session::MergeSession;
use super::reduce::fields;
use crate::planner::{GIVEN_BYTES_MAX, GIVEN_VALUES_MAX, InPlace, PullInput};
use crate::wire::{Malformed, Reader, ServerError, SqlState, put_frame, put_parse};

/// Rows for the merge session are sent once they are this many bytes.
const ROWS_BYTES: usize = 64 * 1024;

/// Few rows, in the binary form that COPY, a result and parameters share.
#[derive(Debug)]
pub(super) struct FewRows {
    pub(super) in_place: InPlace,
    /// How many there are.
    pub(super) rows: usize,
    /// All values, each with its length before it.
    values: BytesMut,
}

impl FewRows {
    fn new(in_place: InPlace) -> Self {
        Self { in_place, rows: 0, values: BytesMut::new() }
    }

    /// The most rows there may be.
    pub(super) fn most(in_place: &InPlace) -> usize {
        GIVEN_VALUES_MAX / in_place.columns.len().max(1)
    }

    /// Takes one, unless it is one too many.
    fn take(&mut self, row: &[u8]) -> Result<bool, Malformed> {
        let (count, values) = row.split_first_chunk().ok_or(Malformed("it has no columns"))?;
        if usize::from(u16::from_be_bytes(*count)) != self.in_place.columns.len() {
            return Err(Malformed("it has other columns than were described"));
        }
        let fits = self.rows < Self::most(&self.in_place)
            && self.values.len() + values.len() <= GIVEN_BYTES_MAX;
        if fits {
            self.rows += 1;
            self.values.extend_from_slice(values);
        }
        Ok(fits)
    }

    /// The rows as messages of COPY.
    fn put_copy(&self, out: &mut BytesMut) -> Result<(), Malformed> {
        let columns = u16::try_from(self.in_place.columns.len()).unwrap_or(u16::MAX);
        let mut reader = Reader::new(&self.values);
        let mut left = reader.rest();
        for _ in 0..self.rows {
            for _ in 0..columns {
                reader.value()?;
            }
            let rest = reader.rest();
            let (row, after) = left.split_at(left.len() - rest.len());
            put_frame(b'd', out, |out| {
                out.put_u16(columns);
                out.put_slice(row);
            });
            left = after;
        }
        Ok(())
    }

    /// Appends a `Bind` of the unnamed statement that has them as its parameters, with the format
    /// codes of the result as they stand in a `Bind`.
    pub(super) fn put_bind(&self, results: &[u8], out: &mut BytesMut) {
        let count = self.rows * self.in_place.columns.len();
        put_frame(b'B', out, |out| {
            // The unnamed portal and statement; one format for all parameters, binary.
            out.put_slice(b"\0\0\0\x01\0\x01");
            out.put_u16(u16::try_from(count).unwrap_or(u16::MAX));
            out.put_slice(&self.values);
            out.put_slice(results);
        });
    }
}

/// The rows of one input on their way.
pub(super) struct Inflow<'a> {
    merge: &'a mut MergeSession,
    input: &'a PullInput,
    /// What came so far, while it is few.
    few: Option<FewRows>,
    /// The table takes rows.
    open: bool,
    /// Not sent yet.
    out: BytesMut,
    /// How many came.
    rows: u64,
}

impl<'a> Inflow<'a> {
    /// Begins with the rows that the home node itself has, if `own`.
    pub(super) async fn begin(
        merge: &'a mut MergeSession,
        input: &'a PullInput,
        own: bool,
    ) -> Result<Self, Fault> {
        let mut few = input.in_place.clone().map(FewRows::new);
        if let Some(kept) = few.as_mut().filter(|_| own)
            && !merge.own_rows(kept).await?
        {
            few = None;
        }
        let flow = Self { merge, input, few, open: false, out: BytesMut::new(), rows: 0 };
        if flow.few.is_none() {
            match (input.is_made, own) {
                (false, _) => flow.merge.make(&input.name, &input.select, own).await?,
                (true, true) => flow.merge.fill(&input.name, &input.select).await?,
                (true, false) => {}
            }
        }
        Ok(flow)
    }

    /// Nodes are going to give rows.
    pub(super) async fn open(&mut self) -> Result<(), Fault> {
        if self.few.is_none() {
            self.merge.start_copy(&self.input.name, self.input.binary).await?;
            self.open = true;
        }
        Ok(())
    }

    /// A row, as COPY gives it.
    pub(super) async fn row(&mut self, row: &[u8]) -> Result<(), Fault> {
        self.rows += 1;
        if let Some(few) = &mut self.few {
            if few.take(row).map_err(unreadable)? {
                return Ok(());
            }
            self.spill().await?;
        }
        put_frame(b'd', &mut self.out, |out| out.extend_from_slice(row));
        if self.out.len() >= ROWS_BYTES { self.flush().await } else { Ok(()) }
    }

    /// They are not few: a table is made after all.
    async fn spill(&mut self) -> Result<(), Fault> {
        let Some(few) = self.few.take() else { return Ok(()) };
        self.merge.make(&self.input.name, &self.input.select, false).await?;
        self.open().await?;
        few.put_copy(&mut self.out).map_err(unreadable)?;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        self.merge.guard.send_more(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// No node gives more. How many rows came from nodes, and all rows if they are few.
    pub(super) async fn close(mut self) -> Result<(u64, Option<FewRows>), Fault> {
        if self.open {
            self.flush().await?;
            self.merge.end_copy(self.input.binary).await?;
        }
        Ok((self.rows, self.few))
    }
}

/// What is left of the limits.
pub(super) struct Budget {
    rows: u64,
    bytes: u64,
    config: super::Config,
}

impl Budget {
    pub(super) fn new(config: &super::Config) -> Self {
        Self { rows: config.pull_rows_max, bytes: config.pull_bytes_max, config: config.clone() }
    }

    pub(super) fn spend(&mut self, bytes: u64) -> Result<(), ServerError> {
        match (self.rows.checked_sub(1), self.bytes.checked_sub(bytes)) {
            (Some(rows), Some(bytes)) => {
                (self.rows, self.bytes) = (rows, bytes);
                Ok(())
            }
            _ => Err(ServerError::new(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                "the statement would bring too many rows of several nodes together",
            )
            .with_detail(format!(
                "The limits are {} rows and {} bytes a statement.",
                self.config.pull_rows_max, self.config.pull_bytes_max
            ))
            .with_hint(
                "Restrict each table by WHERE, bind the shard key, or raise executor.pull_rows_max \
                 and executor.pull_bytes_max.",
            )),
        }
    }
}

/// A node's row is not what was asked for.
fn unreadable(error: Malformed) -> Fault {
    ServerError::new(SqlState::INTERNAL_ERROR, format!("a node's rows can't be read: {error}"))
        .into()
}

/// What PostgreSQL said of the statement a moment ago is not true any more.
fn changed() -> ServerError {
    ServerError::new(
        SqlState::SERIALIZATION_FAILURE,
        "the definition of a table was changed meanwhile",
    )
    .with_hint("Run the statement again.")
}

impl MergeSession {
    /// Takes the rows that the home node itself has; whether they are few.
    async fn own_rows(&mut self, few: &mut FewRows) -> Result<bool, Fault> {
        let mut out = BytesMut::new();
        put_parse(b"", few.in_place.select.as_bytes(), &[], &mut out);
        // The unnamed portal and statement, no parameters, results in binary.
        put_frame(b'B', &mut out, |out| out.put_slice(b"\0\0\0\0\0\0\0\x01\0\x01"));
        put_frame(b'D', &mut out, |out| out.put_slice(b"P\0"));
        let most = i32::try_from(FewRows::most(&few.in_place) + 1).unwrap_or(i32::MAX);
        put_frame(b'E', &mut out, |out| {
            out.put_u8(0);
            out.put_i32(most);
        });
        put_frame(b'S', &mut out, |_| ());
        self.guard.send(&out).await?;
        let (mut fits, mut error) = (true, None);
        loop {
            let (tag, frame) = self.guard.frame().await?;
            match tag {
                b'T' => {
                    let types = fields(&frame).into_iter().map(|field| field.type_oid);
                    if !types.eq(few.in_place.columns.iter().map(|column| column.type_oid)) {
                        return Err(changed().into());
                    }
                }
                b'D' if fits => {
                    let row = frame.get(5..).unwrap_or_default();
                    fits = few.take(row).map_err(unreadable)?;
                }
                b'E' => error = error.or(Some(frame)),
                b'Z' => break,
                _ => {}
            }
        }
        error.map_or(Ok(fits), |frame| Err(Fault::Reported(frame)))
    }
}
