//! The store itself: what is committed while answers are lost.

use std::sync::Arc;
use std::time::Duration;

use foreshard::catalog::{CatalogError, EtcdKv, Expect, Kv, Lead, Op, Revision};
use foreshard::runtime::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::support::link::{Link, Mode};
use crate::support::{TestEtcd, lead_at};

async fn lead(endpoints: Vec<String>, id: &str) -> Lead {
    lead_at(endpoints, "store/", id).await
}

fn put(key: &str, value: &str, expect: Expect) -> Op {
    Op { key: key.to_owned(), value: Some(value.as_bytes().to_vec()), expect }
}

async fn text(kv: &EtcdKv, key: &str) -> Option<(String, Revision)> {
    // A read may fail when nobody answers in time; it says nothing wrong.
    let mut got = kv.get(key).await;
    for _ in 0..3 {
        if got.is_err() {
            got = kv.get(key).await;
        }
    }
    let entry = got.unwrap()?;
    Some((String::from_utf8(entry.value).unwrap(), entry.revision))
}

#[tokio::test]
async fn commits_are_conditional_and_whole() {
    let etcd = TestEtcd::start().await;
    let lead = lead(vec![etcd.endpoint()], "a").await;
    let kv = lead.kv();
    let first = kv.commit(vec![put("b/1", "x", Expect::Absent)]).await.unwrap();
    assert_eq!(text(kv, "b/1").await, Some(("x".to_owned(), first)));
    let both = vec![put("b/2", "y", Expect::Absent), put("b/1", "z", Expect::Absent)];
    let error = kv.commit(both).await.unwrap_err();
    assert!(matches!(&error, CatalogError::Conflict(key) if key == "b/1"), "{error:?}");
    assert_eq!(text(kv, "b/2").await, None, "nothing of it was applied");
    let second = kv.commit(vec![put("b/1", "z", Expect::At(first))]).await.unwrap();
    assert!(second > first);
    let error = kv.commit(vec![put("b/1", "w", Expect::At(first))]).await.unwrap_err();
    assert!(matches!(error, CatalogError::Conflict(_)), "{error:?}");
    // More than one answer holds, and nothing of other prefixes.
    for chunk in 0..12 {
        let ops = (0..100).map(|n| put(&format!("many/{chunk:02}{n:02}"), "v", Expect::Anything));
        kv.commit(ops.collect()).await.unwrap();
    }
    let all = kv.range("many/").await.unwrap();
    let keys: Vec<_> = all.iter().map(|entry| entry.key.clone()).collect();
    assert!(keys.len() == 1_200 && keys.is_sorted() && keys[0] == "many/0000", "{}", keys.len());
    let gone = Op { key: "b/1".to_owned(), value: None, expect: Expect::At(second) };
    kv.commit(vec![gone]).await.unwrap();
    assert_eq!(text(kv, "b/1").await, None);
}

#[tokio::test]
async fn one_that_was_replaced_commits_nothing() {
    let etcd = TestEtcd::start().await;
    let old = lead(vec![etcd.endpoint()], "a").await;
    let term = old.kv().commit(vec![put("term", "1", Expect::Absent)]).await.unwrap();
    old.kv().hold("term", term, Arc::new(|_| false));
    old.kv().commit(vec![put("k", "old", Expect::Anything)]).await.unwrap();
    // The same data folder: it need not wait for the end of the lease.
    let new = lead(vec![etcd.endpoint()], "a").await;
    let (_, seen) = text(new.kv(), "term").await.unwrap();
    let term = new.kv().commit(vec![put("term", "2", Expect::At(seen))]).await.unwrap();
    new.kv().hold("term", term, Arc::new(|_| false));
    let error = old.kv().commit(vec![put("k", "late", Expect::Anything)]).await.unwrap_err();
    assert!(matches!(error, CatalogError::Replaced), "{error:?}");
    assert!(old.lost().is_cancelled());
    assert_eq!(text(new.kv(), "k").await.unwrap().0, "old");
}

