//! The command line: commands, their arguments and help texts.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::forecast::Model;

/// A PostgreSQL proxy that shards, forecasts the load of each shard, and moves shards online before
/// a node is overloaded.
#[derive(Debug, Parser)]
#[command(name = "foreshard", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start PostgreSQL nodes on this machine and the proxy in front of them
    ///
    /// Uses the installed PostgreSQL (15 or newer). Everything listens on 127.0.0.1 and trusts.
    /// The data stays between runs. Ctrl-C stops it.
    Dev(Dev),
    /// Run the proxy in front of existing nodes
    Serve(Serve),
    /// Let a running proxy read its configuration again; SIGHUP does the same
    Reload(Admin),
    /// Check a configuration or a policy and print all that is wrong with it
    Check(Check),
    /// Ask a running proxy to move a shard to another node, or to go back from the last switch
    Move(Move),
    /// Ask a running proxy to split a shard into several
    Split(Split),
    /// Ask a running proxy to merge the parts of a shard that was split
    Merge(Merge),
    /// Call a move or a job off before its last step; what it has made is taken away
    Cancel(Cancel),
    /// Add a node, or drain one before it leaves
    Node {
        /// Which
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Make sharded tables of plain ones with rows on the home node, while clients go on
    ///
    /// For a group of the policy whose tables are there already. They become one shard, and that is
    /// split over the nodes as the policy says. If it is cut off, the next start goes on with it.
    Import(Import),
    /// Give a group the shard key that the policy has now, while clients go on
    ///
    /// Every row is copied to where it belongs by the new key; then the group changes over, in one
    /// moment on all nodes. A key of other columns or another type, other bounds, or another strategy.
    /// There is no way back but to do the same again. If it is cut off before that moment, it is undone
    /// and begun anew at the next start.
    Reshard(Reshard),
    /// Look whether the nodes hold exactly what the shard map says, while traffic goes on
    ///
    /// Every row on its shard, every partition on its node, reference tables equal on all nodes, and
    /// nothing left over. Exit status: 0 all well, 1 something is wrong or left over, 2 something
    /// could not be looked at.
    Verify(Verify),
    /// Show shards, load, forecast, moves and decisions once
    Status(Admin),
    /// Show load, forecast, moves and decisions live
    Watch(Admin),
    /// Forecast recorded load, away from any proxy, and say how good that is
    Forecast(Forecast),
}

/// Arguments of `foreshard forecast`.
#[derive(Debug, Args)]
pub struct Forecast {
    /// Evaluate one history: a CSV file with a time and a value a line
    #[arg(long, value_name = "FILE", conflicts_with = "tasks")]
    pub from: Option<PathBuf>,
    /// Which of its columns, counted from 1 after the time's
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub column: usize,
    /// The season in which the load repeats itself
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    pub day_seconds: u64,
    /// How many steps ahead
    #[arg(long, value_name = "STEPS", default_value_t = 96, value_parser = clap::value_parser!(u64).range(1..=2000))]
    pub horizon: u64,
    /// Forecast many histories at once: a JSON object a line, with the steps of a day and the
    /// values
    #[arg(long, value_name = "FILE")]
    pub tasks: Option<PathBuf>,
    /// Where the page with the plot is written (HTML); of many histories, the quantiles: 96 steps
    /// of 11 each, as 32-bit floats
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The models that are tried beside the ensemble
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = model)]
    #[arg(default_value = "arima")]
    pub models: Vec<Model>,
    /// Days, past and to come, on which the load is not that of their weekday; for the model prophet
    #[arg(long, value_name = "DAYS", value_delimiter = ',')]
    pub holidays: Vec<String>,
}

/// The model of this name.
fn model(name: &str) -> Result<Model, String> {
    let names = || Model::ALL.map(Model::name).join(", ");
    let found = Model::ALL.into_iter().find(|model| model.name() == name);
    found.ok_or_else(|| format!("the models are {}", names()))
}

