//! Routed texts, so that a text is parsed once: bounded, a cache a worker, database and search path.

use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::Mutex;

use crate::executor::LiveMap;
use crate::planner::shown;
use crate::router::{Context, Template, template, template_plain, template_together};
use crate::shard_map::{ShardMap, Table, TableKind};
use crate::sql::Strings;

/// Texts in one generation; twice as many are kept at the most.
const GENERATION: usize = 2_048;
/// Longer texts are not kept: they are data, not statements that come again.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// The routed texts of one database and search path.
#[derive(Debug)]
pub(super) struct Templates {
    database: String,
    search_path: Vec<String>,
    strings: Strings,
    kept: Mutex<Kept>,
}

/// Two generations: what is used moves to the young one, and the old one goes as a whole.
#[derive(Debug, Default)]
struct Kept {
    young: HashMap<Box<str>, Arc<Template>>,
    old: HashMap<Box<str>, Arc<Template>>,
}

impl Templates {
    pub(super) fn new(database: String, search_path: Vec<String>, strings: Strings) -> Self {
        Self { database, search_path, strings, kept: Mutex::default() }
    }

    /// The same for rows that are taken in portions; not kept.
    pub(super) fn together(&self, text: &str, map: &ShardMap) -> Arc<Template> {
        let (database, search_path) = (&self.database, &self.search_path);
        let context = Context { database, search_path, strings: self.strings };
        Arc::new(template_together(text, &context, map))
    }

    /// The same without what lookups say; not kept.
    pub(super) fn plain(&self, text: &str, map: &ShardMap) -> Arc<Template> {
        let (database, search_path) = (&self.database, &self.search_path);
        let context = Context { database, search_path, strings: self.strings };
        Arc::new(template_plain(text, &context, map))
    }

    /// The routed `text` at the epoch in force.
    pub(super) fn get(&self, text: &str, live_map: &LiveMap) -> Arc<Template> {
        if let Some(found) = self.kept.lock().find(text)
            && found.epoch == live_map.epoch()
        {
            return found;
        }
        self.make(text, &live_map.load())
    }

    /// The routed `text` for a session that sees this map; not kept.
    pub(super) fn seen(&self, text: &str, map: &ShardMap) -> Arc<Template> {
        let (database, search_path) = (&self.database, &self.search_path);
        let context = Context { database, search_path, strings: self.strings };
        Arc::new(showing(template(text, &context, map), text, &context, map))
    }

    fn make(&self, text: &str, map: &ShardMap) -> Arc<Template> {
        let made = self.seen(text, map);
        if text.len() <= TEXT_BYTES_MAX && !may_hold_secret(text) {
            self.kept.lock().keep(text.into(), Arc::clone(&made));
        }
        made
    }
}

/// Queries of the system catalog at home show the tables as the application thinks of them.
fn showing(template: Template, text: &str, context: &Context<'_>, map: &ShardMap) -> Template {
    let sharded = |table: &Table| matches!(table.kind, TableKind::Sharded { .. });
    if context.database != map.database()
        || !template.is_for_home()
        || !map.tables().iter().any(sharded)
    {
        return template;
    }
    let path = context.search_path;
    let catalog = path.iter().position(|schema| schema == "pg_catalog");
    let shown = shown(text, context.strings, catalog.is_none_or(|place| place == 0));
    match shown {
        Some(shown) => template.showing(shown),
        None => template,
    }
}

/// Whether a password may be in a text, which is not kept in memory longer than needed then.
fn may_hold_secret(text: &str) -> bool {
    let word = b"password";
    text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

impl Kept {
    fn find(&mut self, text: &str) -> Option<Arc<Template>> {
        if let Some(found) = self.young.get(text) {
            return Some(Arc::clone(found));
        }
        let (text, found) = self.old.remove_entry(text)?;
        self.keep(text, Arc::clone(&found));
        Some(found)
    }

    fn keep(&mut self, text: Box<str>, template: Arc<Template>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(text, template);
    }
}

/// The caches of one worker.
#[derive(Debug, Default)]
pub(super) struct AllTemplates {
    by_context: Mutex<HashMap<ContextKey, Arc<Templates>>>,
}

/// Database, search path, and how strings are read.
type ContextKey = (String, Vec<String>, Strings);

/// Combinations of database and search path that are kept.
const CONTEXTS: usize = 256;

impl AllTemplates {
    /// The cache of a session with this database, search path and reading of strings.
    pub(super) fn of(
        &self,
        database: &str,
        search_path: &[String],
        strings: Strings,
    ) -> Arc<Templates> {
        let key = (database.to_owned(), search_path.to_vec(), strings);
        let mut by_context = self.by_context.lock();
        if by_context.len() >= CONTEXTS && !by_context.contains_key(&key) {
            by_context.clear();
        }
        let made = || Arc::new(Templates::new(key.0.clone(), key.1.clone(), key.2));
        Arc::clone(by_context.entry(key.clone()).or_insert_with(made))
    }
}
