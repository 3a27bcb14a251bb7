//! The loop itself.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::accuracy::{Accuracy, Turn};
use super::expectation::{Expectations, Pledges};
use super::heritage::{self, Heritage};
use super::insight::Insight;
use super::ledger::Ledger;
use super::moves::{MoveBook, requested};
use super::planning::{Hours, Past, Picture, Studies, View, scene};
use super::status::{self, MoveStatus, Status};
use super::store::Stored;
use super::{Config, import, metric};
use crate::backend::NodeAddress;
use crate::catalog::{Catalog, CatalogError, Change, Expect, Versioned};
use crate::executor::LiveMap;
use crate::forecast;
use crate::load::{self, Counters, Ladder, LadderPlan, Recorder, Resolution, Samples};
use crate::placement::{self, Decision, Mode, Scene, Standing, decide, merge};
use crate::runtime::Tasks;
use crate::runtime::now_unix_ms;
use crate::shard_map::ShardMap;
use crate::shard_move::Move;

/// What the controller works with.
#[derive(Debug)]
pub struct ControllerContext {
    /// Where history, decisions and moves are kept.
    pub catalog: Catalog,
    /// Says where each shard is.
    pub live_map: LiveMap,
    /// What the executor counts into.
    pub counters: Counters,
    /// What sessions hand in of single statements.
    pub samples: Samples,
    /// How to reach each node, to ask it how it is.
    pub nodes: Vec<NodeAddress>,
    /// How it works.
    pub settings: Settings,
    /// Where it publishes what it sees.
    pub status: watch::Sender<Arc<Status>>,
    /// Where it shows load and forecasts.
    pub insight: Insight,
}

/// The configuration of all that takes part.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// Of the loop.
    pub controller: Config,
    /// Of the samples.
    pub load: load::Config,
    /// Of the forecasts.
    pub forecast: forecast::Config,
    /// Of the decisions.
    pub placement: placement::Config,
}

impl Settings {
    /// Which past is kept.
    fn ladder(&self) -> LadderPlan {
        const HOUR_MS: u64 = 3_600_000;
        LadderPlan {
            step_ms: self.forecast.step_ms(),
            steps: self.forecast.history_steps(),
            day_ms: self.forecast.day_ms,
            sample_ms: self.load.sample_interval_ms,
            samples_kept_ms: self.load.samples_kept_hours.saturating_mul(HOUR_MS),
            ten_minutes_kept_ms: self.load.ten_minutes_kept_days.saturating_mul(24 * HOUR_MS),
            hours_kept_ms: self.load.hours_kept_days.saturating_mul(24 * HOUR_MS),
        }
    }
}

/// Looks, forecasts and decides until `tasks` is stopped, and then stores the history once more.
/// Not cancel safe: stop it by its tasks.
pub async fn run(context: ControllerContext, tasks: Tasks) {
    let token = tasks.token().clone();
    let interval = Duration::from_millis(context.settings.controller.status_interval_ms);
    let mut controller = loop {
        let started = tokio::select! {
            started = Controller::start(&context) => started,
            () = token.cancelled() => return,
        };
        match started {
            Ok(controller) => break controller,
            Err(error) => tracing::warn!(%error, "the controller can't start yet"),
        }
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    };
    let sampler = load::sample(
        Arc::clone(&controller.recorder),
        context.counters.clone(),
        Duration::from_millis(context.settings.load.sample_interval_ms),
        token.clone(),
    );
    tasks.spawn("load", sampler);
    let database = context.live_map.load().database().to_owned();
    context.insight.probe(&context.nodes, &database, &context.settings.load, &tasks);
    while !token.is_cancelled() {
        controller.study(&context, &tasks);
        if let Err(error) = controller.look(&context).await {
            tracing::warn!(%error, "the controller can't read or write the catalog");
        }
        tokio::select! {
            () = token.cancelled() => break,
            () = tokio::time::sleep(until_next(interval)) => {}
        }
    }
    if let Err(error) = controller.stored.store(&context.catalog, &controller.recorder).await {
        tracing::warn!(%error, "the last seconds of load history are lost");
    }
    if let Err(error) = controller.accuracy.store(&context.catalog).await {
        tracing::warn!(%error, "the scores of the last forecasts are lost");
    }
}

/// The time to a little after the next whole multiple of the interval, when the sample of that time
/// has been taken.
fn until_next(interval: Duration) -> Duration {
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(interval_ms - now_unix_ms() % interval_ms + (interval_ms / 20).min(50))
}

/// Says that a shard's forecasts are believed no longer, or again.
fn tell(Turn { shard, fallback }: &Turn) {
    if let Some(reason) = fallback {
        tracing::warn!(%shard, reason, "a forecast is not trusted: it falls back to persistence");
        metric::fallback(*shard);
    } else {
        tracing::info!(%shard, "a forecast is trusted again");
    }
}

