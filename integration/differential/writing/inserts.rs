//! Random INSERTs: of rows that are written, and of queries; with what is done on conflict.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::expressions::{Place, Words, qualified};
use super::shapes::Generator;
use super::tables::{Column, Kind, Means, Table};

impl Generator {
    /// A value for a column of a new row.
    fn cell(&mut self, table: &Table, column: Column, query: Option<&[Place]>) -> String {
        let (name, kind, means) = column;
        let unique = table.is_unique(name) && means == Means::Other || name == "email";
        if unique && self.words.chance(if name == "serial" { 40 } else { 85 }) {
            let fresh = self.words.fresh();
            return match (kind, query) {
                (Kind::Text, None) => format!("'f{fresh}'"),
                (Kind::Day, _) => self.words.constant(kind, means),
                (kind, Some(scope)) => {
                    let own = self.words.column(scope, Kind::Int).unwrap_or_else(|| "1".to_owned());
                    if kind == Kind::Int {
                        format!("{own} + {fresh}")
                    } else {
                        format!("'f{fresh}' || {own}")
                    }
                }
                (_, None) => fresh.to_string(),
            };
        }
        let depth = usize::from(self.words.chance(12));
        match (self.words.rng.random_range(0..20), query) {
            (0, None) if !table.is_unique(name) => "DEFAULT".to_owned(),
            (1, _) if !table.is_unique(name) => format!("NULL::{}", type_of(kind)),
            (2..5, None) if depth > 0 => self.words.expression(&[], kind, 0),
            (5, None) if kind == Kind::Int => format!("{} + 1", self.words.constant(kind, means)),
            (6, None) if depth > 0 => {
                let (from, place) = self.words.source(0);
                match self.words.column(&[place], kind) {
                    Some(own) => format!("(SELECT max({own}) FROM {from})"),
                    None => self.words.constant(kind, means),
                }
            }
            (_, None) => self.words.bare(kind, means),
            (7..20, Some(scope)) => {
                let same = scope.iter().flat_map(|p| p.columns.iter().map(move |c| (p, c)));
                let same: Vec<_> = same.filter(|(_, c)| c.1 == kind && c.2 == means).collect();
                match same.choose(&mut self.words.rng) {
                    Some((place, column)) => qualified(place, &column.0),
                    None => self.words.expression(scope, kind, depth),
                }
            }
            (_, Some(scope)) => self.words.expression(scope, kind, depth),
        }
    }

    pub(super) fn insert(&mut self, from: Option<(&str, &Place)>) -> String {
        let table = self.words.writable();
        self.insert_into(table, from)
    }

    /// The same into a table that is given, with other rows back.
    pub(super) fn insert_for(&mut self, table: &'static Table) -> (String, Place) {
        let sql = self.insert_into(table, None);
        let sql = sql.split(" RETURNING ").next().unwrap_or_default();
        let place = Words::place(table, table.name);
        let columns: Vec<_> = place.columns.iter().map(|column| column.0.clone()).collect();
        (format!("{sql} RETURNING {}", columns.join(", ")), place)
    }

    /// INSERT, of rows of `from` if that is given.
    fn insert_into(&mut self, table: &'static Table, from: Option<(&str, &Place)>) -> String {
        if table.serial == Some("id")
            && table.name == "journal"
            && from.is_none()
            && self.words.chance(8)
        {
            return "INSERT INTO journal DEFAULT VALUES RETURNING *".to_owned();
        }
        let mut columns: Vec<Column> = table.columns.to_vec();
        let mut listed = true;
        if from.is_none()
            && self.words.chance(15)
            && !matches!(table.name, "tenants" | "orders" | "notes")
        {
            listed = false;
        } else {
            let keep = |words: &mut Words, column: &Column| {
                let serial = table.serial == Some(column.0);
                words.chance(if serial {
                    30
                } else if table.is_unique(column.0) {
                    98
                } else {
                    75
                })
            };
            columns.retain(|column| keep(&mut self.words, column));
            columns.shuffle(&mut self.words.rng);
            if columns.is_empty() {
                columns = table.columns.to_vec();
            }
        }
        let names: Vec<_> = columns.iter().map(|column| column.0).collect();
        let list = if listed { format!(" ({})", names.join(", ")) } else { String::new() };
        let alias = self.words.alias();
        let place = Words::place(table, &alias);
        let query = from.is_some() || self.words.chance(40);
        let source = if query {
            self.rows_of_query(table, &columns, from)
        } else {
            self.values(table, &columns)
        };
        let conflict = self.conflict(table, &place, &names);
        let returning = self.returning(std::slice::from_ref(&place), &place, 1);
        format!("INSERT INTO {} AS {alias}{list} {source}{conflict}{returning}", table.name)
    }

