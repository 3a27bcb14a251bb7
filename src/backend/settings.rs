//! A session's settings, which follow it to whatever connection it gets.

use std::collections::BTreeMap;

use crate::sql::Literal;

/// Settings that differ from the server's defaults: names, and values as `current_setting` tells
/// them. `role` and `session_authorization` are among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings(pub BTreeMap<String, String>);

/// Lists the settings of the session that a `SET` made; what a transaction sets for itself alone
/// is not a session's.
pub(super) const READ: &str = "\
    SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings \
    WHERE source = 'session' AND name NOT LIKE 'transaction\\_%' \
    UNION ALL SELECT 'role', pg_catalog.current_setting('role') \
    WHERE pg_catalog.current_setting('role') <> 'none' \
    UNION ALL SELECT 'session_authorization', session_user";

impl Settings {
    /// The statements that turn a connection with the settings `from` into one with these.
    pub(super) fn adopt_from(&self, from: &Self) -> String {
        let mut sql = String::new();
        if from.0.contains_key("session_authorization") {
            sql.push_str("RESET SESSION AUTHORIZATION;");
        }
        if from.0.contains_key("role") {
            sql.push_str("RESET ROLE;");
        }
        if !from.0.is_empty() {
            sql.push_str("RESET ALL;");
        }
        let last = |name: &str| name == "role" || name == "session_authorization";
        let (late, early): (Vec<_>, Vec<_>) = self.0.iter().partition(|(name, _)| last(name));
        for (name, value) in early.into_iter().chain(late.into_iter().rev()) {
            let (name, value) = (Literal(name), Literal(value));
            sql += &format!("SELECT pg_catalog.set_config({name},{value},false);");
        }
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;

    #[test]
    fn a_connection_is_reset_before_it_takes_other_settings() {
        let from = Settings([("work_mem".to_owned(), "1MB".to_owned())].into());
        let to = Settings(
            [("role", "r"), ("a.b", "it's"), ("session_authorization", "s")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        );
        let sql = to.adopt_from(&from);
        assert!(sql.starts_with("RESET ALL;SELECT pg_catalog.set_config('a.b','it''s',false);"));
        assert!(sql.find("'session_authorization'") < sql.find("'role'"));
        assert_eq!(from.adopt_from(&Settings::default()).matches("RESET").count(), 0);
    }
}
