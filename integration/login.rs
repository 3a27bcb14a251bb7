//! Who is let in: by passwords that the home node has stored, by certificates, by rules; and how the
//! proxy itself logs in at the nodes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod login_support;
mod support;

use std::path::Path;
use std::time::Duration;

use foreshard::backend::{Credential, Password, TlsFiles, TlsMode};
use foreshard::frontend::{ConnectionKind, Method, Names, Rule};
use login_support::{Authority, Guarded, SERVICE, by, log_in, server_tls};
use support::{TestDatabase, TestProxy, eventually, rows, shared_nodes};

const SCRAM_ONLY: &str = "local all all scram-sha-256\nhost all all all scram-sha-256\n";

/// Runs `sql` by psql with this connection string; what it printed, or its complaint.
async fn psql(connection: &str, password: &str, sql: &str) -> Result<String, String> {
    let output = tokio::process::Command::new("psql")
        .args(["-X", "-A", "-t", "-w", "-c", sql, connection])
        .env("PGPASSWORD", password)
        .env("PGCONNECT_TIMEOUT", "20")
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test]
async fn roles_of_the_home_node_log_in_with_their_stored_passwords_and_no_other() {
    let guarded = Guarded::start(1, SCRAM_ONLY).await;
    guarded
        .everywhere(
            "CREATE ROLE app LOGIN PASSWORD 'right'; CREATE ROLE idle NOLOGIN PASSWORD 'right';
             CREATE ROLE late LOGIN PASSWORD 'right' VALID UNTIL '2001-01-01';
             CREATE ROLE bare LOGIN",
        )
        .await;
    let proxy = guarded.proxy(by(Method::ScramSha256)).await;
    let client = log_in(&proxy, "app", "right").await.unwrap();
    assert_eq!(rows(&client, "SELECT current_user, session_user").await, ["app|app"]);
    for (user, password) in
        [("app", "wrong"), ("late", "right"), ("bare", ""), ("nobody", "right"), ("it's", "x")]
    {
        let error = log_in(&proxy, user, password).await.map(drop).unwrap_err();
        let expected = format!("password authentication failed for user \"{user}\"");
        let asked = password.is_empty() && error.contains("password missing");
        assert!(asked || error.contains("28P01") && error.contains(&expected), "{error}");
    }
    let error = log_in(&proxy, "idle", "right").await.map(drop).unwrap_err();
    assert!(error.contains("28000") && error.contains("is not permitted to log in"), "{error}");

    // A new password, set through the proxy by its owner, holds from then on.
    client.batch_execute("ALTER ROLE app PASSWORD 'newer'").await.unwrap();
    assert!(log_in(&proxy, "app", "right").await.is_err());
    let again = log_in(&proxy, "app", "newer").await.unwrap();
    for client in [&client, &again] {
        assert_eq!(rows(client, "SELECT current_user").await, ["app"]);
    }
}

#[tokio::test]
async fn md5_passwords_work_for_roles_that_still_have_them() {
    let guarded = Guarded::start(1, "host all all all md5\n").await;
    let role = "SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'right'";
    guarded.everywhere(role).await;
    let mut admission = by(Method::Md5);
    admission.users.insert("given".to_owned(), Password::new("given-secret"));
    guarded.everywhere("CREATE ROLE given LOGIN PASSWORD 'given-secret'").await;
    let proxy = guarded.proxy(admission).await;
    let client = log_in(&proxy, "old", "right").await.unwrap();
    assert_eq!(rows(&client, "SELECT current_user").await, ["old"]);
    let client = log_in(&proxy, "given", "given-secret").await.unwrap();
    assert_eq!(rows(&client, "SELECT current_user").await, ["given"]);
    let client = log_in(&proxy, "postgres", SERVICE).await.unwrap();
    assert_eq!(rows(&client, "SELECT current_user").await, ["postgres"], "by SCRAM");
    for (user, password) in [("old", "wrong"), ("given", "wrong"), ("nobody", "right")] {
        let error = log_in(&proxy, user, password).await.map(drop).unwrap_err();
        assert!(error.contains("28P01"), "{error}");
    }
}

