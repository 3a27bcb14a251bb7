//! Runs of changes and what they come to, by cases.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Relations, Step, one_by_one, together};
use crate::mover::change::tests::of;

/// Relation 7 has a key of two columns, relation 8 none.
fn relations() -> Relations {
    [(7, Arc::new(of(b'd'))), (8, Arc::new(of(b'f')))].into_iter().collect()
}

/// `-` is NULL, `~` an unchanged value that was not sent.
fn put_row(values: &str, out: &mut BytesMut) {
    let values: Vec<&str> = values.split(' ').collect();
    out.put_u16(values.len().try_into().unwrap());
    for value in values {
        match value {
            "-" => out.put_u8(b'n'),
            "~" => out.put_u8(b'u'),
            text => {
                out.put_u8(b't');
                out.put_u32(text.len().try_into().unwrap());
                out.put_slice(text.as_bytes());
            }
        }
    }
}

/// `I7 1 2 x`, `U7 1 2 y`, `U7 1 2 - > 1 3 y`, `D7 1 2 -`, `T7`.
fn message(text: &str) -> Bytes {
    let (head, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (kind, relation) = head.split_at(1);
    let (kind, relation) = (kind.as_bytes()[0], relation.parse::<u32>().unwrap());
    let mut out = BytesMut::new();
    out.put_u8(kind);
    let old = if relation == 7 { b'K' } else { b'O' };
    match kind {
        b'T' => {
            out.put_u32(1);
            out.put_u8(0);
        }
        _ => out.put_u32(relation),
    }
    match (kind, rest.split_once(" > ")) {
        (b'T', _) => out.put_u32(relation),
        (b'U', Some((before, after))) => {
            out.put_u8(old);
            put_row(before, &mut out);
            out.put_u8(b'N');
            put_row(after, &mut out);
        }
        (b'D', _) => {
            out.put_u8(old);
            put_row(rest, &mut out);
        }
        _ => {
            out.put_u8(b'N');
            put_row(rest, &mut out);
        }
    }
    out.freeze()
}

/// What a run comes to, a step a text.
fn told(run: &[&str], plain: bool) -> Vec<String> {
    let messages: Vec<Bytes> = run.iter().map(|text| message(text)).collect();
    let steps = together(&messages, &relations(), |_| plain).unwrap();
    let text = |step: &Step| {
        let arrays = |(sql, arrays): (String, Vec<super::super::change::RawText>)| {
            let arrays = arrays.iter().map(|it| it.0.clone().unwrap());
            let arrays: Vec<_> = arrays.map(|it| String::from_utf8(it.to_vec()).unwrap()).collect();
            format!("{} {}", sql.split(' ').next().unwrap(), arrays.join(" "))
        };
        match step {
            Step::Singles(changes) => {
                let sql = changes.iter().map(|change| change.sql.split(' ').next().unwrap());
                format!("single {}", sql.collect::<Vec<_>>().join(" "))
            }
            Step::Insert(rows) => {
                let (_, data) = rows.copy();
                format!("COPY {}", String::from_utf8(data.to_vec()).unwrap().escape_debug())
            }
            Step::Update(rows) => arrays(rows.update().unwrap()),
            Step::Delete(rows) => arrays(rows.delete().unwrap()),
        }
    };
    steps.iter().map(text).collect()
}

#[test]
fn rows_that_went_make_room_for_those_that_changed_and_came() {
    let run = ["I7 1 1 a", "U7 1 5 b", "I7 1 2 -", "D7 1 6 -", "U7 1 7 c"];
    let steps = told(&run, false);
    assert_eq!(
        steps,
        [
            "DELETE {\"1\"} {\"6\"}",
            "UPDATE {\"1\",\"1\"} {\"5\",\"7\"} {\"b\",\"c\"}",
            "COPY 1\\t1\\ta\\n1\\t2\\t\\\\N\\n",
        ]
    );
}

#[test]
fn what_happened_to_one_row_is_one_change_of_it() {
    let cases: [(&[&str], &[&str]); 8] = [
        (&["I7 1 1 a", "U7 1 1 b", "U7 1 1 ~"], &["COPY 1\\t1\\tb\\n"]),
        (&["I7 1 1 a", "D7 1 1 -"], &[]),
        (&["U7 1 1 a", "U7 1 1 ~"], &["UPDATE {\"1\"} {\"1\"} {\"a\"}"]),
        (&["U7 1 1 ~", "U7 1 1 b"], &["UPDATE {\"1\"} {\"1\"} {\"b\"}"]),
        (&["U7 1 1 a", "D7 1 1 -"], &["DELETE {\"1\"} {\"1\"}"]),
        (&["D7 1 1 -", "I7 1 1 b"], &["DELETE {\"1\"} {\"1\"}", "COPY 1\\t1\\tb\\n"]),
        (&["D7 1 1 -", "I7 1 1 b", "D7 1 1 -"], &["DELETE {\"1\"} {\"1\"}"]),
        (&["I7 1 1 a", "D7 1 1 -", "I7 1 1 b"], &["COPY 1\\t1\\tb\\n"]),
    ];
    for (run, steps) in cases {
        assert_eq!(told(run, false), steps, "{run:?}");
    }
}

#[test]
fn what_can_not_have_happened_is_left_to_the_destination_to_refuse() {
    let cases: [(&[&str], &[&str]); 5] = [
        (&["I7 1 1 a", "I7 1 1 b"], &["COPY 1\\t1\\ta\\n", "COPY 1\\t1\\tb\\n"]),
        (&["D7 1 1 -", "D7 1 1 -"], &["DELETE {\"1\"} {\"1\"}", "DELETE {\"1\"} {\"1\"}"]),
        (&["D7 1 1 -", "U7 1 1 b"], &["DELETE {\"1\"} {\"1\"}", "UPDATE {\"1\"} {\"1\"} {\"b\"}"]),
        (&["I7 1 1 a", "D7 1 1 -", "D7 1 1 -"], &["DELETE {\"1\"} {\"1\"}"]),
        (&["I7 1 1 a", "D7 1 1 -", "U7 1 1 b"], &["UPDATE {\"1\"} {\"1\"} {\"b\"}"]),
    ];
    for (run, steps) in cases {
        assert_eq!(told(run, false), steps, "{run:?}");
    }
}

#[test]
fn values_that_were_not_sent_are_left_alone() {
    let run = ["U7 1 1 a", "U7 1 2 ~", "U7 1 3 ~"];
    assert_eq!(
        told(&run, false),
        ["UPDATE {\"1\"} {\"1\"} {\"a\"}", "UPDATE {\"1\",\"1\"} {\"2\",\"3\"}"]
    );
}

#[test]
fn changes_of_a_key_and_of_tables_without_one_keep_their_place_among_those_of_their_table() {
    let run = [
        "I7 1 1 a",
        "I8 1 1 a",
        "U7 1 1 - > 1 2 b",
        "U8 1 1 a > 1 1 b",
        "D8 1 1 b",
        "U7 1 2 c",
        "I8 1 2 a",
    ];
    assert_eq!(
        told(&run, false),
        [
            "COPY 1\\t1\\ta\\n",
            "single UPDATE",
            "UPDATE {\"1\"} {\"2\"} {\"c\"}",
            "COPY 1\\t1\\ta\\n",
            "single UPDATE DELETE",
            "COPY 1\\t2\\ta\\n",
        ]
    );
    let run = ["I7 1 1 a", "I8 1 1 a", "T7", "I8 1 2 a", "I7 1 1 b"];
    assert_eq!(
        told(&run, false),
        [
            "COPY 1\\t1\\ta\\n",
            "COPY 1\\t1\\ta\\n",
            "single TRUNCATE",
            "COPY 1\\t2\\ta\\n",
            "COPY 1\\t1\\tb\\n",
        ]
    );
}

#[test]
fn a_plain_table_keeps_its_single_statements() {
    let run = ["I7 1 1 a", "U7 1 1 b", "D7 1 1 -"];
    assert_eq!(told(&run, true), ["single INSERT UPDATE DELETE"]);
    let messages: Vec<Bytes> = run.iter().map(|text| message(text)).collect();
    assert_eq!(one_by_one(&messages, &relations()).unwrap().len(), 3);
}

#[test]
fn odd_bytes_are_escaped() {
    let run = ["I7 1 1 a\tb\\\n\r\"", "U7 1 2 a\\\"{,}", "U7 1 3 NULL", "U7 1 4 -", "U7 1 5 "];
    assert_eq!(
        told(&run, false),
        [
            "UPDATE {\"1\",\"1\",\"1\",\"1\"} {\"2\",\"3\",\"4\",\"5\"} \
             {\"a\\\\\\\"{,}\",\"NULL\",NULL,\"\"}",
            "COPY 1\\t1\\ta\\\\tb\\\\\\\\\\\\n\\\\r\\\"\\n",
        ]
    );
}

#[test]
fn values_that_come_apart_in_an_array_of_their_type_are_texts_until_then() {
    let mut relation = of(b'd');
    relation.table.columns[2].type_name = "integer[]".to_owned();
    let sql = |relation| {
        let relations: Relations = [(7, Arc::new(relation))].into_iter().collect();
        let steps = together(&[message("U7 1 2 {}")], &relations, |_| false).unwrap();
        let Step::Update(rows) = &steps[0] else { panic!("{steps:?}") };
        rows.update().unwrap().0
    };
    assert_eq!(
        sql(relation.clone()),
        "UPDATE \"s\".\"Orders_s9\" AS t SET \"a\"\"b\" = u.c2::integer[] \
         FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS u (c0, c1, c2) \
         WHERE t.\"tenant\" = u.c0 AND t.\"id\" = u.c1"
    );
    relation.table.builtin_types = false;
    assert_eq!(
        sql(relation),
        "UPDATE \"s\".\"Orders_s9\" AS t SET \"a\"\"b\" = u.c2::integer[] \
         FROM unnest($1::text[], $2::text[], $3::text[]) AS u (c0, c1, c2) \
         WHERE t.\"tenant\" = u.c0::bigint AND t.\"id\" = u.c1::bigint"
    );
}
