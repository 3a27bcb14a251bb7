//! Types and tables have different object ids on different nodes. Clients know those of the home
//! node, whose catalogs they read; what other nodes say is translated.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use foldhash::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::{BackendError, NodeAddress};
use crate::wire::{FIRST_USER_OID, Malformed, OidKind, OidPlace, user_oids};

/// How long looking an id up on both nodes may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// What a client is told of a type that the home node does not have: it reads it as text.
const UNKNOWN_TYPE: u32 = 705;

/// The names behind object ids.
const NAMES: &str = "\
    SELECT 't', t.oid, n.nspname::text, t.typname::text FROM pg_catalog.pg_type t \
    JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = ANY ($1) \
    UNION ALL SELECT 'c', c.oid, n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($2)";
/// The ids behind names, in the order of the names.
const IDS: &str = "\
    SELECT x.n, CASE x.kind WHEN 't' THEN (SELECT t.oid FROM pg_catalog.pg_type t \
    JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
    WHERE n.nspname = x.schema AND t.typname = x.name) \
    ELSE (SELECT c.oid FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = x.schema AND c.relname = x.name) END \
    FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), \
    pg_catalog.unnest($3::text[])) WITH ORDINALITY AS x (kind, schema, name, n)";

/// An id on the side that is named.
type Id = (Side, OidKind, u32);

/// Whose catalogs an id is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Node,
    Home,
}

/// The object ids of one database on a node, by those of the home node. Learned when they are first
/// met; an id is never given to something else while it is in use.
#[derive(Debug)]
pub struct Oids {
    database: String,
    node: NodeAddress,
    home: NodeAddress,
    /// The node is not the home node.
    foreign: bool,
    /// Leaf partitions that statements are sent to in the place of their parents.
    stands_for: ArcSwap<HashMap<u32, u32>>,
    /// There are such.
    has_stand_ins: AtomicBool,
    /// What each id is on the other side.
    known: Mutex<HashMap<Id, u32>>,
}

impl Oids {
    /// Knows none yet.
    pub fn new(database: &str, node: NodeAddress, home: NodeAddress) -> Arc<Self> {
        let (database, foreign) = (database.to_owned(), node.name != home.name);
        let (stands_for, known) = (ArcSwap::default(), Mutex::default());
        let has_stand_ins = AtomicBool::new(false);
        Arc::new(Self { database, node, home, foreign, stands_for, has_stand_ins, known })
    }

    /// Whether they are those of this database.
    pub fn is_of(&self, database: &str) -> bool {
        self.database == database
    }

    /// Clients hear of the node's table `parent` where a description names its leaf.
    pub fn stand_for(&self, leaf: u32, parent: u32) {
        if self.stands_for.load().get(&leaf) != Some(&parent) {
            self.has_stand_ins.store(true, Ordering::Release);
            self.stands_for.rcu(|all| {
                let mut all = HashMap::clone(all);
                all.insert(leaf, parent);
                all
            });
        }
    }

    /// Whether clients know all of them as they are.
    pub fn are_known(&self) -> bool {
        !self.foreign && !self.has_stand_ins.load(Ordering::Acquire)
    }

    /// The description of parameters or columns that the node gives, with the ids of the home node;
    /// `None` if it has none that differ. A type that the home node lacks becomes `unknown`, which
    /// clients read as text.
    ///
    /// # Errors
    /// Where a node does not answer, or the description can't be read.
    pub async fn described(&self, frame: &[u8]) -> Result<Option<BytesMut>, BackendError> {
        if self.are_known() {
            return Ok(None);
        }
        let mut places = self.places(frame).map_err(|source| {
            let node = self.node.name.clone();
            BackendError::Protocol { node, source }
        })?;
        if places.is_empty() {
            return Ok(None);
        }
        if self.foreign {
            self.translate(&mut places).await?;
        }
        let mut out = BytesMut::from(frame);
        put(&places, &mut out);
        Ok(Some(out))
    }

    /// Gives a description the ids of the home node where it stands; no, and nothing is done, if one of them
    /// is to be asked for, or there is none: [`Oids::described`] does that.
    pub fn describe_at_once(&self, frame: &mut [u8]) -> bool {
        if self.are_known() {
            return true;
        }
        let Ok(mut places) = self.places(frame) else { return false };
        if self.foreign && !places.is_empty() {
            let known = self.known.lock();
            for place in &mut places {
                let Some(at_home) = known.get(&(Side::Node, place.kind, place.oid)) else {
                    return false;
                };
                place.oid = *at_home;
            }
        }
        put(&places, frame);
        true
    }

