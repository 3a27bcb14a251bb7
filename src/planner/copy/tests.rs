//! Any chunks of the same data give the same rows, each at its shard.

use super::{CopyInPlan, Splitter, copy_in};
use crate::ids::{GroupId, ShardId};
use crate::planner::tests::{map, routed};
use crate::router::Route;
use crate::shard_map::{KeyValue, hash_key};
use crate::wire::ServerError;

fn plan(sql: &str) -> Result<CopyInPlan, ServerError> {
    match routed(sql)? {
        Route::CopyIn(copy) => copy_in(&copy, &map()),
        other => panic!("{other:?}"),
    }
}

/// The rows of all chunks with their shards.
fn split(sql: &str, chunks: &[&[u8]]) -> Result<Vec<(ShardId, Vec<u8>)>, ServerError> {
    let mut splitter = Splitter::new(plan(sql)?.split.unwrap());
    let mut rows = Vec::new();
    let mut sink = |shard, row: &[u8]| rows.push((shard, row.to_vec()));
    for chunk in chunks {
        splitter.feed(chunk, &mut sink)?;
    }
    splitter.finish(&mut sink)?;
    Ok(rows)
}

fn tenant(id: i64) -> ShardId {
    map().shard_of_hash(GroupId(0), hash_key(&[KeyValue::Int(id)]))
}

fn failure(sql: &str, data: &[u8]) -> (String, String) {
    let error = split(sql, &[data]).unwrap_err();
    (error.message, error.detail.unwrap_or_default())
}

const TEXT: &str = "COPY orders (id, tenant_id, note) FROM STDIN";
const CSV: &str = "COPY orders (id, tenant_id, note) FROM STDIN (FORMAT csv, HEADER)";

#[test]
fn each_node_is_told_the_same_copy_without_a_header() {
    let text = |sql: &str| plan(sql).unwrap().text;
    assert_eq!(
        text(TEXT),
        "COPY \"public\".\"orders\" (\"id\", \"tenant_id\", \"note\") FROM STDIN WITH (FORMAT text)"
    );
    assert_eq!(
        text(
            "copy orders from stdin csv header delimiter as ';' null 'n''l' quote '|' escape E'\\\\'"
        ),
        "COPY \"public\".\"orders\" FROM STDIN WITH (FORMAT csv, DELIMITER ';', NULL 'n''l', \
         QUOTE '|', ESCAPE  E'\\\\')"
    );
    assert!(plan("COPY countries FROM STDIN CSV").unwrap().split.is_none());
    for refused in [
        "COPY orders (id) FROM STDIN",
        "COPY items FROM STDIN",
        "COPY orders FROM STDIN (ENCODING 'SJIS')",
        "COPY orders FROM STDIN (FREEZE)",
        "COPY orders FROM STDIN (FORMAT csv, FORCE_NULL (tenant_id))",
        "COPY orders FROM STDIN (DELIMITER 'ab')",
        "COPY orders FROM STDIN (HEADER match)",
    ] {
        assert_eq!(plan(refused).unwrap_err().code.0, "0A000", "{refused}");
    }
}

#[test]
fn text_rows_are_read_as_postgresql_reads_them() {
    let data = b"1\t5\ta\\\tb\n2\t\\x36\t\\\nx\n3\t\\N\t\n4\t 7\t\\\\\n\\.\nnot looked at";
    let rows = split(TEXT, &[data]).unwrap();
    let row = |shard, row: &[u8]| (shard, row.to_vec());
    assert_eq!(
        rows,
        [
            row(tenant(5), b"1\t5\ta\\\tb\n"),
            row(tenant(6), b"2\t\\x36\t\\\nx\n"),
            row(map().shard_of_hash(GroupId(0), 0), b"3\t\\N\t\n"),
            row(tenant(7), b"4\t 7\t\\\\\n"),
        ]
    );
    let crlf = split(TEXT, &[b"1\t5\tx\r\n2\t6\ty"]).unwrap();
    assert_eq!(crlf, [row(tenant(5), b"1\t5\tx\r\n"), row(tenant(6), b"2\t6\ty")]);
    let last = split("COPY orders (id, tenant_id) FROM STDIN", &[b"1\t5\r\n"]).unwrap();
    assert_eq!(last, [row(tenant(5), b"1\t5\r\n")]);
}

