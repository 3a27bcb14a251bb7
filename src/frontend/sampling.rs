//! One statement in many, looked at more closely.

use std::time::Duration;

use super::session::ClientSession;
use super::simple::access;
use crate::ids::ShardId;
use crate::load::{Class, Sample};
use crate::router::{Params, Route, Template};
use crate::sql::fingerprint;

impl ClientSession {
    /// Notes what the samples show of a statement that is about to run; its busy time comes later.
    #[cold]
    #[expect(clippy::too_many_arguments, reason = "all that is known where it is routed")]
    pub(super) fn look_at(
        &mut self,
        text: &str,
        template: &Template,
        params: &Params<'_>,
        route: &Route,
        shards: &[ShardId],
    ) {
        let class = match route {
            Route::Shards(_) | Route::Insert(..) => Class::Point,
            Route::Write(_) => Class::Range,
            Route::Scatter(_) | Route::Pull(_) | Route::CopyOut(_) => Class::Scan,
            _ => return,
        };
        let key = template.sample_key(params);
        let class = match (class, shards.len(), &key) {
            (Class::Point, 2.., None) => Class::Range,
            (class, ..) => class,
        };
        let strings = self.session.strings();
        let text = template.fingerprint(|| Sample::cut(&fingerprint(text, strings)));
        self.session.sampled = Some(Box::new(Sample {
            shards: shards.into(),
            class,
            access: access(template.access),
            inserts: text.get(..6).is_some_and(|verb| verb.eq_ignore_ascii_case("insert")),
            text,
            key,
            busy: Duration::ZERO,
        }));
    }
}
