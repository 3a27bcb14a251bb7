//! A client whose statements read all shards: none may be missing, none may be there twice.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::ledger::{Ledger, PURSE, TENANTS};
use super::process_support::connect;

/// Statements whose answer never changes, whatever moves.
fn statements() -> [(&'static str, Vec<String>); 4] {
    let (count, sum) = (TENANTS, TENANTS * (TENANTS + 1) / 2);
    let all: Vec<String> = (1..=TENANTS).map(|tenant| tenant.to_string()).collect();
    [
        ("SELECT count(*), sum(weight) FROM accounts", vec![format!("{count}|{sum}")]),
        (
            "SELECT count(*), sum(amount) FROM purse",
            vec![format!("{}|{}", 2 * count, PURSE * count)],
        ),
        ("SELECT tenant_id FROM accounts", all.clone()),
        ("SELECT tenant_id FROM accounts ORDER BY tenant_id", all),
    ]
}

/// Reads until the ledger is closed.
pub async fn run(driver: tokio_postgres::Config, ledger: Arc<Ledger>, pause: Duration) {
    while !ledger.stop.is_cancelled() {
        match connect(&driver).await {
            Ok(client) => {
                if let Err(error) = work(&client, &ledger, pause).await {
                    ledger.error("scatter", &error);
                }
            }
            Err(error) => ledger.error("connecting", &error),
        }
        sleep(Duration::from_millis(30)).await;
    }
}

async fn work(client: &Client, ledger: &Ledger, pause: Duration) -> Result<(), Error> {
    for (sql, expected) in statements().iter().cycle() {
        if ledger.stop.is_cancelled() {
            break;
        }
        let _turn = ledger.turn.read().await;
        let asked = timeout(Duration::from_mins(1), client.simple_query(sql)).await;
        let Ok(messages) = asked else {
            ledger.violation(format!("{sql} is stuck"));
            break;
        };
        let mut found = rows(&messages?);
        if found.len() > 1 && !sql.contains("ORDER BY") {
            found.sort_by_key(|row| row.parse::<i64>().unwrap_or_default());
        }
        if found != *expected {
            ledger.violation(format!("{sql} gives {found:?}"));
        }
        sleep(pause).await;
    }
    Ok(())
}

fn rows(messages: &[SimpleQueryMessage]) -> Vec<String> {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let columns = (0..row.len()).map(|at| row.get(at).unwrap_or("∅"));
            Some(columns.collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    rows.collect()
}