/// The scores of forecasts are stored each so many times that the history is.
const SCORES_EVERY: u64 = 30;

/// Reads and writes, which only the heatmap shows, are forecast at each so many looks.
const STATEMENTS_EVERY: u64 = 5;

struct Controller {
    recorder: Arc<Mutex<Recorder>>,
    stored: Stored,
    stored_unix_ms: u64,
    scores_unix_ms: u64,
    heritage: Heritage,
    moves: MoveBook,
    ledger: Ledger,
    picture: Arc<Picture>,
    accuracy: Accuracy,
    pledges: Pledges,
    /// Forecasts made so far.
    looks: u64,
    forecast_unix_ms: u64,
    studies: Arc<Mutex<Arc<Studies>>>,
    studied_unix_ms: u64,
}

impl Controller {
    async fn start(context: &ControllerContext) -> Result<Self, CatalogError> {
        let ladder = Ladder::new(&context.settings.ladder());
        let (mut ladder, stored) = Stored::restore(&context.catalog, ladder).await?;
        let horizon = context.settings.forecast.horizon_steps();
        let accuracy = Accuracy::read(&context.catalog, horizon).await?;
        let url = context.settings.load.import_from_prometheus.as_deref();
        if let Some(url) = url.filter(|_| ladder.base().is_empty()) {
            let steps = context.settings.forecast.history_steps();
            match import::import(&mut ladder, url, steps, now_unix_ms()).await {
                Ok(steps) => tracing::info!(steps, "the past was taken from Prometheus"),
                Err(error) => tracing::warn!(%error, "no past was taken from Prometheus"),
            }
        }
        let heritage = Heritage::read(&context.catalog).await?;
        let kept = context.settings.controller.decisions_kept;
        let ledger = Ledger::open(&context.catalog, kept).await?;
        let now = now_unix_ms();
        let recorder = Recorder::new(ladder, now, context.counters.snapshot());
        let recorder = Arc::new(Mutex::new(recorder));
        context.insight.begin(Arc::clone(&recorder), context.settings.forecast.step_ms());
        Ok(Self {
            recorder,
            stored,
            stored_unix_ms: now,
            scores_unix_ms: now,
            heritage,
            moves: MoveBook::default(),
            ledger,
            picture: Arc::default(),
            accuracy,
            pledges: Pledges::default(),
            looks: 0,
            forecast_unix_ms: 0,
            studies: Arc::default(),
            studied_unix_ms: 0,
        })
    }

    /// One round: store, forecast and decide if it is time, publish.
    async fn look(&mut self, context: &ControllerContext) -> Result<(), CatalogError> {
        let settings = &context.settings;
        let now = now_unix_ms();
        context.insight.take(&context.samples.take(), now);
        let kept = settings.controller.moves_kept;
        let mut moves = self.moves.renew(&context.catalog, kept).await?;
        let heirs = self.heritage.settle(&moves, &self.recorder, &context.insight);
        let inherited = !heirs.is_empty();
        if inherited {
            self.stored.forget();
            self.accuracy.forget(&heirs);
        }
        let store_interval_ms = settings.load.store_interval_ms;
        if inherited || now.saturating_sub(self.stored_unix_ms) >= store_interval_ms {
            self.stored.store(&context.catalog, &self.recorder).await?;
            self.stored_unix_ms = now;
        }
        if inherited {
            self.heritage.store(&context.catalog).await?;
        }
        if now.saturating_sub(self.scores_unix_ms) >= SCORES_EVERY * store_interval_ms {
            self.accuracy.store(&context.catalog).await?;
            self.scores_unix_ms = now;
        }
        // A little early is in time: the loop's own beat is not exact.
        let interval_ms = settings.controller.forecast_interval_ms;
        let due = now.saturating_sub(self.forecast_unix_ms) >= interval_ms - interval_ms / 10;
        self.accuracy.settle(self.recorder.lock().history());
        if due && self.forecast(context).await? {
            self.forecast_unix_ms = now;
        }
        let map = context.live_map.snapshot();
        self.approvals(context, &map, &mut moves).await?;
        if self.forecast_unix_ms == now && settings.placement.mode != Mode::Off {
            let scene = self.scene(context, &map, &moves, now);
            self.decide(context, (&map, &scene), &mut moves).await?;
        }
        self.publish(context, &map, &moves);
        Ok(())
    }

