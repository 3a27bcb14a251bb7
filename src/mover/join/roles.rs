//! The roles of the home node on a node that joins: attributes, passwords, memberships, settings, and
//! the settings of the database.

use super::super::error::MoveError;
use super::super::names::quoted;
use super::super::session::Session;
use crate::sql::Literal;

/// Roles but the built-in ones and the one that a cluster is made with; the password as it is stored,
/// where it may be read.
const ROLES: &str = "SELECT rolname::text, concat_ws(' ', \
     CASE WHEN rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END, \
     CASE WHEN rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END, \
     CASE WHEN rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END, \
     CASE WHEN rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END, \
     CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END, \
     CASE WHEN rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END, \
     CASE WHEN rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END, \
     'CONNECTION LIMIT ' || rolconnlimit, 'VALID UNTIL ' \
     || quote_literal(coalesce(rolvaliduntil, 'infinity'))), ";
const FROM_ROLES: &str = " WHERE rolname !~ '^pg_' AND oid >= 16384 ORDER BY oid";
const MEMBERS: &str = "SELECT g.rolname::text, m.rolname::text, a.admin_option \
     FROM pg_auth_members a JOIN pg_roles g ON g.oid = a.roleid JOIN pg_roles m ON m.oid = a.member \
     WHERE m.oid >= 16384 ORDER BY g.oid, m.oid";
/// Settings of roles (in any database or in this one) and of this database.
const SETTINGS: &str = "SELECT r.rolname::text, s.setdatabase <> 0, unnest(s.setconfig) \
     FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole \
     WHERE (s.setrole = 0 OR r.oid >= 16384) AND (s.setdatabase = 0 AND s.setrole <> 0 \
     OR s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))";
/// Settings whose value is a list that is quoted already.
const LISTS: [&str; 4] =
    ["search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"];

/// SQL for the node behind `target`, which brings the roles of the node behind `home`.
pub(super) async fn statements(home: &Session, target: &Session) -> Result<Vec<String>, MoveError> {
    let doing = "reading the roles";
    let readable = "SELECT has_table_privilege('pg_authid', 'SELECT')";
    let readable = home.rows(doing, readable, &[]).await?;
    let readable = readable.first().is_some_and(|row| row.get(0));
    let (password, table) =
        if readable { ("rolpassword", "pg_authid") } else { ("NULL::text", "pg_roles") };
    let sql = format!("{ROLES}{password} FROM {table}{FROM_ROLES}");
    let there = target.rows(doing, "SELECT rolname::text FROM pg_roles", &[]).await?;
    let there: Vec<String> = there.iter().map(|row| row.get(0)).collect();
    let own = target.rows(doing, "SELECT current_user::text", &[]).await?;
    let own: String = own.first().map(|row| row.get(0)).unwrap_or_default();
    let mut all = Vec::new();
    for row in home.rows(doing, &sql, &[]).await? {
        let (name, attributes): (String, String) = (row.get(0), row.get(1));
        let password: Option<String> = row.get(2);
        // The proxy's own role there is its operator's business.
        if name == own {
            continue;
        }
        let verb = if there.contains(&name) { "ALTER" } else { "CREATE" };
        let password = match password {
            Some(password) => format!(" PASSWORD {}", Literal(&password)),
            None if readable => " PASSWORD NULL".to_owned(),
            None => String::new(),
        };
        all.push(format!("{verb} ROLE {} WITH {attributes}{password}", quoted(&name)));
    }
    for row in home.rows(doing, MEMBERS, &[]).await? {
        let (group, member): (String, String) = (row.get(0), row.get(1));
        let admin = if row.get(2) { " WITH ADMIN OPTION" } else { "" };
        all.push(format!("GRANT {} TO {}{admin}", quoted(&group), quoted(&member)));
    }
    let database = home.rows(doing, "SELECT current_database()::text", &[]).await?;
    let database: String = database.first().map(|row| row.get(0)).unwrap_or_default();
    for row in home.rows(doing, SETTINGS, &[]).await? {
        let (role, in_database): (Option<String>, bool) = (row.get(0), row.get(1));
        all.extend(setting(role.as_deref(), in_database.then_some(&database), row.get(2)));
    }
    Ok(all)
}

/// `ALTER ROLE … SET` or `ALTER DATABASE … SET` of what stands as `name=value`.
fn setting(role: Option<&str>, database: Option<&String>, text: &str) -> Option<String> {
    let (name, value) = text.split_once('=')?;
    let value = if LISTS.contains(&name) && !value.is_empty() {
        value.to_owned()
    } else {
        Literal(value).to_string()
    };
    let name: Vec<String> = name.split('.').map(quoted).collect();
    let name = name.join(".");
    Some(match (role, database) {
        (Some(role), None) => format!("ALTER ROLE {} SET {name} = {value}", quoted(role)),
        (Some(role), Some(database)) => {
            let (role, database) = (quoted(role), quoted(database));
            format!("ALTER ROLE {role} IN DATABASE {database} SET {name} = {value}")
        }
        (None, Some(database)) => {
            format!("ALTER DATABASE {} SET {name} = {value}", quoted(database))
        }
        (None, None) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::setting;

    #[test]
    fn settings_are_quoted_but_lists_that_are() {
        let database = "sh\"op".to_owned();
        let cases = [
            (Some("a"), None, "work_mem=4MB", "ALTER ROLE \"a\" SET \"work_mem\" = '4MB'"),
            (
                None,
                Some(&database),
                "search_path=\"$user\", public",
                "ALTER DATABASE \"sh\"\"op\" SET \"search_path\" = \"$user\", public",
            ),
            (
                Some("a"),
                Some(&database),
                "app.x=it's",
                "ALTER ROLE \"a\" IN DATABASE \"sh\"\"op\" SET \"app\".\"x\" = 'it''s'",
            ),
        ];
        for (role, database, text, expected) in cases {
            assert_eq!(setting(role, database, text).unwrap(), expected);
        }
    }
}
