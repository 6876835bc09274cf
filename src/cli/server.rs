//! `dcluster server`: what `up` starts; hidden from the short help.

use super::Context;
use crate::cluster::Folder;
use crate::error::Problem;
use crate::server::log::Log;
use crate::server::{self, ServerOptions};
use clap::Args;
use std::path::PathBuf;
use tracing_subscriber::fmt::MakeWriter;

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
    let folder = Folder::at(&args.cluster_folder);
    match Log::open(&folder.server_log()) {
        Ok(log) => start_log(log, context),
        Err(_) => start_log(std::io::stderr, context),
    }
    let options = ServerOptions { folder: args.cluster_folder.clone(), open: args.open, take_over: args.take_over };
    server::run(&options).map(|()| 0)
}

/// Starts the log of a server or worker: one line per event, control characters escaped by the subscriber.
pub(super) fn start_log<W>(writer: W, context: &Context)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = context.variables.get("DCLUSTER_LOG").and_then(|value| value.to_str()).unwrap_or("info");
    let filter = tracing_subscriber::EnvFilter::new(filter);
    // A second call would be a bug of ours, and harmless.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(false)
        .with_writer(writer)
        .try_init();
}