    /// Forecasts everything anew where blocking is allowed. Whether there is anything to see.
    async fn forecast(&mut self, context: &ControllerContext) -> Result<bool, CatalogError> {
        let declared = &context.settings.forecast.events;
        let known = Expectations::read(&context.catalog, declared, now_unix_ms()).await?;
        let map = context.live_map.snapshot();
        let with_statements = self.looks.is_multiple_of(STATEMENTS_EVERY);
        let mut past = Past::of(self.recorder.lock().history(), with_statements);
        if past.steps == 0 {
            return Ok(false);
        }
        heritage::from_siblings(&mut past, &map);
        if known.events.iter().any(forecast::Event::is_learned) {
            past.hours = self.recorder.lock().ladder().of(Resolution::Hour).map(Hours::of);
        }
        let config = context.settings.forecast.clone();
        let studies = Arc::clone(&self.studies.lock());
        let mut pledges = std::mem::take(&mut self.pledges);
        let learned = pledges.settle(self.recorder.lock().history(), &known.credits);
        for credit in &learned {
            context.catalog.put(credit, Expect::Anything).await?;
        }
        let begin = tokio::time::Instant::now();
        let work = tokio::task::spawn_blocking(move || {
            let mut picture = Picture::of(&past, &config, &studies);
            pledges.note(&picture, &known, &map, &config);
            picture.expect(&known, &map, (&past, &config));
            (picture, pledges)
        });
        let mut picture = match work.await {
            Ok((picture, pledges)) => {
                self.pledges = pledges;
                picture
            }
            Err(error) => {
                tracing::error!(%error, "forecasting failed");
                return Ok(false);
            }
        };
        if !with_statements {
            picture.statements.clone_from(&self.picture.statements);
            picture.statements_step = self.picture.statements_step;
        }
        let config = &context.settings.forecast;
        let turns = self.accuracy.judge(&mut picture, self.recorder.lock().history(), config);
        turns.iter().for_each(tell);
        metric::forecasts(&picture, begin.elapsed());
        metric::accuracy(self.accuracy.cards());
        self.looks += 1;
        self.picture = Arc::new(picture);
        context.insight.renew(Arc::clone(&self.picture), self.accuracy.clone());
        Ok(true)
    }

    /// Lets the slow models look, if there are any and it is time; nobody waits for them.
    fn study(&mut self, context: &ControllerContext, tasks: &Tasks) {
        let config = &context.settings.forecast;
        let now = now_unix_ms();
        let slow = config.models.iter().any(|model| model.is_slow());
        if !slow || now.saturating_sub(self.studied_unix_ms) < config.study_interval_ms {
            return;
        }
        let mut past = Past::of(self.recorder.lock().history(), false);
        if past.steps == 0 {
            return;
        }
        if !config.holidays.is_empty() {
            past.hours = self.recorder.lock().ladder().of(Resolution::Hour).map(Hours::of);
        }
        self.studied_unix_ms = now;
        let (config, studies) = (config.clone(), Arc::clone(&self.studies));
        // Until the next study is ready, which may take as long again.
        let slack = usize::try_from(2 * config.study_interval_ms / config.step_ms()).unwrap_or(1);
        let slack = slack.clamp(1, config.horizon_steps());
        tasks.spawn("study", async move {
            let work = move || Studies::of(&past, &config, slack);
            match tokio::task::spawn_blocking(work).await {
                Ok(found) => *studies.lock() = Arc::new(found),
                Err(error) => tracing::error!(%error, "the slow models failed"),
            }
        });
    }

    fn scene(
        &self,
        context: &ControllerContext,
        map: &ShardMap,
        moves: &[Move],
        now_unix_ms: u64,
    ) -> Scene {
        let settings = &context.settings;
        let step_ms = settings.forecast.step_ms();
        let day_peaks = self.recorder.lock().history().peaks(settings.forecast.day_steps());
        let divisions = context.insight.divisions(map);
        let view =
            View { picture: &self.picture, divisions: &divisions, day_peaks: &day_peaks, step_ms };
        scene(&view, map, moves, (now_unix_ms, &settings.placement))
    }

    /// Weighs moves, requests the one that is worth it if the mode is `auto`, records what is news.
    async fn decide(
        &mut self,
        context: &ControllerContext,
        (map, scene): (&ShardMap, &Scene),
        moves: &mut Vec<Move>,
    ) -> Result<(), CatalogError> {
        let config = &context.settings.placement;
        let mut decisions = decide(scene, config);
        if decisions.is_empty() {
            decisions.extend(merge(scene, config));
        }
        for decision in decisions {
            self.act(context, map, decision, moves).await?;
        }
        Ok(())
    }

