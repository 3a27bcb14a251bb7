//! Scores each shard's forecasts when their time has come, distrusts those that were bad, and keeps
//! the scores over a restart.

use serde::{Deserialize, Serialize};

use super::planning::{Picture, real};
use crate::catalog::{Catalog, CatalogError, Change, Expect, Record};
use crate::forecast::{Config, Scorecard};
use crate::ids::ShardId;
use crate::load::History;

/// Scorecards written by one commit, at the most.
const COMMIT_MAX: usize = 50;

/// A scorecard for each shard.
#[derive(Debug, Clone, Default)]
pub(super) struct Accuracy {
    cards: Vec<Scorecard>,
    /// Whether the last forecast of each shard was trusted.
    trusted: Vec<bool>,
    settled_to: u64,
}

/// A shard whose forecasts are believed no longer, or again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) shard: ShardId,
    /// Why they are not; `None` if they are again.
    pub(super) fallback: Option<String>,
}

/// A scorecard as it outlives a restart.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    shard: ShardId,
    card: Scorecard,
}

impl Record for Kept {
    const PREFIX: &'static str = "accuracy/";

    fn id(&self) -> String {
        format!("{:010}", self.shard.0)
    }
}

impl Accuracy {
    /// What was kept, as far as it fits forecasts of so many steps.
    pub(super) async fn read(catalog: &Catalog, horizon: usize) -> Result<Self, CatalogError> {
        let mut cards: Vec<Scorecard> = Vec::new();
        for stored in catalog.list::<Kept>().await? {
            let Kept { shard, card } = stored.record;
            cards.resize_with(cards.len().max(shard.index() + 1), || Scorecard::new(horizon));
            if card.is_for(horizon) {
                cards[shard.index()] = card;
            }
        }
        Ok(Self { cards, ..Self::default() })
    }

    /// Keeps the scores over a restart; not what waits for its outcome.
    pub(super) async fn store(&self, catalog: &Catalog) -> Result<(), CatalogError> {
        let cards: Vec<(u32, &Scorecard)> =
            (0..).zip(&self.cards).filter(|(_, card)| !card.scores().is_empty()).collect();
        for cards in cards.chunks(COMMIT_MAX) {
            let put = |change: Change, (shard, card): &(u32, &Scorecard)| {
                let kept = Kept { shard: ShardId(*shard), card: Scorecard::clone(card) };
                change.put(&kept, Expect::Anything)
            };
            catalog.commit(cards.iter().try_fold(Change::new(), put)?).await?;
        }
        Ok(())
    }

    /// Begins anew with shards that came to be, whose ids others may have had.
    pub(super) fn forget(&mut self, shards: &[ShardId]) {
        for shard in shards {
            if let Some(card) = self.cards.get_mut(shard.index()) {
                card.clear();
            }
        }
    }

    /// By shard id.
    pub(super) fn cards(&self) -> &[Scorecard] {
        &self.cards
    }

    /// Scores what was said of the steps that are over since the last time.
    pub(super) fn settle(&mut self, history: &History) {
        let from = self.settled_to.max(history.first_step());
        for (card, columns) in self.cards.iter_mut().zip(history.shards()) {
            for step in from..history.end_step() {
                let at = usize::try_from(step - history.first_step()).ok();
                let came = at.and_then(|at| columns.busy.get(at));
                came.into_iter().for_each(|came| card.settle(step, f64::from(*came)));
            }
        }
        self.settled_to = history.end_step();
    }

    /// Distrusts the forecasts of shards whose recent ones were bad, and remembers what all say. The
    /// shards of which that is news.
    pub(super) fn judge(
        &mut self,
        picture: &mut Picture,
        history: &History,
        config: &Config,
    ) -> Vec<Turn> {
        let horizon = config.horizon_steps();
        self.cards
            .resize_with(picture.shards.len().max(self.cards.len()), || Scorecard::new(horizon));
        let day = config.day_steps();
        let known = history.shards().iter().map(|columns| real(&columns.busy));
        let all = self.cards.iter_mut().zip(&mut picture.shards).zip(known);
        for ((card, forecast), busy) in all {
            // What came while the forecasts were made is not part of what they knew.
            let busy = &busy[..picture.steps.min(busy.len())];
            card.promise(picture.end_step, forecast, busy, day);
            if let Some(why) = card.verdict().filter(|_| forecast.trusted) {
                forecast.distrust(why);
            }
        }
        let trusted = picture.shards.iter().map(|forecast| forecast.trusted).collect();
        let before = std::mem::replace(&mut self.trusted, trusted);
        let shards = (0..).map(ShardId).zip(&picture.shards).zip(before);
        let turned = shards.filter(|((_, forecast), before)| forecast.trusted != *before);
        let turn = |((shard, forecast), _): ((ShardId, &crate::forecast::Forecast), bool)| Turn {
            shard,
            fallback: forecast.fallback.clone(),
        };
        turned.map(turn).collect()
    }
}
