//! A login's settings by default: those of the home node, on every node, so that a text means the
//! same wherever it runs, however the nodes are configured.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{BackendError, CommandError, Connection};
use crate::sql::Literal;

/// The settings that values, texts or the outcome of statements depend on.
const NAMES: [&str; 20] = [
    "array_nulls",
    "backslash_quote",
    "bytea_output",
    "datestyle",
    "default_text_search_config",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "intervalstyle",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "row_security",
    "search_path",
    "standard_conforming_strings",
    "timezone",
    "transform_null_equals",
    "xmlbinary",
    "xmloption",
];

/// Whose defaults the connections of a pool have.
#[derive(Debug, Clone, Default)]
pub enum DefaultsOf {
    /// The node's own.
    #[default]
    Node,
    /// The node's own, which others take: it is the home node.
    Home(Arc<Defaults>),
    /// Those of the home node.
    OfHome(Arc<Defaults>),
}

/// What the home node has told to a login; nothing before the first connection to it.
#[derive(Debug, Default)]
pub struct Defaults(ArcSwapOption<Vec<(String, String)>>);

impl Defaults {
    /// Learns them from a connection to the home node that is new.
    pub(super) async fn learn(&self, home: &mut Connection) -> Result<(), BackendError> {
        let names = NAMES.map(|name| Literal(name).to_string()).join(", ");
        let sql = format!(
            "SELECT n, pg_catalog.current_setting(n) FROM pg_catalog.unnest(ARRAY[{names}]) AS n"
        );
        let told = match home.quick_command(&sql).await {
            Ok(told) => told,
            Err(CommandError::Backend(error)) => return Err(error),
            Err(CommandError::Reported { message, .. }) => {
                let source = std::io::Error::other(message);
                return Err(BackendError::Broken { node: home.node_name.to_string(), source });
            }
        };
        let pair = |row: Vec<Option<String>>| {
            let mut values = row.into_iter().flatten();
            Some((values.next()?, values.next()?))
        };
        self.0.store(Some(told.rows.into_iter().filter_map(pair).collect::<Vec<_>>().into()));
        Ok(())
    }

    /// As startup parameters.
    pub(super) fn parameters(&self) -> Vec<(String, String)> {
        self.0.load().as_ref().map_or_else(Vec::new, |known| known.to_vec())
    }
}
