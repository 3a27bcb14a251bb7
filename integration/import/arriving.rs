//! Plain tables join a group that is sharded already, while clients write them and the others.

use std::collections::BTreeMap;
use std::time::Duration;

use foreshard::runtime::Tasks;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;

use super::process_support::{Deployment, TENANTS, Writers, Written, connect, said};
use super::support::rows;
use super::{described, import, job_ended, one};

/// What is sharded before, and a plain table with rows, both made through the proxy.
const NOTES: &str = "
    CREATE TABLE NAME (tenant_id bigint NOT NULL, writer int NOT NULL, n bigint NOT NULL,
        v bigint NOT NULL DEFAULT 0 CHECK (v >= 0), id bigserial, place bigint GENERATED ALWAYS AS IDENTITY,
        body text DEFAULT 'a note', twice bigint GENERATED ALWAYS AS (n * 2) STORED,
        PRIMARY KEY (tenant_id, writer, n));
    CREATE INDEX NAME_late ON NAME (n) WHERE n > 10;
    CREATE FUNCTION NAME_stamp() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.body := NEW.body || ', stamped'; RETURN NEW; END $$;
    CREATE TRIGGER stamp BEFORE INSERT ON NAME FOR EACH ROW EXECUTE FUNCTION NAME_stamp();
    CREATE TABLE tags_NAME (tenant_id bigint, writer int, n bigint, tag text,
        FOREIGN KEY (tenant_id, writer, n) REFERENCES NAME (tenant_id, writer, n) ON DELETE CASCADE);
    CREATE VIEW sums_NAME AS SELECT tenant_id, count(*) AS notes FROM NAME GROUP BY tenant_id;
    COMMENT ON TABLE NAME IS 'what was noted';
    GRANT SELECT ON NAME TO PUBLIC;
    INSERT INTO NAME (tenant_id, writer, n, body)
        SELECT g % 160 + 1, -1, g, repeat(md5(g::text), g % 100) FROM generate_series(1, 2000) g;
    INSERT INTO tags_NAME SELECT tenant_id, writer, n, 'tag' FROM NAME WHERE n % 2 = 0;";

/// Writes the configuration: these tables are in the group, too.
fn configure(deployment: &Deployment, names: &[&str]) {
    deployment.configure("authentication: trust\n");
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let more: String = names
        .iter()
        .flat_map(|name| [", ", name, ": tenant_id, tags_", name, ": tenant_id"])
        .collect();
    let tables = "entries: tenant_id";
    std::fs::write(&deployment.config, text.replace(tables, &format!("{tables}{more}"))).unwrap();
}

async fn make(client: &Client, name: &str) {
    let sql = NOTES.replace("NAME", name);
    client.batch_execute(&sql).await.unwrap();
}

/// Clients that each note something, and count up what they noted before, in one transaction.
struct Noters {
    stop: CancellationToken,
    handles: Vec<JoinHandle<Noter>>,
}

struct Noter {
    id: i32,
    /// The last that was acknowledged, and the last whose COMMIT was sent.
    known: Vec<(i64, bool)>,
    longest: Duration,
}

fn tenant_of(id: i32, n: i64) -> i64 {
    (n * 7 + i64::from(id) * 31) % TENANTS + 1
}

impl Noters {
    fn start(deployment: &Deployment, name: &'static str, ids: std::ops::Range<i32>) -> Self {
        let stop = CancellationToken::new();
        let noter = |id| {
            let (driver, stop) = (deployment.driver(), stop.clone());
            let noter = Noter { id, known: Vec::new(), longest: Duration::ZERO };
            Tasks::new().spawn("noter", noter.run(driver, name, stop))
        };
        Self { handles: ids.map(noter).collect(), stop }
    }

    async fn stop(self) -> Vec<Noter> {
        self.stop.cancel();
        let mut all = Vec::new();
        for handle in self.handles {
            all.push(handle.await.unwrap());
        }
        all
    }
}

