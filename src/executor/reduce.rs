//! A pull of which the nodes do a part: proved against PostgreSQL before any row moves.

use bytes::Bytes;

use super::Fault;
use super::learned::{Learned, literals, reduced_input};
use super::merge_session::{Described, MergeSession};
use crate::planner::{Given, PullPlan, REDUCED_TABLE, SumType, finish, is_portable_type, reduce};
use crate::router::{Params, Reduction};
use crate::wire::Reader;

/// A column of a `RowDescription`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    name: Vec<u8>,
    pub(super) type_oid: u32,
    modifier: u32,
}

/// What is asked of a node and of the merge session.
pub(super) struct Question<'a> {
    pub(super) text: &'a str,
    pub(super) reduction: &'a Reduction,
    pub(super) params: &'a Params<'a>,
    /// What PostgreSQL says of the original.
    pub(super) described: &'a Described,
    /// Few rows may be given to the merge session in place.
    pub(super) may_be_given: bool,
}

/// The plan, and what it rests on if its rows may be given in place.
type Found = (PullPlan, Option<Learned>);

impl MergeSession {
    /// A plan in which the nodes do a part, if its result has the columns of the original; where its
    /// rows can't be given in place, its temporary table is made then.
    pub(super) async fn reduced(
        &mut self,
        question: &Question<'_>,
    ) -> Result<Option<Found>, Fault> {
        self.guard.command("SAVEPOINT foreshard").await?;
        match self.try_reduced(question).await {
            Ok(Some(found)) => Ok(Some(found)),
            Ok(None) | Err(Fault::Reported(_)) => {
                self.guard.command("ROLLBACK TO foreshard").await?;
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    async fn try_reduced(&mut self, question: &Question<'_>) -> Result<Option<Found>, Fault> {
        let Question { text, reduction, params, described, may_be_given } = question;
        let param_types = self.type_names(described.param_types.iter().copied()).await?;
        let literals = literals(params, &described.param_types, &param_types);
        let reduced = literals.as_ref().and_then(|literals| reduce(text, reduction, literals));
        let (Some(literals), Some(reduced)) = (literals, reduced) else { return Ok(None) };
        let made = fields(&self.describe(&reduced.select, &[]).await?.columns);
        let Some(sums) = sum_types(&reduced.sums, &made) else { return Ok(None) };
        let Some(merge) = finish(text, reduction, &literals, &sums) else { return Ok(None) };
        let binary = made.iter().all(|field| is_portable_type(field.type_oid));
        if !may_be_given || !binary || made.is_empty() {
            self.make(REDUCED_TABLE, &reduced.select, false).await?;
            let mut input = reduced_input(reduced.select, reduction, None);
            input.binary = binary;
            let fits = self.gives(&merge, described).await?;
            let plan = PullPlan { inputs: vec![input], text: merge, has_params: false };
            return Ok(fits.then_some((plan, None)));
        }
        let names = self.type_names(made.iter().map(|field| field.type_oid)).await?;
        let given =
            |(field, type_name): (&Field, String)| Given { type_oid: field.type_oid, type_name };
        let columns = made.iter().zip(names).map(given).collect();
        let described = (*described).clone();
        let learned = Learned { described, param_types, columns, sums };
        let Some(plan) = learned.plan(text, reduction, params) else { return Ok(None) };
        let in_place = plan.inputs.first().and_then(|input| input.in_place.as_ref());
        let empty = in_place.map(|in_place| in_place.text(0)).unwrap_or_default();
        let fits = self.gives(&empty, &learned.described).await?;
        Ok(fits.then_some((plan, Some(learned))))
    }

    /// Whether a text has the columns of the original, and no parameters.
    async fn gives(&mut self, text: &str, original: &Described) -> Result<bool, Fault> {
        let described = self.describe(text, &[]).await?;
        Ok(fields(&described.columns) == fields(&original.columns)
            && described.param_types.is_empty())
    }

    /// The names of types, without modifiers.
    async fn type_names(&mut self, oids: impl Iterator<Item = u32>) -> Result<Vec<String>, Fault> {
        let oids: Vec<_> = oids.map(|oid| oid.to_string()).collect();
        if oids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT pg_catalog.format_type(t, -1) FROM pg_catalog.unnest('{{{}}}'::oid[]) \
             WITH ORDINALITY u (t, n) ORDER BY n",
            oids.join(",")
        );
        Ok(self.guard.command(&sql).await?.rows.into_iter().flatten().flatten().collect())
    }
}

/// The types of partial sums among the columns, if all are exact.
fn sum_types(sums: &[String], made: &[Field]) -> Option<Vec<SumType>> {
    let sum_type = |sum: &String| {
        let field = made.iter().find(|field| field.name == sum.as_bytes())?;
        match field.type_oid {
            20 => Some(SumType::Int8),
            1700 => Some(SumType::Numeric),
            _ => None,
        }
    };
    sums.iter().map(sum_type).collect()
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
