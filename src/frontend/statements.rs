//! Prepared statements of the extended protocol: a client's names, and the proxy's own on the nodes.
//!
//! Clients share server connections, so a named statement gets the proxy's name there, one for each
//! different text; a connection is given what it lacks when a client binds it.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bytes::BytesMut;
use foldhash::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::ids::{NodeId, ShardId};
use crate::wire::{FIRST_USER_OID, put_parse};

/// Different texts that a worker knows; past that the numbers of those that nobody uses are given up.
const TEXTS_MAX: usize = 10_000;

/// A prepared text.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The proxy's number of a named text; 0 for an unnamed one.
    pub number: u64,
    /// Its name on the nodes; empty of an unnamed one.
    pub server_name: Box<str>,
    /// The text.
    pub text: Box<str>,
    /// What a node gets instead.
    sent: Option<Box<str>>,
    /// The declared types of the parameters, by the home node's ids.
    pub types: SmallVec<[u32; 8]>,
    /// How often it was bound.
    pub uses: AtomicU32,
    /// The same on leaf partitions.
    pub on_leaves: Mutex<Vec<OnLeaf>>,
}

/// A point statement on the leaf partition that holds a shard.
#[derive(Debug)]
pub(super) struct OnLeaf {
    pub node: NodeId,
    pub shard: ShardId,
    pub prepared: Arc<Prepared>,
    /// For whom it may stand for the statement on the parent.
    pub user: Arc<str>,
    /// At this generation of `executor::DirectLeaves` and up to this time.
    pub generation: u64,
    pub until: Instant,
}

impl Prepared {
    /// A text without a name.
    pub(super) fn unnamed(text: &str, sent: Option<&str>, types: &[u32]) -> Arc<Self> {
        Self::new(0, Box::default(), (text.into(), sent.map(Into::into)), types.into())
    }

    fn new(
        number: u64,
        server_name: Box<str>,
        (text, sent): (Box<str>, Option<Box<str>>),
        types: SmallVec<[u32; 8]>,
    ) -> Arc<Self> {
        let (uses, on_leaves) = (AtomicU32::new(0), Mutex::default());
        Arc::new(Self { number, server_name, text, sent, types, uses, on_leaves })
    }

    /// Whether the nodes know it, on its table or a leaf of that, by this name.
    pub(super) fn is_known_as(&self, server_name: &[u8]) -> bool {
        self.server_name.as_bytes() == server_name
            || self.on_leaves.lock().iter().any(|leaf| leaf.prepared.is_known_as(server_name))
    }

    /// The declared types that are the same on all nodes; 0, so that a node infers it, for those
    /// that users made.
    pub(super) fn types_of_all(&self) -> SmallVec<[u32; 8]> {
        self.types.iter().map(|oid| if *oid < FIRST_USER_OID { *oid } else { 0 }).collect()
    }

    /// Appends the `Parse` that gives it to a node, which has these types.
    pub(super) fn put_parse(&self, types: &[u32], out: &mut BytesMut) {
        let text = self.sent.as_ref().unwrap_or(&self.text);
        put_parse(self.server_name.as_bytes(), text.as_bytes(), types, out);
    }
}

/// The name on the nodes of the named text with this number.
pub(super) fn server_name(number: u64) -> String {
    format!("fs_{number}")
}

type Key = (Box<str>, Option<Box<str>>, SmallVec<[u32; 8]>);

/// The named texts of all clients of one worker.
#[derive(Debug, Default)]
pub(super) struct AllStatements(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The last number.
    last: u64,
    /// Of what `Engine::definitions` they are.
    definitions: u64,
    by_text: HashMap<Key, Arc<Prepared>>,
}

impl AllStatements {
    /// The named text, under the number that it has or gets. What was given to nodes before
    /// `definitions` changed counts no more: PostgreSQL keeps the types that it has found for parameters, by
    /// their ids, also where others have their names by now.
    pub(super) fn named(
        &self,
        (text, sent): (&str, Option<&str>),
        types: &[u32],
        definitions: u64,
    ) -> Arc<Prepared> {
        let key: Key = (text.into(), sent.map(Into::into), types.into());
        let mut known = self.0.lock();
        if known.definitions != definitions {
            known.definitions = definitions;
            known.by_text.clear();
        }
        if let Some(found) = known.by_text.get(&key) {
            return Arc::clone(found);
        }
        if known.by_text.len() >= TEXTS_MAX {
            known.by_text.retain(|_, prepared| Arc::strong_count(prepared) > 1);
        }
        known.last += 1;
        let (text, sent, types) = key.clone();
        let made = Prepared::new(known.last, server_name(known.last).into(), (text, sent), types);
        known.by_text.insert(key, Arc::clone(&made));
        made
    }

    /// The same text with these types of its parameters.
    pub(super) fn declared(
        &self,
        prepared: &Prepared,
        types: &[u32],
        definitions: u64,
    ) -> Arc<Prepared> {
        let texts = (&*prepared.text, prepared.sent.as_deref());
        match prepared.number {
            0 => Prepared::unnamed(texts.0, texts.1, types),
            _ => self.named(texts, types, definitions),
        }
    }
}
