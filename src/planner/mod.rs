//! (Statement, Route) → what is sent where; all rewriting of SQL.

use crate::ids::NodeId;
use crate::shard_map::ShardMap;
use crate::sql::TableName;

/// x
#[derive(Debug)]
pub struct DdlPlan {
    /// x
    pub tables: Vec<TableName>,
}

impl DdlPlan {
    /// x
    pub fn statements_for(&self, _node: NodeId, _map: &ShardMap) -> Vec<String> {
        Vec::new()
    }
}
/// x
pub fn ddl(
    _ddl: &crate::router::Ddl,
    _map: &ShardMap,
) -> Result<DdlPlan, crate::wire::ServerError> {
    unimplemented!()
}
/// x
pub fn copy_in(
    _: &crate::router::CopyIn,
    _map: &ShardMap,
) -> Result<CopyInPlan, crate::wire::ServerError> {
    unimplemented!()
}
/// x
#[derive(Debug)]
pub struct CopyInPlan;