    /// Requests what a decision has chosen, if that is the mode; records it if it is news.
    async fn act(
        &mut self,
        context: &ControllerContext,
        map: &ShardMap,
        mut decision: Decision,
        moves: &mut Vec<Move>,
    ) -> Result<(), CatalogError> {
        let mut change = Change::new();
        if let Some(chosen) = decision.chosen.clone() {
            (decision.standing, decision.not_taken_reason) = self.standing(context);
            if decision.standing == Standing::Requested {
                let now = decision.at_unix_ms;
                let wanted = requested(&chosen, &decision, map, moves, now);
                let wanted = wanted.inspect_err(|error| {
                    tracing::warn!(%error, "what was decided is not possible");
                });
                let Ok(m) = wanted else { return Ok(()) };
                decision.move_id = Some(m.id);
                change = change.put(&m, Expect::Absent)?;
                moves.push(m);
                tracing::info!(reason = chosen.reason, "move requested");
            }
        }
        let window_ms = context.settings.placement.window_ms;
        let news = self.ledger.is_news(&decision, window_ms);
        let asked = decision.standing == Standing::AwaitingApproval;
        if asked && self.ledger.awaits(decision.node) {
            return Ok(());
        }
        if news || asked || decision.standing == Standing::Requested {
            self.ledger.record(&context.catalog, decision, change).await?;
        }
        Ok(())
    }

    /// What becomes of a decision with a move chosen, and why it is not carried out.
    fn standing(&self, context: &ControllerContext) -> (Standing, Option<String>) {
        let config = &context.settings.placement;
        let step_ms = context.settings.forecast.step_ms();
        let known_ms =
            u64::try_from(self.picture.steps).unwrap_or(u64::MAX).saturating_mul(step_ms);
        if known_ms < config.warm_up_ms {
            let (known, needed) = (known_ms / 1000, config.warm_up_ms / 1000);
            let why = format!(
                "still learning: the load is known for {known} s of the {needed} s that are needed \
                 before shards are moved"
            );
            return (Standing::Advised, Some(why));
        }
        match config.mode {
            Mode::Auto => (Standing::Requested, None),
            Mode::Approve => {
                (Standing::AwaitingApproval, Some("waits for somebody to approve it".to_owned()))
            }
            Mode::Off | Mode::Advise => {
                (Standing::Advised, Some("advice only: the mode is advise".to_owned()))
            }
        }
    }

    /// Carries out what was approved, and lets what waited too long expire.
    async fn approvals(
        &mut self,
        context: &ControllerContext,
        map: &ShardMap,
        moves: &mut Vec<Move>,
    ) -> Result<(), CatalogError> {
        let now = now_unix_ms();
        for Versioned { record: mut decision, revision } in
            self.ledger.waiting(&context.catalog).await?
        {
            let Some(chosen) = decision.chosen.clone() else { continue };
            let age_ms = now.saturating_sub(decision.at_unix_ms);
            let late = age_ms > context.settings.controller.approval_timeout_ms;
            let in_move = moves.iter().any(|m| m.touches(chosen.shard) && m.is_under_way());
            let owner = map.shard(chosen.shard).map(|shard| shard.node);
            let m = requested(&chosen, &decision, map, moves, now).ok();
            let possible = m.filter(|_| owner == Some(chosen.from) && !in_move && !late);
            let mut change = Change::new();
            decision.standing = match (decision.standing, possible) {
                (Standing::Approved, Some(m)) => {
                    decision.move_id = Some(m.id);
                    decision.not_taken_reason = None;
                    change = change.put(&m, Expect::Absent)?;
                    moves.push(m);
                    Standing::Requested
                }
                (_, None) => {
                    let why = if late { "was not approved in time" } else { "no longer possible" };
                    decision.not_taken_reason = Some(why.to_owned());
                    Standing::Expired
                }
                (_, Some(_)) => continue,
            };
            let decision = Versioned { record: decision, revision };
            self.ledger.update(&context.catalog, decision, change).await?;
        }
        Ok(())
    }

    fn publish(&self, context: &ControllerContext, map: &ShardMap, moves: &[Move]) {
        let settings = &context.settings;
        let now = now_unix_ms();
        let scene = self.scene(context, map, moves, now);
        let recorder = self.recorder.lock();
        let rates = recorder.now();
        let correlation = settings.placement.error_correlation;
        let step_ms = settings.forecast.step_ms();
        let status = Status {
            at_unix_ms: now,
            epoch: Some(map.epoch()),
            mode: settings.placement.mode,
            step_ms,
            history_steps: recorder.history().len(),
            warm_up_steps: settings.placement.warm_up_ms.div_ceil(step_ms),
            forecast_unix_ms: self.forecast_unix_ms,
            nodes: status::nodes(&scene, correlation, map, rates),
            shards: status::shards(&self.picture, map, rates),
            decisions: self.ledger.recent(),
            moves: moves.iter().filter(|m| m.is_under_way()).map(MoveStatus::from).collect(),
        };
        context.status.send_replace(Arc::new(status));
    }
}