    fn values(&mut self, table: &Table, columns: &[Column]) -> String {
        let rows = (0..self.words.pick(&[1, 1, 2, 3, 5])).map(|_| {
            let cells = columns.iter().map(|column| self.cell(table, *column, None));
            format!("({})", cells.collect::<Vec<_>>().join(", "))
        });
        format!("VALUES {}", rows.collect::<Vec<_>>().join(", "))
    }

    /// All its columns are in its order: what conflicts first and numbers of sequences follow it.
    fn rows_of_query(
        &mut self,
        table: &Table,
        columns: &[Column],
        from: Option<(&str, &Place)>,
    ) -> String {
        let (mut sql, first) = match from {
            Some((name, place)) => (format!("{name} AS {}", place.alias), place.clone()),
            None => self.words.source(1),
        };
        let mut scope = vec![first];
        if self.words.chance(30) {
            let (more, place, on, _) = self.words.join(&scope, 1);
            sql =
                format!("{sql} {} {more} ON {on}", self.words.pick(&["JOIN", "JOIN", "LEFT JOIN"]));
            scope.push(place);
        }
        let cells: Vec<_> =
            columns.iter().map(|column| self.cell(table, *column, Some(&scope))).collect();
        let filter = self.words.filter(&scope, 1);
        let order: Vec<_> = (1..=columns.len()).map(|at| at.to_string()).collect();
        let limit = if self.words.chance(25) { " LIMIT 7" } else { "" };
        let distinct = if self.words.chance(20) { "DISTINCT " } else { "" };
        let order = order.join(", ");
        format!("SELECT {distinct}{} FROM {sql}{filter} ORDER BY {order}{limit}", cells.join(", "))
    }

    fn conflict(&mut self, table: &Table, place: &Place, names: &[&str]) -> String {
        if table.unique.is_empty() || !self.words.chance(40) {
            return String::new();
        }
        let target = table.unique.join(", ");
        if self.words.chance(40) {
            // One PostgreSQL would see a looked-up value's conflict, too.
            let target = if self.words.chance(50) || table.name == "users" {
                format!(" ({target})")
            } else {
                String::new()
            };
            return format!(" ON CONFLICT{target} DO NOTHING");
        }
        let free: Vec<_> = table.free().into_iter().filter(|column| column.0 != "email").collect();
        let mut sets = Vec::new();
        for (name, kind, _) in free {
            if !sets.is_empty() && self.words.chance(60) {
                continue;
            }
            let excluded = names.contains(&name) && self.words.chance(50);
            let scope = [place.clone()];
            let value = if excluded {
                format!("excluded.{name}")
            } else {
                self.words.expression(&scope, kind, 1)
            };
            sets.push(format!("{name} = {value}"));
        }
        if sets.is_empty() {
            return format!(" ON CONFLICT ({target}) DO NOTHING");
        }
        let filter = if self.words.chance(25) {
            self.words.filter(std::slice::from_ref(place), 1)
        } else {
            String::new()
        };
        format!(" ON CONFLICT ({target}) DO UPDATE SET {}{filter}", sets.join(", "))
    }
}

fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "bigint",
        Kind::Number => "numeric",
        Kind::Text => "text",
        Kind::Day => "date",
    }
}
