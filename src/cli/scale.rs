//! `dcluster scale`.

use super::Context;
use super::connect::connect;
use super::context::interrupted;
use crate::client::unexpected;
use crate::config::options::ClusterOption;
use crate::error::Problem;
use crate::runtime::control::{Reply, Request};
use crate::ui::words::count;
use clap::Args;

/// Set the number of jobs
///
/// More jobs are asked for at once. Fewer: jobs that wait go first, then those that do least drain: they
/// finish what they run and leave. Also tries again after jobs could not be started.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  dcluster scale 10")]
pub(super) struct ScaleArgs {
    /// Number of jobs; 0 keeps the server and its tasks without any.
    #[arg(value_name = "JOBS", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    jobs: u32,
    #[command(flatten)]
    cluster: ClusterOption,
}

pub(super) fn run(args: &ScaleArgs, context: &Context) -> Result<u8, Problem> {
    let folder = context.folder(&args.cluster)?;
    let work = async {
        let mut client = connect(&folder, context).await?;
        match client.ask(Request::Scale { jobs: args.jobs }).await? {
            Reply::Scaled => super::up::status(&mut client).await,
            other => Err(unexpected(&other)),
        }
    };
    let status = context.block_on(work, interrupted)?;
    if context.printer.json {
        context.printer.data_json(&super::status::view(&folder, &folder.spec()?, &status))?;
    } else {
        context.printer.note(&format!("cluster {} now holds {}", folder.name(), count(u64::from(args.jobs), "job")));
    }
    Ok(0)
}
