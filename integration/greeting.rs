//! The first bytes of a connection, and the limits on clients: at the level of bytes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic"
)]

mod login_support;
mod support;

use std::sync::Arc;
use std::time::Duration;

use foreshard::frontend::Method;
use foreshard::wire::TLS_REQUEST;
use login_support::{Authority, Guarded, Raw, by, log_in, server_tls};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use support::{TestDatabase, TestProxy, eventually, rows};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Startup parameters.
type Options = &'static [(&'static str, &'static str)];

const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

/// A proxy that trusts, with TLS.
async fn trusting(authority: &Authority) -> TestProxy {
    let database = TestDatabase::create(1).await;
    let mut admission = by(Method::Trust);
    admission.tls = Some(server_tls(authority, Vec::new()));
    TestProxy::start_admitting(&database, "", admission).await
}

/// A TLS client that trusts the authority and offers these protocols.
fn connector(authority: &Authority, protocols: &[&[u8]]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&authority.read("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// A whole session in bytes: it is ready, answers a query, and ends.
async fn is_served<S>(raw: &mut Raw<S>, database: &str)
where
    S: tokio::io::AsyncReadExt + tokio::io::AsyncWriteExt + Unpin,
{
    raw.start(&[("user", "postgres"), ("database", database)]).await;
    assert_eq!(raw.until(b'R').await, [0, 0, 0, 0]);
    raw.until(b'Z').await;
    raw.frame(b'Q', b"SELECT 42\0").await;
    assert!(raw.until(b'D').await.ends_with(b"42"));
    raw.until(b'Z').await;
    raw.frame(b'X', b"").await;
    assert!(raw.ended().await);
}

#[tokio::test]
async fn encryption_is_negotiated_before_anything_else_is_believed() {
    let authority = Authority::new();
    let proxy = trusting(&authority).await;
    let (address, database) = (proxy.proxy.address, proxy.database.as_str());

    let mut raw = Raw::connect(address).await;
    raw.send(&GSS_REQUEST).await;
    assert_eq!(raw.byte().await, b'N');
    raw.send(&TLS_REQUEST).await;
    assert_eq!(raw.byte().await, b'S');
    let connector_of_all = connector(&authority, &[]);
    let mut secured = Raw::over(connector_of_all.connect(localhost(), raw.stream).await.unwrap());
    is_served(&mut secured, database).await;

    // What an attacker puts between the request and the handshake is not taken for the client's.
    let mut raw = Raw::connect(address).await;
    let mut injected = TLS_REQUEST.to_vec();
    injected.extend_from_slice(b"\0\0\0\x16\0\x03\0\0user\0postgres\0\0");
    raw.send(&injected).await;
    let (code, message) = raw.refused().await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("08P01", "received unencrypted data after SSL request")
    );

    let mut raw = Raw::connect(address).await;
    raw.send(&TLS_REQUEST).await;
    assert_eq!(raw.byte().await, b'S');
    let stream = connector_of_all.connect(localhost(), raw.stream).await.unwrap();
    let mut twice = Raw::over(stream);
    twice.send(&TLS_REQUEST).await;
    assert_eq!(twice.refused().await.0, "08P01");
}

#[tokio::test]
async fn a_client_may_speak_tls_from_its_first_byte_if_it_names_the_protocol() {
    let authority = Authority::new();
    let proxy = trusting(&authority).await;
    let connect = |protocols: &'static [&'static [u8]]| {
        let connector = connector(&authority, protocols);
        async move {
            let stream = TcpStream::connect(proxy.proxy.address).await.unwrap();
            connector.connect(localhost(), stream).await
        }
    };
    let mut direct = Raw::over(connect(&[b"postgresql"]).await.unwrap());
    is_served(&mut direct, &proxy.database).await;
    assert!(connect(&[b"h2"]).await.is_err(), "another protocol");
    let mut unnamed = Raw::over(connect(&[]).await.unwrap());
    assert!(unnamed.ended().await, "no protocol");
}

