//! Parameters in text and binary, declared and inferred.

use super::{map, show, tenant};
use crate::router::{Context, Control, Params, template};

fn route(sql: &str, types: &[u32], formats: &[i16], values: &[Option<&[u8]>]) -> String {
    let path = ["public".to_owned()];
    let context =
        Context { database: "shop", search_path: &path, strings: crate::sql::Strings::Standard };
    let template = template(sql, &context, &map());
    show(template.route(&Params { types, formats, values, looked_up: None, literals: &[] }))
}

const SELECT: &str = "SELECT count(*) FROM orders WHERE tenant_id = $1";

#[test]
fn a_parameter_means_what_its_type_and_format_say() {
    let five = 5_i64.to_be_bytes();
    let text: &[Option<&[u8]>] = &[Some(b" 5")];
    assert_eq!(route(SELECT, &[], &[], text), tenant(5));
    assert_eq!(route(SELECT, &[0], &[0], text), tenant(5));
    assert_eq!(route(SELECT, &[20], &[1], &[Some(&five)]), tenant(5));
    assert_eq!(route(SELECT, &[], &[1], &[Some(&five)]), tenant(5));
    assert_eq!(route(SELECT, &[23], &[1], &[Some(&5_i32.to_be_bytes())]), tenant(5));
    assert_eq!(route(SELECT, &[21], &[1], &[Some(&5_i16.to_be_bytes())]), tenant(5));
    assert_eq!(route(SELECT, &[], &[], &[None]), "anywhere");
    assert_eq!(route(SELECT, &[], &[], &[Some(b"x")]), "home");
    assert_eq!(route(SELECT, &[], &[], &[]), "home");
    assert!(route(SELECT, &[701], &[1], &[Some(&five)]).starts_with("pull"));
    assert!(route(SELECT, &[1700], &[], text).starts_with("pull"));
    assert!(route(SELECT, &[25], &[], text).starts_with("pull"));
}

#[test]
fn a_parameter_that_is_used_for_something_else_is_not_guessed() {
    let text: &[Option<&[u8]>] = &[Some(b"5")];
    let twice = "SELECT count(*) FROM orders WHERE total = $1 AND tenant_id = $1";
    assert!(route(twice, &[], &[], text).starts_with("pull"));
    assert_eq!(route(twice, &[20], &[], text), tenant(5));
    let cast = "SELECT count(*) FROM orders WHERE total = $1 AND tenant_id = $1::bigint";
    assert_eq!(route(cast, &[], &[], text), tenant(5));
    assert!(route(cast, &[], &[1], &[Some(&5_i64.to_be_bytes())]).starts_with("pull"));
    assert!(route(cast, &[], &[], &[Some(b"5.2")]).starts_with("pull"));
    let keys = "SELECT 1 FROM orders o, items i WHERE o.tenant_id = $1 AND i.tenant_id = $1";
    assert_eq!(route(keys, &[], &[1], &[Some(&5_i64.to_be_bytes())]), tenant(5));
}

#[test]
fn a_key_of_two_columns_needs_both() {
    let sql = "INSERT INTO docs (id, owner) VALUES ($2, $1)";
    let both = route(sql, &[], &[0, 1], &[Some(b"ann"), Some(&7_i32.to_be_bytes())]);
    let literal = route("SELECT * FROM docs WHERE owner = 'ann' AND id = 7", &[], &[], &[]);
    assert!(both == literal && both.starts_with('s'), "{both} {literal}");
    let blank = route("SELECT * FROM docs WHERE owner = 'ann ' AND id = 7", &[], &[], &[]);
    assert_eq!(route(sql, &[], &[], &[Some(b"ann "), Some(b"7")]), blank);
}

#[test]
fn control_statements_are_read_by_their_words() {
    let path = ["public".to_owned()];
    let context =
        Context { database: "shop", search_path: &path, strings: crate::sql::Strings::Standard };
    let map = map();
    let control = |sql: &str| template(sql, &context, &map).control;
    let set = |name: &str, local, values: Option<&[&str]>, text: &str| Control::Set {
        name: name.to_owned(),
        local,
        values: values.map(|values| values.iter().map(|v| (*v).to_owned()).collect()),
        text: text.to_owned(),
    };
    assert_eq!(control("begin isolation level serializable;"), Control::Begin);
    assert_eq!(control("START TRANSACTION READ ONLY, DEFERRABLE"), Control::Begin);
    assert_eq!(control("END WORK"), Control::Commit { chain: false });
    assert_eq!(control("COMMIT AND CHAIN"), Control::Commit { chain: true });
    assert_eq!(control("abort"), Control::Rollback { chain: false });
    assert_eq!(control("rollback to savepoint A"), Control::RollbackTo { name: "a".to_owned() });
    assert_eq!(control("RELEASE savepoint"), Control::Release { name: "savepoint".to_owned() });
    assert_eq!(control("COMMIT PREPARED 'x'"), Control::None);
    assert_eq!(
        control(" SET search_path TO \"$user\", Public, 'X' ;"),
        set(
            "search_path",
            false,
            Some(&["$user", "public", "X"]),
            "SET search_path TO \"$user\", Public, 'X'"
        )
    );
    assert_eq!(
        control("SET LOCAL a.b = -1"),
        set("a.b", true, Some(&["-1"]), "SET LOCAL a.b = -1")
    );
    assert_eq!(
        control("SET TIME ZONE 'UTC'"),
        set("timezone", false, Some(&["UTC"]), "SET TIME ZONE 'UTC'")
    );
    assert_eq!(control("SET x TO DEFAULT"), set("x", false, None, "SET x TO DEFAULT"));
    assert_eq!(control("RESET ALL"), Control::Reset { name: None });
    assert_eq!(
        control("SHOW transaction isolation level"),
        Control::Show { name: "transaction_isolation".to_owned() }
    );
    assert_eq!(control("UNLISTEN *"), Control::Unlisten { channel: None });
    assert!(template("LISTEN x", &context, &map).leaves >= crate::router::Leaves::State);
    assert!(
        template("SELECT pg_advisory_lock(3)", &context, &map).leaves
            >= crate::router::Leaves::State
    );
    assert!(
        template("CREATE TEMP TABLE x (a int)", &context, &map).leaves
            >= crate::router::Leaves::State
    );
    assert!(template("SELECT 1", &context, &map).leaves == crate::router::Leaves::Nothing);
}
