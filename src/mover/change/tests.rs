//! Changes of the stream as statements, by cases.

use std::sync::Arc;

use bytes::Bytes;
use pg_walstream::{ColumnData, ColumnInfo, LogicalReplicationMessage, TupleData};

use super::{RawText, Relation};
use crate::shard_move::{Across, MovedColumn, MovedTable};
use crate::sql::TableName;

pub(in crate::mover) fn orders() -> MovedTable {
    let column = |name: &str, type_name: &str| MovedColumn {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
    };
    MovedTable {
        parent: TableName::new("s", "Orders"),
        leaf: TableName::new("s", "Orders_s1"),
        new_leaf: TableName::new("s", "Orders_s9"),
        key: vec!["tenant".to_owned()],
        columns: vec![column("tenant", "bigint"), column("id", "bigint"), column("a\"b", "text")],
        whole_row_identity: false,
        identity: "d".to_owned(),
        shape: String::new(),
        across: None,
        builtin_types: true,
    }
}

fn relation(identity: u8, names: [&str; 3]) -> LogicalReplicationMessage {
    let columns = names.iter().enumerate();
    LogicalReplicationMessage::Relation {
        relation_id: 7,
        namespace: Arc::from("s"),
        relation_name: Arc::from("Orders_s1"),
        replica_identity: identity,
        columns: columns
            .map(|(at, name)| ColumnInfo::new(u8::from(at < 2), (*name).to_owned(), 20, -1))
            .collect(),
    }
}

pub(in crate::mover) fn of(identity: u8) -> Relation {
    let message = relation(identity, ["tenant", "id", "a\"b"]);
    Relation::of(&message, &[(orders(), None)]).unwrap().unwrap()
}

/// `-` is NULL, `~` an unchanged value that was not sent.
pub(in crate::mover) fn tuple(values: [&str; 3]) -> TupleData {
    let column = |value: &&str| match *value {
        "-" => ColumnData::null(),
        "~" => ColumnData::unchanged(),
        text => ColumnData::text(text.as_bytes().to_vec()),
    };
    TupleData::new(values.iter().map(column).collect())
}

fn texts(parameters: &[RawText]) -> Vec<&str> {
    let text = |value: &Option<Bytes>| -> Option<&'static str> {
        value.as_ref().map(|bytes| &*String::from_utf8(bytes.to_vec()).unwrap().leak())
    };
    parameters.iter().map(|RawText(value)| text(value).unwrap_or("-")).collect()
}

#[test]
fn an_insert_names_its_columns() {
    let change = of(b'd').insert(&tuple(["1", "2", "-"])).unwrap();
    assert_eq!(
        change.sql,
        "INSERT INTO \"s\".\"Orders_s9\" (\"tenant\", \"id\", \"a\"\"b\") \
         OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3)"
    );
    assert_eq!(texts(&change.parameters), ["1", "2", "-"]);
}

#[test]
fn an_update_finds_its_row_by_the_old_key_and_leaves_out_what_was_not_sent() {
    let change = of(b'd').update(None, &tuple(["1", "2", "x"])).unwrap();
    assert_eq!(
        change.sql,
        "UPDATE \"s\".\"Orders_s9\" SET \"tenant\" = $1, \"id\" = $2, \"a\"\"b\" = $3 \
         WHERE \"tenant\" = $4 AND \"id\" = $5"
    );
    assert_eq!(texts(&change.parameters), ["1", "2", "x", "1", "2"]);

    let old = tuple(["1", "2", "-"]);
    let change = of(b'd').update(Some(&old), &tuple(["1", "3", "~"])).unwrap();
    assert_eq!(
        change.sql,
        "UPDATE \"s\".\"Orders_s9\" SET \"tenant\" = $1, \"id\" = $2 \
         WHERE \"tenant\" = $3 AND \"id\" = $4"
    );
    assert_eq!(texts(&change.parameters), ["1", "3", "1", "2"]);
}

#[test]
fn a_row_without_a_key_is_found_by_all_its_values_and_only_once() {
    let change = of(b'f').delete(&tuple(["1", "2", "-"])).unwrap();
    assert_eq!(
        change.sql,
        "DELETE FROM \"s\".\"Orders_s9\" WHERE ctid = (SELECT ctid FROM \"s\".\"Orders_s9\" \
         WHERE \"tenant\" = $1::bigint AND ROW(\"tenant\", \"id\", \"a\"\"b\")::text = \
         ROW($1::bigint, $2::bigint, $3::text)::text LIMIT 1)"
    );
    assert!(change.one_row);
}

#[test]
fn what_can_not_be_applied_stops_the_stream() {
    let faults = [
        of(b'd').insert(&tuple(["1", "2", "~"])).map(drop),
        of(b'f').update(None, &tuple(["1", "2", "x"])).map(drop),
        of(b'd').delete(&tuple(["1", "-", "-"])).map(drop),
        of(b'd').delete(&TupleData::new(vec![ColumnData::null()])).map(drop),
        Relation::of(&relation(b'd', ["tenant", "id", "renamed"]), &[(orders(), None)]).map(drop),
        Relation::of(&relation(b'd', ["tenant", "id", "x"]), &[]).map(drop),
    ];
    for (case, fault) in faults.into_iter().enumerate() {
        assert!(fault.is_err(), "case {case}");
    }
}

#[test]
fn a_truncate_of_a_leaf_that_others_share_deletes_its_own_rows_alone() {
    let whole = of(b'd');
    let sql = |changes: Vec<super::Change>| -> Vec<String> {
        assert!(changes.iter().all(|change| !change.one_row));
        changes.into_iter().map(|change| change.sql).collect()
    };
    let truncate = "TRUNCATE \"s\".\"Orders_s9\", \"s\".\"Orders_s9\"";
    assert_eq!(sql(Relation::truncate(&[&whole, &whole])), [truncate]);
    let message = relation(b'd', ["tenant", "id", "a\"b"]);
    let tables = [(orders(), Some("share".to_owned()))];
    let shared = Relation::of(&message, &tables).unwrap().unwrap();
    assert_eq!(
        sql(Relation::truncate(&[&shared])),
        ["DELETE FROM \"s\".\"Orders_s9\" WHERE share"]
    );
}

#[test]
fn a_row_that_goes_across_is_found_in_the_one_partition_that_may_have_it() {
    let message = relation(b'f', ["tenant", "id", "a\"b"]);
    let across = Across { key: vec!["id".to_owned()], given: Vec::new(), from: Vec::new() };
    let table = MovedTable { across: Some(across), ..orders() };
    let relation = Relation::of(&message, &[(table, None)]).unwrap().unwrap();
    let found = |values| relation.delete(&tuple(values)).unwrap().sql;
    let all = "ROW(\"tenant\", \"id\", \"a\"\"b\")::text = \
         ROW($1::bigint, $2::bigint, $3::text)::text";
    for (values, key) in
        [(["1", "2", "-"], "\"id\" = $2::bigint"), (["1", "-", "x"], "\"id\" IS NULL")]
    {
        let leaf = "\"s\".\"Orders_s9\"";
        assert_eq!(
            found(values),
            format!(
                "DELETE FROM {leaf} WHERE {key} AND ctid = (SELECT ctid FROM {leaf} WHERE {key} \
                 AND {all} LIMIT 1)"
            )
        );
    }
}
