//! Random queries over the shop: many shapes, each with an order that makes its answer one.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::compare::Statement;

/// Makes queries.
pub struct Generator {
    rng: StdRng,
}

/// A table: its name and its columns, each with its kind.
struct Table {
    name: &'static str,
    columns: &'static [(&'static str, Kind)],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Int,
    Number,
    Text,
    Bool,
    Time,
}

use Kind::{Bool, Int, Number, Text, Time};

const TABLES: [Table; 7] = [
    Table {
        name: "tenants",
        columns: &[
            ("id", Int),
            ("name", Text),
            ("country", Text),
            ("active", Bool),
            ("rating", Number),
        ],
    },
    Table {
        name: "orders",
        columns: &[
            ("tenant_id", Int),
            ("id", Int),
            ("status", Text),
            ("placed", Time),
            ("total", Number),
            ("note", Text),
        ],
    },
    Table {
        name: "items",
        columns: &[
            ("tenant_id", Int),
            ("order_id", Int),
            ("line", Int),
            ("sku", Text),
            ("quantity", Int),
            ("price", Number),
        ],
    },
    Table {
        name: "users",
        columns: &[("email", Text), ("\"Full Name\"", Text), ("tenant_id", Int), ("score", Int)],
    },
    Table { name: "events", columns: &[("kind", Text), ("order_id", Int), ("day", Int)] },
    Table { name: "countries", columns: &[("code", Text), ("name", Text), ("population", Int)] },
    Table { name: "settings", columns: &[("name", Text), ("tenant_id", Int)] },
];

/// A place in FROM.
#[derive(Clone)]
struct Place {
    alias: String,
    columns: Vec<(String, Kind)>,
}

