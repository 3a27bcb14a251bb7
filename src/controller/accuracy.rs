//! Scores each shard's forecasts when their time has come, and distrusts those that were bad.

use super::planning::{Picture, real};
use crate::forecast::{Config, Scorecard};
use crate::load::History;

/// A scorecard for each shard.
#[derive(Debug, Clone, Default)]
pub(super) struct Accuracy {
    cards: Vec<Scorecard>,
    settled_to: u64,
}

impl Accuracy {
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

    /// Distrusts the forecasts of shards whose recent ones were bad, and remembers what all say.
    pub(super) fn judge(&mut self, picture: &mut Picture, history: &History, config: &Config) {
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
    }
}