#[tokio::test]
async fn a_login_is_bound_to_its_tls_connection_where_the_client_can() {
    let authority = Authority::new();
    let guarded = Guarded::start(1, SCRAM_ONLY).await;
    guarded.everywhere("CREATE ROLE app LOGIN PASSWORD 'right'").await;
    let mut admission = by(Method::ScramSha256);
    admission.tls = Some(server_tls(&authority, Vec::new()));
    let proxy = guarded.proxy(admission).await;
    let (port, ca) = (proxy.proxy.address.port(), authority.path("ca.crt"));
    let place = format!("host=localhost port={port} user=app dbname=postgres");
    let verified = format!("{place} sslmode=verify-full sslrootcert={}", ca.display());
    let bound = format!("{verified} channel_binding=require");
    assert_eq!(psql(&bound, "right", "SELECT current_user").await, Ok("app".to_owned()));
    let error = psql(&bound, "wrong", "SELECT 1").await.unwrap_err();
    assert!(error.contains("password authentication failed"), "{error}");
    let unbound = format!("{verified} channel_binding=disable");
    assert_eq!(psql(&unbound, "right", "SELECT 1").await, Ok("1".to_owned()));
    let plain = format!("{place} sslmode=disable");
    assert_eq!(psql(&plain, "right", "SELECT 1").await, Ok("1".to_owned()));
    let error =
        psql(&format!("{plain} channel_binding=require"), "right", "SELECT 1").await.unwrap_err();
    assert!(error.contains("channel binding required"), "{error}");
    // A large result, a COPY and a cancel pass under TLS as well.
    let wide = "SELECT count(*), max(length(x)) FROM (SELECT repeat('x', 100000) x \
                FROM generate_series(1, 100)) t";
    assert_eq!(psql(&verified, "right", wide).await, Ok("100|100000".to_owned()));
    let many =
        psql(&verified, "right", "SELECT repeat('y', 1000) FROM generate_series(1, 5000)").await;
    assert_eq!(many.unwrap().lines().count(), 5000);
}

#[tokio::test]
async fn a_client_certificate_lets_in_whom_it_names() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("postgres", &[]);
    let database = TestDatabase::create(1).await;
    let mut admission = by(Method::Cert);
    admission.rules.retain(|rule| rule.kind == ConnectionKind::Host);
    admission.rules[0].kind = ConnectionKind::HostSsl;
    admission.tls = Some(server_tls(&authority, Vec::new()));
    let proxy = TestProxy::start_admitting(&database, "", admission).await;
    let port = proxy.proxy.address.port();
    let place = format!("host=localhost port={port} dbname={} sslmode=require", database.name);
    let with = |user: &str, certificate: &Path, key: &Path| {
        let (certificate, key) = (certificate.display(), key.display());
        let shown = format!("{place} user={user} sslcert={certificate} sslkey={key}");
        async move { psql(&shown, "", "SELECT current_user").await }
    };
    assert_eq!(with("postgres", &certificate, &key).await, Ok("postgres".to_owned()));
    let error = with("somebody", &certificate, &key).await.unwrap_err();
    assert!(error.contains("certificate authentication failed for user \"somebody\""), "{error}");
    let error =
        psql(&format!("{place} user=postgres sslcert=none"), "", "SELECT 1").await.unwrap_err();
    assert!(error.contains("connection requires a valid client certificate"), "{error}");
    let stranger = Authority::new();
    let (certificate, key) = stranger.sign("postgres", &[]);
    assert!(with("postgres", &certificate, &key).await.is_err(), "another authority's");
    let plain = format!("host=localhost port={port} user=postgres sslmode=disable");
    let error = psql(&plain, "", "SELECT 1").await.unwrap_err();
    assert!(error.contains("no authentication rule of the proxy"), "{error}");
    assert!(error.contains("no encryption"), "{error}");
}

