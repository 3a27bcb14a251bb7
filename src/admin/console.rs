//! The console's statements: another skin on the routes. SHOW gives lists as tables; the others ask
//! for what the API asks for.

use std::fmt::Write;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, header};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tower::ServiceExt;

use crate::frontend::{Console, Table};
use crate::wire::{ServerError, SqlState};

/// Statements that wait while one is answered.
const QUEUE: usize = 64;
/// The longest answer, in bytes.
const ANSWER_MAX: usize = 64 << 20;

/// A list that SHOW gives: its word, where the API has it, and its columns by where their values are.
struct List {
    word: &'static str,
    what: &'static str,
    path: &'static str,
    at: &'static str,
    columns: &'static [(&'static str, &'static str)],
}

const LISTS: &[List] = &[
    List {
        word: "nodes",
        what: "the nodes and their shards",
        path: "/api/v1/nodes",
        at: "/nodes",
        columns: &[
            ("node", "/node"),
            ("host", "/host"),
            ("port", "/port"),
            ("home", "/home"),
            ("standing", "/standing"),
            ("shards", "/shards"),
        ],
    },
    List {
        word: "proxies",
        what: "the proxies of this catalog, where several share it",
        path: "/api/v1/proxies",
        at: "/proxies",
        columns: &[
            ("proxy", "/number"),
            ("host", "/host"),
            ("listen", "/listen"),
            ("admin", "/admin"),
            ("leads", "/leads"),
            ("this", "/this"),
        ],
    },
    List {
        word: "shards",
        what: "where every shard is",
        path: "/api/v1/shards",
        at: "/shards",
        columns: &[
            ("shard", "/shard"),
            ("group", "/group"),
            ("bounds", "/bounds"),
            ("node", "/node"),
            ("tables", "/tables"),
        ],
    },
    List {
        word: "load",
        what: "how busy each node is, in busy seconds a second",
        path: "/api/v1/status",
        at: "/controller/nodes",
        columns: &[("node", "/name"), ("busy", "/busy"), ("capacity", "/capacity")],
    },
    List {
        word: "moves",
        what: "moves, splits and merges, newest first",
        path: "/api/v1/moves?limit=100",
        at: "/moves",
        columns: &[
            ("move", "/id"),
            ("kind", "/kind"),
            ("shard", "/shard"),
            ("new_shards", "/new_shards"),
            ("from", "/from_node"),
            ("to", "/to_node"),
            ("state", "/state"),
            ("rows", "/progress/rows_copied"),
            ("rows_expected", "/progress/rows_expected"),
            ("segments_done", "/progress/segments_done"),
            ("segments", "/progress/segments"),
            ("bytes_per_s", "/progress/bytes_per_second"),
            ("copy_left_s", "/progress/copy_left_seconds"),
            ("lag_bytes", "/progress/lag_bytes"),
            ("pause_ms", "/pause_ms"),
            ("trouble", "/trouble"),
            ("error", "/error"),
            ("no_way_back", "/irreversible"),
        ],
    },
    List {
        word: "jobs",
        what: "verifications, imports, other shard keys, nodes that join or leave",
        path: "/api/v1/jobs?limit=100",
        at: "/jobs",
        columns: &[
            ("job", "/id"),
            ("errand", "/errand"),
            ("state", "/state"),
            ("steps", "/steps"),
            ("findings", "/report/findings"),
            ("error", "/error"),
        ],
    },
    List {
        word: "decisions",
        what: "what the controller decided, and why",
        path: "/api/v1/decisions?limit=50",
        at: "/decisions",
        columns: &[("decision", "/id"), ("outcome", "/outcome"), ("reason", "/reason")],
    },
    List {
        word: "clients",
        what: "who is connected; servers at work for them, or that they are pinned to",
        path: "/api/v1/clients",
        at: "/clients",
        columns: &[
            ("client", "/client"),
            ("user", "/user"),
            ("database", "/database"),
            ("address", "/address"),
            ("connected_s", "/connected_s"),
            ("state", "/state"),
            ("servers", "/servers"),
        ],
    },
    List {
        word: "pools",
        what: "the connections to the nodes",
        path: "/api/v1/pools",
        at: "/pools",
        columns: &[
            ("node", "/node"),
            ("user", "/user"),
            ("database", "/database"),
            ("in_use", "/in_use"),
            ("idle", "/idle"),
            ("waiting", "/waiting"),
            ("size", "/size"),
        ],
    },
];

