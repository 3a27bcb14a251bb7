//! Rows are changed by clients that find them by key, by lookup or everywhere, and that move them, while
//! shards move: what was answered has happened, once.

use foreshard::runtime::Tasks;
use foreshard::shard_map::KeyValue;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, Error};

use crate::shop::{Shop, seed};
use crate::support::rows;

const TENANTS: i64 = 6;
const CLIENTS: u64 = 6;
const ROUNDS: usize = 60;

/// Errors with which PostgreSQL, too, answers those who get in each other's way.
const IN_THE_WAY: [&str; 4] = ["23505", "40001", "40P01", "55P03"];

/// Adds one to some users' names; how often.
async fn add(client: &Client, random: &mut StdRng) -> Result<u64, Error> {
    let tenant = random.random_range(1..=TENANTS);
    let (id, other) = (random.random_range(1..=2), random.random_range(1..=TENANTS));
    let email = format!("e{}", random.random_range(1..=2 * TENANTS));
    let more = "name = users.name::int + 1";
    let row = format!("INSERT INTO users VALUES ({tenant}, {id}, '{email}', 'x', '1')");
    let sql = match random.random_range(0..9) {
        0 => format!("UPDATE users SET {more} WHERE tenant_id = {tenant} AND id = {id}"),
        1 => format!("UPDATE users SET {more} WHERE email = '{email}'"),
        2 => format!("UPDATE users SET {more}"),
        3 => format!("{row} ON CONFLICT (tenant_id, id) DO UPDATE SET {more}"),
        4 => format!("{row} ON CONFLICT (email) DO UPDATE SET {more}"),
        5 => format!("UPDATE users SET tenant_id = {other}, {more} WHERE email = '{email}'"),
        6 => format!(
            "MERGE INTO users USING (VALUES ({tenant}::bigint, {id}::bigint)) AS v (t, i) \
             ON users.tenant_id = v.t AND users.id = v.i WHEN MATCHED THEN UPDATE SET {more}"
        ),
        7 => format!(
            "UPDATE users SET {more} FROM users AS o WHERE o.id = users.id AND o.email = '{email}'"
        ),
        _ => return add_in_block(client, &email, other).await,
    };
    client.execute(&sql, &[]).await
}

/// The same by statements of one transaction: a row that was read and locked is changed, or goes and comes
/// back elsewhere.
async fn add_in_block(client: &Client, email: &str, tenant: i64) -> Result<u64, Error> {
    client.batch_execute("BEGIN").await?;
    let lock = format!("SELECT name::int FROM users WHERE email = '{email}' FOR UPDATE");
    let mut added = 0;
    if let Some(row) = client.query_opt(&lock, &[]).await? {
        let name = row.get::<_, i32>(0) + 1;
        let update = format!("UPDATE users SET name = '{name}' WHERE email = '{email}'");
        added += client.execute(&update, &[]).await?;
        let delete = format!("DELETE FROM users WHERE email = '{email}' RETURNING id");
        let id: i64 = client.query_one(&delete, &[]).await?.get(0);
        let back = format!("INSERT INTO users VALUES ({tenant}, {id}, '{email}', 'y', '{name}')");
        client.execute(&back, &[]).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(added)
}

/// The same; who gets in others' way has added nothing.
async fn add_or_roll_back(client: &Client, random: &mut StdRng) -> u64 {
    match add(client, random).await {
        Ok(added) => added,
        Err(error) => {
            let code = error.code().map_or("", |code| code.code()).to_owned();
            assert!(IN_THE_WAY.contains(&code.as_str()), "{error:?}");
            client.batch_execute("ROLLBACK").await.unwrap();
            0
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_has_happened_once() {
    let seed = seed();
    let shop = Shop::start().await;
    shop.run(&["INSERT INTO users SELECT t, i, 'e' || (t * 2 - 2 + i), 'x', '0' \
                FROM generate_series(1, 6) t, generate_series(1, 2) i"])
        .await;
    let tasks = Tasks::new();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let client = shop.proxy.client().await;
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
        let work = async move {
            let (mut done, mut all) = (0, 0);
            for _ in 0..ROUNDS {
                let added = add_or_roll_back(&client, &mut random).await;
                all += added;
                done += u32::from(added > 0);
            }
            (done, all)
        };
        clients.push(tasks.spawn("client", work));
    }
    let user = shop.shard_of(0, KeyValue::Int(1));
    let email = shop.shard_of(1, KeyValue::Text(b"e1".to_vec()));
    for shard in [user, email, user] {
        shop.move_shard(shard).await;
    }
    let mut said = 0;
    for client in clients {
        let (done, all) = client.await.unwrap();
        assert!(done > 5, "{done}");
        said += all;
    }
    assert_eq!(rows(&shop.client, "SELECT sum(name::int) FROM users").await, [said.to_string()]);
    shop.lookups_fit().await;
}
