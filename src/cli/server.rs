//! `dcluster server`: what `up` starts; hidden from the short help.

use super::Context;
use crate::error::Problem;
use crate::server::{self, ServerOptions};
use clap::Args;
use std::path::PathBuf;

/// Run the server of a cluster (started by `dcluster up`)
#[derive(Args, Debug)]
#[command(after_help = "Example:
  dcluster server --cluster-folder ~/.local/state/dcluster/default")]
pub(super) struct ServerArgs {
    /// The cluster folder.
    #[arg(long, value_name = "DIR")]
    cluster_folder: PathBuf,
    /// Ask for jobs, and end a former `down`.
    #[arg(long)]
    open: bool,
    /// Do not wait for proof that a former server is dead.
    #[arg(long)]
    take_over: bool,
}

pub(super) fn run(args: &ServerArgs, context: &Context) -> Result<u8, Problem> {
    start_log(context);
    let options = ServerOptions { folder: args.cluster_folder.clone(), open: args.open, take_over: args.take_over };
    server::run(&options).map(|()| 0)
}

/// Logs to standard error: one line per event, control characters escaped by the subscriber.
pub(super) fn start_log(context: &Context) {
    let filter = context.variables.get("DCLUSTER_LOG").and_then(|value| value.to_str()).unwrap_or("info");
    let filter = tracing_subscriber::EnvFilter::new(filter);
    // A second call would be a bug of ours, and harmless.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(false)
        .with_writer(std::io::stderr)
        .try_init();
}