/// What can be said, beside the lists.
const HELP: &[(&str, &str)] = &[
    ("MOVE SHARD 3 TO n2", "moves a shard to another node"),
    ("MOVE SHARDS 3, 4 TO n2", "moves shards of one node together, by one stream"),
    ("SPLIT SHARD 3 INTO 2 TO n1, n2", "halves a hash shard, a half to each node"),
    ("SPLIT SHARD 4 AT '2026-03-01'", "cuts a range at a key"),
    ("MERGE SHARDS 16, 17 TO n1", "makes one shard of several"),
    ("REVERSE SHARD 3", "goes back from its last switch, while the old copy is kept"),
    ("CONFIRM SHARD 3", "gives the old copy up before its time"),
    (
        "CANCEL MOVE 7",
        "calls a move off before its last step, and takes away what it made; CANCEL JOB 3",
    ),
    ("DRAIN NODE n3", "moves all shards off a node, which may leave then"),
    ("ADD NODE n3", "brings schema and reference tables to a configured node"),
    ("IMPORT GROUP shop", "makes sharded tables of a group's plain ones on the home node"),
    ("CHECK IMPORT shop", "says what that would do, or what speaks against it: SHOW JOBS"),
    ("RESHARD GROUP shop", "gives a group the shard key that the policy has now"),
    ("CHECK RESHARD shop", "says what that would do, or what speaks against it: SHOW JOBS"),
    ("VERIFY", "looks whether the nodes hold what they should"),
    ("RELOAD", "reads the configuration again"),
];

/// A request to the API.
#[derive(Debug, PartialEq)]
struct Asked {
    method: Method,
    path: String,
    body: Value,
}

/// A request, and where its answer goes.
pub(super) type Question = (Request<Body>, oneshot::Sender<Result<Value, ServerError>>);

/// Answers the console's statements; what it asks is done on the admin server's thread.
#[derive(Debug)]
pub struct ApiConsole(mpsc::Sender<Question>);

/// A console and what has to be answered for it.
pub(super) fn console() -> (ApiConsole, mpsc::Receiver<Question>) {
    let (sender, questions) = mpsc::channel(QUEUE);
    (ApiConsole(sender), questions)
}

/// Answers the console's questions by the routes, until it is gone.
pub(super) async fn answer(router: Router, mut questions: mpsc::Receiver<Question>) {
    while let Some((request, answer)) = questions.recv().await {
        let told = ask(router.clone(), request).await;
        if answer.send(told).is_err() {
            tracing::debug!("who asked by the console has gone");
        }
    }
}

async fn ask(router: Router, request: Request<Body>) -> Result<Value, ServerError> {
    let Ok(response) = router.oneshot(request).await;
    let is_good = response.status().is_success();
    let body = to_bytes(response.into_body(), ANSWER_MAX).await;
    let body = body.map_err(|error| internal(&error.to_string()))?;
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if is_good {
        return Ok(value);
    }
    let message = value["error"].as_str().unwrap_or("the console failed");
    let error = ServerError::new(SqlState::INVALID_PARAMETER_VALUE, message);
    Err(match value["hint"].as_str() {
        Some(hint) => error.with_hint(hint),
        None => error.with_hint("SHOW SHARDS, SHOW MOVES and SHOW JOBS tell how things are."),
    })
}

impl Console for ApiConsole {
    fn answer<'a>(&'a self, statement: &'a str) -> BoxFuture<'a, Result<Table, ServerError>> {
        Box::pin(async move {
            let words = words(statement);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if let ["show", rest @ ..] = words.as_slice() {
                return self.show(rest).await;
            }
            let asked = asked(&words)?;
            let told = self.ask(asked).await?;
            let told = told.as_object().into_iter().flatten();
            let (columns, values) = told.map(|(key, value)| (key.clone(), shown(value))).unzip();
            Ok(Table { columns, rows: vec![values], tag: words[0].to_uppercase() })
        })
    }
}

impl ApiConsole {
    async fn show(&self, words: &[&str]) -> Result<Table, ServerError> {
        if matches!(words, [] | ["help"]) {
            return Ok(help());
        }
        let list = match words {
            [word] => LISTS.iter().find(|list| list.word == *word),
            _ => None,
        };
        let list = list.ok_or_else(|| unknown(&format!("SHOW {}", words.join(" "))))?;
        let (method, path) = (Method::GET, list.path.to_owned());
        let told = self.ask(Asked { method, path, body: Value::Null }).await?;
        let rows = told.pointer(list.at).and_then(Value::as_array).into_iter().flatten();
        let value = |row: &Value, at: &str| row.pointer(at).map(shown).unwrap_or_default();
        let row = |row: &Value| list.columns.iter().map(|(_, at)| value(row, at)).collect();
        let columns = list.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        Ok(Table { columns, rows: rows.map(row).collect(), tag: "SHOW".to_owned() })
    }