#[test]
fn csv_rows_are_read_as_postgresql_reads_them() {
    let data = b"id,\"tenant\nid\",note\n1,\"5\",\"a,\"\"b\n\"\n2,6,\n3,,x\n4,\"\"7,\n";
    let rows = split(CSV, &[data]).unwrap();
    let shards: Vec<ShardId> = rows.iter().map(|(shard, _)| *shard).collect();
    let null = map().shard_of_hash(GroupId(0), 0);
    assert_eq!(shards, [tenant(5), tenant(6), null, tenant(7)]);
    assert_eq!(rows[0].1, b"1,\"5\",\"a,\"\"b\n\"\n");
    let escape = "COPY orders (tenant_id, note) FROM STDIN (FORMAT csv, ESCAPE E'\\\\')";
    let rows = split(escape, &[b"5,\"a\\\"\n\"\n6,x\n"]).unwrap();
    assert_eq!(rows.len(), 2);
}

#[test]
fn malformed_rows_are_told_with_their_line() {
    let at = |line: u32| format!("COPY orders, line {line}");
    let syntax = "invalid input syntax for type bigint: \"x\"";
    assert_eq!(
        failure(TEXT, b"1\t5\ta\n2\tx\tb\n"),
        (syntax.to_owned(), format!("{}, column tenant_id", at(2)))
    );
    let missing = "missing data for column \"tenant_id\"";
    assert_eq!(failure(TEXT, b"1\n"), (missing.to_owned(), at(1)));
    let mixed = "literal carriage return found in data";
    assert_eq!(failure(TEXT, b"1\t5\ta\n2\t6\tb\r\n"), (mixed.to_owned(), at(2)));
    let open = "unterminated CSV quoted field";
    assert_eq!(failure(CSV, b"h\n1,5,\"a\n"), (open.to_owned(), at(2)));
    let marker = "end-of-copy marker corrupt";
    assert_eq!(failure(TEXT, b"1\t5\ta\\.\n2\t6\tb\n"), (marker.to_owned(), at(1)));
}

/// A binary row of an int8 key and a text.
fn binary_row(key: Option<i64>, text: &[u8]) -> Vec<u8> {
    let mut row = vec![0, 2];
    match key {
        None => row.extend((-1_i32).to_be_bytes()),
        Some(key) => {
            row.extend(8_i32.to_be_bytes());
            row.extend(key.to_be_bytes());
        }
    }
    row.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    row.extend(text);
    row
}

const BINARY: &str = "COPY orders (tenant_id, note) FROM STDIN (FORMAT binary)";

#[test]
fn binary_rows_go_out_without_their_header_and_end() {
    let mut data = super::binary::HEADER.to_vec();
    let rows = [binary_row(Some(5), b"a"), binary_row(None, b""), binary_row(Some(-6), b"b\n")];
    rows.iter().for_each(|row| data.extend(row));
    data.extend(super::binary::TRAILER);
    let shards = [tenant(5), map().shard_of_hash(GroupId(0), 0), tenant(-6)];
    let wanted: Vec<_> = shards.into_iter().zip(rows).collect();
    assert_eq!(split(BINARY, &[&data]).unwrap(), wanted);
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(split(BINARY, &bytes).unwrap(), wanted);
    data.push(0);
    assert_eq!(failure(BINARY, &data).0, "received copy data after EOF marker");
    assert_eq!(failure(BINARY, &data[..30]).0, "unexpected EOF in COPY data");
    assert_eq!(failure(BINARY, b"1\t2\n").0, "COPY file signature not recognized");
}

proptest::proptest! {
    #[test]
    fn any_chunks_of_text_and_csv_give_the_same_rows(
        rows in proptest::collection::vec((proptest::num::i64::ANY, "[a-z\\\\,\"\t\n]{0,6}"), 0..20),
        cuts in proptest::collection::vec(1_usize..9, 1..40),
    ) {
        let mut text = String::new();
        let mut csv = "h\n".to_owned();
        for (key, note) in &rows {
            let escaped = note.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n");
            text.push_str(&format!("1\t{key}\t{escaped}\n"));
            csv.push_str(&format!("1,\"{key}\",\"{}\"\n", note.replace('"', "\"\"")));
        }
        for (sql, data) in [(TEXT, &text), (CSV, &csv)] {
            let whole = split(sql, &[data.as_bytes()]).unwrap();
            let shards: Vec<ShardId> = rows.iter().map(|(key, _)| tenant(*key)).collect();
            assert_eq!(whole.iter().map(|(shard, _)| *shard).collect::<Vec<_>>(), shards);
            let mut chunks = Vec::new();
            let (mut at, mut sizes) = (0, cuts.iter().cycle());
            while at < data.len() {
                let end = data.len().min(at + sizes.next().unwrap());
                chunks.push(&data.as_bytes()[at..end]);
                at = end;
            }
            assert_eq!(split(sql, &chunks).unwrap(), whole);
        }
    }

    #[test]
    fn any_bytes_give_rows_or_an_error(
        chunks in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..30), 0..6),
    ) {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        for sql in [TEXT, CSV, BINARY] {
            drop(split(sql, &chunks));
        }
    }
}
