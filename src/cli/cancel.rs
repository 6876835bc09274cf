//! `dcluster cancel`.

use super::Context;
use super::connect::connect;
use super::context::{interrupted, selections};
use crate::client::unexpected;
use crate::config::options::ClusterOption;
use crate::error::Problem;
use crate::runtime::control::{Reply, Request};
use crate::ui::words::count;
use clap::Args;

/// Cancel tasks that have not ended
///
/// Running ones get SIGTERM and, 5 seconds later, SIGKILL. Tasks that depend on them end, too.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster cancel 3
  dcluster cancel 3.7 4.1-5
  dcluster cancel --all")]
pub(super) struct CancelArgs {
    /// Ids as submit printed them: 3, 3.7, 3.1-5.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All tasks.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    cluster: ClusterOption,
}

pub(super) fn run(args: &CancelArgs, context: &Context) -> Result<u8, Problem> {
    let request = Request::Cancel { tasks: selections(&args.ids)? };
    change(request, "cancelled", &args.cluster, context)
}

/// Sends a request that changes tasks, and says how many.
pub(super) fn change(request: Request, verb: &str, cluster: &ClusterOption, context: &Context) -> Result<u8, Problem> {
    let folder = context.folder(cluster)?;
    let work = async {
        let mut client = connect(&folder, context).await?;
        match client.ask(request).await? {
            Reply::Changed { tasks } => Ok(tasks),
            other => Err(unexpected(&other)),
        }
    };
    let tasks = context.block_on(work, interrupted)?;
    if context.printer.json {
        context.printer.data_json(&serde_json::json!({ "tasks": tasks }))?;
    } else {
        context.printer.note(&format!("{verb} {}", count(tasks, "task")));
    }
    Ok(0)
}
