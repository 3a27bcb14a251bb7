//! Values, tests and subqueries of random writes, by kind.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::tables::{Kind, Means, TABLES, Table};

/// A place in FROM.
#[derive(Clone)]
pub struct Place {
    pub alias: String,
    pub columns: Vec<(String, Kind, Means)>,
    /// What tells its rows apart.
    pub unique: Vec<String>,
}

/// What all shapes share.
pub struct Words {
    pub rng: StdRng,
    /// Whether the session has its temporary table.
    pub scratch: bool,
    /// Values that are given apart, where the extended protocol is used.
    pub parameters: Option<Vec<Option<String>>>,
    /// Tables that are written elsewhere in the statement.
    pub taken: Vec<&'static str>,
    aliases: u32,
}

const TEXTS: [&str; 16] = [
    "tenant 5", "tenant 7", "note 2", "did 1", "new", "s3", "s1", "open", "paid", "p7", "Rome",
    "Oslo", "alpha", "sku-3", "it's", "",
];

impl Words {
    pub fn new(rng: StdRng) -> Self {
        Self { rng, scratch: false, parameters: None, taken: Vec::new(), aliases: 0 }
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        *all.choose(&mut self.rng).unwrap()
    }

    pub fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("a{}", self.aliases)
    }

    /// A number that no row has yet, as far as one can hope.
    pub fn fresh(&mut self) -> i64 {
        self.rng.random_range(10_000..1_000_000)
    }

    /// A table that can be read.
    pub fn readable(&mut self) -> &'static Table {
        let count = if self.scratch { TABLES.len() } else { TABLES.len() - 1 };
        TABLES[..count].choose(&mut self.rng).unwrap()
    }

    /// A table that can be written.
    pub fn writable(&mut self) -> &'static Table {
        loop {
            let table = self.readable();
            if table.writable && !self.taken.contains(&table.name) {
                return table;
            }
        }
    }

    pub fn place(table: &Table, alias: &str) -> Place {
        let columns =
            table.columns.iter().map(|(name, kind, means)| ((*name).to_owned(), *kind, *means));
        let unique = table.unique.iter().map(|name| (*name).to_owned());
        Place { alias: alias.to_owned(), columns: columns.collect(), unique: unique.collect() }
    }

    /// Something to read from, with its alias.
    pub fn source(&mut self, depth: usize) -> (String, Place) {
        let alias = self.alias();
        if depth > 0 && self.chance(15) {
            return self.derived(&alias, depth - 1);
        }
        if self.chance(6) {
            let values = format!(
                "(VALUES (1, 'tenant 5'), ({}, 'p7'), (6, 'x')) AS {alias} (k, v)",
                self.rng.random_range(10..15)
            );
            let columns = vec![
                ("k".to_owned(), Kind::Int, Means::Tenant),
                ("v".to_owned(), Kind::Text, Means::Name),
            ];
            return (values, Place { alias, columns, unique: vec!["k".to_owned()] });
        }
        let table = self.readable();
        let schema = if self.chance(8) && table.name != "scratch" { "public." } else { "" };
        (format!("{schema}{} AS {alias}", table.name), Self::place(table, &alias))
    }

    /// A query in FROM.
    fn derived(&mut self, alias: &str, depth: usize) -> (String, Place) {
        let (from, inner) = self.source(0);
        let scope = [inner.clone()];
        let filter = self.filter(&scope, depth);
        let column = inner.columns.choose(&mut self.rng).unwrap().clone();
        let name = format!("{}.{}", inner.alias, column.0);
        let one =
            vec![("k".to_owned(), column.1, column.2), ("n".to_owned(), Kind::Int, Means::Other)];
        let (body, unique) = match self.rng.random_range(0..3) {
            0 => (
                format!("SELECT {name} AS k, count(*) AS n FROM {from}{filter} GROUP BY 1"),
                vec!["k".to_owned()],
            ),
            1 => (
                format!("SELECT DISTINCT {name} AS k, 3 AS n FROM {from}{filter}"),
                vec!["k".to_owned()],
            ),
            _ => (
                format!("SELECT {name} AS k, length({name}::text) AS n FROM {from}{filter}"),
                Vec::new(),
            ),
        };
        (format!("({body}) AS {alias}"), Place { alias: alias.to_owned(), columns: one, unique })
    }

    fn columns(scope: &[Place], kind: Kind, means: Option<Means>) -> Vec<String> {
        let all =
            scope.iter().flat_map(|place| place.columns.iter().map(move |column| (place, column)));
        all.filter(|(_, column)| column.1 == kind && means.is_none_or(|means| column.2 == means))
            .map(|(place, column)| qualified(place, &column.0))
            .collect()
    }

    pub fn column(&mut self, scope: &[Place], kind: Kind) -> Option<String> {
        Self::columns(scope, kind, None).choose(&mut self.rng).cloned()
    }

    /// A value as text and how SQL writes it.
    fn value(&mut self, kind: Kind, means: Means) -> (String, String) {
        match kind {
            Kind::Int => {
                let top = match means {
                    Means::Tenant => 27,
                    Means::Order => 4,
                    Means::Plan => 8,
                    Means::Org => 7,
                    _ => 20,
                };
                let value = self.rng.random_range(1..top).to_string();
                (value.clone(), value)
            }
            Kind::Number => {
                let value = format!("{}.5", self.rng.random_range(0..40));
                (value.clone(), value)
            }
            Kind::Text => {
                let value = self.pick(&TEXTS);
                (value.to_owned(), format!("'{}'", value.replace('\'', "''")))
            }
            Kind::Day => {
                let value = format!("2024-01-{:02}", self.rng.random_range(1..29));
                (value.clone(), format!("date '{value}'"))
            }
        }
    }

    /// A constant whose type the context knows: a parameter may stand there by itself.
    pub fn bare(&mut self, kind: Kind, means: Means) -> String {
        let (text, written) = self.value(kind, means);
        let apart = self.chance(60);
        match &mut self.parameters {
            Some(all) if apart => {
                all.push(Some(text));
                format!("${}", all.len())
            }
            _ => written,
        }
    }

    /// A constant with its type.
    pub fn constant(&mut self, kind: Kind, means: Means) -> String {
        let written = self.bare(kind, means);
        if !written.starts_with('$') {
            return written;
        }
        let cast = match kind {
            Kind::Int => "bigint",
            Kind::Number => "numeric",
            Kind::Text => "text",
            Kind::Day => "date",
        };
        format!("{written}::{cast}")
    }

    /// A value of this kind.
    pub fn expression(&mut self, scope: &[Place], kind: Kind, depth: usize) -> String {
        let Some(column) = self.column(scope, kind) else {
            return self.constant(kind, Means::Other);
        };
        if depth > 0 && self.chance(12) {
            return self.scalar(scope, kind, depth - 1);
        }
        let constant = self.constant(kind, Means::Other);
        match (kind, self.rng.random_range(0..6)) {
            (_, 0) => constant,
            (_, 1) => column,
            (_, 2) => format!("coalesce({column}, {constant})"),
            (_, 3) => {
                let test = self.test(scope, 0);
                format!("CASE WHEN {test} THEN {constant} ELSE {column} END")
            }
            (Kind::Int, 4) => format!("({column} + {constant}) % 1000"),
            (Kind::Int, _) => match self.column(scope, Kind::Text) {
                Some(text) => format!("length({text})"),
                None => format!("-({column} % 50)"),
            },
            (Kind::Number, _) => format!("({column} + {constant}) / 2"),
            (Kind::Text, 4) => format!("left({column} || {constant}, 12)"),
            (Kind::Text, _) => format!("upper({column})"),
            (Kind::Day, _) => format!("{column} + 1"),
        }
    }

    /// A subquery of one value.
    fn scalar(&mut self, scope: &[Place], kind: Kind, depth: usize) -> String {
        let (from, inner) = self.source(depth.min(1));
        let inner = [inner];
        let Some(column) = self.column(&inner, kind) else {
            return self.constant(kind, Means::Other);
        };
        let filter = match self.rng.random_range(0..3) {
            0 => String::new(),
            1 => format!(" WHERE {}", self.test(&inner, 0)),
            _ => format!(" WHERE {}", self.equality(&inner[0], scope)),
        };
        let aggregate = self.pick(&["max", "min"]);
        match self.rng.random_range(0..4) {
            0 if kind == Kind::Int => format!("(SELECT count(*) FROM {from}{filter})"),
            1 => format!("(SELECT {column} FROM {from}{filter} ORDER BY 1 LIMIT 1)"),
            _ => format!("(SELECT {aggregate}({column}) FROM {from}{filter})"),
        }
    }

    /// A column of `place` equal to one of `scope`, of the same meaning where there are such.
    pub fn equality(&mut self, place: &Place, scope: &[Place]) -> String {
        let own = std::slice::from_ref(place);
        for means in [Means::Tenant, Means::Order, Means::Org, Means::Name, Means::Plan] {
            let kind = if means == Means::Name { Kind::Text } else { Kind::Int };
            let (a, b) =
                (Self::columns(own, kind, Some(means)), Self::columns(scope, kind, Some(means)));
            if !a.is_empty() && !b.is_empty() && self.chance(75) {
                let (a, b) = (a.choose(&mut self.rng).cloned(), b.choose(&mut self.rng).cloned());
                let (a, b) = (a.unwrap(), b.unwrap());
                return if self.chance(50) { format!("{a} = {b}") } else { format!("{b} = {a}") };
            }
        }
        let kind = self.pick(&[Kind::Int, Kind::Int, Kind::Text, Kind::Day]);
        match (self.column(own, kind), self.column(scope, kind)) {
            (Some(a), Some(b)) => format!("{a} = {b}"),
            _ => "true".to_owned(),
        }
    }

    /// A condition on `scope`.
    pub fn test(&mut self, scope: &[Place], depth: usize) -> String {
        if depth > 0 && self.chance(30) {
            return self.subquery(scope, depth - 1);
        }
        let place = scope.choose(&mut self.rng).unwrap().clone();
        let (name, kind, means) = place.columns.choose(&mut self.rng).unwrap().clone();
        let column = qualified(&place, &name);
        if self.chance(6) {
            return format!("{column} IS {}NULL", self.pick(&["", "NOT "]));
        }
        let constant = self.bare(kind, means);
        match self.rng.random_range(0..8) {
            0..=2 => format!("{column} = {constant}"),
            3 => {
                let other = self.bare(kind, means);
                format!("{column} {}IN ({constant}, {other})", self.pick(&["", "", "NOT "]))
            }
            4 => format!("{column} BETWEEN {constant} AND {}", self.bare(kind, means)),
            5 if kind == Kind::Int => format!("{column} % 3 = {}", self.rng.random_range(0..3)),
            5 if kind == Kind::Text => format!("{column} LIKE '%{}%'", self.pick(&["1", "e", "s"])),
            _ => format!("{column} {} {constant}", self.pick(&["<", ">=", "<>"])),
        }
    }

    /// A condition with a subquery.
    fn subquery(&mut self, scope: &[Place], depth: usize) -> String {
        let (from, inner) = self.source(depth.min(1));
        let inner = [inner];
        let test = self.test(&inner, depth.min(1));
        let tied = self.equality(&inner[0], scope);
        let kind = self.pick(&[Kind::Int, Kind::Int, Kind::Text]);
        let (Some(outer), Some(own)) = (self.column(scope, kind), self.column(&inner, kind)) else {
            return format!("EXISTS (SELECT FROM {from} WHERE {tied})");
        };
        match self.rng.random_range(0..10) {
            0 => format!("EXISTS (SELECT 1 FROM {from} WHERE {tied} AND {test})"),
            1 => format!("NOT EXISTS (SELECT 1 FROM {from} WHERE {tied} AND {test})"),
            2 => format!("{outer} IN (SELECT {own} FROM {from} WHERE {test})"),
            3 => format!("{outer} NOT IN (SELECT {own} FROM {from} WHERE {test} AND {tied})"),
            4 => format!("{outer} = ANY (ARRAY(SELECT {own} FROM {from} WHERE {test}))"),
            5 => format!("{outer} = ANY (SELECT {own} FROM {from} WHERE {test})"),
            6 => format!("{outer} >= (SELECT max({own}) FROM {from} WHERE {tied})"),
            7 => format!("{outer} < (SELECT max({own}) FROM {from} WHERE {test})"),
            8 => format!(
                "(SELECT count(*) FROM {from} WHERE {tied}) > {}",
                self.rng.random_range(0..3)
            ),
            _ => format!("{outer} IN (SELECT {own} FROM {from} ORDER BY 1 LIMIT 5)"),
        }
    }

    /// WHERE, often.
    pub fn filter(&mut self, scope: &[Place], depth: usize) -> String {
        if self.chance(15) {
            return String::new();
        }
        format!(" WHERE {}", self.tests(scope, depth))
    }

    /// Conditions.
    pub fn tests(&mut self, scope: &[Place], depth: usize) -> String {
        let mut sql = self.test(scope, depth);
        while self.chance(40) {
            let word = self.pick(&["AND", "AND", "AND", "OR"]);
            let test = self.test(scope, depth);
            let not = if self.chance(8) { "NOT " } else { "" };
            sql = format!("({sql}) {word} {not}({test})");
        }
        sql
    }

    /// Conditions that bind rows of `place` by all that tells them apart, or as the shard key does
    /// in part.
    pub fn bound(&mut self, place: &Place, all: bool) -> String {
        let mut tests = Vec::new();
        for name in place.unique.clone().iter().take(if all { 9 } else { 1 }) {
            let (_, kind, means) = place.columns.iter().find(|column| column.0 == *name).unwrap();
            let (kind, means) = (*kind, *means);
            tests.push(format!("{} = {}", qualified(place, name), self.bare(kind, means)));
        }
        if tests.is_empty() { "true".to_owned() } else { tests.join(" AND ") }
    }

    /// A join of `scope` with one more source: the source, the condition, and whether at most one of
    /// its rows is met.
    pub fn join(&mut self, scope: &[Place], depth: usize) -> (String, Place, String, bool) {
        let (from, place) = self.source(depth);
        let mut tests = Vec::new();
        let one = !place.unique.is_empty() && self.chance(60);
        if one {
            for name in &place.unique {
                let (_, kind, means) =
                    place.columns.iter().find(|column| column.0 == *name).unwrap();
                let column = qualified(&place, name);
                let same = Self::columns(scope, *kind, Some(*means));
                match same.choose(&mut self.rng) {
                    Some(other) if self.chance(85) => tests.push(format!("{column} = {other}")),
                    _ => {
                        let constant = self.bare(*kind, *means);
                        tests.push(format!("{column} = {constant}"));
                    }
                }
            }
        } else {
            tests.push(self.equality(&place, scope));
        }
        if self.chance(30) {
            tests.push(self.test(std::slice::from_ref(&place), 0));
        }
        (from, place, tests.join(" AND "), one)
    }
}

/// A column with its table's alias.
pub fn qualified(place: &Place, column: &str) -> String {
    format!("{}.{column}", place.alias)
}
