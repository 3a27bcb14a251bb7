//! The code of functions on the home node: which of them read what only all nodes together have, or
//! write what every node has a copy of; by themselves, or by calling one that does.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::sql::TableName;

/// Functions that users made, with their code, and the tables of which each is a trigger.
const FUNCTIONS: &str = "\
    SELECT p.oid, n.nspname::text, p.proname::text, \
    CASE WHEN p.prosqlbody IS NULL THEN p.prosrc ELSE pg_catalog.pg_get_function_sqlbody(p.oid) END, \
    p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype, \
    ARRAY(SELECT part FROM pg_catalog.pg_trigger t \
      JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid \
      JOIN pg_catalog.pg_namespace tn ON tn.oid = c.relnamespace, \
      pg_catalog.unnest(ARRAY[tn.nspname::text, c.relname::text]) WITH ORDINALITY u (part, at) \
      WHERE t.tgfoid = p.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D' ORDER BY t.oid, at) \
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
    WHERE n.nspname !~ '^(pg_catalog|information_schema|foreshard(_catalog|_system|_information)?)$' \
    AND l.lanname NOT IN ('c', 'internal') AND p.prokind IN ('f', 'p') ORDER BY 2, 3";

/// Names of functions that users made: whether all of the name are immutable, and what PostgreSQL has of
/// this name, if anything: whether that is.
const KNOWN: &str = "\
    SELECT p.proname::text, pg_catalog.bool_and(p.provolatile = 'i' AND p.prokind = 'f'), \
    (SELECT pg_catalog.bool_and(b.provolatile = 'i') FROM pg_catalog.pg_proc b \
      WHERE b.proname = p.proname AND b.pronamespace = 'pg_catalog'::pg_catalog.regnamespace) \
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
    WHERE n.nspname !~ '^(pg_.*|information_schema|foreshard(_catalog|_system|_information)?)$' \
    AND NOT 'internal'::pg_catalog.regtype = ANY (p.proargtypes) \
    AND p.prorettype <> ALL ('{internal, trigger, event_trigger}'::pg_catalog.regtype[]) \
    GROUP BY p.proname ORDER BY p.proname COLLATE \"C\"";

/// Tables with rules for writes, and what the rules name.
const RULES: &str = "\
    SELECT DISTINCT n.nspname::text, c.relname::text, tn.nspname::text, t.relname::text \
    FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
    AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
    JOIN pg_catalog.pg_class t ON t.oid = d.refobjid \
    JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace \
    WHERE r.ev_type <> '1' AND r.ev_enabled <> 'D' AND c.oid <> t.oid ORDER BY 1, 2, 3, 4";

/// A function that users made.
#[derive(Debug)]
pub(super) struct Function {
    /// `pg_proc.oid`
    pub oid: u32,
    /// Its schema and name.
    pub name: TableName,
    /// What its language reads.
    pub code: String,
    /// It is for triggers, and is not called.
    pub trigger: bool,
    /// The tables of which it is a trigger.
    pub fires_on: Vec<TableName>,
}

/// A table's rule for writes.
#[derive(Debug)]
pub(super) struct Rule {
    /// The table that it is of.
    pub of: TableName,
    /// A relation that it names.
    pub names: TableName,
}

/// What is known of tables that are not whole on the home node, or not only there.
#[derive(Debug)]
pub(super) struct Policy<'a> {
    /// Sharded tables, and views that read them.
    pub parts: Vec<&'a TableName>,
    /// Reference tables, and views that read only them.
    pub copies: Vec<&'a TableName>,
}

/// What goes wrong where it runs on the home node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entangled {
    /// Functions that write reference tables, or call what does or reads sharded ones.
    pub functions: BTreeSet<TableName>,
    /// Home tables with triggers or rules that do.
    pub tables: BTreeSet<TableName>,
}

/// All functions that users made on a node.
pub(super) async fn functions(client: &Client) -> Result<Vec<Function>, tokio_postgres::Error> {
    let rows = client.query(FUNCTIONS, &[]).await?;
    let function = |row: &tokio_postgres::Row| {
        // Schema and name in turn.
        let fires_on: Vec<String> = row.get(5);
        let table = |pair: &[String]| match pair {
            [schema, name] => Some(TableName::new(schema.as_str(), name.as_str())),
            _ => None,
        };
        Function {
            oid: row.get(0),
            name: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
            code: row.get::<_, Option<String>>(3).unwrap_or_default(),
            trigger: row.get(4),
            fires_on: fires_on.chunks(2).filter_map(table).collect(),
        }
    };
    Ok(rows.iter().map(function).collect())
}

/// How the functions that users made stand to PostgreSQL's.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// [`Derived::immutable`](crate::shard_map::Derived::immutable)
    pub immutable: Vec<String>,
    /// [`Derived::overloads`](crate::shard_map::Derived::overloads)
    pub overloads: Vec<String>,
}