#[tokio::test]
async fn without_a_certificate_tls_is_declined_and_the_client_may_go_on() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, "").await;
    let mut raw = Raw::connect(proxy.proxy.address).await;
    raw.send(&TLS_REQUEST).await;
    assert_eq!(raw.byte().await, b'N');
    raw.send(&GSS_REQUEST).await;
    assert_eq!(raw.byte().await, b'N');
    is_served(&mut raw, &database.name).await;
}

#[tokio::test]
async fn newer_protocols_and_unknown_options_are_negotiated_down() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, "").await;
    let cases: [(u16, Options, &[u8]); 4] = [
        (3, &[], b"\0\x03\0\x02\0\0\0\0"),
        (9999, &[], b"\0\x03\0\x02\0\0\0\0"),
        (0, &[("_pq_.compression", "on")], b"\0\x03\0\0\0\0\0\x01_pq_.compression\0"),
        (2, &[("_pq_.a", ""), ("_pq_.b", "x")], b"\0\x03\0\x02\0\0\0\x02_pq_.a\0_pq_.b\0"),
    ];
    for (minor, options, expected) in cases {
        let mut raw = Raw::connect(proxy.proxy.address).await;
        let mut parameters = vec![("user", "postgres"), ("database", database.name.as_str())];
        parameters.extend_from_slice(options);
        raw.start_speaking(minor, &parameters).await;
        assert_eq!(raw.until(b'v').await, expected, "3.{minor}");
        raw.until(b'Z').await;
    }
}

#[tokio::test]
async fn cancel_keys_are_as_long_as_the_protocol_that_a_client_speaks_has_them() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, "").await;
    let parameters = [("user", "postgres"), ("database", database.name.as_str())];
    // Minor version, whether it is negotiated, bytes of the secret.
    for (minor, negotiated, secret_len) in
        [(0, false, 4), (1, false, 4), (2, false, 32), (9999, true, 32)]
    {
        let mut raw = Raw::connect(proxy.proxy.address).await;
        raw.start_speaking(minor, &parameters).await;
        let (mut tags, mut key) = (Vec::new(), Vec::new());
        while tags.last() != Some(&b'Z') {
            let (tag, content) = raw.next().await.unwrap();
            tags.push(tag);
            if tag == b'K' {
                key = content;
            }
        }
        assert_eq!(tags.contains(&b'v'), negotiated, "3.{minor}");
        assert_eq!(key.len(), 4 + secret_len, "3.{minor}");

        raw.frame(b'Q', b"SELECT pg_sleep(60)\0").await;
        let asleep = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' \
                      AND state = 'active' AND datname = current_database()";
        let node = database.client(0).await;
        eventually("it sleeps", Duration::from_secs(10), || async {
            (!rows(&node, asleep).await.is_empty()).then_some(())
        })
        .await;
        // Neither a part of the key nor a longer one will do.
        for wrong in [&key[..4], &key[..key.len() - 1], &[&key[..], &[0]].concat()] {
            assert!(cancel(proxy.proxy.address, wrong).await, "closed without a word");
        }
        if secret_len > 4 {
            assert!(cancel(proxy.proxy.address, &key[..8]).await, "closed without a word");
        }
        assert_eq!(rows(&node, asleep).await.len(), 1, "3.{minor}");
        assert!(cancel(proxy.proxy.address, &key).await, "closed without a word");
        let error = loop {
            let (tag, content) = raw.next().await.unwrap();
            if tag == b'E' {
                break foreshard::wire::read_error(&content);
            }
        };
        assert_eq!(error.code, "57014", "3.{minor}");
        raw.until(b'Z').await;
    }
}

/// Sends a cancel request with this key; whether the connection is closed after it, and nothing said.
async fn cancel(address: std::net::SocketAddr, key: &[u8]) -> bool {
    let mut raw = Raw::connect(address).await;
    let mut packet = (u32::try_from(key.len()).unwrap() + 8).to_be_bytes().to_vec();
    packet.extend_from_slice(&80_877_102_u32.to_be_bytes());
    packet.extend_from_slice(key);
    raw.send(&packet).await;
    raw.next().await.is_none()
}

