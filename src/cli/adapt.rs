//! `dcluster adapt`.

use super::Context;
use super::connect::connect;
use super::context::interrupted;
use crate::client::unexpected;
use crate::config::options::{AdaptOptions, ClusterOption};
use crate::config::resolve::adapt_of;
use crate::config::spec::Adapt;
use crate::error::Problem;
use crate::runtime::control::{Reply, Request, Status};
use crate::ui::words::{count, duration};
use clap::Args;
use std::time::Duration;

/// Let the number of jobs follow the load
///
/// Asks for jobs when there is work for them, and gives them up when they are idle, between --min and --max.
/// `dcluster scale N` holds a number again. Without options it prints what holds now and why.
/// `dcluster explain` says more, and `dcluster simulate` tries it out.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster adapt --min 0 --max 100
  dcluster adapt --max 20 --prefer thrift --idle-timeout 5m
  dcluster adapt --off               hold the jobs there are now")]
pub(super) struct AdaptArgs {
    #[command(flatten)]
    adapt: AdaptOptions,
    /// Hold the number of jobs there is now.
    #[arg(long, conflicts_with_all = ["min", "max", "efficiency", "idle_timeout", "max_pending", "rate"])]
    off: bool,
    #[command(flatten)]
    cluster: ClusterOption,
}

pub(super) fn run(args: &AdaptArgs, context: &Context) -> Result<u8, Problem> {
    let folder = context.folder(&args.cluster)?;
    let shows = args.adapt == AdaptOptions::default() && !args.off;
    let wish = if shows || args.off { None } else { Some(adapt_of(&args.adapt)?) };
    let work = async {
        let mut client = connect(&folder, context).await?;
        let request = match wish {
            Some(adapt) => Some(Request::Adapt { adapt }),
            None if args.off => Some(Request::Scale { jobs: super::up::status(&mut client).await?.wanted }),
            None => None,
        };
        if let Some(request) = request {
            match client.ask(request).await? {
                Reply::Scaled => {}
                other => return Err(unexpected(&other)),
            }
        }
        super::up::status(&mut client).await
    };
    let status = context.block_on(work, interrupted)?;
    if context.printer.json {
        context.printer.data_json(&super::status::view(&folder, &folder.spec()?, &status))?;
    } else if shows {
        context.printer.data(mode(&status))?;
        if let Some(reason) = &status.scaling {
            context.printer.data(format!("last decision: {reason}"))?;
        }
    } else {
        context.printer.note(&format!("cluster {}: {}", folder.name(), mode(&status)));
    }
    Ok(0)
}

/// Says who decides how many jobs there are.
pub(super) fn mode(status: &Status) -> String {
    match &status.adapt {
        None => format!("holds {} (dcluster adapt --max N lets their number follow the load)", jobs(status.wanted)),
        Some(adapt) => format!("{} by load{}", range(adapt), details(adapt)),
    }
}

/// `0..100 jobs`.
fn range(adapt: &Adapt) -> String {
    format!("{}..{}", adapt.min, jobs(adapt.max))
}

fn jobs(number: u32) -> String {
    count(u64::from(number), "job")
}

fn details(adapt: &Adapt) -> String {
    let mut parts = Vec::new();
    let percent = adapt.efficiency_percent;
    match Adapt::PREFER.iter().find(|(_, known)| *known == percent) {
        Some((_, Adapt::BALANCED)) => {}
        Some((word, _)) => parts.push((*word).to_owned()),
        None => parts.push(format!("efficiency {percent} %")),
    }
    if let Some(seconds) = adapt.idle_timeout_seconds {
        parts.push(format!("idle for at most {}", duration(Duration::from_secs(seconds))));
    }
    if let Some(most) = adapt.max_pending {
        parts.push(format!("at most {most} pending"));
    }
    if let Some(rate) = adapt.rate_per_minute {
        parts.push(format!("at most {rate} asked for in a minute"));
    }
    if parts.is_empty() { String::new() } else { format!(", {}", parts.join(", ")) }
}
