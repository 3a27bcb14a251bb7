//! A session's settings, which follow it to whatever connection it gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::sql::Literal;

/// Settings that differ from the server's defaults: names, and values as `current_setting` tells
/// them. `role` and `session_authorization` are among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings(pub BTreeMap<String, String>);

/// Whether both are equal; they are one from then on, which is told at a glance the next time. It is
/// that of the lower address, so that all that are equal come to be one, whoever meets whom.
pub fn share<T: PartialEq>(one: &mut Arc<T>, other: &mut Arc<T>) -> bool {
    if Arc::ptr_eq(one, other) {
        return true;
    }
    if one != other {
        return false;
    }
    if Arc::as_ptr(one) < Arc::as_ptr(other) {
        *other = Arc::clone(one);
    } else {
        *one = Arc::clone(other);
    }
    true
}

impl Settings {
    /// The texts that turn a connection with the settings `from` into one with these, in order.
    pub(super) fn adopt_from(&self, from: &Self) -> Vec<String> {
        let mut reset = String::new();
        if from.0.contains_key("session_authorization") {
            reset.push_str("RESET SESSION AUTHORIZATION;");
        }
        if from.0.contains_key("role") {
            reset.push_str("RESET ROLE;");
        }
        if !from.0.is_empty() {
            reset.push_str("RESET ALL;");
        }
        let mut set = String::new();
        let last = |name: &str| name == "role" || name == "session_authorization";
        let (late, early): (Vec<_>, Vec<_>) = self.0.iter().partition(|(name, _)| last(name));
        for (name, value) in early.into_iter().chain(late.into_iter().rev()) {
            let (name, value) = (Literal(name), Literal(value));
            set += &format!("SELECT pg_catalog.set_config({name},{value},false);");
        }
        // A text is read in the encoding that is set before it.
        if from.0.contains_key("client_encoding") && !set.is_ascii() {
            return vec![reset, set];
        }
        vec![reset + &set]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Settings, share};

    #[test]
    fn what_is_equal_comes_to_be_one() {
        let of = |value: &str| Arc::new(Settings([("a".to_owned(), value.to_owned())].into()));
        let mut sessions = [of("1"), of("1"), of("1")];
        let mut connections = [of("1"), of("1")];
        for _ in 0..3 {
            for session in &mut sessions {
                assert!(connections.iter_mut().all(|connection| share(session, connection)));
            }
        }
        let first = Arc::clone(&sessions[0]);
        assert!(sessions.iter().chain(&connections).all(|it| Arc::ptr_eq(it, &first)));
        assert!(!share(&mut sessions[0], &mut of("2")));
    }

    #[test]
    fn a_connection_is_reset_before_it_takes_other_settings() {
        let from = Settings([("work_mem".to_owned(), "1MB".to_owned())].into());
        let to = Settings(
            [("role", "r"), ("a.b", "it's"), ("session_authorization", "s")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        );
        let sql = to.adopt_from(&from).concat();
        assert!(sql.starts_with("RESET ALL;SELECT pg_catalog.set_config('a.b','it''s',false);"));
        assert!(sql.find("'session_authorization'") < sql.find("'role'"));
        assert_eq!(from.adopt_from(&Settings::default()).concat().matches("RESET").count(), 0);
    }
}
