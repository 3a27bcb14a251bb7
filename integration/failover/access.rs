//! Who etcd lets in: certificates on both sides, and passwords.

use std::time::Duration;

use foreshard::backend::{Password, TlsFiles};
use foreshard::catalog::{CatalogError, EtcdConfig, Expect, Kv, Lead, Op, Revision};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::certificates::Authority;
use crate::support::TestEtcd;

fn config(endpoint: String) -> EtcdConfig {
    EtcdConfig::new(vec![endpoint], "access/".to_owned(), Duration::from_secs(5)).unwrap()
}

/// Looks for an entry, writes it and reads it again.
async fn use_it(config: EtcdConfig) -> Result<Option<Revision>, CatalogError> {
    let kv = Lead::reader(config);
    kv.get("k").await?;
    let value = Some(b"v".to_vec());
    let put = Op { key: "k".to_owned(), value, expect: Expect::Anything };
    kv.commit(vec![put]).await?;
    Ok(kv.get("k").await?.map(|entry| entry.revision))
}

fn why(error: &CatalogError) -> String {
    format!("{error}: {}", std::error::Error::source(error).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_checked_on_both_sides() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("etcd", &["127.0.0.1"]);
    authority.sign("proxy", &["proxy"]);
    let file = |path: std::path::PathBuf| path.display().to_string();
    let args = [
        ("--cert-file", file(certificate)),
        ("--key-file", file(key)),
        ("--trusted-ca-file", file(authority.path("ca.crt"))),
    ];
    let mut args: Vec<String> =
        args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    args.push("--client-cert-auth".to_owned());
    let etcd = TestEtcd::start_with(args).await;
    let endpoint = format!("https://127.0.0.1:{}", etcd.port);
    let files = TlsFiles {
        authorities: authority.read("ca.crt"),
        certificate: authority.read("proxy.crt"),
        key: authority.read("proxy.key"),
        ..TlsFiles::default()
    };
    let known = config(endpoint.clone()).with_tls(files.clone()).unwrap();
    assert!(use_it(known).await.unwrap().is_some());
    // Nobody shows no certificate, and a member of another authority is none.
    let nobody = TlsFiles { authorities: files.authorities.clone(), ..TlsFiles::default() };
    // The member's reason may be lost with the connection.
    use_it(config(endpoint.clone()).with_tls(nobody).unwrap()).await.unwrap_err();
    let other = TlsFiles { authorities: Authority::new().read("ca.crt"), ..files };
    let error = use_it(config(endpoint).with_tls(other).unwrap()).await.unwrap_err();
    assert!(why(&error).contains("invalid peer certificate"), "{}", why(&error));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_shown_and_again_when_etcd_has_forgotten_its_token() {
    let mut etcd = TestEtcd::start().await;
    for (path, body) in [
        ("user/add", r#"{"name":"root","password":"r"}"#),
        ("user/grant", r#"{"user":"root","role":"root"}"#),
        ("user/add", r#"{"name":"shop","password":"secret"}"#),
        ("role/add", r#"{"name":"shop"}"#),
        // From `access/` up to `access0`.
        (
            "role/grant",
            r#"{"name":"shop","perm":{"permType":"READWRITE","key":"YWNjZXNzLw==","range_end":"YWNjZXNzMA=="}}"#,
        ),
        ("user/grant", r#"{"user":"shop","role":"shop"}"#),
        ("enable", "{}"),
    ] {
        post(etcd.port, path, body).await;
    }
    let as_user = |name: &str, password: &str| {
        let mut config = config(etcd.endpoint());
        config.user = Some((name.to_owned(), Password::new(password.to_owned())));
        config
    };
    let (good, bad) = (as_user("shop", "secret"), as_user("shop", "wrong"));
    let error = use_it(config(etcd.endpoint())).await.unwrap_err();
    assert!(why(&error).contains("refuses it"), "{}", why(&error));
    let error = use_it(bad).await.unwrap_err();
    assert!(why(&error).contains("authentication failed"), "{}", why(&error));
    assert!(use_it(good.clone()).await.unwrap().is_some());
    let mut elsewhere = good.clone();
    elsewhere.prefix = "other/".to_owned();
    let error = use_it(elsewhere).await.unwrap_err();
    assert!(why(&error).contains("permission denied"), "{}", why(&error));
    // Tokens do not outlive it.
    let kv = Lead::reader(good);
    assert!(kv.get("k").await.unwrap().is_some());
    etcd.kill().await;
    etcd.restart().await;
    assert!(kv.get("k").await.unwrap().is_some());
}

/// One call of etcd's own.
async fn post(port: u16, path: &str, body: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request =
        format!("POST /v3/auth/{path} HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(" 200 "), "{path}: {answer}");
}
