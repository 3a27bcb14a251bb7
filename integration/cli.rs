//! The program as its user runs it: check, dev, serve, move, and what it says when something is wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use foreshard::backend::{NodeAddress, NodeTls};
use foreshard::local_nodes::free_ports;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{TestDatabase, connect, eventually, rows, temp_folder};

/// The program with its arguments, its output caught.
fn foreshard(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foreshard"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> (bool, String, String) {
    let Output { status, stdout, stderr } = foreshard(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

/// A program that runs; told to stop if the test fails.
struct Running(Child);

impl Running {
    fn start(args: &[&str]) -> Self {
        Self(foreshard(args).spawn().unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap())
    }

    /// Waits until it has ended; success, standard output, standard error.
    async fn ended(mut self) -> (bool, String, String) {
        let child = &mut self.0;
        let status = eventually("the program ends", Duration::from_mins(1), || {
            let status = child.try_wait().unwrap();
            async move { status }
        });
        let status = status.await;
        let (mut out, mut err) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (status.success(), out, err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            kill(self.pid(), Signal::SIGTERM).unwrap();
        }
    }
}

fn address(port: u16) -> NodeAddress {
    NodeAddress {
        name: "proxy".to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
        user: "postgres".to_owned(),
        password: None,
        tls: NodeTls::default(),
        fence: None,
    }
}

/// Waits until statements are served on `port`; its first answer.
async fn served(port: u16) -> Vec<String> {
    let address = address(port);
    let address = &address;
    eventually("the proxy serves", Duration::from_mins(1), || async move {
        let (client, connection) =
            address.service_config("postgres").connect(tokio_postgres::NoTls).await.ok()?;
        drop(foreshard::runtime::Tasks::new().spawn("client", connection));
        Some(rows(&client, "SELECT 1").await)
    })
    .await
}

/// A port with 32 free ones above it, so that tests keep out of each other's way.
fn ports(test: u16) -> u16 {
    let place = u16::try_from(std::process::id() % 50).unwrap() * 200;
    free_ports(31_000 - place - test * 40, 1)[0]
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path: PathBuf = folder.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn check_prints_all_faults_and_fails() {
    let folder = temp_folder("check");
    let bad = write(&folder, "bad.yaml", "shards: 3\ngroups:\n  g: {key: bigint, shards: 0}\n");
    let (ok, out, err) = run(&["check", "--policy", &bad]);
    assert!(!ok, "{out}");
    assert_eq!(err.lines().count(), 3, "{err}");
    assert!(err.contains("bad.yaml:3:28: groups.g.shards: must be from 1 to"), "{err}");
    let (ok, out, err) = run(&["check", "--config", "config/foreshard.example.yaml"]);
    assert!(ok, "{err}");
    assert_eq!(out, "config/foreshard.example.yaml: ok\n");
    assert!(!run(&["check"]).0, "nothing to check is an error");
}

#[test]
fn commands_without_a_proxy_say_so() {
    let nobody = format!("http://127.0.0.1:{}", ports(9));
    for args in [&["status", "--admin", &nobody][..], &["move", "1", "n2", "--admin", &nobody]] {
        let (ok, _, err) = run(args);
        assert!(!ok);
        assert!(err.contains(&format!("no proxy answers at {nobody}")), "{err}");
    }
    let (_, _, err) = run(&["status", "--admin", "localhost"]);
    assert!(err.contains("is not the URL of an admin API"), "{err}");
}

#[tokio::test]
async fn dev_serves_keeps_its_data_and_stops_cleanly() {
    let folder = temp_folder("dev");
    let data = folder.join("data").display().to_string();
    let port = ports(0);
    let text = port.to_string();
    let args = ["dev", "--nodes", "2", "--port", &text, "--data", &data];
    let dev = Running::start(&args);
    assert_eq!(served(port).await, ["1"]);
    let client = connect(&address(port), "postgres").await;
    client.batch_execute("CREATE TABLE kept AS SELECT 42 AS a").await.unwrap();
    drop(client);

    let (ok, _, err) = run(&["dev", "--port", &(port + 30).to_string(), "--data", &data]);
    assert!(!ok && err.contains("is in use by another foreshard"), "{err}");
    let (ok, _, err) =
        run(&["dev", "--port", &text, "--data", &folder.join("x").display().to_string()]);
    assert!(!ok && err.contains(&format!("port {port} of 127.0.0.1 is in use")), "{err}");
    let admin = format!("http://127.0.0.1:{}", port + 1);
    let (ok, out, err) = run(&["status", "--admin", &admin]);
    assert!(ok && out.contains("NODE") && out.contains("n2"), "{out}{err}");

    kill(dev.pid(), Signal::SIGINT).unwrap();
    let (ok, out, err) = dev.ended().await;
    assert!(ok, "{out}{err}");
    assert!(out.contains(&format!("psql -h 127.0.0.1 -p {port} -U postgres postgres")), "{out}");
    assert!(out.contains("node n2") && out.ends_with("stopped\n"), "{out}");

    // Again, and killed: the nodes that are left over are taken care of at the next start.
    let dev = Running::start(&args[..1].iter().chain(&args[3..]).copied().collect::<Vec<_>>());
    served(port).await;
    kill(dev.pid(), Signal::SIGKILL).unwrap();
    drop(dev.ended().await);
    let dev = Running::start(&args);
    served(port).await;
    let client = connect(&address(port), "postgres").await;
    assert_eq!(rows(&client, "TABLE kept").await, ["42"]);
    drop(client);
    let (ok, _, err) =
        run(&["dev", "--nodes", "1", "--port", &(port + 30).to_string(), "--data", &data]);
    assert!(!ok && err.contains("in use"), "{err}");
    kill(dev.pid(), Signal::SIGTERM).unwrap();
    assert!(dev.ended().await.0);
    let (ok, _, err) = run(&["dev", "--nodes", "1", "--port", &text, "--data", &data]);
    assert!(!ok && err.contains("has 2 nodes"), "{err}");
}

#[tokio::test]
async fn dev_follows_its_policy() {
    let folder = temp_folder("dev-policy");
    let (data, file) = (folder.join("data").display().to_string(), folder.join("mine.yaml"));
    let (port, policy) = (ports(5), file.display().to_string());
    let (text, admin) = (port.to_string(), format!("http://127.0.0.1:{}", port + 1));
    fs::write(&file, "database: shop\n").unwrap();
    let args = ["dev", "--port", &text, "--data", &data, "--policy", &policy];
    let dev = Running::start(&args);
    served(port).await;
    fs::write(&file, "database: shop\ngroups: { g: { kei: bigint } }\n").unwrap();
    let (ok, _, err) = run(&["reload", "--admin", &admin]);
    assert!(!ok && err.contains("mine.yaml:2:16"), "{err}");
    let groups = "groups: { g: { key: bigint, shards: 4, tables: { items: tenant } } }";
    fs::write(&file, format!("database: shop\n{groups}\n")).unwrap();
    let (ok, out, err) = run(&["reload", "--admin", &admin]);
    assert!(ok, "{out}{err}");
    let client = connect(&address(port), "shop").await;
    client.batch_execute("CREATE TABLE items (tenant bigint, name text)").await.unwrap();
    let plan = rows(&client, "EXPLAIN SELECT name FROM items WHERE tenant = 1").await;
    assert_eq!(plan[0], "Way: one node", "{plan:?}");
    drop(client);
    kill(dev.pid(), Signal::SIGTERM).unwrap();
    assert!(dev.ended().await.0);
    // The folder has it now.
    let kept = fs::read_to_string(folder.join("data/policy.yaml")).unwrap();
    assert!(kept.contains(groups), "{kept}");
}

#[tokio::test]
async fn dev_does_not_start_with_a_wrong_policy() {
    let folder = temp_folder("policy");
    let policy = write(&folder, "p.yaml", "home: n7\nplacement: {mode: maybe}\n");
    let data = folder.join("data").display().to_string();
    let port = ports(1).to_string();
    let (ok, _, err) = run(&["dev", "--port", &port, "--data", &data, "--policy", &policy]);
    assert!(!ok);
    assert!(err.contains("p.yaml:1:7: home: there is no node \"n7\""), "{err}");
    assert!(err.contains("p.yaml:2:19: placement.mode: "), "{err}");
}

#[tokio::test]
async fn serve_names_each_node_that_can_not_be_used() {
    let folder = temp_folder("serve-down");
    let database = TestDatabase::create(1).await;
    let (port, down) = (ports(2), ports(3));
    let good = database.nodes[0].port;
    let config = format!(
        "frontend: {{listen: '127.0.0.1:{port}'}}\n\
         admin_listen: 127.0.0.1:{}\n\
         data_folder: {}\n\
         authentication: trust\n\
         nodes:\n\
         - {{name: n1, host: 127.0.0.1, port: {down}}}\n\
         - {{name: n2, host: localhost, port: {down}}}\n\
         - {{name: n3, host: 127.0.0.1, port: {good}}}\n\
         policy: {{database: nowhere}}\n",
        port + 1,
        folder.join("data").display(),
    );
    let config = write(&folder, "serve.yaml", &config);
    let (ok, _, err) = run(&["serve", "--config", &config]);
    assert!(!ok);
    assert!(
        err.contains(&format!("node n1 (127.0.0.1:{down}): error connecting to server")),
        "{err}"
    );
    assert!(err.contains(&format!("node n2 (localhost:{down}): ")), "{err}");
    assert!(
        err.contains(&format!("node n3 (127.0.0.1:{good}): has no database \"nowhere\"")),
        "{err}"
    );
}

#[tokio::test]
async fn serve_runs_in_front_of_existing_nodes_and_takes_passwords() {
    let folder = temp_folder("serve");
    let database = TestDatabase::create(2).await;
    let port = ports(4);
    for node in 0..2 {
        let make = "DO $$ BEGIN CREATE ROLE app LOGIN PASSWORD 'secret'; \
                    EXCEPTION WHEN duplicate_object THEN NULL; END $$";
        database.client(node).await.batch_execute(make).await.unwrap();
    }
    let nodes = database
        .nodes
        .iter()
        .map(|node| format!("- {{name: {}, host: 127.0.0.1, port: {}}}", node.name, node.port));
    let nodes = nodes.collect::<Vec<_>>().join("\n");
    let config = format!(
        "frontend: {{listen: '127.0.0.1:{port}'}}\n\
         admin_listen: 127.0.0.1:{}\n\
         data_folder: {}\n\
         users: {{app: {{password: secret}}}}\n\
         nodes:\n{nodes}\n\
         policy: {{database: {}}}\n",
        port + 1,
        folder.join("data").display(),
        database.name,
    );
    let config = write(&folder, "serve.yaml", &config);
    let serve = Running::start(&["serve", "--config", &config]);
    let login = |password: &'static str| {
        let mut config = address(port).service_config(&database.name);
        config.user("app").password(password);
        async move { config.connect(tokio_postgres::NoTls).await }
    };
    let (client, connection) = eventually("serve is ready", Duration::from_secs(30), || async {
        login("secret").await.ok()
    })
    .await;
    drop(foreshard::runtime::Tasks::new().spawn("client", connection));
    assert_eq!(rows(&client, "SELECT current_user").await, ["app"]);
    drop(client);
    let refused = login("wrong").await.map(drop).unwrap_err();
    assert_eq!(refused.code().map(tokio_postgres::error::SqlState::code), Some("28P01"));
    kill(serve.pid(), Signal::SIGTERM).unwrap();
    let (ok, out, err) = serve.ended().await;
    assert!(ok, "{out}{err}");
}

#[test]
fn a_recorded_load_is_evaluated_with_a_plot() {
    let folder = temp_folder("forecast");
    let (load, page) = (folder.join("load.csv"), folder.join("load.html"));
    let mut csv = "time,statements\n".to_owned();
    for hour in 0..300u32 {
        let of_day = f64::from(hour % 24);
        let value = 100.0 + 40.0 * (of_day / 3.8).sin() + f64::from(hour * 7 % 13);
        csv.push_str(&format!("{},{value:.2}\n", 1_700_000_000 + 3600 * u64::from(hour)));
    }
    fs::write(&load, csv).unwrap();
    let (load, page) = (load.to_str().unwrap(), page.to_str().unwrap());
    let (ok, out, err) =
        run(&["forecast", "--from", load, "--horizon", "12", "--out", page, "--models", "arima"]);
    assert!(ok, "{err}");
    assert!(out.starts_with("300 steps of 3600 s; 20 origins, 12 steps ahead"), "{out}");
    let line = out.lines().find(|line| line.starts_with("last value")).unwrap();
    let far: f64 = line.split_whitespace().last().unwrap().parse().unwrap();
    assert!(far > 1.5, "the last value is worse than a day ago: {out}");
    let html = fs::read_to_string(page).unwrap();
    assert!(html.contains("<svg") && html.contains("<polygon") && html.contains("arima"));

    let (ok, _, err) = run(&["forecast", "--from", load, "--models", "oracle"]);
    assert!(!ok && err.contains("arima, lags, lstm, mstl_ets, prophet"), "{err}");
    let (ok, _, err) = run(&["forecast", "--from", "/nowhere.csv"]);
    assert!(!ok && err.contains("/nowhere.csv"), "{err}");
}
