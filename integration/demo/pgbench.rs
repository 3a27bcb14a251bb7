//! pgbench: the shop's customers, in one process of an ordinary libpq client.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, bail};
use foreshard::local_nodes::Binaries;
use tokio::process::{Child, Command};

use crate::day::{CLIENTS, Day};
use crate::proxy::{DATABASE, Foreshard};

/// More items than a client makes in a run.
const ITEMS_A_RUN: u64 = 1_000_000;

/// pgbench at work. Killed if it is dropped.
pub(crate) struct Pgbench {
    child: Child,
    folder: PathBuf,
}

/// What pgbench said at its end.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    /// Transactions of the shop that were committed, by its own count.
    pub(crate) committed: u64,
    /// Transactions that failed, of either script.
    pub(crate) failed: u64,
    /// What it complained of.
    pub(crate) complaints: Vec<String>,
    /// Every transaction of the shop, from its log.
    pub(crate) transactions: Vec<Transaction>,
}

/// A committed transaction of the shop, as the client saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transaction {
    pub(crate) end_unix_ms: u64,
    pub(crate) latency_ms: f64,
}

impl Pgbench {
    /// Starts the load for so many seconds. Each run has a number of its own, below 10.
    pub(crate) fn start(
        foreshard: &Foreshard,
        day: &Day,
        seconds: u64,
        run: u64,
    ) -> anyhow::Result<Self> {
        let folder = foreshard.folder().join(format!("pgbench-{run}"));
        std::fs::create_dir_all(&folder)?;
        let shop = folder.join("shop.sql");
        let pause = folder.join("pause.sql");
        std::fs::write(&shop, day.shop_script())?;
        std::fs::write(&pause, day.pause_script())?;
        let program = Binaries::find(None)?.program("pgbench");
        let mut command = Command::new(&program);
        command.args(["--no-vacuum", "--protocol=prepared", "--jobs=1", "--log"]);
        command.arg(format!("--log-prefix={}", folder.join("log").display()));
        command.arg(format!("--client={CLIENTS}")).arg(format!("--time={seconds}"));
        for variable in Day::variables(run * ITEMS_A_RUN) {
            command.arg("--define").arg(variable);
        }
        command.arg("--file").arg(&shop).arg("--file").arg(&pause);
        command.args(["--host=127.0.0.1", "--username=postgres"]);
        command.arg(format!("--port={}", foreshard.port)).arg(DATABASE);
        let output = |name: &str| std::fs::File::create(folder.join(name));
        command.stdin(Stdio::null()).stdout(output("out")?).stderr(output("err")?);
        // Ctrl-C in the terminal is for the demo, which stops all in order.
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        Ok(Self { child, folder })
    }

    /// Waits until it has ended. Cancel safe.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// What it said, once it has ended.
    pub(crate) fn outcome(&self, status: ExitStatus) -> anyhow::Result<Outcome> {
        let read = |name: &str| std::fs::read_to_string(self.folder.join(name));
        let (out, err) = (read("out")?, read("err")?);
        let complaints: Vec<String> = err.lines().map(str::to_owned).collect();
        let Some((committed, failed)) = counts(&out) else {
            bail!("pgbench gave no summary ({status}): {}", complaints.join("\n"));
        };
        let transactions = transactions(&self.folder)?;
        Ok(Outcome { status, committed, failed, complaints, transactions })
    }
}

/// The transactions of the first script, and all that failed, from pgbench's summary.
fn counts(out: &str) -> Option<(u64, u64)> {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    let failed = out.lines().find_map(|line| line.strip_prefix("number of failed transactions: "));
    let script = out.split_once("SQL script 1:")?.1;
    let committed = script.lines().find_map(|line| {
        let (count, _) = line.strip_prefix(" - ")?.split_once(" transactions (")?;
        number(count)
    });
    Some((committed?, number(failed?)?))
}

/// Reads the log: `client transaction time script seconds microseconds`, time in microseconds.
fn transactions(folder: &Path) -> anyhow::Result<Vec<Transaction>> {
    let mut transactions = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log.")) {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        transactions.extend(text.lines().filter_map(transaction));
    }
    Ok(transactions)
}

fn transaction(line: &str) -> Option<Transaction> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [_, _, time_us, "0", seconds, microseconds, ..] = fields[..] else { return None };
    let latency = std::time::Duration::from_micros(time_us.parse().ok()?);
    let end_unix_ms =
        seconds.parse::<u64>().ok()? * 1_000 + microseconds.parse::<u64>().ok()? / 1_000;
    Some(Transaction { end_unix_ms, latency_ms: latency.as_secs_f64() * 1_000.0 })
}