    async fn ask(&self, asked: Asked) -> Result<Value, ServerError> {
        let body = if asked.body.is_null() { String::new() } else { asked.body.to_string() };
        let request = Request::builder()
            .method(asked.method)
            .uri(asked.path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .map_err(|error| internal(&error.to_string()))?;
        let (answer, told) = oneshot::channel();
        let stopping = || internal("the proxy is stopping");
        self.0.send((request, answer)).await.map_err(|_| stopping())?;
        told.await.map_err(|_| stopping())?
    }
}

/// The words of a statement: names in lower case, what stands in single quotes as it is, with its
/// first quote. Commas and parentheses only separate.
fn words(statement: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in statement.chars() {
        let word = words.last_mut().filter(|_| quoted || !(c.is_whitespace() || ",()".contains(c)));
        match word {
            None => words.push(String::new()),
            Some(word) if c == '\'' => {
                if !quoted {
                    word.push(c);
                }
                quoted = !quoted;
            }
            Some(word) if quoted => word.push(c),
            Some(word) => word.extend(c.to_lowercase()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What a statement asks of the API.
fn asked(words: &[&str]) -> Result<Asked, ServerError> {
    let post = |path: &str, body| Asked { method: Method::POST, path: path.to_owned(), body };
    Ok(match words {
        ["move", "shard" | "shards", shards @ .., "to", node] => {
            let shards: Result<Vec<u32>, _> = shards.iter().map(|shard| number(shard)).collect();
            post("/api/v1/moves", json!({ "shards": shards?, "node": node }))
        }
        ["split", "shard", shard, rest @ ..] => post("/api/v1/splits", split(shard, rest)?),
        ["merge", "shard" | "shards", rest @ ..] => {
            let (shards, nodes) = until("to", rest);
            let shards: Result<Vec<u32>, _> = shards.iter().map(|shard| number(shard)).collect();
            post("/api/v1/merges", json!({ "shards": shards?, "node": nodes.first() }))
        }
        [verb @ ("reverse" | "confirm"), what @ ("shard" | "move"), id] => {
            let path = if *verb == "reverse" { "reversals" } else { "confirmations" };
            post(&format!("/api/v1/{path}"), json!({ *what: number(id)? }))
        }
        ["cancel", what @ ("move" | "job"), id] => {
            post("/api/v1/cancellations", json!({ *what: number(id)? }))
        }
        ["drain", "node", node] => post(&format!("/api/v1/nodes/{node}/drain"), Value::Null),
        ["add", "node", node] => post(&format!("/api/v1/nodes/{node}/add"), Value::Null),
        ["import", "group", group] => post("/api/v1/imports", json!({ "group": name(group) })),
        ["check", "import", group] => {
            post("/api/v1/imports", json!({ "group": name(group), "check_only": true }))
        }
        ["reshard", "group", group] => post("/api/v1/reshards", json!({ "group": name(group) })),
        ["check", "reshard", group] => {
            post("/api/v1/reshards", json!({ "group": name(group), "check_only": true }))
        }
        ["verify"] => post("/api/v1/verifications", json!({})),
        ["verify", "shard" | "shards", shards @ ..] => {
            let shards: Result<Vec<u32>, _> = shards.iter().map(|shard| number(shard)).collect();
            post("/api/v1/verifications", json!({ "shards": shards? }))
        }
        ["reload"] => post("/api/v1/reload", Value::Null),
        _ => return Err(unknown(&words.join(" "))),
    })
}

/// A name, which may stand in quotes to keep its capitals.
fn name(word: &str) -> &str {
    word.trim_start_matches('\'')
}

fn split(shard: &str, words: &[&str]) -> Result<Value, ServerError> {
    let mut body = json!({ "shard": number(shard)? });
    let (how, nodes) = until("to", words);
    if !nodes.is_empty() {
        body["nodes"] = json!(nodes);
    }
    let text = |word: &&str| word.trim_start_matches('\'').to_owned();
    match how {
        [] => {}
        ["into", count] => body["into"] = json!(number(count)?),
        ["at", key @ ..] => body["at"] = json!(key.iter().map(text).collect::<Vec<_>>()),
        ["values", values @ ..] => {
            let value = |word: &&str| (*word != "null").then(|| text(word));
            body["values"] = json!(values.iter().map(value).collect::<Vec<_>>());
        }
        _ => return Err(unknown(&format!("SPLIT SHARD {shard} {}", words.join(" ")))),
    }
    Ok(body)
}

/// What stands before a word, and what stands after it.
fn until<'a, 'b>(word: &str, words: &'a [&'b str]) -> (&'a [&'b str], &'a [&'b str]) {
    match words.iter().position(|found| *found == word) {
        Some(at) => (&words[..at], &words[at + 1..]),
        None => (words, &[]),
    }
}

fn number(word: &str) -> Result<u32, ServerError> {
    word.parse().map_err(|_| unknown(&format!("{word:?}, where a number should be")))
}

fn unknown(what: &str) -> ServerError {
    let (what, dots) = match what.char_indices().nth(60) {
        Some((end, _)) => (&what[..end], "…"),
        None => (what, ""),
    };
    ServerError::new(SqlState::SYNTAX_ERROR, format!("the console does not know {what}{dots}"))
        .with_hint("SHOW HELP lists what it knows.")
}

fn internal(what: &str) -> ServerError {
    ServerError::new(SqlState::INTERNAL_ERROR, what)
}

fn help() -> Table {
    let lists = LISTS.iter().map(|list| (format!("SHOW {}", list.word.to_uppercase()), list.what));
    let others = HELP.iter().map(|(statement, what)| ((*statement).to_owned(), *what));
    Table {
        columns: vec!["statement".to_owned(), "what it does".to_owned()],
        rows: lists.chain(others).map(|(one, other)| vec![one, other.to_owned()]).collect(),
        tag: "SHOW".to_owned(),
    }
}

/// A value as people read it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{float:.3}"),
            _ => number.to_string(),
        },
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => fields.iter().fold(String::new(), |mut text, (key, value)| {
            let between = if text.is_empty() { "" } else { ", " };
            let written = write!(text, "{between}{key} {}", shown(value));
            debug_assert!(written.is_ok(), "a string takes everything");
            text
        }),
        Value::Bool(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{asked, words};

    fn body(statement: &str) -> Option<(String, Value)> {
        let words = words(statement);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        asked(&words).ok().map(|asked| (asked.path, asked.body))
    }

    #[test]
    fn statements_ask_for_what_the_api_asks_for() {
        let cases = [
            ("MOVE SHARD 3 TO n2", "moves", json!({ "shards": [3], "node": "n2" })),
            ("MOVE SHARDS 3, 4 TO n2", "moves", json!({ "shards": [3, 4], "node": "n2" })),
            ("split shard 3", "splits", json!({ "shard": 3 })),
            (
                "SPLIT SHARD 3 INTO 2 TO n1,n2",
                "splits",
                json!({ "shard": 3, "into": 2, "nodes": ["n1", "n2"] }),
            ),
            (
                "SPLIT SHARD 4 AT ('2026-03-01', 'It, (x)') TO n1",
                "splits",
                json!({ "shard": 4, "at": ["2026-03-01", "It, (x)"], "nodes": ["n1"] }),
            ),
            (
                "SPLIT SHARD 4 VALUES ('null', NULL)",
                "splits",
                json!({ "shard": 4, "values": ["null", null] }),
            ),
            ("MERGE SHARDS 16, 17", "merges", json!({ "shards": [16, 17], "node": null })),
            ("REVERSE SHARD 3", "reversals", json!({ "shard": 3 })),
            ("CONFIRM MOVE 7", "confirmations", json!({ "move": 7 })),
            ("CANCEL MOVE 7", "cancellations", json!({ "move": 7 })),
            ("CANCEL JOB 3", "cancellations", json!({ "job": 3 })),
            ("DRAIN NODE n3", "nodes/n3/drain", Value::Null),
            ("IMPORT GROUP shop", "imports", json!({ "group": "shop" })),
            ("RESHARD GROUP shop", "reshards", json!({ "group": "shop" })),
            ("CHECK RESHARD shop", "reshards", json!({ "group": "shop", "check_only": true })),
            ("CHECK IMPORT 'Shop'", "imports", json!({ "group": "Shop", "check_only": true })),
            ("VERIFY SHARDS 1 2", "verifications", json!({ "shards": [1, 2] })),
        ];
        for (statement, path, expected) in cases {
            let found = body(statement).unwrap();
            assert_eq!(found, (format!("/api/v1/{path}"), expected), "{statement}");
        }
        for statement in ["MOVE SHARD x TO n1", "DROP TABLE t", "SPLIT SHARD 3 OVER 2"] {
            assert!(body(statement).is_none(), "{statement}");
        }
    }
}
