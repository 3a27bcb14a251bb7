//! Functions and procedures. Those with types of home tables are on the home node only.

use super::ddl::{DdlPlan, Scope, Step, if_exists};
use super::{More, trigger};
use crate::sql::{Literal, Name};

/// CREATE, ALTER or DROP of a function or procedure.
pub(super) fn routine(object: &str, name: Option<&Name>, scope: &Scope<'_>) -> DdlPlan {
    let text = scope.text.trim();
    let plan = match first_word(text).as_str() {
        "create" => created(text, name.and_then(|name| trigger::replaced(name, scope))),
        "drop" => if_exists(text, object),
        _ => told(text),
    };
    DdlPlan { more: More::of(object, text), ..plan }
}

/// Whether GRANT, REVOKE or COMMENT is about a function or procedure.
pub(super) fn is_about_routine(text: &str) -> bool {
    let words: Vec<String> =
        text.split_ascii_whitespace().take(12).map(str::to_ascii_lowercase).collect();
    let routine = |word: &String| matches!(word.as_str(), "function" | "procedure" | "routine");
    words.windows(2).any(|pair| pair[0] == "on" && routine(&pair[1]))
}

/// Where others lack the function, there is nothing to be told.
pub(super) fn told(text: &str) -> DdlPlan {
    let lacks = "undefined_object OR undefined_table OR undefined_function";
    home_and_others(text, unless(text.trim(), lacks))
}

/// The home node looks at its code. On others there are no home tables, which that may name; nor their
/// types, which it may take and give.
fn created(text: &str, refused_if: Option<String>) -> DdlPlan {
    let made = unless(text, "undefined_object OR undefined_table");
    let check = refused_if.map(|condition| format!("{}; ", trigger::refusing(&condition, None)));
    let home = format!("{}{text}", check.unwrap_or_default());
    home_and_others(&home, format!("SET LOCAL check_function_bodies = off; {made}"))
}

/// A change of what is on the home node, and on others if it is a sharded table's.
pub(super) fn if_there(text: &str) -> DdlPlan {
    home_and_others(text, unless(text, "undefined_object"))
}

fn home_and_others(text: &str, others: String) -> DdlPlan {
    let home = text.trim().to_owned();
    DdlPlan::new(Vec::new(), vec![Step::HomeAndOthers { home, others }])
}

/// Runs a statement, or nothing if it fails with one of these conditions.
fn unless(text: &str, conditions: &str) -> String {
    let run =
        format!("BEGIN EXECUTE {}; EXCEPTION WHEN {conditions} THEN NULL; END", Literal(text));
    format!("DO {}", Literal(&run))
}

pub(super) fn first_word(text: &str) -> String {
    text.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_lowercase()
}
