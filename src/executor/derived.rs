//! Keeps the map's knowledge of views and functions that read sharded tables equal to the nodes'
//! catalogs, also where they were made on a node directly.

use futures_util::future::join_all;

use super::code::{self, Function};
use super::columns::{ColumnsError, ask};
use super::run::query_message;
use super::{Engine, Fault, Session};
use crate::backend::NodeAddress;
use crate::router::{Access, Template, through, through_view};
use crate::shard_map::{Derived, ShardMap, TableKind, Through, View};
use crate::sql::{Literal, Statement, Strings, TableName, parse};
use crate::wire::ServerError;
use tokio_postgres::Client;

/// Views that depend on these tables (schemas, names), their partitions, or functions (OIDs); not those
/// that the home node keeps with the rows of all nodes ([`planner::kept_view`](crate::planner::kept_view)),
/// nor what reads them.
const VIEWS: &str = "\
    WITH RECURSIVE base AS ( \
      SELECT c.oid FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) t (s, n) \
      JOIN pg_catalog.pg_namespace ns ON ns.nspname = t.s \
      JOIN pg_catalog.pg_class c ON c.relnamespace = ns.oid AND c.relname = t.n \
    ), parts AS ( \
      SELECT oid FROM base UNION \
      SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN base ON i.inhparent = base.oid \
    ), kept AS ( \
      SELECT r.ev_class FROM pg_catalog.pg_rewrite r \
      JOIN pg_catalog.pg_class m ON m.oid = r.ev_class AND m.relkind = 'm' \
      JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
      AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
      JOIN pg_catalog.pg_class t ON t.oid = d.refobjid AND t.relkind = 'r' \
      AND t.relnamespace = pg_catalog.to_regnamespace('foreshard_kept') \
    ), rules AS ( \
      SELECT r.ev_class, d.refclassid, d.refobjid FROM pg_catalog.pg_rewrite r \
      JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
      AND d.objid = r.oid AND d.refobjid <> r.ev_class \
      WHERE r.ev_class NOT IN (SELECT ev_class FROM kept) \
    ), dependent AS ( \
      SELECT ev_class AS oid FROM rules \
      WHERE refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
      AND refobjid IN (SELECT oid FROM parts) \
      OR refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND refobjid = ANY ($3::oid[]) \
      UNION \
      SELECT rules.ev_class FROM dependent JOIN rules ON rules.refobjid = dependent.oid \
      AND rules.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
    ) \
    SELECT n.nspname::text, c.relname::text, c.relkind = 'm', pg_catalog.pg_get_viewdef(c.oid), \
    pg_catalog.pg_relation_is_updatable(c.oid, false) <> 0, \
    EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN') \
    OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid) \
    OR EXISTS (SELECT FROM pg_catalog.pg_attrdef d WHERE d.adrelid = c.oid) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.oid IN (SELECT oid FROM dependent) AND c.relkind IN ('v', 'm') \
    AND c.relpersistence <> 't' ORDER BY 1, 2";

/// The names of all that can be read like a table.
const RELATIONS: &str = "\
    SELECT c.relname::text, c.relkind IN ('v', 'm') FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') \
    AND n.nspname !~ '^(pg_catalog|information_schema|foreshard(_catalog|_system|_information)?)$' \
    AND ($1::text[] IS NULL OR c.relname = ANY ($1))";

/// Whatever has one of these names, as a table would.
const NAMESAKES: &str = "\
    SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = ANY ($1) \
    AND n.nspname !~ '^(pg_.*|information_schema|foreshard(_catalog|_system|_information)?)$' \
    ORDER BY 1, 2";