impl Generator {
    /// Queries that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed) }
    }

    /// The next query.
    pub fn statement(&mut self) -> Statement {
        let sql = match self.rng.random_range(0..10) {
            0 => self.set_operation(),
            1 => self.with(),
            _ => self.select(2),
        };
        Statement { sql, unordered: false, parameters: None }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn table(&mut self, alias: &str) -> (String, Place) {
        let table = TABLES.choose(&mut self.rng).unwrap();
        let columns = table.columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind));
        let columns = columns.collect();
        let schema = if self.chance(15) { "public." } else { "" };
        let place = Place { alias: alias.to_owned(), columns };
        (format!("{schema}{} AS {alias}", table.name), place)
    }

    /// FROM with its places.
    fn from(&mut self, depth: usize, prefix: &str) -> (String, Vec<Place>) {
        let mut places = Vec::new();
        let mut sql = String::new();
        let count = [1, 1, 2, 2, 3].choose(&mut self.rng).copied().unwrap();
        for index in 0..count {
            let alias = format!("{prefix}{index}");
            let (source, place) = if depth > 0 && self.chance(12) {
                self.derived(depth - 1, &alias)
            } else {
                self.table(&alias)
            };
            if index == 0 {
                sql = source;
                places.push(place);
                continue;
            }
            let kind = ["JOIN", "JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];
            let kind = kind.choose(&mut self.rng).unwrap();
            let left = places.choose(&mut self.rng).unwrap().clone();
            let on = self.equality(&left, &place);
            places.push(place.clone());
            let more = if *kind != "FULL JOIN" && self.chance(25) {
                let filter = self.test(std::slice::from_ref(&place));
                format!(" AND {filter}")
            } else {
                String::new()
            };
            sql = format!("{sql} {kind} {source} ON {on}{more}");
        }
        (sql, places)
    }

    fn derived(&mut self, depth: usize, alias: &str) -> (String, Place) {
        let (from, places) = self.from(depth, &format!("{alias}d"));
        let column = self.any(&places);
        let (first, kind) = column;
        let filter = self.filter(&places, depth);
        let (body, columns) = if self.chance(50) {
            (
                format!("SELECT {first} AS a, count(*) AS n FROM {from}{filter} GROUP BY 1"),
                vec![("a".to_owned(), kind), ("n".to_owned(), Int)],
            )
        } else {
            let (second, other) = self.any(&places);
            (
                format!("SELECT {first} AS a, {second} AS b FROM {from}{filter}"),
                vec![("a".to_owned(), kind), ("b".to_owned(), other)],
            )
        };
        (format!("({body}) AS {alias}"), Place { alias: alias.to_owned(), columns })
    }

    fn any(&mut self, places: &[Place]) -> (String, Kind) {
        let place = places.choose(&mut self.rng).unwrap();
        let (column, kind) = place.columns.choose(&mut self.rng).unwrap();
        (format!("{}.{column}", place.alias), *kind)
    }

    fn of_kind(&mut self, places: &[Place], kind: Kind) -> Option<String> {
        let all: Vec<_> = places
            .iter()
            .flat_map(|p| p.columns.iter().map(move |(c, k)| (format!("{}.{c}", p.alias), *k)))
            .filter(|(_, k)| *k == kind)
            .collect();
        all.choose(&mut self.rng).map(|(column, _)| column.clone())
    }

    /// Two columns of one kind; keys as often as not.
    fn equality(&mut self, left: &Place, right: &Place) -> String {
        let kind = *[Int, Int, Int, Text].choose(&mut self.rng).unwrap();
        let (left, right) = (std::slice::from_ref(left), std::slice::from_ref(right));
        match (self.of_kind(left, kind), self.of_kind(right, kind)) {
            (Some(a), Some(b)) => format!("{a} = {b}"),
            _ => "true".to_owned(),
        }
    }

    fn test(&mut self, places: &[Place]) -> String {
        let (column, kind) = self.any(places);
        let operator = *["=", "<", ">=", "<>", ">"].choose(&mut self.rng).unwrap();
        if self.chance(8) {
            return format!("{column} IS {}NULL", if self.chance(50) { "NOT " } else { "" });
        }
        match kind {
            Int => match self.rng.random_range(0..5) {
                0 => format!("{column} = {}", self.rng.random_range(1..60)),
                1 => format!("{column} IN (1, 5, {})", self.rng.random_range(1..60)),
                2 => format!("{column} BETWEEN 4 AND {}", self.rng.random_range(1..70)),
                3 => format!("{column} % 3 = {}", self.rng.random_range(0..3)),
                _ => format!("{column} {operator} {}", self.rng.random_range(1..60)),
            },
            Number => format!("{column} {operator} {}.5", self.rng.random_range(0..900)),
            Text if self.chance(30) => format!("{column} LIKE '%e%'"),
            Text => {
                let words = ["de", "paid", "user7@example.de", "Apple", "sku-3", "click", "s3"];
                format!("{column} {operator} '{}'", words.choose(&mut self.rng).unwrap())
            }
            Bool => format!("{}{column}", if self.chance(50) { "NOT " } else { "" }),
            Time => format!("{column} {operator} timestamp '2024-06-01'"),
        }
    }

    fn filter(&mut self, places: &[Place], depth: usize) -> String {
        if self.chance(25) {
            return String::new();
        }
        let mut sql = self.test(places);
        while self.chance(40) {
            let word = if self.chance(25) { "OR" } else { "AND" };
            let test = if depth > 0 && self.chance(25) {
                self.subquery(places, depth - 1)
            } else {
                self.test(places)
            };
            let not = if self.chance(10) { "NOT " } else { "" };
            sql = if self.chance(20) {
                format!("({sql}) {word} {not}({test})")
            } else {
                format!("{sql} {word} {not}({test})")
            };
        }
        format!(" WHERE {sql}")
    }

    fn subquery(&mut self, places: &[Place], depth: usize) -> String {
        let prefix = format!("q{depth}x{}", self.rng.random_range(0..1000));
        let (from, inner) = self.from(depth, &prefix);
        let outer = self.of_kind(places, Int);
        let own = self.of_kind(&inner, Int);
        let (Some(outer), Some(own)) = (outer, own) else {
            return format!("EXISTS (SELECT 1 FROM {from})");
        };
        let filter = self.test(&inner);
        match self.rng.random_range(0..4) {
            0 => format!("{outer} IN (SELECT {own} FROM {from} WHERE {filter})"),
            1 => format!("EXISTS (SELECT 1 FROM {from} WHERE {own} = {outer} AND {filter})"),
            2 => format!("NOT EXISTS (SELECT 1 FROM {from} WHERE {own} = {outer})"),
            _ => format!("{outer} > (SELECT avg({own}) FROM {from} WHERE {filter})"),
        }
    }

    /// A SELECT; all its columns are in its order, so that the answer is one.
    fn select(&mut self, depth: usize) -> String {
        let (from, places) = self.from(depth, "t");
        let filter = self.filter(&places, depth);
        let count = self.rng.random_range(1..4);
        let columns: Vec<_> = (0..count).map(|_| self.any(&places).0).collect();
        if self.chance(40) {
            return self.grouped(&places, &columns, &format!("{from}{filter}"));
        }
        let distinct = if self.chance(20) { "DISTINCT " } else { "" };
        let sql = format!("SELECT {distinct}{} FROM {from}{filter}", columns.join(", "));
        self.ordered(&sql, columns.len())
    }

    fn grouped(&mut self, places: &[Place], columns: &[String], from: &str) -> String {
        let mut aggregates = Vec::new();
        while aggregates.is_empty() || self.chance(50) {
            aggregates.push(self.aggregate(places));
        }
        let plain = self.chance(20);
        let keys = if plain { String::new() } else { format!("{}, ", columns.join(", ")) };
        let mut sql = format!("SELECT {keys}{} FROM {from}", aggregates.join(", "));
        if plain {
            return sql;
        }
        sql = format!("{sql} GROUP BY {}", columns.join(", "));
        if self.chance(20) {
            sql = format!("{sql} HAVING count(*) > {}", self.rng.random_range(1..4));
        }
        self.ordered(&sql, columns.len())
    }

    fn aggregate(&mut self, places: &[Place]) -> String {
        let (any, _) = self.any(places);
        let int = self.of_kind(places, Int);
        let number = self.of_kind(places, Number).or(int);
        match (self.rng.random_range(0..8), number) {
            (0, _) => "count(*)".to_owned(),
            (1, _) => format!("count({any})"),
            (2, _) => format!("count(DISTINCT {any})"),
            (3, Some(number)) => format!("sum({number})"),
            (4, Some(number)) => format!("avg({number})"),
            (5, Some(number)) => format!("min({number})"),
            (6, Some(number)) => format!("max({number}) - min({number})"),
            _ => format!("max({any}::text)"),
        }
    }

    fn ordered(&mut self, sql: &str, columns: usize) -> String {
        let order: Vec<_> = (1..=columns)
            .map(|column| {
                let direction = ["", " DESC", " NULLS FIRST", " DESC NULLS LAST"];
                format!("{column}{}", direction.choose(&mut self.rng).unwrap())
            })
            .collect();
        let mut sql = format!("{sql} ORDER BY {}", order.join(", "));
        if self.chance(30) {
            sql = format!("{sql} LIMIT {}", self.rng.random_range(0..20));
        }
        if self.chance(15) {
            sql = format!("{sql} OFFSET {}", self.rng.random_range(0..9));
        }
        sql
    }

    fn set_operation(&mut self) -> String {
        let mut sql = String::new();
        for part in 0..self.rng.random_range(2..4) {
            let (from, places) = self.from(1, "t");
            let column = self.of_kind(&places, Int).unwrap_or_else(|| "1".to_owned());
            let filter = self.filter(&places, 1);
            let words = ["UNION", "UNION ALL", "INTERSECT", "EXCEPT"];
            let word = if part == 0 { "" } else { words.choose(&mut self.rng).unwrap() };
            sql = format!("{sql} {word} SELECT {column} AS v FROM {from}{filter}");
        }
        self.ordered(sql.trim(), 1)
    }

    fn with(&mut self) -> String {
        let inner = self.select(1);
        let (from, places) = self.from(1, "t");
        let filter = self.filter(&places, 0);
        let (column, _) = self.any(&places);
        let sql = format!(
            "WITH w AS ({inner}) SELECT {column}, (SELECT count(*) FROM w) FROM {from}{filter}"
        );
        self.ordered(&sql, 2)
    }
}
