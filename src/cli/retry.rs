//! `dcluster retry`.

use super::Context;
use super::cancel::change;
use super::context::selections;
use crate::config::options::ClusterOption;
use crate::error::Problem;
use crate::runtime::control::Request;
use clap::Args;

/// Run failed tasks again, and those that ended because they depend on them
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster retry --failed            all that failed
  dcluster retry 3.7                 this one, if it failed")]
pub(super) struct RetryArgs {
    /// Ids as submit printed them; failed tasks among them run again.
    #[arg(value_name = "ID", required_unless_present = "failed")]
    ids: Vec<String>,
    /// All failed tasks (of ID, if given).
    #[arg(long)]
    failed: bool,
    #[command(flatten)]
    cluster: ClusterOption,
}

pub(super) fn run(args: &RetryArgs, context: &Context) -> Result<u8, Problem> {
    let request = Request::Retry { tasks: selections(&args.ids)? };
    change(request, "running again:", &args.cluster, context)
}