impl Engine {
    /// Reads the views and functions over sharded tables; stores and publishes the map if they
    /// differ from what it says.
    pub async fn refresh_derived(&self) -> Result<(), ColumnsError> {
        let map = self.live_map.snapshot();
        let sharded =
            |table: &&crate::shard_map::Table| matches!(table.kind, TableKind::Sharded { .. });
        let tables: Vec<&TableName> =
            map.tables().iter().filter(sharded).map(|table| &table.name).collect();
        if map.tables().is_empty() {
            return Ok(());
        }
        let reference = map.tables().iter().filter(|table| table.kind == TableKind::Reference);
        let reference: Vec<&TableName> = reference.map(|table| &table.name).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        let home = &self.nodes[map.home().index()];
        let look = async |client: &Client| {
            let functions = code::functions(client).await?;
            let naming: Vec<u32> =
                functions.iter().filter(|f| mentions(f, &names)).map(|f| f.oid).collect();
            let views = views(client, &tables, &naming).await?;
            let all = map.tables().iter().map(|table| &table.name);
            let all = all.chain(views.iter().map(|view| &view.name));
            let all: Vec<&str> = all.map(|name| name.name.as_str()).collect();
            let rows = client.query(NAMESAKES, &[&all]).await?;
            let name = |row: &tokio_postgres::Row| {
                TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))
            };
            let namesakes: Vec<TableName> = rows.iter().map(name).collect();
            let of_copies = self::views(client, &reference, &[]).await?;
            let code = (functions, code::rules(client).await?, code::known(client).await?);
            Ok((code, views, relations(client, None).await?, namesakes, of_copies))
        };
        let ((code, rules, known), mut views, relations, mut namesakes, of_copies) =
            ask(home, &map, look).await?;
        let all: Vec<&str> = names.into_iter().chain(views.iter().map(|v| &*v.name.name)).collect();
        let mut functions: Vec<TableName> =
            code.iter().filter(|f| mentions(f, &all)).map(|f| f.name.clone()).collect();
        functions.dedup();
        self.compare_views(&mut views, &map, (&tables, &functions)).await;
        *self.relations.write() = relations.into_iter().map(|(name, _)| name).collect();
        let own = |name: &TableName| {
            map.table(name).is_some() || views.iter().any(|view| view.name == *name)
        };
        namesakes.retain(|name| !own(name));
        let sharded = |name: &TableName| views.iter().any(|view| view.name == *name);
        let of_copies = of_copies.into_iter().filter(|view| !view.materialized);
        let of_copies: Vec<TableName> =
            of_copies.map(|view| view.name).filter(|name| !sharded(name)).collect();
        let policy = code::Policy {
            parts: tables.into_iter().chain(views.iter().map(|view| &view.name)).collect(),
            copies: reference.into_iter().chain(&of_copies).collect(),
        };
        let entangled = code::entangled(&code, &rules, &functions, &policy);
        let callers = entangled.functions.into_iter().collect();
        let entangled = entangled.tables.into_iter().collect();
        let code::Known { immutable, overloads } = known;
        let derived = Derived {
            views,
            functions,
            namesakes,
            of_copies,
            callers,
            entangled,
            immutable,
            overloads,
        };
        let differs = |stored: &ShardMap| *stored.derived() != derived;
        self.change_map(|stored| differs(stored).then(|| stored.with_derived(derived.clone())))
            .await
    }

    /// Which views over these tables, or with these functions, every node has.
    async fn compare_views(
        &self,
        views: &mut [View],
        map: &ShardMap,
        (tables, functions): (&[&TableName], &[TableName]),
    ) {
        if views.is_empty() {
            return;
        }
        let others = map.nodes().filter(|(id, _)| *id != map.home());
        let found = others.map(|(id, _)| views_on(&self.nodes[id.index()], map, tables, functions));
        for found in join_all(found).await {
            views.iter_mut().for_each(|view| view.everywhere &= found.contains(view));
        }
    }

    /// Looks at relations that have not been seen yet: what is new and a view may read sharded
    /// tables. Names that do not exist yet stay unknown.
    async fn look_at(&self, names: &[String]) -> Result<(), ColumnsError> {
        let map = self.live_map.snapshot();
        let look = async |client: &Client| relations(client, Some(names)).await;
        let found = ask(&self.nodes[map.home().index()], &map, look).await?;
        if found.iter().any(|(_, is_view)| *is_view) {
            return self.refresh_derived().await;
        }
        self.relations.write().extend(found.into_iter().map(|(name, _)| name));
        Ok(())
    }
}

impl Session {
    /// Makes sure that the map says what it should of every relation that a statement names.
    ///
    /// # Errors
    /// It can't be told, or a view of this transaction is named, which the map does not know yet.
    pub async fn check_relations(&mut self, template: &Template) -> Result<(), Fault> {
        if !template.trusted.is_empty() && template.access == Access::Write {
            self.check_trusted(&template.trusted)?;
        }
        if template.names_are_sure() {
            return Ok(());
        }
        self.check_placed(&template.placed).await?;
        let named = |name: &&String| self.transaction.changed_views.contains(*name);
        if let Some(view) = template.relations.iter().find(named) {
            return Err(ServerError::refused(
                format!("the view \"{view}\" can't be used in the transaction that defines it"),
                "Which rows it reads is known once it is committed.",
                "Commit first.",
            )
            .into());
        }
        self.look_for_new(template).await?;
        self.check_new_views(template).await
    }

    /// A function that is taken for immutable is not what the transaction itself has made of it.
    fn check_trusted(&self, trusted: &[String]) -> Result<(), ServerError> {
        let more = &self.transaction.defines_more;
        let Some(function) = trusted.iter().find(|name| more.bears_on(name)) else {
            return Ok(());
        };
        Err(ServerError::refused(
            format!("what {function}() does in this transaction is not known"),
            "The transaction has made functions, or something that they may use.",
            "Commit first.",
        ))
    }