#[tokio::test]
async fn garbage_is_told_and_closed_and_nobody_else_notices() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, "").await;
    let bystander = proxy.client().await;
    bystander.batch_execute("BEGIN; CREATE TABLE kept (id int)").await.unwrap();

    let told: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "08P01"),
        (b"\0\0\0\x04", "08P01"),
        (b"\xff\xff\xff\xff\0\x03\0\0", "08P01"),
        (b"\0\0\0\x08\0\x02\0\0", "08P01"),
        (b"\0\0\0\x0d\0\x03\0\0user\0", "08P01"),
        (b"\0\0\0\x09\0\x03\0\0\0", "28000"),
    ];
    for (bytes, expected) in told {
        let mut raw = Raw::connect(proxy.proxy.address).await;
        raw.send(bytes).await;
        assert_eq!(raw.refused().await.0, expected, "{bytes:?}");
    }

    // Every beginning of a good packet, and then the end.
    let mut good = bytes::BytesMut::new();
    foreshard::wire::put_startup(&[("user", "postgres"), ("database", &database.name)], &mut good);
    for len in 0..good.len() {
        let mut raw = Raw::connect(proxy.proxy.address).await;
        raw.send(&good[..len]).await;
        tokio::io::AsyncWriteExt::shutdown(&mut raw.stream).await.unwrap();
        assert!(raw.ended().await, "{len} bytes");
    }

    // Random bytes at the start, and after a good start.
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..200 {
        let mut raw = Raw::connect(proxy.proxy.address).await;
        if round % 2 == 0 {
            raw.send(&good).await;
            raw.until(b'Z').await;
        }
        let mut noise = vec![0; random.random_range(1..300)];
        random.fill(noise.as_mut_slice());
        raw.send(&noise).await;
        if tokio::io::AsyncWriteExt::shutdown(&mut raw.stream).await.is_ok() {
            assert!(raw.ended().await);
        }
    }

    let mut raw = Raw::connect(proxy.proxy.address).await;
    raw.send(&good).await;
    raw.until(b'Z').await;
    raw.frame(b'~', b"what").await;
    assert_eq!(raw.refused().await.0, "08P01");
    let mut raw = Raw::connect(proxy.proxy.address).await;
    raw.send(&good).await;
    raw.until(b'Z').await;
    raw.send(b"Q\0\0\0\x01").await;
    assert_eq!(raw.refused().await.0, "08P01");

    bystander.batch_execute("COMMIT").await.unwrap();
    assert_eq!(rows(&bystander, "SELECT count(*) FROM kept").await, ["0"]);
    is_served(&mut Raw::connect(proxy.proxy.address).await, &database.name).await;
}

#[tokio::test]
async fn before_it_has_logged_in_a_client_can_cost_little() {
    let guarded = Guarded::start(1, "host all all all trust\n").await;
    let mut admission = by(Method::ScramSha256);
    admission.limits.login_timeout_ms = 700;
    let proxy = guarded.proxy(admission).await;
    let mut raw = Raw::connect(proxy.proxy.address).await;
    raw.start(&[("user", "postgres")]).await;
    raw.until(b'R').await;
    raw.send(b"p\0\x0f\xff\xff").await;
    assert_eq!(
        raw.refused().await,
        ("08P01".to_owned(), "malformed message: a frame is too long".to_owned())
    );
    let mut raw = Raw::connect(proxy.proxy.address).await;
    raw.start(&[("user", &"x".repeat(10_000))]).await;
    assert_eq!(raw.refused().await.0, "08P01");
    for first in [&b""[..], b"\0\0\0", &TLS_REQUEST] {
        let mut slow = Raw::connect(proxy.proxy.address).await;
        slow.send(first).await;
        if first.len() == 8 {
            assert_eq!(slow.byte().await, b'N');
        }
        assert!(slow.ended().await, "{first:?}");
    }
    let mut silent = Raw::connect(proxy.proxy.address).await;
    silent.start(&[("user", "postgres")]).await;
    silent.until(b'R').await;
    let late = "canceling authentication due to timeout".to_owned();
    assert_eq!(silent.refused().await, ("57014".to_owned(), late));
    let mut raw = Raw::connect(proxy.proxy.address).await;
    raw.start(&[("user", "postgres")]).await;
    raw.until(b'R').await;
    raw.frame(b'p', b"SCRAM-SHA-256\0\0\0\0\x01x").await;
    assert_eq!(raw.refused().await.0, "08P01");
}

