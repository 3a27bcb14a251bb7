//! The story, from the first table to the verdict.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use foreshard::app::{AdminClient, Observer};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::census;
use crate::day::{DAY_MS, Day, RUSH_HALF_MS, RUSH_MS};
use crate::loads::Loads;
use crate::pgbench::Pgbench;
use crate::proxy::Foreshard;
use crate::report::Report;
use crate::screen::{Screen, now_unix_ms, say, seconds};
use crate::shop;

/// Shards whose tenants are hot in the rush.
const HOT_SHARDS: usize = 3;
/// When in the day the controller has seen enough to act: after the rush.
const WARM_UP_ENDS_MS: u64 = 31_000;
/// How long the load goes on then: the rush of two more days.
const AFTER_WARM_UP_MS: u64 = 2 * DAY_MS + 1_000;
/// How long the height of a rush is tried before.
const TRIAL_MS: u64 = 7_000;
/// How many more trials there are at the most.
const TRIALS_MORE: u64 = 3;
/// How often the proxy is asked.
const LOOK: Duration = Duration::from_millis(500);
/// How long a move that is under way at the end of the load may take.
const MOVES_DEADLINE: Duration = Duration::from_mins(1);

/// Plays it all. Whether it came out as it should.
pub(crate) async fn run(foreshard: &mut Foreshard) -> anyhow::Result<bool> {
    let began = Instant::now();
    foreshard.wait_ready().await?;
    shop::build(foreshard).await?;
    let (nodes, admin) = (foreshard.nodes().await?, foreshard.admin()?);
    let hot = nodes.iter().find(|node| !node.home).context("there is only the home node")?;
    let hot_tenants = shop::tenants_to_heat(hot, HOT_SHARDS).await?;
    say(format!("the rush will heat {} tenants on node {}", hot_tenants.len(), hot.name));

    let mut trial = Day::trial(hot_tenants, TRIAL_MS / 2);
    let (mut busy, capacity) = try_out(foreshard, &trial, &hot.name, 0).await?;
    // The first one meets cold nodes, and one that was busy to the brim says little of less.
    for run in 1..=TRIALS_MORE {
        let Some(next) = trial.next_trial(busy, capacity, TRIAL_MS / 2) else { break };
        (busy, _) = try_out(foreshard, &next, &hot.name, run).await?;
        trial = next;
    }
    let before = census::take(&nodes, &admin).await.context("counting before the load")?;
    let warm_up_ms = warm_up_ms(&admin).await?;
    let first_unix_ms = now_unix_ms();
    let origin_unix_ms = (first_unix_ms + warm_up_ms - WARM_UP_ENDS_MS) - 100 * DAY_MS;
    let day = trial.overloading(busy, capacity, origin_unix_ms);
    let run_ms = warm_up_ms + AFTER_WARM_UP_MS;
    say(format!(
        "starting pgbench for {} s; a day is {} s long, and its rush is at {} s, with {} \
         transactions a second more",
        run_ms / 1_000,
        DAY_MS / 1_000,
        RUSH_MS / 1_000,
        day.rush_rate
    ));
    let mut pgbench = Pgbench::start(foreshard, &day, run_ms / 1_000, TRIALS_MORE + 1)?;
    let mut live = Live {
        observer: Observer::new(admin.clone()),
        admin: admin.clone(),
        screen: Screen::new(),
        loads: Loads::default(),
        end_unix_ms: first_unix_ms + run_ms,
        first_unix_ms,
        told: String::new(),
        seen: BTreeSet::new(),
        day,
    };
    let status = tokio::select! {
        status = pgbench.wait() => status?,
        failed = live.watch() => { failed?; bail!("the watch has ended") }
    };
    say("\nthe load has ended; counting on every node");
    let moves = finished_moves(&admin).await?;
    let after = census::take(&nodes, &admin).await.context("counting after the load")?;
    let outcome = pgbench.outcome(status)?;
    let report = Report { before, after, outcome, moves, loads: live.loads };
    let good = report.tell();
    say(format!("\nthe demo took {:.0} s", began.elapsed().as_secs_f64()));
    Ok(good)
}