#[tokio::test]
async fn a_revoked_certificate_lets_nobody_in_and_no_node_be_believed() {
    let authority = Authority::new();
    let database = TestDatabase::create(1).await;
    let (certificate, key) = authority.sign("postgres", &[]);
    for (revoked, until_year, expected) in [
        (vec!["somebody"], 2999, None),
        (vec!["somebody", "postgres"], 2999, Some("revoked")),
        // A list that is out of date says nothing of who was revoked since.
        (vec!["somebody"], 2022, Some("unknown ca")),
    ] {
        let mut admission = by(Method::Cert);
        admission.rules.retain(|rule| rule.kind == ConnectionKind::Host);
        admission.rules[0].kind = ConnectionKind::HostSsl;
        admission.tls = Some(server_tls(&authority, authority.revoke(&revoked, until_year)));
        let proxy = TestProxy::start_admitting(&database, "", admission).await;
        let (port, name) = (proxy.proxy.address.port(), &database.name);
        let place = format!("host=localhost port={port} dbname={name} sslmode=require");
        let (certificate, key) = (certificate.display(), key.display());
        let shown = format!("{place} user=postgres sslcert={certificate} sslkey={key}");
        let answer = psql(&shown, "", "SELECT current_user").await;
        match expected {
            None => assert_eq!(answer, Ok("postgres".to_owned())),
            Some(expected) => {
                let error = answer.unwrap_err();
                assert!(error.contains(expected), "{error}");
            }
        }
    }

    let guarded = Guarded::start(1, "local all all trust\nhost all all all trust\n").await;
    guarded.with_certificates(&authority).await;
    for (revoked, is_believed) in [("somebody", true), ("node", false)] {
        let files = TlsFiles {
            authorities: authority.read("ca.crt"),
            revoked: authority.revoke(&[revoked], 2999),
            ..TlsFiles::default()
        };
        let node = &guarded.over(TlsMode::VerifyCa, "localhost", files)[0];
        let connected = node.service_config("postgres").connect(node.tls.clone()).await;
        assert_eq!(connected.is_ok(), is_believed, "{revoked}");
    }
}

#[tokio::test]
async fn members_of_a_role_are_let_in_and_others_are_not() {
    let guarded = Guarded::start(1, SCRAM_ONLY).await;
    guarded
        .everywhere(
            "CREATE ROLE staff; CREATE ROLE leads IN ROLE staff;
             CREATE ROLE ann LOGIN PASSWORD 'right' IN ROLE leads;
             CREATE ROLE bob LOGIN PASSWORD 'right'",
        )
        .await;
    guarded.everywhere("CREATE DATABASE leads").await;
    let mut admission = by(Method::ScramSha256);
    for rule in &mut admission.rules {
        rule.users = vec![Names::Members("staff".to_owned())];
    }
    let proxy = guarded.proxy(admission.clone()).await;
    let client = log_in(&proxy, "ann", "right").await.unwrap();
    assert_eq!(rows(&client, "SELECT current_user").await, ["ann"]);
    // A superuser is a member of what it was made a member of.
    for user in ["bob", "nobody", "postgres"] {
        let error = log_in(&proxy, user, "right").await.map(drop).unwrap_err();
        assert!(error.contains("no authentication rule of the proxy"), "{user}: {error}");
    }
    guarded.everywhere("REVOKE leads FROM ann; GRANT staff TO bob").await;
    log_in(&proxy, "bob", "right").await.unwrap();
    let error = log_in(&proxy, "ann", "right").await.map(drop).unwrap_err();
    assert!(error.contains("no authentication rule of the proxy"), "{error}");
    proxy.proxy.stop().await;

    guarded.everywhere("GRANT leads TO ann").await;
    for rule in &mut admission.rules {
        (rule.users, rule.databases) = (vec![Names::All], vec![Names::SameRole]);
    }
    let proxy = guarded.proxy(admission).await;
    let at = |user, database| {
        let mut config = proxy.config();
        config.user(user).password("right").dbname(database);
        async move { config.connect(tokio_postgres::NoTls).await.is_ok() }
    };
    assert!(at("ann", "leads").await && !at("ann", "postgres").await);
    assert!(!at("bob", "leads").await);
}

