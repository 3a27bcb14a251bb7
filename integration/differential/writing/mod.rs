//! Random writes through the proxy and on one PostgreSQL: the same tags, rows and SQLSTATEs, and the
//! same rows in all tables afterwards. What the proxy refuses runs on neither; it is counted by its
//! reason.

mod expressions;
mod inserts;
mod run;
mod shapes;
mod tables;

use run::Run;

/// `WRITES_SEED`, `WRITES_COUNT` choose others; `WRITES_SHOW` prints each refused statement.
#[tokio::test]
async fn random_writes_give_what_one_postgresql_gives() {
    let number = |name, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (seed, count) = (number("WRITES_SEED", 20_261_122), number("WRITES_COUNT", 300));
    println!("seed {seed}, {count} statements");
    let mut run = Run::start(seed).await;
    while run.count() < count {
        run.episode().await;
    }
    run.print();
    assert!(run.wrong.is_empty(), "{} wrong:\n{}", run.wrong.len(), run.wrong.join("\n"));
}