/// Plays the height of a rush, to see how busy the hot node is with it on this machine: the load of
/// the node and what it can bear, in busy seconds a second.
async fn try_out(
    foreshard: &Foreshard,
    day: &Day,
    hot: &str,
    run: u64,
) -> anyhow::Result<(f64, f64)> {
    say(format!(
        "trying a rush of {} transactions a second for {} s, to find a rate that suits this machine",
        day.rush_rate,
        TRIAL_MS / 1_000
    ));
    let mut pgbench = Pgbench::start(foreshard, day, TRIAL_MS / 1_000, run)?;
    let (admin, mut loads) = (foreshard.admin()?, Loads::default());
    let first_unix_ms = now_unix_ms();
    let status = loop {
        let look = tokio::time::timeout(LOOK, pgbench.wait()).await;
        let status = admin.get("/api/v1/status").await?;
        loads.note(&status["controller"], day, first_unix_ms);
        if let Ok(ended) = look {
            break ended?;
        }
    };
    let outcome = pgbench.outcome(status)?;
    if outcome.failed > 0 || !status.success() {
        bail!("the trial failed ({status}): {}", outcome.complaints.join("\n"));
    }
    let busy = loads.peak(hot).filter(|busy| *busy > 0.0).context("no load was measured")?;
    say(format!("  node {hot} was busy for {busy:.2} s a second; it can bear {}", loads.capacity));
    Ok((busy, loads.capacity))
}

/// How long the controller still only watches.
async fn warm_up_ms(admin: &AdminClient) -> anyhow::Result<u64> {
    let status = admin.get("/api/v1/status").await?;
    let number = |key: &str| {
        let value = status["controller"][key].as_u64();
        value.with_context(|| format!("the controller's {key} is not known"))
    };
    let left = number("warm_up_steps")?.saturating_sub(number("history_steps")?);
    Ok(left * number("step_ms")?)
}

/// All moves, once none is under way.
async fn finished_moves(admin: &AdminClient) -> anyhow::Result<Vec<Value>> {
    let deadline = Instant::now() + MOVES_DEADLINE;
    loop {
        let answer = admin.get("/api/v1/moves?limit=1000").await?;
        let mut moves = answer["moves"].as_array().cloned().unwrap_or_default();
        moves.reverse();
        if moves.iter().all(|mv| mv["finished"] == true) || Instant::now() > deadline {
            return Ok(moves);
        }
        sleep(LOOK).await;
    }
}

/// The live part.
struct Live {
    observer: Observer,
    admin: AdminClient,
    screen: Screen,
    loads: Loads,
    day: Day,
    first_unix_ms: u64,
    end_unix_ms: u64,
    told: String,
    /// Days, and lines without their numbers.
    seen: BTreeSet<(u64, String)>,
}

impl Live {
    /// Shows what the proxy sees, until it does not answer any more.
    async fn watch(&mut self) -> anyhow::Result<()> {
        loop {
            self.observer.look().await?;
            let status = self.admin.get("/api/v1/status").await?;
            let controller = &status["controller"];
            self.loads.note(controller, &self.day, self.first_unix_ms);
            if self.screen.redraws() {
                Screen::draw(&format!("{}\n\n{}", self.clock(), self.observer.screen()));
            } else {
                self.tell_time();
                self.tell_news();
            }
            sleep(LOOK).await;
        }
    }

    fn tell_news(&mut self) {
        for line in self.observer.news() {
            if self.is_new(&line) {
                self.screen.line(line);
            }
        }
    }

    /// Whether no line of this day differs from it in its numbers alone. Loads are always new.
    fn is_new(&mut self, line: &str) -> bool {
        let (day, _) = self.day.at(now_unix_ms(), self.first_unix_ms);
        let words: String = line.chars().filter(|c| !c.is_ascii_digit()).collect();
        let requests = line.ends_with("[requested]") || !line.starts_with("decision");
        self.seen.insert((day, words)) || requests
    }

    /// The time of the shop.
    fn clock(&self) -> String {
        let now = now_unix_ms();
        let (number, phase) = self.day.at(now, self.first_unix_ms);
        let left = seconds(self.end_unix_ms.saturating_sub(now));
        let hour = if rush_at(phase) { "rush" } else { "quiet" };
        format!(
            "DAY {number}   {:>4.1} s of {} s   {hour:<5}   the load ends in {left:.0} s",
            seconds(phase),
            DAY_MS / 1_000
        )
    }

    /// Says when a rush begins or ends.
    fn tell_time(&mut self) {
        let (number, phase) = self.day.at(now_unix_ms(), self.first_unix_ms);
        let line = match rush_at(phase) {
            true => format!("day {number}: the rush begins"),
            false if phase > RUSH_MS => format!("day {number}: the rush is over"),
            false => format!("day {number}: quiet"),
        };
        if line != self.told {
            self.screen.line(format!("--- {line}"));
            self.told = line;
        }
    }
}

fn rush_at(phase_ms: u64) -> bool {
    phase_ms.abs_diff(RUSH_MS) <= RUSH_HALF_MS
}
