//! The password in a CREATE or ALTER ROLE: so that every node can be given the same verifier of it.

use std::fmt;
use std::ops::Range;

use super::lexer::{Kind, tokens};

/// A password in the text of a statement. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct RolePassword {
    /// The bytes of its literal.
    pub span: Range<usize>,
    /// The password, or a verifier of one.
    pub value: String,
}

impl fmt::Debug for RolePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RolePassword").field("span", &self.span).finish_non_exhaustive()
    }
}

/// The password that `text`, one statement, gives to a role; `None` where it gives none.
pub fn role_password(text: &str) -> Option<RolePassword> {
    let tokens = tokens(text);
    let word = |at: usize| match tokens.get(at).map(|token| &token.kind) {
        Some(Kind::Word(word)) => Some(word.as_str()),
        _ => None,
    };
    let is_role = matches!(word(0), Some("create" | "alter"))
        && matches!(word(1), Some("role" | "user" | "group"))
        && word(2) != Some("mapping");
    if !is_role {
        return None;
    }
    // The name comes third, whatever it is.
    let at = (3..tokens.len()).find(|at| word(*at) == Some("password"))?;
    let literal = tokens.get(at + 1)?;
    let Kind::String(value) = &literal.kind else { return None };
    Some(RolePassword { span: literal.span(), value: value.clone() })
}

#[cfg(test)]
mod tests {
    use super::role_password;

    #[test]
    fn the_password_is_found_whatever_stands_around_it() {
        let cases = [
            ("CREATE ROLE app LOGIN PASSWORD 'it''s' VALID UNTIL 'infinity'", Some("it's")),
            ("alter user password with encrypted password E'a\\'b'", Some("a'b")),
            ("ALTER ROLE \"x\" /* PASSWORD 'no' */ PASSWORD $$yes$$;", Some("yes")),
            ("CREATE USER u SUPERUSER", None),
            ("ALTER ROLE u PASSWORD NULL", None),
            ("ALTER ROLE password", None),
            ("CREATE USER MAPPING FOR u SERVER s OPTIONS (password 'x')", None),
            ("SELECT 'PASSWORD' 'x'", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = role_password(text);
            assert_eq!(found.as_ref().map(|found| found.value.as_str()), expected, "{text}");
            assert!(!format!("{found:?}").contains("yes"));
        }
    }
}
