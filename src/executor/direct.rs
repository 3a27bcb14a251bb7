//! Which leaf partitions a role's point statements may be sent to instead of their parent: those that
//! PostgreSQL treats alike for that role. It is asked again every few seconds, and after DDL.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::HashMap;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

use super::Engine;
use super::plain_names::IndexNames;
use crate::ids::NodeId;
use crate::sql::TableName;

/// An answer of this age is asked for again …
const RENEW: Duration = Duration::from_secs(5);
/// … and at this age it counts no longer.
const HOLDS: Duration = Duration::from_secs(10);

/// The leaves of a parent on which nothing of the parent's own would be missed: row security, rules,
/// triggers a statement (but those of TRUNCATE), privileges, the order of columns.
const LEAVES: &str = "\
    SELECT c.relname::text, c.oid, p.oid, \
    (SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege(r.oid, x.oid, 'INSERT')) \
        FROM pg_catalog.pg_roles r, (VALUES (p.oid), (c.oid)) AS x (oid) WHERE r.rolname = $3) \
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a \
        JOIN pg_catalog.pg_attribute b ON b.attrelid = c.oid AND b.attname = a.attname \
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = p.oid AND d.adnum = a.attnum \
        LEFT JOIN pg_catalog.pg_attrdef e ON e.adrelid = c.oid AND e.adnum = b.attnum \
        WHERE a.attrelid = p.oid AND a.attnum > 0 AND NOT a.attisdropped \
        AND (a.attidentity <> '' OR pg_catalog.pg_get_expr(d.adbin, p.oid) \
        IS DISTINCT FROM pg_catalog.pg_get_expr(e.adbin, c.oid))) \
    FROM pg_catalog.pg_inherits i \
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid \
    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent \
    JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace \
    CROSS JOIN LATERAL (SELECT pg_catalog.array_agg(a.attname ORDER BY a.attnum) AS names \
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = p.oid AND a.attnum > 0 AND NOT a.attisdropped) pa \
    CROSS JOIN LATERAL (SELECT pg_catalog.array_agg(a.attname ORDER BY a.attnum) AS names \
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) ca \
    WHERE n.nspname = $1 AND p.relname = $2 AND c.relkind = 'r' AND c.relnamespace = p.relnamespace \
    AND NOT i.inhdetachpending AND pa.names = ca.names \
    AND NOT p.relrowsecurity AND NOT c.relrowsecurity AND NOT p.relhasrules AND NOT c.relhasrules \
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t \
        WHERE t.tgrelid = p.oid AND NOT t.tgisinternal AND t.tgtype & 1 = 0 \
        AND t.tgtype & 28 <> 0) \
    AND (SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege(r.oid, x.oid, x.privilege)) \
        FROM pg_catalog.pg_roles r, (VALUES (p.oid, 'SELECT'), (p.oid, 'UPDATE'), (p.oid, 'DELETE'), \
        (c.oid, 'SELECT'), (c.oid, 'UPDATE'), (c.oid, 'DELETE')) AS x (oid, privilege) \
        WHERE r.rolname = $3)";

/// A table on a node, for a role: the role, the node, the table.
pub type Place = (Arc<str>, NodeId, TableName);

/// What was found of each role and table.
#[derive(Debug, Default)]
pub struct DirectLeaves {
    /// Grows when all that was found is forgotten.
    generation: AtomicU64,
    found: Mutex<HashMap<Place, KnownLeaves>>,
    /// What clients call their indexes.
    pub(super) index_names: IndexNames,
}

#[derive(Debug)]
struct KnownLeaves {
    names: Vec<String>,
    /// Those of them that take new rows as their parent does.
    taking: Vec<String>,
    since: Option<Instant>,
    asked: Instant,
}

/// Whether a leaf may stand for its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MayStand {
    /// It may, up to this time, unless [`DirectLeaves::generation`] changes before.
    pub until: Option<Instant>,
    /// It is time to ask: run [`Engine::ask_leaves`].
    pub ask: bool,
}

impl DirectLeaves {
    /// Whether `leaf` may stand for its parent in a statement of `user`.
    pub fn may_stand(&self, place: &Place, leaf: &str) -> MayStand {
        let mut found = self.found.lock();
        let Some(leaves) = found.get_mut(place) else {
            let (names, taking) = (Vec::new(), Vec::new());
            let none = KnownLeaves { names, taking, since: None, asked: Instant::now() };
            found.insert(place.clone(), none);
            return MayStand { until: None, ask: true };
        };
        let ask = leaves.asked.elapsed() > RENEW;
        if ask {
            leaves.asked = Instant::now();
        }
        let until = leaves.since.map(|since| since + HOLDS);
        let until = until.filter(|until| *until > Instant::now());
        MayStand { until: until.filter(|_| leaves.names.iter().any(|name| name == leaf)), ask }
    }

    /// Whether it is known that new rows may be given to `leaf` instead.
    fn takes(&self, place: &Place, leaf: &str) -> bool {
        let found = self.found.lock();
        let known = found
            .get(place)
            .filter(|leaves| leaves.since.is_some_and(|since| since + HOLDS > Instant::now()));
        known.is_some_and(|leaves| leaves.taking.iter().any(|name| name == leaf))
    }

    /// Changes when all that was found is forgotten.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Forgets all: the tables or the roles may be others now.
    pub(super) fn forget(&self) {
        let mut found = self.found.lock();
        self.generation.fetch_add(1, Ordering::AcqRel);
        found.clear();
        self.index_names.forget();
    }
}

impl Engine {
    /// Whether new rows may be given to a leaf instead of its parent.
    pub async fn takes(&self, place: &Place, leaf: &str) -> bool {
        if self.direct.takes(place, leaf) {
            return true;
        }
        self.ask_leaves(place.clone()).await;
        self.direct.takes(place, leaf)
    }

    /// Asks a node which leaves may stand for their parent.
    pub async fn ask_leaves(&self, place: Place) {
        let started = Instant::now();
        let generation = self.direct.generation();
        match timeout(RENEW, self.read_leaves(&place)).await {
            Ok(Ok((names, taking))) => {
                let mut found = self.direct.found.lock();
                if self.direct.generation() == generation {
                    let since = Some(started);
                    let leaves = KnownLeaves { names, taking, since, asked: started };
                    found.insert(place, leaves);
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "the leaves of a table could not be read"),
            Err(_) => tracing::warn!("the leaves of a table could not be read in time"),
        }
    }

    async fn read_leaves(
        &self,
        place: &Place,
    ) -> Result<(Vec<String>, Vec<String>), tokio_postgres::Error> {
        let (user, node, table) = place;
        let address = &self.nodes[node.index()];
        let work = async |client: &Client| {
            let rows = client.query(LEAVES, &[&table.schema, &table.name, &&**user]).await?;
            let (mut names, mut taking) = (Vec::with_capacity(rows.len()), Vec::new());
            for row in rows {
                if let Some(oids) = self.oids.get(node.index()) {
                    oids.stand_for(row.get(1), row.get(2));
                }
                let takes: Option<bool> = row.get(3);
                if takes == Some(true) {
                    taking.push(row.get(0));
                }
                names.push(row.get(0));
            }
            Ok((names, taking))
        };
        address.ask(self.live_map.load().database(), work).await
    }
}