#[tokio::test]
async fn connections_to_the_nodes_are_protected_as_far_as_their_mode_says() {
    let authority = Authority::new();
    let guarded = Guarded::start(2, "local all all trust\nhost all all all scram-sha-256\n").await;
    guarded.with_certificates(&authority).await;
    let hba = "hostssl all all all scram-sha-256\nhostnossl all all all reject\n";
    guarded.ask_for_tls(hba).await;
    let cases = [
        (TlsMode::Prefer, "127.0.0.1", Vec::new()),
        (TlsMode::Require, "127.0.0.1", Vec::new()),
        (TlsMode::VerifyCa, "127.0.0.1", authority.read("ca.crt")),
        (TlsMode::VerifyFull, "localhost", authority.read("ca.crt")),
    ];
    for (mode, host, ca) in cases {
        let nodes = guarded.over_tls(mode, host, ca);
        let database = TestDatabase { name: "postgres".to_owned(), nodes };
        let policy = "groups: {g: {key: bigint, shards: 4, tables: {t: id}}}";
        let proxy = TestProxy::start_admitting(&database, policy, by(Method::ScramSha256)).await;
        // Each node has another salt: what the home node's keys open is the home node.
        let client = log_in(&proxy, "postgres", SERVICE).await.unwrap();
        let secured = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert_eq!(rows(&client, secured).await, ["t|TLSv1.3"], "{mode:?}");
        proxy.proxy.stop().await;
    }
    let bad = [
        (TlsMode::VerifyFull, "127.0.0.1", authority.read("ca.crt"), "certificate not valid for"),
        (
            TlsMode::VerifyCa,
            "localhost",
            Authority::new().read("ca.crt"),
            "invalid peer certificate",
        ),
        (TlsMode::Disable, "localhost", Vec::new(), "no encryption"),
    ];
    for (mode, host, ca, expected) in bad {
        let node = &guarded.over_tls(mode, host, ca)[0];
        let connecting = node.service_config("postgres").connect(node.tls.clone()).await;
        let error = login_support::story(&connecting.map(drop).unwrap_err());
        assert!(error.contains(expected), "{mode:?} {host}: {error}");
        let login = foreshard::backend::Login {
            user: "postgres".to_owned(),
            database: "postgres".to_owned(),
            credential: Credential::Password(Password::new(SERVICE)),
        };
        let opened = foreshard::backend::Connection::open(
            foreshard::ids::NodeId(0),
            node,
            &login,
            Duration::from_secs(10),
        );
        assert!(opened.await.is_err(), "{mode:?} {host}");
    }
}

