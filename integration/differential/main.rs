//! The same statements through the proxy, over three nodes, and against one PostgreSQL that holds
//! the same rows: names, types, rows, command tags and SQLSTATEs must be equal, in text and binary.
//! A refusal (0A000) is counted apart; a wrong answer fails the test.
#![allow(clippy::print_stdout, reason = "the shares are for whoever runs the test")]
#![allow(unreachable_pub, reason = "the parts of one test binary")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod compare;
mod fixture;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use compare::{Report, statements};
use fixture::Fixture;

/// Runs every statement of a file and prints the shares.
async fn run(fixture: &Fixture, name: &str, text: &str) -> Report {
    let mut report = Report::new(name);
    let mut pair = fixture.pair().await;
    for statement in statements(text) {
        report.add(&mut pair, &statement).await;
    }
    report.print();
    report
}

#[tokio::test]
async fn ordinary_queries_give_what_one_postgresql_gives() {
    let fixture = Fixture::shop().await;
    let mut wrong = Vec::new();
    for (name, text) in [
        ("plain", include_str!("statements/plain.sql")),
        ("aggregates", include_str!("statements/aggregates.sql")),
        ("order", include_str!("statements/order.sql")),
        ("joins", include_str!("statements/joins.sql")),
        ("subqueries", include_str!("statements/subqueries.sql")),
        ("sets", include_str!("statements/sets.sql")),
        ("types", include_str!("statements/types.sql")),
        ("errors", include_str!("statements/errors.sql")),
    ] {
        wrong.extend(run(&fixture, name, text).await.wrong);
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
