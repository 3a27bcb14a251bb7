//! Materialized views over sharded tables. The view under the user's name is a real one of the home
//! node, so that indexes, rights, dependencies and REFRESH are PostgreSQL's own. It reads two relations
//! in a schema of the proxy's: an empty table, which has the rows of all nodes while the view is filled
//! from it, and a view with the user's query, which gives no rows here. A REFRESH that the proxy has not
//! filled the table for fails, by a function that its query asks.

use super::DdlPlan;
use super::ddl::Step;
use crate::sql::{Literal, MaterializedQuery};

/// The schema of what stands behind kept views.
pub(super) const SCHEMA: &str = "foreshard_kept";

/// Makes the schema, and takes away what nothing stands on any more: with the tables that it reads, a
/// view may have gone past the proxy.
pub const KEPT_SET_UP: &str = "
    BEGIN READ WRITE;
    SET LOCAL client_min_messages = warning;
    SET LOCAL lock_timeout = '2s';
    SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('foreshard'));
    CREATE SCHEMA IF NOT EXISTS foreshard_kept;
    GRANT USAGE, CREATE ON SCHEMA foreshard_kept TO PUBLIC;
    CREATE OR REPLACE FUNCTION foreshard_kept.query_of(oid) RETURNS text
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog
    AS 'SELECT pg_catalog.rtrim(pg_catalog.pg_get_viewdef($1), '';'')';
    CREATE OR REPLACE FUNCTION foreshard_kept.is_filled(number text) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $foreshard$
    BEGIN
        IF current_setting('foreshard_kept.filled', true) IS DISTINCT FROM number THEN
            RAISE EXCEPTION 'a materialized view over sharded tables can''t be refreshed here'
            USING ERRCODE = 'feature_not_supported',
            DETAIL = 'Its rows are on several nodes, and only foreshard brings them together; '
                'the view keeps the rows that it has.',
            HINT = 'Run REFRESH MATERIALIZED VIEW through foreshard, as a statement of its own: '
                'not on the node, nor in a function or a DO block.';
        END IF;
        RETURN true;
    END $foreshard$;
    DO $foreshard$
    DECLARE
        gone record;
    BEGIN
        FOR gone IN SELECT c.relname, c.relkind FROM pg_catalog.pg_class c
            WHERE c.relnamespace = 'foreshard_kept'::pg_catalog.regnamespace
            AND c.relkind IN ('r', 'v') AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid AND w.ev_class <> c.oid
                WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                AND d.refobjid = c.oid)
        LOOP
            BEGIN
                EXECUTE pg_catalog.format('DROP %s foreshard_kept.%I',
                    CASE gone.relkind WHEN 'r' THEN 'TABLE' ELSE 'VIEW' END, gone.relname);
            EXCEPTION WHEN dependent_objects_still_exist OR lock_not_available THEN
            END;
        END LOOP;
    END $foreshard$;
    COMMIT";

/// The query that says of what stands behind a materialized view, by its name: its number, whether who
/// asks owns all of it, whether he may act as its owner, and whether it fails where it is refreshed past
/// the proxy: those that were made before there was that are emptied. No row if it is not a kept one.
pub fn kept_view(name: &str) -> String {
    format!(
        "SELECT DISTINCT pg_catalog.substr(r.relname, 2), \
         m.relowner = u.oid AND r.relowner = u.oid AND v.relowner = u.oid, \
         pg_catalog.pg_has_role(m.relowner, 'USAGE'), EXISTS (SELECT FROM pg_catalog.pg_depend g \
         WHERE g.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND g.objid = w.oid \
         AND g.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass \
         AND g.refobjid = pg_catalog.to_regprocedure('{SCHEMA}.is_filled(text)')) FROM pg_catalog.pg_class m \
         JOIN pg_catalog.pg_roles u ON u.rolname = CURRENT_USER \
         JOIN pg_catalog.pg_rewrite w ON w.ev_class = m.oid \
         JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
         AND d.objid = w.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
         JOIN pg_catalog.pg_class r ON r.oid = d.refobjid AND r.relkind = 'r' \
         AND r.relnamespace = pg_catalog.to_regnamespace('{SCHEMA}') \
         JOIN pg_catalog.pg_class v ON v.relnamespace = r.relnamespace AND v.relkind = 'v' \
         AND v.relname = 'v' || pg_catalog.substr(r.relname, 2) \
         WHERE m.oid = pg_catalog.to_regclass({}) AND m.relkind = 'm'",
        Literal(name)
    )
}