#[tokio::test]
async fn unix_sockets_serve_on_both_sides() {
    let database = TestDatabase::create(1).await;
    let by_socket = shared_nodes(1).await[0].socket_address().unwrap();
    let database = TestDatabase { nodes: vec![by_socket], ..database };
    let folder = support::temp_folder("socket");
    let mut admission = by(Method::Trust);
    admission.limits.unix_socket_folder = Some(folder.clone());
    admission.rules = vec![Rule { kind: ConnectionKind::Local, ..admission.rules[0].clone() }];
    let proxy = TestProxy::start_admitting(&database, "", admission.clone()).await;
    let port = proxy.proxy.address.port();
    let place = format!("port={port} user=postgres dbname={}", database.name);
    let socket = format!("host={} {place}", folder.display());
    let node = "SELECT inet_server_addr() IS NULL";
    assert_eq!(psql(&socket, "", node).await, Ok("t".to_owned()));
    let error = psql(&format!("host=127.0.0.1 {place}"), "", "SELECT 1").await.unwrap_err();
    assert!(
        error.contains("no authentication rule of the proxy for host \"127.0.0.1\""),
        "{error}"
    );
    proxy.proxy.stop().await;
    eventually("the socket's file goes", Duration::from_secs(10), || async {
        std::fs::read_dir(&folder).unwrap().next().is_none().then_some(())
    })
    .await;

    // Who is who on this machine says it too.
    let me = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    let other = if me == "postgres" { "somebody" } else { "postgres" };
    let node = database.client(0).await;
    if rows(&node, &format!("SELECT FROM pg_roles WHERE rolname = '{me}'")).await.is_empty() {
        node.batch_execute(&format!("CREATE ROLE \"{me}\" LOGIN")).await.unwrap();
    }
    admission.rules[0].method = Method::Peer;
    let proxy = TestProxy::start_admitting(&database, "", admission).await;
    let place = format!("port={} dbname={}", proxy.proxy.address.port(), database.name);
    let socket = format!("host={} {place}", folder.display());
    let mine = psql(&format!("{socket} user={me}"), "", "SELECT current_user").await;
    assert_eq!(mine, Ok(me));
    let error = psql(&format!("{socket} user={other}"), "", "SELECT 1").await.unwrap_err();
    let expected = format!("Peer authentication failed for user \"{other}\"");
    assert!(error.contains(&expected), "{error}");
    proxy.proxy.stop().await;
}

#[tokio::test]
async fn a_role_made_through_the_proxy_has_one_verifier_and_is_logged_in_at_every_node() {
    let guarded = Guarded::start(2, SCRAM_ONLY).await;
    let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'";
    let service = rows(&guarded.database.client(0).await, sql).await;
    let same = format!("ALTER ROLE postgres PASSWORD '{}'", service[0]);
    guarded.everywhere(&same).await;
    let policy = "groups: {g: {key: bigint, shards: 4, tables: {t: id}}}";
    let admission = by(Method::ScramSha256);
    let proxy = TestProxy::start_admitting(&guarded.database, policy, admission).await;
    let admin = log_in(&proxy, "postgres", SERVICE).await.unwrap();
    admin.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY)").await.unwrap();
    admin.batch_execute("CREATE ROLE app LOGIN PASSWORD 'it''s $ecret'").await.unwrap();
    admin.batch_execute("GRANT ALL ON t TO app").await.unwrap();
    let stored = |guarded: &Guarded| {
        let nodes = guarded.database.clone();
        async move {
            let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'";
            let one = rows(&nodes.client(0).await, sql).await;
            let other = rows(&nodes.client(1).await, sql).await;
            assert_eq!(one, other);
            assert!(one[0].starts_with("SCRAM-SHA-256$4096:"), "{one:?}");
            one
        }
    };
    let first = stored(&guarded).await;
    let app = log_in(&proxy, "app", "it's $ecret").await.unwrap();
    for id in 0..20_i64 {
        app.execute("INSERT INTO t VALUES ($1)", &[&id]).await.unwrap();
    }
    assert_eq!(rows(&app, "SELECT count(*) FROM t").await, ["20"], "rows of both nodes");

    // psql's \password sends a verifier of its own making.
    let port = proxy.proxy.address.port();
    let place = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    let made = foreshard::wire::ScramVerifier::of_password("by \\password", [9; 16]).text();
    let sent = format!("ALTER USER app PASSWORD '{made}'");
    assert!(psql(&place, SERVICE, &sent).await.is_ok());
    assert_ne!(stored(&guarded).await, first);
    assert!(log_in(&proxy, "app", "it's $ecret").await.is_err());
    let app = log_in(&proxy, "app", "by \\password").await.unwrap();
    assert_eq!(rows(&app, "SELECT count(*) FROM t").await, ["20"]);
}
