//! Random writes: INSERT, UPDATE, DELETE and their like, made so that their answer is one.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::expressions::{Place, Words, qualified};
use super::tables::{Kind, Table, table};

/// A statement and its parameters; without them it is sent as text.
pub struct Made {
    pub sql: String,
    pub parameters: Option<Vec<Option<String>>>,
}

/// Makes statements.
pub struct Generator {
    pub words: Words,
}

impl Generator {
    /// Statements that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { words: Words::new(StdRng::seed_from_u64(seed)) }
    }

    /// The next one.
    pub fn statement(&mut self) -> Made {
        self.words.parameters = self.words.chance(25).then(Vec::new);
        let sql = match self.words.rng.random_range(0..100) {
            0..26 => self.insert(None),
            26..54 => self.update(None),
            54..72 => self.delete(None),
            72..77 => self.rekey(),
            77..90 => self.with(),
            90..98 => self.locking(),
            _ => self.truncate(),
        };
        Made { sql, parameters: self.words.parameters.take() }
    }

    /// A write's own place, and how it is written.
    fn target(&mut self, table: &Table) -> (String, Place) {
        if self.words.chance(40) {
            return (table.name.to_owned(), Words::place(table, table.name));
        }
        let alias = self.words.alias();
        let word = if self.words.chance(50) { "AS " } else { "" };
        (format!("{} {word}{alias}", table.name), Words::place(table, &alias))
    }

    pub(super) fn returning(&mut self, scope: &[Place], target: &Place, depth: usize) -> String {
        if !self.words.chance(40) {
            return String::new();
        }
        if self.words.chance(25) {
            return format!(" RETURNING {}.*", target.alias);
        }
        let mut list = Vec::new();
        for at in 0..self.words.rng.random_range(1..4) {
            let kind = self.words.pick(&[Kind::Int, Kind::Text, Kind::Day, Kind::Number]);
            list.push(if self.words.chance(33) {
                format!("{} AS r{at}", self.words.expression(scope, kind, depth))
            } else {
                let place = scope.choose(&mut self.words.rng).unwrap();
                let column = place.columns.choose(&mut self.words.rng).unwrap();
                qualified(place, &column.0)
            });
        }
        format!(" RETURNING {}", list.join(", "))
    }

    /// What UPDATE sets, by what `scope` has.
    fn sets(&mut self, table: &Table, scope: &[Place]) -> String {
        let mut free: Vec<_> =
            table.free().into_iter().filter(|c| c.0 != "email" || self.words.chance(10)).collect();
        free.shuffle(&mut self.words.rng);
        free.truncate(self.words.pick(&[1, 1, 2, 3]));
        if free.is_empty() {
            free = table.columns[1..2].to_vec();
        }
        if free.len() == 2 && self.words.chance(30) {
            let names = format!("({}, {})", free[0].0, free[1].0);
            if self.words.chance(50) {
                let (from, place) = self.words.source(0);
                let inner = [place];
                let values: Vec<_> = free
                    .iter()
                    .map(|c| {
                        let column = self.words.column(&inner, c.1);
                        column.map_or_else(
                            || self.words.constant(c.1, c.2),
                            |column| format!("max({column})"),
                        )
                    })
                    .collect();
                let tied = self.words.equality(&inner[0], scope);
                let filter =
                    if self.words.chance(60) { format!(" WHERE {tied}") } else { String::new() };
                return format!("{names} = (SELECT {} FROM {from}{filter})", values.join(", "));
            }
            let values: Vec<_> =
                free.iter().map(|c| self.words.expression(scope, c.1, 1)).collect();
            return format!("{names} = ({})", values.join(", "));
        }
        let sets = free.iter().map(|(name, kind, means)| {
            let value = match self.words.rng.random_range(0..12) {
                // Which row gets which number is not said.
                0 if *name != "email" && table.serial != Some(name) => "DEFAULT".to_owned(),
                1 => self.words.bare(*kind, *means),
                _ => self.words.expression(scope, *kind, 1),
            };
            format!("{name} = {value}")
        });
        sets.collect::<Vec<_>>().join(", ")
    }

    /// FROM or USING: the sources, the conditions, and whether each row meets one of theirs.
    fn joined(&mut self, scope: &mut Vec<Place>) -> (Vec<String>, Vec<String>, bool) {
        let (mut from, mut tests, mut one) = (Vec::new(), Vec::new(), true);
        for _ in 0..self.words.pick(&[0, 0, 1, 1, 2]) {
            let (source, place, on, single) = self.words.join(scope, 1);
            one &= single;
            from.push(source);
            tests.push(on);
            scope.push(place);
        }
        (from, tests, one)
    }

    /// The rows that are given, or what is joined: see [`Self::joined`].
    fn sources(
        &mut self,
        from: Option<(&str, &Place)>,
        scope: &mut Vec<Place>,
    ) -> (Vec<String>, Vec<String>, bool) {
        let Some((name, rows)) = from else { return self.joined(scope) };
        let tests = vec![self.words.equality(rows, scope)];
        scope.push(rows.clone());
        (vec![format!("{name} AS {}", rows.alias)], tests, false)
    }

    fn update(&mut self, from: Option<(&str, &Place)>) -> String {
        let table = self.words.writable();
        let (written, place) = self.target(table);
        let mut scope = vec![place.clone()];
        let (sources, mut tests, one) = self.sources(from, &mut scope);
        // Which of several rows would give the value is not said.
        let values = if one { scope.clone() } else { vec![place.clone()] };
        let sets = self.sets(table, &values);
        self.bind(&place, &mut tests);
        if tests.is_empty() || self.words.chance(40) {
            let test = self.words.tests(&scope, 1);
            tests.push(format!("({test})"));
        }
        let from = if sources.is_empty() {
            String::new()
        } else {
            format!(" FROM {}", sources.join(", "))
        };
        let returning = self.returning(&values, &place, 1);
        format!("UPDATE {written} SET {sets}{from} WHERE {}{returning}", tests.join(" AND "))
    }

    /// Sometimes the shard key or the whole key is said.
    fn bind(&mut self, place: &Place, tests: &mut Vec<String>) {
        match self.words.rng.random_range(0..10) {
            0..3 => tests.push(self.words.bound(place, false)),
            3..5 => tests.push(self.words.bound(place, true)),
            _ => {}
        }
    }

    fn delete(&mut self, from: Option<(&str, &Place)>) -> String {
        let table = self.words.writable();
        let (written, place) = self.target(table);
        let mut scope = vec![place.clone()];
        let (sources, mut tests, one) = self.sources(from, &mut scope);
        self.bind(&place, &mut tests);
        if tests.is_empty() || self.words.chance(60) {
            let test = self.words.tests(&scope, 1);
            tests.push(format!("({test})"));
        }
        let using = if sources.is_empty() {
            String::new()
        } else {
            format!(" USING {}", sources.join(", "))
        };
        let values = if one { scope } else { vec![place.clone()] };
        let returning = self.returning(&values, &place, 1);
        format!("DELETE FROM {written}{using} WHERE {}{returning}", tests.join(" AND "))
    }

    /// An UPDATE of what tells rows apart; new values are either free or taken, in whatever order rows
    /// come.
    fn rekey(&mut self) -> String {
        let table = loop {
            let table = self.words.writable();
            if !table.unique.is_empty() {
                break table;
            }
        };
        let (written, place) = self.target(table);
        let name = self.words.pick(table.unique);
        let (_, kind, means) = *table.columns.iter().find(|column| column.0 == name).unwrap();
        let fresh = self.words.fresh();
        let all = self.words.chance(40);
        let (value, filter) = match kind {
            Kind::Int if !all => {
                (format!("{name} + {fresh}"), self.words.filter(std::slice::from_ref(&place), 1))
            }
            Kind::Text if !all => {
                (format!("'{fresh}' || {name}"), self.words.filter(std::slice::from_ref(&place), 1))
            }
            _ => {
                (self.words.bare(kind, means), format!(" WHERE {}", self.words.bound(&place, true)))
            }
        };
        let mut sets = vec![format!("{name} = {value}")];
        if let Some((other, kind, _)) =
            table.free().choose(&mut self.words.rng).filter(|c| c.0 != "email")
            && self.words.chance(30)
        {
            sets.push(format!(
                "{other} = {}",
                self.words.expression(std::slice::from_ref(&place), *kind, 0)
            ));
        }
        let returning = self.returning(std::slice::from_ref(&place), &place, 0);
        format!("UPDATE {written} SET {}{filter}{returning}", sets.join(", "))
    }

    /// A query or a write in WITH, and a write or a query of its rows.
    fn with(&mut self) -> String {
        let alias = self.words.alias();
        let (body, mut place) = if self.words.chance(50) {
            let (from, inner) = self.words.source(1);
            let scope = [inner.clone()];
            let filter = self.words.filter(&scope, 1);
            let columns: Vec<_> = inner.columns.iter().map(|c| qualified(&inner, &c.0)).collect();
            (format!("SELECT {} FROM {from}{filter}", columns.join(", ")), inner)
        } else {
            self.writing()
        };
        place.alias = alias;
        place.unique.clear();
        let name = "w";
        let rest = match self.words.rng.random_range(0..4) {
            0 => self.insert(Some((name, &place))),
            1 => self.update(Some((name, &place))),
            2 => self.delete(Some((name, &place))),
            _ => {
                let columns: Vec<_> = place.columns.iter().map(|c| c.0.clone()).collect();
                let order: Vec<_> = (1..=columns.len()).map(|at| at.to_string()).collect();
                format!("SELECT {} FROM {name} ORDER BY {}", columns.join(", "), order.join(", "))
            }
        };
        self.words.taken.clear();
        format!("WITH {name} AS ({body}) {rest}")
    }

    /// A write in WITH.
    fn writing(&mut self) -> (String, Place) {
        let table = table(self.words.pick(&[
            "parcels", "metrics", "readings", "settings", "gone", "journal", "notes", "parcels",
            "metrics", "readings", "settings", "gone", "journal", "notes", "orders", "items",
            "users", "devices", "plans",
        ]));
        // What both would write is not said to be written once.
        self.words.taken = match table.name {
            "notes" => vec!["notes", "orders", "tenants"],
            // Rows of these may go with others.
            "orders" => vec!["orders", "items", "notes", "tenants"],
            "items" | "users" => vec!["items", "users", "orders", "tenants"],
            name => vec![name],
        };
        if self.words.chance(25) {
            return self.insert_for(table);
        }
        let (written, place) = self.target(table);
        let scope = [place.clone()];
        let columns: Vec<_> = place.columns.iter().map(|c| qualified(&place, &c.0)).collect();
        let columns = columns.join(", ");
        let filter = self.words.filter(&scope, 1);
        let body = if self.words.chance(50) {
            let sets = self.sets(table, &scope);
            format!("UPDATE {written} SET {sets}{filter} RETURNING {columns}")
        } else {
            format!("DELETE FROM {written}{filter} RETURNING {columns}")
        };
        (body, place)
    }

    /// A query that locks rows.
    fn locking(&mut self) -> String {
        let table = loop {
            let table = self.words.readable();
            if table.writable {
                break table;
            }
        };
        let (written, place) = self.target(table);
        let mut scope = vec![place.clone()];
        let mut from = written;
        if self.words.chance(30) {
            let (source, other, on, _) = self.words.join(&scope, 0);
            from = format!("{from} JOIN {source} ON {on}");
            scope.push(other);
        }
        let mut tests = Vec::new();
        self.bind(&place, &mut tests);
        tests.push(self.words.tests(&scope, 1));
        let columns: Vec<_> = place.columns.iter().map(|c| qualified(&place, &c.0)).collect();
        let order: Vec<_> = (1..=columns.len()).map(|at| at.to_string()).collect();
        let mut sql =
            format!("SELECT {} FROM {from} WHERE {}", columns.join(", "), tests.join(" AND "));
        if self.words.chance(60) {
            sql = format!("{sql} ORDER BY {}", order.join(", "));
            if self.words.chance(50) {
                sql = format!("{sql} LIMIT {}", self.words.rng.random_range(1..9));
            }
        }
        let lock = self.words.pick(&["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"]);
        let how = self.words.pick(&["", "", " NOWAIT", " SKIP LOCKED"]);
        format!("{sql} FOR {lock} OF {}{how}", place.alias)
    }

    fn truncate(&mut self) -> String {
        let tables = [
            "gone",
            "metrics",
            "readings, gone",
            "items",
            "orders CASCADE",
            "parcels, settings",
            "journal RESTART IDENTITY",
            "users",
            "devices",
        ];
        format!("TRUNCATE {}", self.words.pick(&tables))
    }
}