/// Counts a key up so many times; how often it was told that it did.
async fn count_up(kv: &EtcdKv, counter: u32, times: u32) -> u32 {
    let key = format!("counter/{counter}");
    let count_of = |stored: &Option<(String, Revision)>| -> u32 {
        stored.as_ref().map_or(0, |(count, _)| count.parse().unwrap())
    };
    let mut applied = 0;
    for _ in 0..times {
        let stored = text(kv, &key).await;
        let count = count_of(&stored);
        assert_eq!(count, applied, "a commit was applied twice, or too late");
        let expect = stored.map_or(Expect::Absent, |(_, revision)| Expect::At(revision));
        // Both kinds: a condition of its own, and none but the slot's.
        let log = put(&format!("log/{counter}/{count}"), "x", Expect::Anything);
        let ops = vec![put(&key, &(count + 1).to_string(), expect), log];
        applied = match kv.commit(ops).await {
            Ok(_) => applied + 1,
            Err(CatalogError::Unknown) => count_of(&text(kv, &key).await),
            Err(error) => panic!("{error:?}"),
        };
    }
    applied
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_commit_is_applied_once_or_never_although_answers_are_lost() {
    const EACH: u32 = 60;
    let etcd = TestEtcd::start().await;
    let wires = [Link::to(etcd.port).await, Link::to(etcd.port).await];
    let endpoints = wires.iter().map(|wire| format!("http://127.0.0.1:{}", wire.port)).collect();
    let kv = lead(endpoints, "a").await.kv().clone();
    let tasks = Tasks::new();
    let counters = (0..4).map(|counter| {
        let kv = kv.clone();
        tasks.spawn("counter", async move { count_up(&kv, counter, EACH).await })
    });
    let counters: Vec<_> = counters.collect();
    let mut turn = 0u16;
    while counters.iter().any(|counter| !counter.is_finished()) {
        turn += 1;
        let wire = &wires[usize::from(turn) % 2];
        match turn % 5 {
            // Between a request and its answer, or within one.
            0 => wire.cut(),
            1 => wire.set(Mode::Refuse),
            2 => wire.heal(),
            _ => wire.tear_after(200 + turn % 97 * 9),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wires.iter().for_each(Link::heal);
    let mut all = 0;
    for counter in counters {
        all += counter.await.unwrap();
    }
    let logged = kv.range("log/").await.unwrap().len();
    assert_eq!(u32::try_from(logged).unwrap(), all);
    assert!(all > EACH * 3, "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_an_answer_is_settled_before_anything_else_is_read() {
    let etcd = TestEtcd::start().await;
    let wire = Link::to(etcd.port).await;
    let kv = lead(vec![format!("http://127.0.0.1:{}", wire.port)], "a").await.kv().clone();
    kv.commit(vec![put("k", "before", Expect::Absent)]).await.unwrap();
    // Dropped midway.
    wire.set(Mode::Stall);
    let commit = kv.commit(vec![put("k", "after", Expect::Anything)]);
    assert!(tokio::time::timeout(Duration::from_millis(300), commit).await.is_err());
    wire.cut();
    wire.heal();
    let (seen, revision) = text(&kv, "k").await.unwrap();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(text(&kv, "k").await.unwrap(), (seen.clone(), revision));
    }
    // Nobody answers at all.
    etcd.signal(nix::sys::signal::Signal::SIGSTOP);
    let error = kv.commit(vec![put("k", "last", Expect::Anything)]).await.unwrap_err();
    assert!(matches!(error, CatalogError::Unknown), "{error:?}");
    let error = kv.get("k").await.unwrap_err();
    assert!(matches!(error, CatalogError::Store { .. }), "{error:?}");
    etcd.signal(nix::sys::signal::Signal::SIGCONT);
    let (seen, _) = text(&kv, "k").await.unwrap();
    assert!(["last", "after", "before"].contains(&seen.as_str()), "{seen}");
    let shared: Arc<dyn Kv> = Arc::new(kv);
    shared.commit(vec![put("k", "new", Expect::Anything)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_arrives_late_changes_nothing() {
    let etcd = TestEtcd::start().await;
    let (held, release) = held_back(etcd.port).await;
    let kv =
        lead(vec![format!("http://127.0.0.1:{held}"), etcd.endpoint()], "a").await.kv().clone();
    kv.commit(vec![put("k", "second", Expect::Anything)]).await.unwrap();
    let last = kv.commit(vec![put("k", "third", Expect::Anything)]).await.unwrap();
    release.cancel();
    for _ in 0..25 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(text(&kv, "k").await.unwrap(), ("third".to_owned(), last));
    }
}

/// A way to etcd on which the first transaction after a proxy leads arrives only once it is released,
/// though nobody waits for its answer any more.
async fn held_back(etcd: u16) -> (u16, CancellationToken) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let release = CancellationToken::new();
    let released = release.clone();
    let pass = async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", etcd)).await.unwrap();
        let (mut buffer, mut transactions) = (vec![0; 64 << 10], 0);
        loop {
            let count = client.read(&mut buffer).await.unwrap();
            let request = String::from_utf8_lossy(&buffer[..count]).into_owned();
            transactions += u32::from(request.contains("kv/txn"));
            // The first one makes it the leader.
            if transactions == 2 {
                released.cancelled().await;
                server.write_all(&buffer[..count]).await.unwrap();
                let _answer = server.read(&mut buffer).await.unwrap();
                return;
            }
            server.write_all(&buffer[..count]).await.unwrap();
            let count = server.read(&mut buffer).await.unwrap();
            client.write_all(&buffer[..count]).await.unwrap();
        }
    };
    drop(Tasks::new().spawn("held back", pass));
    (port, release)
}