/// The names of the functions that users made on a node.
pub(super) async fn known(client: &Client) -> Result<Known, tokio_postgres::Error> {
    let mut known = Known::default();
    for row in client.query(KNOWN, &[]).await? {
        match (row.get(1), row.get::<_, Option<bool>>(2)) {
            (true, None) => known.immutable.push(row.get(0)),
            (false, Some(true)) => known.overloads.push(row.get(0)),
            _ => {}
        }
    }
    Ok(known)
}

/// All rules for writes on a node.
pub(super) async fn rules(client: &Client) -> Result<Vec<Rule>, tokio_postgres::Error> {
    let rows = client.query(RULES, &[]).await?;
    let name = |row: &tokio_postgres::Row, at: usize| {
        TableName::new(row.get::<_, String>(at), row.get::<_, String>(at + 1))
    };
    Ok(rows.iter().map(|row| Rule { of: name(row, 0), names: name(row, 2) }).collect())
}

/// What goes wrong on the home node besides the functions of `known`, whose code names sharded tables.
pub(super) fn entangled(
    functions: &[Function],
    rules: &[Rule],
    known: &[TableName],
    policy: &Policy<'_>,
) -> Entangled {
    let mut found = Entangled::default();
    let of_policy =
        |table: &TableName| policy.parts.contains(&table) || policy.copies.contains(&table);
    for rule in rules.iter().filter(|rule| of_policy(&rule.names) && !of_policy(&rule.of)) {
        found.tables.insert(rule.of.clone());
    }
    let words: Vec<Vec<Word<'_>>> = functions.iter().map(|it| words(&it.code)).collect();
    loop {
        let before = (found.functions.len(), found.tables.len());
        for (function, words) in functions.iter().zip(&words) {
            let code = Code { words };
            let wrong = function.trigger && policy.parts.iter().any(|table| code.uses(table))
                || policy.copies.iter().copied().chain(&found.tables).any(|it| code.writes(it))
                || known.iter().chain(&found.functions).any(|it| code.calls(it));
            if !wrong {
                continue;
            }
            let home = function.fires_on.iter().filter(|table| !of_policy(table));
            found.tables.extend(home.cloned());
            if !function.trigger && !known.contains(&function.name) {
                found.functions.insert(function.name.clone());
            }
        }
        if before == (found.functions.len(), found.tables.len()) {
            return found;
        }
    }
}

/// A word or a mark of code. What stands in strings and comments is not told apart from the rest: it may
/// be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word<'a> {
    Name(&'a str),
    Mark(u8),
}

fn words(code: &str) -> Vec<Word<'_>> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    let (bytes, mut at, mut found) = (code.as_bytes(), 0, Vec::new());
    while let Some(byte) = bytes.get(at) {
        let start = at;
        at += 1;
        if is_name(*byte) {
            while bytes.get(at).is_some_and(|byte| is_name(*byte)) {
                at += 1;
            }
            found.push(Word::Name(&code[start..at]));
        } else if !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'\'') {
            found.push(Word::Mark(*byte));
        }
    }
    found
}

/// Words before which a table may stand.
const TABLE_WORDS: [&str; 10] =
    ["from", "join", "into", "update", "only", "table", "using", "copy", "truncate", "merge"];
/// Words behind which no list of tables goes on.
const OTHER_WORDS: [&str; 14] = [
    "select",
    "set",
    "where",
    "returning",
    "values",
    "on",
    "by",
    "having",
    "then",
    "else",
    "when",
    "case",
    "begin",
    "declare",
];

struct Code<'a> {
    words: &'a [Word<'a>],
}

