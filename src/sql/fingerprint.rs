//! A text without what is data in it: constants become `?`, lists of them one, comments and line
//! breaks go. For people and for counting, never sent anywhere.

use super::lexer::{Kind, Strings, tokens};

/// Tokens that are looked at.
const TOKENS_MAX: usize = 200;
/// Longer texts are told from their beginning.
const BYTES_MAX: usize = 4_096;

/// The fingerprint of a text.
pub fn fingerprint(text: &str, strings: Strings) -> String {
    let text = &text[..text.floor_char_boundary(BYTES_MAX)];
    let mut parts: Vec<&str> = Vec::new();
    for token in tokens(text, strings).iter().take(TOKENS_MAX) {
        let part = match &token.kind {
            Kind::String(_)
            | Kind::Opaque
            | Kind::Integer
            | Kind::Decimal
            | Kind::Param(_)
            | Kind::Odd
            | Kind::Bad => "?",
            Kind::Word(_) | Kind::Quoted(_) | Kind::Symbol => &text[token.span()],
        };
        parts.push(part);
        while parts.ends_with(&["?", ",", "?"]) {
            parts.truncate(parts.len() - 2);
        }
        while parts.ends_with(&["(", "?", ")", ",", "(", "?", ")"]) {
            parts.truncate(parts.len() - 4);
        }
    }
    let mut fingerprint = String::new();
    for (at, part) in parts.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| parts[at]);
        let close = matches!(*part, "," | ")" | ";" | "." | "]" | "::" | "[")
            || matches!(before, None | Some("(" | "." | "::" | "["));
        if !close {
            fingerprint.push(' ');
        }
        fingerprint.push_str(part);
    }
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::fingerprint;
    use crate::sql::Strings;

    #[test]
    fn texts_that_differ_in_data_have_one_fingerprint_and_none_shows_data() {
        for (text, expected) in [
            ("SELECT  a FROM t -- now\n WHERE id = 5", "SELECT a FROM t WHERE id = ?"),
            ("SELECT a FROM t WHERE id = $1", "SELECT a FROM t WHERE id = ?"),
            (
                "select * from s.t where n = 'it''s' and k in (1, 2, 3)",
                "select * from s.t where n = ? and k in (?)",
            ),
            ("INSERT INTO t VALUES (1, 'a'), (2, $$b$$), (3, E'\\x')", "INSERT INTO t VALUES (?)"),
            ("SELECT 'secret", "SELECT ?"),
            ("SELECT x::text, 1.5e3, \"Q q\"", "SELECT x::text, ?, \"Q q\""),
            ("", ""),
        ] {
            assert_eq!(fingerprint(text, Strings::Standard), expected);
        }
    }
}
