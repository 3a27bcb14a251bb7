//! What PostgreSQL said of statements of which the nodes do a part, so that it is not asked each time:
//! kept for a few seconds, and forgotten after DDL.

use foldhash::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use super::merge_session::Described;
use crate::ids::Epoch;
use crate::planner::{
    Given, InPlace, PullInput, PullPlan, REDUCED_TABLE, SumType, finish, param_text, reduce,
};
use crate::router::{Params, Reduction};
use crate::sql::Literal;

/// For so long what was said counts: definitions that a DBA changes on a node directly are noticed
/// after that.
const HOLDS: Duration = Duration::from_secs(10);
/// Statements that are kept at the most.
const KEPT_MAX: usize = 1_024;
/// Longer texts are not kept.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// A statement: its text, the types that its parameters were declared with, the schemas of the search
/// path, and the map's epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) text: String,
    pub(super) types: Vec<u32>,
    pub(super) search_path: Vec<String>,
    pub(super) epoch: Epoch,
}

/// What PostgreSQL said of it.
#[derive(Debug)]
pub(super) struct Learned {
    /// Its own columns and parameters.
    pub(super) described: Described,
    /// The types of its parameters, as SQL.
    pub(super) param_types: Vec<String>,
    /// The columns of what each node gives.
    pub(super) columns: Vec<Given>,
    /// The types of those that are partial sums.
    pub(super) sums: Vec<SumType>,
}

impl Learned {
    /// The plan with these parameters; its rows are given in place while they are few.
    pub(super) fn plan(
        &self,
        text: &str,
        reduction: &Reduction,
        params: &Params<'_>,
    ) -> Option<PullPlan> {
        let literals = literals(params, &self.described.param_types, &self.param_types)?;
        let select = reduce(text, reduction, &literals)?.select;
        let merge = finish(text, reduction, &literals, &self.sums)?;
        let columns = self.columns.clone();
        let in_place = InPlace { select: select.clone(), merge: merge.clone(), columns };
        let input = reduced_input(select, reduction, Some(in_place));
        Some(PullPlan { inputs: vec![input], text: merge, has_params: false })
    }
}

/// What a reduced plan brings together; binary where it is given in place.
pub(super) fn reduced_input(
    select: String,
    reduction: &Reduction,
    in_place: Option<InPlace>,
) -> PullInput {
    PullInput {
        name: REDUCED_TABLE.to_owned(),
        table: String::new(),
        select,
        group: Some(reduction.group),
        binary: in_place.is_some(),
        is_made: in_place.is_none(),
        has_tests: false,
        keys: None,
        in_place,
    }
}

/// The parameters as SQL, each cast to its type, by id and by name.
pub(super) fn literals(
    params: &Params<'_>,
    types: &[u32],
    names: &[String],
) -> Option<Vec<String>> {
    let literal = |(index, (oid, name)): (usize, (&u32, &String))| {
        let value = match params.values.get(index)? {
            None => "NULL".to_owned(),
            Some(bytes) => {
                let text = match params.formats {
                    [] => true,
                    [one] => *one == 0,
                    many => many.get(index).copied() == Some(0),
                };
                Literal(&param_text(bytes, *oid, text)?).to_string()
            }
        };
        Some(format!("CAST({value} AS {name})"))
    };
    types.iter().zip(names).enumerate().map(literal).collect()
}

/// What was said of each statement, and when.
#[derive(Debug)]
pub(super) struct AllLearned<T>(Mutex<Kept<T>>);

#[derive(Debug)]
struct Kept<T> {
    /// Grows when all is forgotten.
    generation: u64,
    by_statement: HashMap<Asked, (Instant, Arc<T>)>,
}

impl<T> Default for AllLearned<T> {
    fn default() -> Self {
        Self(Mutex::new(Kept { generation: 0, by_statement: HashMap::default() }))
    }
}

impl<T> AllLearned<T> {
    /// What was said of a statement a short while ago; or the generation to keep it under.
    pub(super) fn find(&self, asked: &Asked) -> Result<Arc<T>, u64> {
        let kept = self.0.lock();
        match kept.by_statement.get(asked) {
            Some((since, learned)) if since.elapsed() < HOLDS => Ok(Arc::clone(learned)),
            _ => Err(kept.generation),
        }
    }

    /// Keeps what was said, unless all was forgotten since `generation`.
    pub(super) fn keep(&self, asked: Asked, learned: Arc<T>, (generation, since): (u64, Instant)) {
        let mut kept = self.0.lock();
        if kept.generation != generation || asked.text.len() > TEXT_BYTES_MAX {
            return;
        }
        if kept.by_statement.len() >= KEPT_MAX && !kept.by_statement.contains_key(&asked) {
            kept.by_statement.clear();
        }
        kept.by_statement.insert(asked, (since, learned));
    }

    /// Forgets all: tables may be others now.
    pub(super) fn forget(&self) {
        let mut kept = self.0.lock();
        kept.generation += 1;
        kept.by_statement.clear();
    }
}