/// What stands behind one kept view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptView {
    number: String,
}

impl KeptView {
    /// By the number that is in its names.
    pub fn new(number: String) -> Self {
        Self { number }
    }

    /// The table that holds rows for a moment.
    pub fn rows(&self) -> String {
        format!("{SCHEMA}.r{}", self.number)
    }

    /// The name of the view with the query.
    fn view(&self) -> String {
        format!("v{}", self.number)
    }

    fn qualified_view(&self) -> String {
        format!("{SCHEMA}.v{}", self.number)
    }

    /// The query that gives the user's query, with all names qualified.
    pub fn query(&self) -> String {
        // With exactly its type: whoever may make views there may make other functions of its name.
        let view = self.qualified_view();
        format!("SELECT {SCHEMA}.query_of('{view}'::pg_catalog.regclass::pg_catalog.oid)")
    }

    /// What makes the table, as the rows of the query need it.
    pub fn make_rows(&self, made: &MaterializedQuery) -> String {
        let MaterializedQuery { columns, query, .. } = made;
        format!("CREATE UNLOGGED TABLE {} {columns} AS {query} WITH NO DATA", self.rows())
    }

    /// What keeps others from filling the table.
    pub fn lock(&self) -> String {
        format!("LOCK TABLE {} IN EXCLUSIVE MODE", self.rows())
    }

    /// What empties it.
    pub fn empty(&self) -> String {
        format!("TRUNCATE {}", self.rows())
    }

    /// Lets the materialized view read the table, until [`Self::close`] or the end of the transaction.
    pub fn open(&self) -> String {
        format!("SET LOCAL {SCHEMA}.filled = '{}'", self.number)
    }

    /// Nothing in this transaction may read it any more.
    pub fn close() -> &'static str {
        "SET LOCAL foreshard_kept.filled = ''"
    }

    /// What makes both views, once the table has its rows.
    pub fn make(&self, made: &MaterializedQuery) -> DdlPlan {
        let MaterializedQuery { head, columns, query, no_data, .. } = made;
        let (rows, view) = (self.rows(), self.qualified_view());
        let data = if *no_data { "WITH NO DATA" } else { "WITH DATA" };
        let all = [
            format!("CREATE VIEW {view} {columns} AS {query}"),
            format!(
                "CREATE MATERIALIZED VIEW {head} AS SELECT * FROM {rows} \
                 WHERE {SCHEMA}.is_filled('{}'::pg_catalog.text) \
                 UNION ALL SELECT * FROM {view} WHERE false {data}",
                self.number
            ),
        ];
        self.plan(all)
    }

    /// What is left to drop once the materialized view is gone.
    pub fn drop(&self) -> DdlPlan {
        self.plan([
            format!("DROP VIEW IF EXISTS {}", self.qualified_view()),
            format!("DROP TABLE IF EXISTS {}", self.rows()),
        ])
    }

    /// The same owner for all of it.
    pub fn give_to(&self, owner: &str) -> DdlPlan {
        self.plan([
            format!("ALTER VIEW {} OWNER TO {owner}", self.qualified_view()),
            format!("ALTER TABLE {} OWNER TO {owner}", self.rows()),
        ])
    }

    fn plan(&self, all: [String; 2]) -> DdlPlan {
        let views = vec![self.view()];
        DdlPlan { views, ..DdlPlan::new(Vec::new(), all.map(Step::Home).to_vec()) }
    }
}

/// A row if the name is a sequence's.
pub fn is_sequence(name: &str) -> String {
    format!(
        "SELECT 't' FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({}) AND relkind = 'S'",
        Literal(name)
    )
}

/// ALTER TABLE of a sequence, as `pg_dump` writes it: those that number rows of tables of the policy are
/// on every node.
pub fn sequence_owner(text: &str, name: &str, owner: &str) -> DdlPlan {
    let others = format!("ALTER SEQUENCE IF EXISTS {name} OWNER TO {owner}");
    let step = Step::HomeAndOthers { home: text.to_owned(), others };
    DdlPlan::new(Vec::new(), vec![step])
}

impl DdlPlan {
    /// This one, and then what another one does; the client hears of this one.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        self.steps.extend(other.steps);
        self.views.extend(other.views);
        self
    }
}

/// A statement of the home node alone.
pub fn at_home(text: &str) -> DdlPlan {
    DdlPlan::new(Vec::new(), vec![Step::Home(text.to_owned())])
}