/// Arguments of `foreshard dev`.
#[derive(Debug, Args)]
pub struct Dev {
    /// How many PostgreSQL nodes [default: 2, or as many as the data folder has]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub nodes: Option<u16>,
    /// The port that clients connect to; the admin API is on the next one
    #[arg(long, default_value_t = 6432, value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    pub port: u16,
    /// Where the data is kept [default: ~/.local/share/foreshard, for root /var/lib/foreshard]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// What is sharded, and how load is forecast and placed; kept with the data for the next start.
    /// Without one every table lives on the first node
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// Arguments of `foreshard serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration; config/foreshard.example.yaml shows every key
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Take over from the process that serves with the same data folder: it ends its transactions
    /// and then itself, and no client is refused meanwhile
    #[arg(long)]
    pub take_over: bool,
    /// How logs are written to stderr; FORESHARD_LOG=debug and the like says how much
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Arguments of `foreshard check`.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Check {
    /// A configuration of `foreshard serve`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A policy
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// Arguments of `foreshard move`.
#[derive(Debug, Args)]
pub struct Move {
    /// The shard's number; several of one node, with commas between, move together
    #[arg(required = true, num_args = 1, value_delimiter = ',', action = ArgAction::Set)]
    pub shards: Vec<u32>,
    /// The node that it shall move to
    #[arg(required_unless_present_any = ["reverse", "confirm"])]
    pub node: Option<String>,
    /// Go back to what was before the last move, split or merge, while old copies are kept
    /// (mover.reversible_ms): without a copy, and nothing is lost that was written since
    #[arg(long, conflicts_with_all = ["node", "confirm"])]
    pub reverse: bool,
    /// Give the old copies of the last move, split or merge up, before their time
    #[arg(long, conflicts_with = "node")]
    pub confirm: bool,
    /// Show its phases and wait until it is finished; the exit status says whether it moved
    #[arg(long)]
    pub wait: bool,
    /// Where the proxy's admin API is
    #[command(flatten)]
    pub admin: Admin,
}

/// Arguments of `foreshard split`.
#[derive(Debug, Args)]
pub struct Split {
    /// The shard's number
    pub shard: u32,
    /// How many shards it becomes, if its group is sharded by hash: 2, 4, 8, … [default: 2]
    #[arg(long, conflicts_with_all = ["at", "values"])]
    pub into: Option<u32>,
    /// The key at which a range is cut; of a key of several columns, once for each or the first ones
    #[arg(long, value_name = "KEY", allow_negative_numbers = true, conflicts_with = "values")]
    pub at: Vec<String>,
    /// The values that leave a list for a shard of their own, with commas between
    #[arg(long, value_name = "VALUES", value_delimiter = ',', allow_negative_numbers = true)]
    pub values: Vec<String>,
    /// The node of each, with commas between; one node for all [default: where the shard is]
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    pub to: Vec<String>,
    /// Show its phases and wait until it is finished; the exit status says whether it was split
    #[arg(long)]
    pub wait: bool,
    /// Where the proxy's admin API is
    #[command(flatten)]
    pub admin: Admin,
}

/// Arguments of `foreshard cancel`.
#[derive(Debug, Args)]
pub struct Cancel {
    /// What: a move, split or merge; or a job (a verification, an import, another shard key, a node
    /// that is drained)
    pub what: UnderWay,
    /// Its number, as `foreshard status` and `SHOW JOBS` give it
    pub id: u64,
    /// Where the proxy's admin API is
    #[command(flatten)]
    pub admin: Admin,
}

/// What can be called off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UnderWay {
    /// A move, split or merge.
    Move,
    /// What was asked for beside moves.
    Job,
}

/// Arguments of `foreshard merge`.
#[derive(Debug, Args)]
pub struct Merge {
    /// The shards' numbers: all parts of one former shard, neighbouring ranges, or lists
    #[arg(required = true, num_args = 2..)]
    pub shards: Vec<u32>,
    /// The node of the shard that they become [default: that of the first]
    #[arg(long, value_name = "NODE")]
    pub to: Option<String>,
    /// Show its phases and wait until it is finished; the exit status says whether it was merged
    #[arg(long)]
    pub wait: bool,
    /// Where the proxy's admin API is
    #[command(flatten)]
    pub admin: Admin,
}

/// What to do with a node.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Bring roles, schema and reference tables to a configured, empty node, so that it may own shards
    ///
    /// A node that is new in the configuration is added by itself when the proxy starts; this tries
    /// again what failed, and takes a drained node back.
    Add(OfNode),
    /// Move all shards off a node, so that it can be left out of the configuration
    Drain(OfNode),
}

/// Arguments of `foreshard node add` and `drain`.
#[derive(Debug, Args)]
pub struct OfNode {
    /// The node's name
    pub node: String,
    /// Where the proxy's admin API is
    #[command(flatten)]
    pub admin: Admin,
}

/// Arguments of `foreshard import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The group
    #[arg(required_unless_present = "all")]
    pub group: Option<String>,
    /// All groups whose tables are not sharded yet
    #[arg(long, conflicts_with = "group")]
    pub all: bool,
    /// Only say what would be done, how much it is, and what speaks against it
    #[arg(long)]
    pub check: bool,
    /// Leave one shard on the home node; `foreshard split` and `move` spread it later
    #[arg(long)]
    pub no_split: bool,
    /// Where the proxy's admin API is
    #[command(flatten)]
    pub admin: Admin,
}

/// Arguments of `foreshard reshard`.
#[derive(Debug, Args)]
pub struct Reshard {
    /// The group
    pub group: String,
    /// Only say what would be done, how much it is, and what speaks against it
    #[arg(long)]
    pub check: bool,
    /// Where the proxy's admin API is
    #[command(flatten)]
    pub admin: Admin,
}

/// Arguments of `foreshard verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// These shards alone, by number [default: everything]
    pub shards: Vec<u32>,
    /// All shards of this group
    #[arg(long, value_name = "GROUP", conflicts_with = "shards")]
    pub group: Option<String>,
    /// Where the proxy's admin API is
    #[command(flatten)]
    pub admin: Admin,
}

/// Where the admin API is.
#[derive(Debug, Args)]
pub struct Admin {
    /// Where the proxy's admin API is
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:6433",
        env = "FORESHARD_ADMIN"
    )]
    pub admin: String,
}
