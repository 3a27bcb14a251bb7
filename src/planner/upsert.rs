//! INSERT … ON CONFLICT by a lookup → its statements: what is looked up, the rows that come, and the
//! change of one that is there.

use super::rekey::named;
use crate::router::Upsert;
use crate::sql::{Ident, Literal};

/// The SQL of one.
#[derive(Debug)]
pub struct UpsertSql<'a>(pub &'a Upsert);

impl UpsertSql<'_> {
    fn text(&self, span: &std::ops::Range<usize>) -> &str {
        self.0.rows.text.get(span.clone()).unwrap_or_default()
    }

    fn alias(&self) -> String {
        let alias = self.0.conflict.alias.as_ref().unwrap_or(&self.0.table.name.name);
        Ident::new(alias).to_string()
    }

    fn target(&self) -> String {
        named(&self.0.table.name, self.0.conflict.alias.as_ref())
    }

    /// The columns whose values have to be known: those that are looked up, then the shard key.
    fn known(&self) -> Vec<&str> {
        let looked_up = self.0.lookups.iter().map(|(_, column)| column.as_str());
        looked_up.chain(self.0.table.key().iter().map(String::as_str)).collect()
    }

    /// What a column of a row gets, as SQL.
    fn value(&self, row: usize, column: &str) -> &str {
        let cells = self.0.rows.layout.rows.get(row);
        let place = self.0.columns.iter().position(|name| name == column);
        let cell = place.and_then(|at| cells?.cells.get(at)).map(|span| self.text(span));
        let default = || {
            let known = self.0.table.columns.iter().find(|it| it.name == column);
            known.and_then(|it| it.default.as_deref()).unwrap_or("NULL")
        };
        cell.filter(|cell| !cell.eq_ignore_ascii_case("default")).unwrap_or_else(default)
    }

    /// Gives the values that are looked up and the keys, as texts, a row for each; `kinds` are the types
    /// of the table's columns.
    pub fn values(&self, kinds: &[String]) -> String {
        let cast = |row, column: &&str| {
            let kind = self.kind(column, kinds);
            format!("CAST(CAST(({}) AS {kind}) AS pg_catalog.text)", self.value(row, column))
        };
        let row = |at: usize| {
            let values: Vec<String> = self.known().iter().map(|column| cast(at, column)).collect();
            format!("({at}, {})", values.join(", "))
        };
        let rows: Vec<String> = (0..self.0.rows.layout.rows.len()).map(row).collect();
        format!("SELECT * FROM (VALUES {}) AS x ORDER BY 1", rows.join(", "))
    }

    fn kind<'k>(&self, column: &str, kinds: &'k [String]) -> &'k str {
        let at = self.0.table.columns.iter().position(|it| it.name == column);
        at.and_then(|at| kinds.get(at)).map_or("text", String::as_str)
    }

    /// Inserts some rows of which none conflicts by what was looked up.
    pub fn insert(&self, rows: &[usize]) -> String {
        let layout = &self.0.rows.layout;
        let head = self.text(&(0..layout.source.start));
        let row = |at: &usize| layout.rows.get(*at).map(|row| self.text(&row.span));
        let rows: Vec<&str> = rows.iter().filter_map(row).collect();
        // Others may conflict.
        let conflict =
            if self.0.conflict.columns.is_empty() { " ON CONFLICT DO NOTHING" } else { "" };
        let returning = self.0.conflict.returning.as_ref().map_or("", |span| self.text(span));
        format!("{head}VALUES {}{conflict} {returning}", rows.join(", "))
    }

    /// Changes the row that is there, which has this key and this value.
    pub fn update(&self, row: usize, found: &[String], kinds: &[String]) -> Option<String> {
        let update = self.0.conflict.update.as_ref()?;
        let columns = self.0.table.columns.iter().filter(|it| !it.generated);
        let given = columns.map(|it| {
            let kind = self.kind(&it.name, kinds);
            format!("CAST(({}) AS {kind}) AS {}", self.value(row, &it.name), Ident::new(&it.name))
        });
        let given: Vec<String> = given.collect();
        let condition = update.condition.as_ref();
        let condition = condition.map_or(String::new(), |it| format!(" AND ({})", self.text(it)));
        Some(format!(
            "UPDATE {} SET {} FROM (SELECT {}) AS excluded WHERE {}{condition}",
            self.target(),
            self.text(&update.set),
            given.join(", "),
            self.is_it(found)
        ))
    }

    /// Gives that row if it is seen, and keeps others from changing it.
    pub fn lock(&self, found: &[String]) -> String {
        format!("SELECT 1 FROM {} WHERE {} FOR NO KEY UPDATE", self.target(), self.is_it(found))
    }

    /// What RETURNING gives of that row.
    pub fn returning(&self, found: &[String]) -> Option<String> {
        let list = self.text(self.0.conflict.returning.as_ref()?);
        let list = list.get("RETURNING".len()..)?;
        Some(format!("SELECT {list} FROM {} WHERE {}", self.target(), self.is_it(found)))
    }

    /// The condition that a row has the value that was looked up and the key.
    fn is_it(&self, found: &[String]) -> String {
        let looked_up = self.0.lookups.first().map(|(_, column)| column);
        let columns = looked_up.into_iter().chain(self.0.table.key());
        let alias = self.alias();
        let test = |(column, value): (&String, &String)| {
            format!("{alias}.{} = {}", Ident::new(column), Literal(value))
        };
        columns.zip(found).map(test).collect::<Vec<_>>().join(" AND ")
    }
}
