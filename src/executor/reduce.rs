//! A pull of which the nodes do a part: proved against PostgreSQL before any row moves.

use bytes::Bytes;

use super::Fault;
use super::merge_session::MergeSession;
use crate::planner::{
    self, PullInput, PullPlan, REDUCED_TABLE, SumType, finish, is_portable_type, reduce,
};
use crate::router::{Params, Reduction};
use crate::sql::{Ident, Literal};
use crate::wire::Reader;

/// A column of a `RowDescription`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    name: Vec<u8>,
    type_oid: u32,
    modifier: u32,
}

/// What is asked of a node and of the merge session.
pub(super) struct Question<'a> {
    pub(super) text: &'a str,
    pub(super) reduction: &'a Reduction,
    pub(super) params: &'a Params<'a>,
    /// The types of the parameters, as PostgreSQL says.
    pub(super) param_types: &'a [u32],
    /// The columns of the original.
    pub(super) columns: &'a Bytes,
}

impl MergeSession {
    /// A plan in which the nodes do a part, if its result has the columns of the original; its
    /// temporary table is made then.
    pub(super) async fn reduced(
        &mut self,
        question: &Question<'_>,
    ) -> Result<Option<PullPlan>, Fault> {
        self.guard.command("SAVEPOINT foreshard").await?;
        match self.try_reduced(question).await {
            Ok(Some(plan)) => Ok(Some(plan)),
            Ok(None) | Err(Fault::Reported(_)) => {
                self.guard.command("ROLLBACK TO foreshard").await?;
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    async fn try_reduced(&mut self, question: &Question<'_>) -> Result<Option<PullPlan>, Fault> {
        let Question { text, reduction, params, param_types, columns } = question;
        let Some(literals) = self.literals(params, param_types).await? else { return Ok(None) };
        let Some(reduced) = reduce(text, reduction, &literals) else { return Ok(None) };
        self.make(REDUCED_TABLE, &reduced.select, false).await?;
        let table = format!("SELECT * FROM pg_temp.{}", Ident::new(REDUCED_TABLE));
        let made = fields(&self.describe(&table, &[]).await?.columns);
        let mut sum_types = Vec::new();
        for sum in &reduced.sums {
            match made.iter().find(|field| field.name == sum.as_bytes()).map(|f| f.type_oid) {
                Some(20) => sum_types.push(SumType::Int8),
                Some(1700) => sum_types.push(SumType::Numeric),
                _ => return Ok(None),
            }
        }
        let Some(merge) = finish(text, reduction, &literals, &sum_types) else { return Ok(None) };
        let described = self.describe(&merge, &[]).await?;
        if fields(&described.columns) != fields(columns) || !described.param_types.is_empty() {
            return Ok(None);
        }
        let input = PullInput {
            name: REDUCED_TABLE.to_owned(),
            table: String::new(),
            select: reduced.select,
            group: Some(reduction.group),
            binary: made.iter().all(|field| is_portable_type(field.type_oid)),
            is_made: true,
        };
        Ok(Some(PullPlan { inputs: vec![input], text: merge, has_params: false }))
    }

    /// The parameters as SQL, each cast to its type.
    async fn literals(
        &mut self,
        params: &Params<'_>,
        types: &[u32],
    ) -> Result<Option<Vec<String>>, Fault> {
        if types.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let list: Vec<_> = types.iter().map(ToString::to_string).collect();
        let sql = format!(
            "SELECT pg_catalog.format_type(t, NULL) \
             FROM pg_catalog.unnest('{{{}}}'::oid[]) WITH ORDINALITY u (t, n) ORDER BY n",
            list.join(",")
        );
        let names = self.guard.command(&sql).await?.rows.into_iter().flatten().flatten();
        let mut literals = Vec::new();
        for (index, name) in names.enumerate() {
            let value = match params.values.get(index) {
                None => return Ok(None),
                Some(None) => "NULL".to_owned(),
                Some(Some(bytes)) => {
                    let text = match params.formats {
                        [] => true,
                        [one] => *one == 0,
                        many => many.get(index).copied() == Some(0),
                    };
                    let oid = types.get(index).copied().unwrap_or_default();
                    match planner::param_text(bytes, oid, text) {
                        Some(text) => Literal(&text).to_string(),
                        None => return Ok(None),
                    }
                }
            };
            literals.push(format!("CAST({value} AS {name})"));
        }
        Ok(Some(literals))
    }
}

/// The columns that a `RowDescription` tells of.
pub(super) fn fields(frame: &Bytes) -> Vec<Field> {
    let mut reader = Reader::new(frame.get(5..).unwrap_or_default());
    let mut fields = Vec::new();
    let Ok(count) = reader.i16() else { return fields };
    for _ in 0..count {
        let read = (|| {
            let name = reader.cstr()?.to_vec();
            reader.bytes(6)?;
            let type_oid = reader.u32()?;
            reader.bytes(2)?;
            let modifier = reader.u32()?;
            reader.bytes(2)?;
            Ok::<_, crate::wire::Malformed>(Field { name, type_oid, modifier })
        })();
        match read {
            Ok(field) => fields.push(field),
            Err(_) => return Vec::new(),
        }
    }
    fields
}