impl Noter {
    async fn run(
        mut self,
        driver: tokio_postgres::Config,
        name: &str,
        stop: CancellationToken,
    ) -> Self {
        while !stop.is_cancelled() {
            let Ok(client) = connect(&driver).await else {
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            if let Err(error) = self.note(&client, name, &stop).await {
                let code = error.code().map(tokio_postgres::error::SqlState::code);
                assert!(matches!(code, None | Some("57P01")), "{error:?}");
            }
        }
        self
    }

    async fn note(
        &mut self,
        client: &Client,
        name: &str,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        while !stop.is_cancelled() {
            let n = i64::try_from(self.known.len()).unwrap() + 1;
            let (id, began) = (self.id, Instant::now());
            self.known.push((n, false));
            let insert = format!(
                "INSERT INTO {name} (tenant_id, writer, n) VALUES ({}, {id}, {n})",
                tenant_of(id, n)
            );
            // The one before that was acknowledged; of others it is not known whether they are there.
            let before = self.known.iter().rev().find(|(_, acknowledged)| *acknowledged);
            let count = before.map(|(n, _)| {
                let tenant = tenant_of(id, *n);
                format!(
                    "UPDATE {name} SET v = v + 1 \
                     WHERE tenant_id = {tenant} AND writer = {id} AND n = {n}"
                )
            });
            client.batch_execute("BEGIN").await?;
            client.batch_execute(&insert).await?;
            if let Some(count) = count {
                client.batch_execute(&count).await?;
            }
            client.batch_execute("COMMIT").await?;
            self.known.last_mut().unwrap().1 = true;
            self.longest = self.longest.max(began.elapsed());
            sleep(Duration::from_millis(3)).await;
        }
        Ok(())
    }

    /// Each note that was acknowledged is there once and was counted up by those that came after it
    /// and are there.
    fn assert_found(&self, found: &BTreeMap<(i32, i64), Vec<i64>>) {
        let mut last = None;
        let mut expected: BTreeMap<i64, i64> = BTreeMap::new();
        for (n, acknowledged) in &self.known {
            let there = found.get(&(self.id, *n));
            assert!(there.is_none_or(|it| it.len() == 1), "{} {n} is there twice", self.id);
            assert!(there.is_some() || !acknowledged, "{} {n} is lost", self.id);
            if there.is_some() {
                expected.insert(*n, 0);
                if let Some(before) = last {
                    *expected.get_mut(&before).unwrap() += 1;
                }
            }
            if *acknowledged {
                last = Some(*n);
            }
        }
        let of_this = found.iter().filter(|((id, _), _)| *id == self.id);
        let values: BTreeMap<i64, i64> = of_this.map(|((_, n), v)| (*n, v[0])).collect();
        assert_eq!(values, expected, "writer {}", self.id);
    }
}

/// The notes of all nodes, from the nodes themselves.
async fn notes(deployment: &Deployment, name: &str) -> BTreeMap<(i32, i64), Vec<i64>> {
    let mut found: BTreeMap<_, Vec<i64>> = BTreeMap::new();
    for node in 0..deployment.database.nodes.len() {
        let client = deployment.database.client(node).await;
        let sql = format!("SELECT writer, n, v FROM {name}");
        for row in client.query(&sql, &[]).await.unwrap() {
            found.entry((row.get(0), row.get(1))).or_default().push(row.get(2));
        }
    }
    found
}

/// The tables lie beside those of the group on each node, with all their rows, and nothing is left.
async fn assert_joined(deployment: &Deployment, name: &str, noters: &[Noter]) {
    let found = notes(deployment, name).await;
    noters.iter().for_each(|noter| noter.assert_found(&found));
    assert_eq!(found.keys().filter(|(writer, _)| *writer == -1).count(), 2_000);
    let left = "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database() \
         UNION ALL SELECT pubname::text FROM pg_publication \
         UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^foreshard_(import|reshard)' \
         UNION ALL SELECT gid FROM pg_prepared_xacts WHERE database = current_database() \
         UNION ALL SELECT conname::text FROM pg_constraint WHERE conname ~ '^foreshard_'";
    let (mut tags, mut leaves) = (0, 0);
    for node in 0..deployment.database.nodes.len() {
        let client = deployment.database.client(node).await;
        assert_eq!(rows(&client, left).await, [] as [&str; 0], "node {node}");
        let of = async |table: &str| {
            let sql = format!(
                "SELECT replace(inhrelid::regclass::text, '{table}_s', '') FROM pg_inherits \
                 WHERE inhparent = '{table}'::regclass ORDER BY 1"
            );
            rows(&client, &sql).await
        };
        let accounts = of("accounts").await;
        assert_eq!(of(name).await, accounts, "node {node}");
        assert_eq!(of(&format!("tags_{name}")).await, accounts, "node {node}");
        leaves += accounts.len();
        let keys = format!(
            "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated \
             AND conrelid::regclass::text = replace(confrelid::regclass::text, '{name}_s', 'tags_{name}_s')"
        );
        assert_eq!(one(&client, &keys).await, accounts.len().to_string());
        let sql = format!("SELECT count(*) FROM tags_{name}");
        tags += one(&client, &sql).await.parse::<i64>().unwrap();
    }
    assert_eq!((tags, leaves), (1_000, 8));
    let verified = deployment.run(&["verify"]).await;
    assert!(verified.status.success(), "{}", said(&verified));
    let groups = deployment.admin("/api/v1/imports").await;
    assert_eq!(groups["groups"][0]["sharded"], true, "{groups}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_tables_join_a_sharded_group_under_writers() {
    let deployment = Deployment::new(2).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    let client = deployment.client().await;
    make(&client, "notes").await;
    let before = described(&deployment, "notes").await;
    configure(&deployment, &["notes"]);
    let reloaded = deployment.run(&["reload"]).await;
    assert!(reloaded.status.success(), "{}", said(&reloaded));
    // Until it is asked for they stay what they are.
    assert_eq!(one(&client, "SELECT count(*) FROM notes").await, "2000");
    let groups = deployment.admin("/api/v1/imports").await;
    assert_eq!(groups["groups"][0]["sharded"], false, "{groups}");
    let checked = import(&deployment, &["--check"]).await;
    assert!(checked.contains("then their rows go to the 8 shards of group shop"), "{checked}");
    assert_eq!(described(&deployment, "notes").await, before);

    let (writers, noters) =
        (Writers::start(&deployment, 0..2), Noters::start(&deployment, "notes", 0..3));
    sleep(Duration::from_millis(300)).await;
    // Whoever began to look before does not see rows that are not there for him.
    let old = deployment.client().await;
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    assert_eq!(one(&old, "SELECT count(*) FROM accounts").await, TENANTS.to_string());
    let told = import(&deployment, &[]).await;
    println!("{told}");
    assert!(told.contains("the tables are in group shop; statements waited"), "{told}");
    let error = old.batch_execute("SELECT count(*) FROM notes WHERE tenant_id = 7").await;
    assert_eq!(error.unwrap_err().code().unwrap().code(), "40001");
    let (noters, written) = (noters.stop().await, writers.stop().await);
    assert!(written.unknown.is_empty(), "a client was cut off");
    for noter in &noters {
        let unknown = noter.known.iter().filter(|(_, acknowledged)| !acknowledged);
        assert_eq!(unknown.count(), 0, "a client was cut off");
        println!("{} notes, the longest took {:?}", noter.known.len(), noter.longest);
    }
    assert!(noters.iter().map(|noter| noter.known.len()).sum::<usize>() > 100);
    assert_joined(&deployment, "notes", &noters).await;
    assert_eq!(described(&deployment, "notes").await, before, "psql sees the same table");
    everything_stands(&deployment, &client).await;
    drop((client, old));
    serving.stop(&deployment).await;
    // The map fits the policy.
    let serving = deployment.serve().await;
    let client = deployment.client().await;
    assert_ne!(one(&client, "SELECT count(*) FROM notes").await, "0");
    let again = import(&deployment, &[]).await;
    assert!(again.contains("spread over its nodes"), "{again}");
    serving.stop(&deployment).await;
}

/// Views, numbers, keys and triggers do what they did, and rows of equal keys lie together.
async fn everything_stands(deployment: &Deployment, client: &Client) {
    let count = one(client, "SELECT count(*) FROM notes").await;
    assert_eq!(one(client, "SELECT sum(notes) FROM sums_notes").await, count);
    assert_eq!(one(client, "SELECT count(DISTINCT id) FROM notes").await, count);
    assert_eq!(one(client, "SELECT count(DISTINCT place) FROM notes").await, count);
    assert_eq!(one(client, "SELECT count(*) FROM notes WHERE body !~ 'stamped'").await, "0");
    let joined = "SELECT count(*) FROM notes JOIN accounts USING (tenant_id)";
    assert_eq!(one(client, joined).await, count);
    let plan = one(client, &format!("EXPLAIN {joined}")).await;
    assert!(!plan.contains("pull") && plan.contains("from n1, n2"), "{plan}");
    let code = async |sql: &str| {
        let error = client.batch_execute(sql).await.unwrap_err();
        error.code().unwrap().code().to_owned()
    };
    assert_eq!(code("INSERT INTO tags_notes VALUES (7, 9, 9, 'none')").await, "23503");
    assert_eq!(
        code("INSERT INTO notes (tenant_id, writer, n, v) VALUES (1, 9, 9, -1)").await,
        "23514"
    );
    let sql = "ALTER TABLE notes ADD FOREIGN KEY (tenant_id) REFERENCES accounts (tenant_id)";
    client.batch_execute(sql).await.unwrap();
    assert_eq!(code("INSERT INTO notes (tenant_id, writer, n) VALUES (999, 9, 9)").await, "23503");
    let verified = deployment.run(&["verify"]).await;
    assert!(verified.status.success(), "{}", said(&verified));
}

/// Where a process dies, of the two halves: the tables become sharded, and their rows go to the shards.
const FAILPOINTS: [(&str, &str); 10] = [
    ("import_decided", "a"),
    ("import_committed", "b"),
    ("import_settled", "c"),
    ("reshard_made", "d"),
    ("reshard_copied", "e"),
    ("reshard_prepared", "f"),
    ("reshard_decided", "g"),
    ("reshard_committed", "h"),
    ("reshard_switched", "i"),
    ("reshard_cleaned", "j"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_tables_join_a_group_loses_and_doubles_nothing() {
    let deployment = Deployment::new(2).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    serving.stop(&deployment).await;
    let mut names = Vec::new();
    for (failpoint, name) in FAILPOINTS {
        names.push(name);
        let serving = deployment.serve().await;
        make(&deployment.client().await, name).await;
        serving.stop(&deployment).await;
        configure(&deployment, &names);
        let serving = deployment.serve_until(failpoint).await;
        let noters = Noters::start(&deployment, name, 0..3);
        let asking = deployment.clone();
        let asked = Tasks::new()
            .spawn("import", async move { asking.run(&["import", "shop", "--no-split"]).await });
        serving.died(&deployment).await;
        assert!(!asked.await.unwrap().status.success(), "{failpoint}");
        let serving = deployment.serve().await;
        let job = job_ended(&deployment).await;
        assert_eq!(job["state"], "done", "{failpoint}: {job:#}\n{}", deployment.log_tail());
        let noters = noters.stop().await;
        assert_joined(&deployment, name, &noters).await;
        let acknowledged = noters.iter().flat_map(|noter| &noter.known).filter(|it| it.1);
        println!("{failpoint}: {} acknowledged", acknowledged.count());
        serving.stop(&deployment).await;
    }
}

/// What keeps a table from joining, what is said of it, and how it is mended.
const REFUSED: [(&str, &str, &str); 6] = [
    (
        "ALTER TABLE notes DROP CONSTRAINT notes_pkey CASCADE, ADD PRIMARY KEY (id)",
        "lacks the shard key",
        "ALTER TABLE notes DROP CONSTRAINT notes_pkey, ADD PRIMARY KEY (tenant_id, writer, n)",
    ),
    (
        "ALTER TABLE notes ENABLE ALWAYS TRIGGER stamp",
        "fires for replicated rows",
        "ALTER TABLE notes ENABLE TRIGGER stamp",
    ),
    (
        "CREATE TABLE notes_s2 (id int)",
        "has a table \"public\".\"notes_s2\" already",
        "DROP TABLE notes_s2",
    ),
    (
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM notes",
        "depends on public.notes itself",
        "DROP MATERIALIZED VIEW m",
    ),
    (
        "ALTER TABLE tags_notes ADD CONSTRAINT odd FOREIGN KEY (tenant_id) REFERENCES accounts NOT VALID",
        "drop the key, and add it again afterwards",
        "ALTER TABLE tags_notes DROP CONSTRAINT odd",
    ),
    (
        "ALTER TABLE notes ALTER tenant_id TYPE int",
        "is of type integer, the policy says",
        "ALTER TABLE notes ALTER tenant_id TYPE bigint",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_join_is_refused_before_any_work() {
    let deployment = Deployment::new(2).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    let client = deployment.client().await;
    make(&client, "notes").await;
    let home = deployment.database.client(0).await;
    home.batch_execute("DROP VIEW sums_notes").await.unwrap();
    configure(&deployment, &["notes"]);
    let reloaded = deployment.run(&["reload"]).await;
    assert!(reloaded.status.success(), "{}", said(&reloaded));
    for (spoil, expected, mend) in REFUSED {
        home.batch_execute(spoil).await.unwrap_or_else(|error| panic!("{spoil}: {error:?}"));
        for args in [&["import", "shop", "--check"][..], &["import", "shop"]] {
            let output = deployment.run(args).await;
            let said = said(&output);
            assert!(!output.status.success() && said.contains(expected), "{spoil}: {said}");
        }
        home.batch_execute(mend).await.unwrap_or_else(|error| panic!("{mend}: {error:?}"));
    }
    let kind = "SELECT relkind FROM pg_class WHERE oid = 'notes'::regclass";
    assert_eq!(one(&home, kind).await, "r");
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^foreshard_(import|reshard)'";
    assert_eq!(one(&home, left).await, "0");
    client.batch_execute("UPDATE notes SET v = 1 WHERE n = 3").await.unwrap();
    // Refused, it is no obstacle to anything else.
    let written: Written = Writers::start(&deployment, 0..1).stop().await;
    assert!(written.unknown.is_empty());
    import(&deployment, &["--check"]).await;
    drop(client);
    serving.stop(&deployment).await;
}