impl Code<'_> {
    fn has(&self, word: &str) -> bool {
        self.words
            .iter()
            .any(|it| matches!(it, Word::Name(name) if name.eq_ignore_ascii_case(word)))
    }

    /// Where a table or function is named: where its name begins, and where that ends.
    fn places(&self, table: &TableName) -> impl Iterator<Item = (usize, usize)> {
        let is = |at: usize, name: &str| matches!(self.words.get(at), Some(Word::Name(it)) if it.eq_ignore_ascii_case(name));
        (0..self.words.len()).filter(move |at| is(*at, &table.name)).filter_map(move |at| {
            let qualified = at > 0 && self.words[at - 1] == Word::Mark(b'.');
            match qualified {
                false => Some((at, at)),
                true if at > 1 && is(at - 2, &table.schema) => Some((at - 2, at)),
                true => None,
            }
        })
    }

    /// Whether a statement in it may have the table.
    fn uses(&self, table: &TableName) -> bool {
        let dynamic = self.has("execute");
        self.places(table).any(|(start, _)| dynamic || self.is_table_at(start))
    }

    fn is_table_at(&self, start: usize) -> bool {
        for word in self.words[..start].iter().rev() {
            let name = match word {
                Word::Name(name) => name,
                Word::Mark(b',' | b'.') => continue,
                // What gives rows like a table, or a column of another name, may end so.
                Word::Mark(mark) => return *mark == b')',
            };
            let is = |known: &&str| name.eq_ignore_ascii_case(known);
            if TABLE_WORDS.iter().any(is) {
                return true;
            }
            if OTHER_WORDS.iter().any(is) {
                return false;
            }
        }
        false
    }

    /// Whether a statement in it may write the table.
    fn writes(&self, table: &TableName) -> bool {
        let dynamic = self.has("execute");
        let written = |(start, _): (usize, usize)| {
            let before = |back: usize| match self.words.get(start.checked_sub(back)?) {
                Some(Word::Name(name)) => Some(name.to_ascii_lowercase()),
                _ => None,
            };
            let only = before(1).is_some_and(|word| word == "only" || word == "table");
            let at = if only { 2 } else { 1 };
            match before(at).as_deref() {
                Some("into" | "update" | "truncate" | "copy") => true,
                Some("from") => before(at + 1).as_deref() == Some("delete"),
                _ => false,
            }
        };
        self.places(table).any(|place| dynamic || written(place))
    }

    /// Whether it may call the function.
    fn calls(&self, function: &TableName) -> bool {
        self.places(function).any(|(_, end)| self.words.get(end + 1) == Some(&Word::Mark(b'(')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, code: &str, fires_on: &[&str]) -> Function {
        let table = |name: &&str| TableName::new("public", *name);
        Function {
            oid: 0,
            name: TableName::new("public", name),
            code: code.to_owned(),
            trigger: !fires_on.is_empty(),
            fires_on: fires_on.iter().map(table).collect(),
        }
    }

    /// The functions and tables that are found, for one function, of `orders` sharded and `plans` not.
    fn found(functions: &[Function]) -> (Vec<String>, Vec<String>) {
        let (orders, plans) =
            (TableName::new("public", "orders"), TableName::new("public", "plans"));
        let policy = Policy { parts: vec![&orders], copies: vec![&plans] };
        let known = [TableName::new("public", "reads_orders")];
        let Entangled { functions, tables } = entangled(functions, &[], &known, &policy);
        let names = |found: BTreeSet<TableName>| found.into_iter().map(|it| it.name).collect();
        (names(functions), names(tables))
    }

    #[test]
    fn code_that_writes_a_reference_table_is_found() {
        for code in [
            "BEGIN UPDATE plans SET a = 1; END",
            "INSERT INTO public.plans VALUES (1)",
            "delete from only \"plans\" where true",
            "TRUNCATE TABLE plans",
            "MERGE INTO plans USING x ON true WHEN MATCHED THEN DELETE",
            "EXECUTE format('UPDATE %I SET a = 1', 'plans')",
            "BEGIN PERFORM reads_orders(); END",
        ] {
            assert_eq!(found(&[function("f", code, &[])]).0, ["f"], "{code}");
            assert_eq!(found(&[function("f", code, &["notes"])]).1, ["notes"], "{code}");
        }
    }

    #[test]
    fn code_that_only_reads_it_is_not() {
        for code in [
            "INSERT INTO audit SELECT id, new.plans FROM plans p JOIN x USING (id)",
            "SELECT * FROM other.plans FOR UPDATE",
            "UPDATE other.plans SET a = 1",
            "new.orders := old.orders; INSERT INTO audit (id, orders) VALUES (1, 2)",
            "UPDATE audit SET a = 1, orders = 2",
        ] {
            let none = (Vec::<String>::new(), Vec::new());
            assert_eq!(found(&[function("f", code, &[])]), none, "{code}");
            assert_eq!(found(&[function("f", code, &["notes"])]), none, "{code}");
        }
    }

    #[test]
    fn triggers_that_read_sharded_tables_are_found() {
        for code in [
            "IF EXISTS (SELECT FROM orders WHERE id = new.id) THEN RETURN NULL; END IF;",
            "SELECT count(*) INTO n FROM x, generate_series(1, 2), orders",
            "SELECT count(*) INTO n FROM x a, orders",
            "SELECT 1 FROM x JOIN public.orders USING (id)",
        ] {
            assert_eq!(found(&[function("f", code, &["notes"])]).1, ["notes"], "{code}");
        }
    }

    #[test]
    fn what_calls_such_functions_or_writes_such_tables_is_found_too() {
        let functions = [
            function("outermost", "SELECT outer_one ()", &[]),
            function("outer_one", "INSERT INTO notes VALUES (1)", &[]),
            function("noted", "BEGIN UPDATE plans SET a = 1; RETURN new; END", &["notes"]),
            function("harmless", "SELECT outermost FROM x", &[]),
        ];
        let (functions, tables) = found(&functions);
        assert_eq!(functions, ["outer_one", "outermost"]);
        assert_eq!(tables, ["notes"]);
    }
}
