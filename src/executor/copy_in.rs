//! COPY FROM STDIN into a sharded or reference table.

use super::{Client, Fault, Session};
use crate::planner::CopyInPlan;

impl Session {
    /// x
    pub async fn run_copy_in(
        &mut self,
        _plan: &CopyInPlan,
        _client: &mut Client,
        _ext: bool,
    ) -> Result<(), Fault> {
        Ok(())
    }
}
