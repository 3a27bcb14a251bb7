//! EXPLAIN: its options, and where its query starts.

use super::cursor::{Cursor, comma_parts};
use super::lexer::{Kind, Token};
use super::parse::query;
use super::statement::StatementKind;

/// The form of what EXPLAIN answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanForm {
    /// Lines.
    Text,
    /// A document of type json.
    Json,
    /// A document as text.
    Yaml,
    /// A document of type xml.
    Xml,
    /// None that PostgreSQL has.
    Unknown,
}

/// Reads EXPLAIN of a query; `None` for anything else.
pub(super) fn read(text: &str, tokens: &[Token]) -> Option<StatementKind> {
    let mut cursor = Cursor::new(text, tokens);
    cursor.at = 1;
    let (mut analyze, mut form) = (false, PlanForm::Text);
    if cursor.symbol_ahead(0, "(") && cursor.word_ahead(1) != Some("select") {
        for option in comma_parts(text, cursor.parenthesized()?) {
            let (name, value) = option.split_first()?;
            match &name.kind {
                Kind::Word(name) if name == "format" => form = form_of(value),
                Kind::Word(name) if name == "analyze" || name == "analyse" => {
                    analyze = !is_off(text, value);
                }
                _ => {}
            }
        }
    } else {
        analyze |= cursor.eat_any(&["analyze", "analyse"]);
        cursor.eat("verbose");
    }
    let query = query(text, tokens.get(cursor.at..)?).ok()?;
    let start = tokens.get(cursor.at)?.start;
    Some(StatementKind::Explain { analyze, form, start, query: Box::new(query) })
}

fn form_of(value: &[Token]) -> PlanForm {
    let [Token { kind: Kind::Word(name) | Kind::Quoted(name) | Kind::String(name), .. }] = value
    else {
        return PlanForm::Unknown;
    };
    match name.as_str() {
        "text" => PlanForm::Text,
        "json" => PlanForm::Json,
        "yaml" => PlanForm::Yaml,
        "xml" => PlanForm::Xml,
        _ => PlanForm::Unknown,
    }
}

/// Whether a value is surely PostgreSQL's no.
fn is_off(text: &str, value: &[Token]) -> bool {
    let [token] = value else { return false };
    let word = match &token.kind {
        Kind::Word(word) | Kind::Quoted(word) | Kind::String(word) => word.as_str(),
        Kind::Integer => &text[token.span()],
        _ => return false,
    };
    ["false", "off", "0"].iter().any(|off| word.eq_ignore_ascii_case(off))
}

#[cfg(test)]
mod tests {
    use super::PlanForm::{Json, Text, Unknown, Xml, Yaml};
    use super::*;
    use crate::sql::{Strings, parse};

    #[test]
    fn options_say_whether_it_runs_and_in_which_form() {
        let of = |options: &str| {
            let text = format!("EXPLAIN {options} SELECT 1");
            match &parse(&text, Strings::Standard).statements[0].kind {
                StatementKind::Explain { analyze, form, start, .. } => {
                    assert_eq!(&text[*start..], "SELECT 1");
                    (*analyze, *form)
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of(""), (false, Text));
        assert_eq!(of("ANALYZE VERBOSE"), (true, Text));
        assert_eq!(of("(FORMAT JSON, ANALYZE FALSE, TIMING FALSE)"), (false, Json));
        assert_eq!(of("(ANALYZE, FORMAT json, FORMAT 'yaml')"), (true, Yaml));
        assert_eq!(of("(ANALYZE 1, ANALYSE 'Off', FORMAT \"xml\")"), (false, Xml));
        assert_eq!(of("(FORMAT 'JSON', ANALYZE maybe)"), (true, Unknown));
    }
}