    /// Relations that the proxy has not seen yet are looked at.
    async fn look_for_new(&mut self, template: &Template) -> Result<(), Fault> {
        let unknown: Vec<String> = {
            let known = self.engine.relations.read();
            let looked_at = &self.transaction.absent;
            let is_new = |name: &&String| !known.contains(*name) && !looked_at.contains(*name);
            template.relations.iter().filter(is_new).cloned().collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.engine.look_at(&unknown).await {
            tracing::warn!(%error, "what tables are could not be looked up");
            return Err(ServerError::refused(
                format!("it can't be told what \"{}\" is", unknown.join("\", \"")),
                "The home node did not answer, and views over sharded tables need care.",
                "Try again.",
            )
            .into());
        }
        if self.in_transaction() {
            self.transaction.absent.extend(unknown);
        }
        Ok(())
    }

    /// A view over reference tables that the block itself has made is not written either.
    async fn check_new_views(&mut self, template: &Template) -> Result<(), Fault> {
        let absent = &self.transaction.absent;
        let new: Vec<&String> =
            template.relations.iter().filter(|it| absent.contains(*it)).collect();
        let writes = template.access == Access::Write;
        if new.is_empty() || !writes || !self.has_redefined() {
            return Ok(());
        }
        let map = self.engine.live_map.snapshot();
        let Some(question) = new_views(&new, &map) else { return Ok(()) };
        let found = self.evaluate_here(map.home(), &query_message(&question), 1).await?;
        match found.into_iter().flatten().flatten().next() {
            None => Ok(()),
            Some(view) => Err(through_view(&view).into()),
        }
    }
}

/// Asks for a view of one of these names that reads a reference table; `None` if there are no such tables.
fn new_views(names: &[&String], map: &ShardMap) -> Option<String> {
    let list = |names: Vec<String>| format!("ARRAY[{}]::pg_catalog.text[]", names.join(", "));
    let names = names.iter().map(|name| Literal(name).to_string()).collect();
    let tables = map.tables().iter().filter(|table| table.kind == TableKind::Reference);
    let tables: Vec<String> =
        tables.map(|table| Literal(&table.name.to_string()).to_string()).collect();
    (!tables.is_empty()).then(|| {
        format!(
            "WITH RECURSIVE seen AS (SELECT oid AS view, oid FROM pg_catalog.pg_class \
             WHERE relkind = 'v' AND relname = ANY ({}) \
             UNION SELECT seen.view, d.refobjid FROM seen \
             JOIN pg_catalog.pg_rewrite r ON r.ev_class = seen.oid \
             JOIN pg_catalog.pg_depend d ON d.objid = r.oid AND d.refobjid <> r.ev_class \
             AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
             AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass) \
             SELECT c.relname FROM seen JOIN pg_catalog.pg_class c ON c.oid = seen.view \
             WHERE seen.oid IN (SELECT pg_catalog.to_regclass(t) FROM pg_catalog.unnest({}) t) LIMIT 1",
            list(names),
            list(tables)
        )
    })
}

/// The views that `node` has; none if it can't be asked.
async fn views_on(
    node: &NodeAddress,
    map: &ShardMap,
    tables: &[&TableName],
    functions: &[TableName],
) -> Vec<View> {
    let look = async |client: &Client| {
        let all = code::functions(client).await?;
        let naming: Vec<u32> =
            all.iter().filter(|f| functions.contains(&f.name)).map(|f| f.oid).collect();
        views(client, tables, &naming).await
    };
    ask(node, map, look).await.unwrap_or_else(|error| {
        tracing::warn!(node = %node.name, %error, "the views of a node could not be read");
        Vec::new()
    })
}

/// Whether a function's code has one of `names` in it.
fn mentions(function: &Function, names: &[&str]) -> bool {
    let parsed = parse(&function.code, Strings::Standard);
    let in_it = |name: &&str| parsed.statements.iter().any(|s: &Statement| s.may_name(name));
    !function.trigger && names.iter().any(in_it)
}

async fn views(
    client: &Client,
    tables: &[&TableName],
    functions: &[u32],
) -> Result<Vec<View>, tokio_postgres::Error> {
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).unzip();
    let rows = client.query(VIEWS, &[&schemas, &names, &functions]).await?;
    let view = |row: &tokio_postgres::Row| {
        let definition: String = row.get(3);
        let definition = definition.trim().trim_end_matches(';').to_owned();
        let (updatable, odd): (bool, bool) = (row.get(4), row.get(5));
        View {
            name: TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
            through: match (updatable, odd) {
                (true, false) => through(&definition),
                (false, false) => Through::Refused,
                (_, true) => Through::Unknown,
            },
            definition,
            everywhere: true,
            materialized: row.get(2),
        }
    };
    Ok(rows.iter().map(view).collect())
}

/// Names with whether they are views; of these names only, or all.
async fn relations(
    client: &Client,
    names: Option<&[String]>,
) -> Result<Vec<(String, bool)>, tokio_postgres::Error> {
    let rows = client.query(RELATIONS, &[&names]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
