//! Numbers of sequences that somebody waits for in the last step of an import: none is given out twice.

use std::collections::BTreeSet;
use std::time::Duration;

use foreshard::runtime::Tasks;

use super::process_support::said;
use super::support::{eventually, rows};
use super::{job_ended, one, plain};

/// The sequences of the imported table: of a serial column, and of an identity column.
const SEQUENCES: [&str; 2] = ["entries_id_seq", "entries_place_seq"];

/// Whoever asks while the process is dead, which holds the last step prepared, waits; what they get, and
/// what others got before and get afterwards, are different numbers.
async fn is_waited_for_at(failpoint: &str) {
    let (deployment, _) = plain().await;
    let home = deployment.database.client(0).await;
    let insert =
        "INSERT INTO entries (tenant_id, writer, n) SELECT g, 1, 1 FROM generate_series(1, 40) g";
    home.batch_execute(insert).await.unwrap();
    let serving = deployment.serve_until(failpoint).await;
    let (asking, path) = (deployment.clone(), ["import", "shop"]);
    let asked = Tasks::new().spawn("import", async move { asking.run(&path).await });
    serving.died(&deployment).await;
    assert!(!asked.await.unwrap().status.success(), "{failpoint}");
    let mut waiting = Vec::new();
    for sequence in SEQUENCES {
        for _ in 0..3 {
            let client = deployment.database.client(0).await;
            let sql = format!("SELECT nextval('{sequence}') FROM generate_series(1, 20)");
            let ask = async move { (sequence, client.query(&sql, &[]).await) };
            waiting.push(Tasks::new().spawn("nextval", ask));
        }
    }
    let wait = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
         AND query ~ '^SELECT nextval' AND datname = current_database()";
    let all = async || (one(&home, wait).await == "6").then_some(());
    eventually("all of them wait", Duration::from_secs(20), all).await;
    let serving = deployment.serve().await;
    let job = job_ended(&deployment).await;
    assert_eq!(job["state"], "done", "{failpoint}: {job:#}\n{}", deployment.log_tail());
    let mut given: [Vec<i64>; 2] = Default::default();
    for asked in waiting {
        let (sequence, answer) = asked.await.unwrap();
        let at = usize::from(sequence == SEQUENCES[1]);
        match answer {
            Ok(found) => given[at].extend(found.iter().map(|row| row.get::<_, i64>(0))),
            // The sequence of the column is another one now.
            Err(error) => {
                let code = error.code().map(|code| code.code().to_owned());
                assert_eq!((at, code.as_deref()), (1, Some("XX000")), "{error:?}");
            }
        }
    }
    assert_eq!(given[0].len(), 60, "{failpoint}");
    let client = deployment.client().await;
    let insert = "INSERT INTO entries (tenant_id, writer, n) SELECT id, 1, 2 FROM \
         generate_series(1, 40) id";
    client.batch_execute(insert).await.unwrap();
    for _ in 0..100 {
        let insert = "INSERT INTO entries (tenant_id, writer, n) VALUES (7, 2, (SELECT count(*) FROM entries))";
        client.batch_execute(insert).await.unwrap();
    }
    for at in 0..2 {
        let column = ["id", "place"][at];
        let used = rows(&client, &format!("SELECT {column} FROM entries")).await;
        given[at].extend(used.iter().map(|number| number.parse::<i64>().unwrap()));
        let distinct: BTreeSet<i64> = given[at].iter().copied().collect();
        assert_eq!(distinct.len(), given[at].len(), "{failpoint}, {column}: {:?}", given[at]);
    }
    println!("{failpoint}: {} and {} numbers", given[0].len(), given[1].len());
    let verified = deployment.run(&["verify"]).await;
    assert!(verified.status.success(), "{failpoint}: {}", said(&verified));
    drop(client);
    serving.stop(&deployment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_is_waited_for_in_the_last_step_is_given_out_once() {
    // It is undone and done again; it is finished.
    for failpoint in ["import_prepared", "import_decided"] {
        is_waited_for_at(failpoint).await;
    }
}