    /// The ids in a description, those of tables for the leaves that stand for them.
    fn places(&self, frame: &[u8]) -> Result<SmallVec<[OidPlace; 8]>, Malformed> {
        let mut places = user_oids(frame)?;
        if self.has_stand_ins.load(Ordering::Acquire) {
            let stands_for = self.stands_for.load();
            for place in places.iter_mut().filter(|place| place.kind == OidKind::Class) {
                place.oid = stands_for.get(&place.oid).copied().unwrap_or(place.oid);
            }
        }
        Ok(places)
    }

    /// Gives these ids of the node those of the home node.
    async fn translate(&self, places: &mut [OidPlace]) -> Result<(), BackendError> {
        let id = |place: &OidPlace| (Side::Node, place.kind, place.oid);
        self.learn(places.iter().map(id).collect()).await?;
        let known = self.known.lock();
        for place in places {
            let at_home = known.get(&id(place)).copied();
            place.oid = at_home.unwrap_or(match place.kind {
                OidKind::Type => UNKNOWN_TYPE,
                OidKind::Class => 0,
            });
        }
        Ok(())
    }

    /// The ids on the node of types that a client names by those of the home node; 0, so that the
    /// node infers the type, for one that it lacks.
    ///
    /// # Errors
    /// Where a node does not answer.
    pub async fn types(&self, at_home: &[u32]) -> Result<SmallVec<[u32; 8]>, BackendError> {
        if !self.foreign {
            return Ok(at_home.into());
        }
        let id = |oid: u32| (Side::Home, OidKind::Type, oid);
        let of_users = at_home.iter().copied().filter(|oid| *oid >= FIRST_USER_OID);
        self.learn(of_users.map(id).collect()).await?;
        let known = self.known.lock();
        let on_node = |oid: &u32| match *oid {
            oid if oid < FIRST_USER_OID => oid,
            oid => known.get(&id(oid)).copied().unwrap_or(0),
        };
        Ok(at_home.iter().map(on_node).collect())
    }

    /// Looks those of `ids`, all of one side, up on the other that are not known yet.
    async fn learn(&self, mut ids: SmallVec<[Id; 8]>) -> Result<(), BackendError> {
        {
            let known = self.known.lock();
            ids.retain(|id| !known.contains_key(id));
        }
        if ids.is_empty() {
            return Ok(());
        }
        let broken = |source| BackendError::Broken { node: self.node.name.clone(), source };
        let pairs = match timeout(DEADLINE, self.look_up(&ids)).await {
            Ok(Ok(pairs)) => pairs,
            Ok(Err(error)) => return Err(broken(io::Error::other(error))),
            Err(_) => return Err(broken(io::ErrorKind::TimedOut.into())),
        };
        let mut known = self.known.lock();
        for (one, other) in pairs {
            known.insert(one, other.2);
            known.insert(other, one.2);
        }
        Ok(())
    }

    async fn look_up(&self, ids: &[Id]) -> Result<Vec<(Id, Id)>, tokio_postgres::Error> {
        let (side, from, to) = match ids.first() {
            Some((Side::Home, ..)) => (Side::Home, &self.home, &self.node),
            _ => (Side::Node, &self.node, &self.home),
        };
        let other = if side == Side::Home { Side::Node } else { Side::Home };
        let of = |kind| ids.iter().filter(move |id| id.1 == kind).map(|id| id.2).collect();
        let (types, classes): (Vec<u32>, Vec<u32>) = (of(OidKind::Type), of(OidKind::Class));
        let ask = async |client: &Client| client.query(NAMES, &[&types, &classes]).await;
        let named = from.ask(&self.database, ask).await?;
        let column = |at: usize| named.iter().map(|row| row.get(at)).collect::<Vec<&str>>();
        let (kinds, schemas, names) = (column(0), column(2), column(3));
        let ask = async |client: &Client| client.query(IDS, &[&kinds, &schemas, &names]).await;
        let found = to.ask(&self.database, ask).await?;
        let pairs = found.into_iter().filter_map(|row| {
            let index = usize::try_from(row.get::<_, i64>(0)).ok()?.checked_sub(1)?;
            let kind = if kinds[index] == "t" { OidKind::Type } else { OidKind::Class };
            let before = (side, kind, named[index].get(1));
            Some((before, (other, kind, row.get::<_, Option<u32>>(1)?)))
        });
        Ok(pairs.collect())
    }
}

/// Writes ids to their places.
fn put(places: &[OidPlace], frame: &mut [u8]) {
    for place in places {
        frame[place.at..place.at + 4].copy_from_slice(&place.oid.to_be_bytes());
    }
}
