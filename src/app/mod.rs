//! Composition root: builds, wires and drains; the command line.

mod check;
mod cli;
mod data_folder;
mod dev;
mod existing;
mod forecast;
mod hand_over;
mod http;
mod import;
mod job;
mod leadership;
mod leading;
mod logging;
mod node;
mod peers;
mod preflight;
mod proxy;
mod reload;
mod reload_command;
mod request_move;
mod running;
mod serve;
mod signals;
mod steering;
mod stored_map;
mod term;
mod terminal;
mod verify;
mod view;
mod watch;

use std::process::ExitCode;

pub use cli::{Cli, Command};
pub use http::{AdminClient, HttpError};
pub use leading::catalog_in;
pub use proxy::{Proxy, ProxyConfig, StartError};
pub use term::Turn;
pub use watch::Observer;

/// Threads of the runtime that does what is not on the way of a statement: moves, the controller.
const BACKGROUND_THREADS: usize = 2;

/// Does what the command line says; the exit status.
pub fn run(cli: Cli) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(BACKGROUND_THREADS)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::complain(format!("foreshard: no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match cli.command {
            Command::Dev(args) => Box::pin(dev::dev(args)).await,
            Command::Serve(args) => Box::pin(serve::serve(args)).await,
            Command::Reload(args) => reload_command::reload(args).await,
            Command::Check(args) => check::check(&args),
            Command::Move(args) => Box::pin(request_move::request_move(args)).await,
            Command::Split(args) => Box::pin(request_move::request_split(args)).await,
            Command::Merge(args) => Box::pin(request_move::request_merge(args)).await,
            Command::Cancel(args) => request_move::cancel(args).await,
            Command::Node { command } => node::node(command).await,
            Command::Import(args) => import::import(args).await,
            Command::Reshard(args) => import::reshard(args).await,
            Command::Verify(args) => verify::verify(args).await,
            Command::Status(args) => Box::pin(watch::status(args)).await,
            Command::Forecast(args) => forecast::forecast(&args),
            Command::Watch(args) => Box::pin(watch::watch(args)).await,
        }
    });
    runtime.shutdown_background();
    code
}