#[tokio::test]
async fn an_unknown_user_is_asked_what_a_known_one_is_asked() {
    let guarded = Guarded::start(1, "host all all all trust\n").await;
    guarded.everywhere("CREATE ROLE app LOGIN PASSWORD 'right'").await;
    let proxy = guarded.proxy(by(Method::ScramSha256)).await;
    let mut asked = Vec::new();
    for user in ["app", "nobody", "app", "nobody", "other"] {
        let mut raw = Raw::connect(proxy.proxy.address).await;
        raw.start(&[("user", user), ("database", "postgres")]).await;
        assert_eq!(raw.until(b'R').await, b"\0\0\0\x0aSCRAM-SHA-256\0\0", "{user}");
        raw.frame(b'p', b"SCRAM-SHA-256\0\0\0\0\x0en,,n=,r=abcdef").await;
        let answer = String::from_utf8(raw.until(b'R').await[4..].to_vec()).unwrap();
        let (_, salted) = answer.split_once(",s=").unwrap();
        assert!(salted.len() == 24 + ",i=4096".len() && salted.ends_with(",i=4096"), "{salted}");
        asked.push(salted.to_owned());
        let (nonce, _) = answer.split_once(',').unwrap();
        raw.frame(b'p', format!("c=biws,{nonce},p={}", "A".repeat(43) + "=").as_bytes()).await;
        let (code, message) = raw.refused().await;
        let expected = format!("password authentication failed for user \"{user}\"");
        assert_eq!((code.as_str(), message), ("28P01", expected));
    }
    assert_eq!((&asked[0], &asked[1]), (&asked[2], &asked[3]), "salts never change");
    assert_ne!(asked[1], asked[4], "and differ from user to user");
}

#[tokio::test]
async fn the_last_seats_are_for_superusers_and_then_the_house_is_full() {
    let guarded = Guarded::start(1, "host all all all trust\n").await;
    guarded.everywhere("CREATE ROLE app LOGIN").await;
    let mut admission = by(Method::Trust);
    admission.limits.max_clients = 4;
    admission.limits.reserved_clients = 2;
    let proxy = guarded.proxy(admission).await;
    let mut inside = Vec::new();
    for _ in 0..2 {
        inside.push(log_in(&proxy, "app", "").await.unwrap());
    }
    let error = log_in(&proxy, "app", "").await.map(drop).unwrap_err();
    assert!(error.contains("53300") && error.contains("reserved for"), "{error}");
    for _ in 0..2 {
        inside.push(log_in(&proxy, "postgres", "").await.unwrap());
    }
    let error = log_in(&proxy, "postgres", "").await.map(drop).unwrap_err();
    assert!(error.contains("53300") && error.contains("too many clients already"), "{error}");

    // A full house must not keep anybody from cancelling.
    let sleeper = inside.pop().unwrap();
    let token = sleeper.cancel_token();
    let (slept, ()) = tokio::join!(sleeper.batch_execute("SELECT pg_sleep(60)"), async {
        let asleep = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'";
        eventually("it sleeps", Duration::from_secs(10), || async {
            (!rows(&inside[2], asleep).await.is_empty()).then_some(())
        })
        .await;
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    });
    assert_eq!(slept.unwrap_err().code().unwrap().code(), "57014");
    drop((inside, sleeper));
    eventually("seats are free again", Duration::from_secs(10), || async {
        log_in(&proxy, "app", "").await.ok()
    })
    .await;
}
