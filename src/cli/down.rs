//! `dcluster down`.

use super::Context;
use super::connect::{Condition, condition, connect, not_up};
use crate::client::{Client, unexpected};
use crate::cluster::Folder;
use crate::config::options::ClusterOption;
use crate::error::{Kind, Problem};
use crate::runtime::control::{DownMode, Reply, Request};
use crate::server::clock;
use crate::ui::words::count;
use clap::Args;
use std::time::Duration;

/// After this long without an end of it, `down` names what is left and returns.
const PATIENCE: Duration = Duration::from_secs(180);

/// End a cluster: its tasks, jobs and server
///
/// Running tasks get SIGTERM and, after 10 seconds, SIGKILL; they and the tasks that wait stay recorded
/// and go on at the next `up` (dcluster cancel --all drops them first). Returns when the batch system
/// agrees that nothing is left, else says what is.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster down
  dcluster down --drain              let running tasks finish first
  dcluster down --purge              and delete its folder, outputs and history")]
pub(super) struct DownArgs {
    #[command(flatten)]
    cluster: ClusterOption,
    /// Let running tasks finish first, however long they take.
    #[arg(long, conflicts_with = "now")]
    drain: bool,
    /// Kill tasks at once.
    #[arg(long)]
    now: bool,
    /// Then delete the cluster folder with all outputs and the history.
    #[arg(long)]
    purge: bool,
}

pub(super) fn run(args: &DownArgs, context: &Context) -> Result<u8, Problem> {
    let folder = context.folder(&args.cluster)?;
    let mode = match (args.drain, args.now) {
        (true, _) => DownMode::Drain,
        (_, true) => DownMode::Now,
        _ => DownMode::Stop,
    };
    match condition(&folder)? {
        Condition::Missing => return Err(not_up(&folder)),
        Condition::Down if args.purge => {}
        Condition::Down => {
            context.printer.note(&format!("cluster {} is down already", folder.name()));
            return json_done(&folder, context);
        }
        Condition::Up => {
            context.block_on(down(&folder, mode, !args.purge, context), || {
                Problem::new(Kind::Interrupted, "stopped waiting; the cluster goes on going down")
                    .fix("dcluster down  waits again")
            })?;
        }
    }
    if args.purge {
        folder.open()?;
        std::fs::remove_dir_all(folder.path()).map_err(|error| {
            Problem::new(Kind::Unreachable, format!("cannot delete {}", folder.path().display()))
                .says(error.to_string())
                .done("the cluster is down")
        })?;
        context.printer.note(&format!("deleted {}", folder.path().display()));
    }
    json_done(&folder, context)
}

fn json_done(folder: &Folder, context: &Context) -> Result<u8, Problem> {
    if context.printer.json {
        context.printer.data_json(&serde_json::json!({ "cluster": folder.name(), "down": true }))?;
    }
    Ok(0)
}

/// Takes a cluster down and waits until nothing of it is left; `stays`: its folder is there for the next `up`.
pub(super) async fn down(folder: &Folder, mode: DownMode, stays: bool, context: &Context) -> Result<(), Problem> {
    let mut client = connect(folder, context).await?;
    let status = super::up::status(&mut client).await?;
    let unfinished = status.tasks.unfinished();
    let mut watch = connect(folder, context).await?;
    let begun = std::time::Instant::now();
    let mut told = String::new();
    let closing = client.ask(Request::Down { mode });
    tokio::pin!(closing);
    loop {
        tokio::select! {
            closed = &mut closing => match closed {
                Ok(Reply::Left { closed: true, .. }) => break,
                Ok(other) => return Err(unexpected(&other)),
                Err(problem) if gone(folder) => {
                    context.printer.detail(&format!("({})", problem.what));
                    break;
                }
                Err(problem) => return Err(problem),
            },
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                let left = left(&mut watch).await;
                if begun.elapsed() > PATIENCE && mode != DownMode::Drain {
                    let trouble = super::up::status(&mut watch).await.ok().and_then(|status| status.trouble);
                    let problem = Problem::new(Kind::TryAgain, format!("cluster {} is not down yet", folder.name()));
                    return Err(trouble
                        .into_iter()
                        .fold(problem, Problem::says)
                        .why(format!("left: {}", left.as_deref().unwrap_or("unknown")))
                        .done("the server goes on trying")
                        .fix("dcluster down  waits again; dcluster events says more"));
                }
                if let Some(left) = left
                    && left != told
                    && begun.elapsed() > Duration::from_secs(1)
                {
                    context.printer.note(&format!("waiting for {left}"));
                    told = left;
                }
            }
        }
    }
    if status.host == clock::host() {
        outlive(status.pid).await;
    }
    let mut text = format!("cluster {} is down", folder.name());
    if unfinished > 0 && stays && mode != DownMode::Drain {
        text.push_str(&format!("; {} not finished: dcluster up goes on with them", count(unfinished, "task")));
    }
    context.printer.note(&text);
    Ok(())
}

/// Waits until a process of this host is gone: `down` leaves nothing, its own server included.
async fn outlive(pid: u32) {
    for _ in 0..100 {
        if !clock::is_alive(pid) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the server closed the cluster although its answer did not reach us.
fn gone(folder: &Folder) -> bool {
    matches!(condition(folder), Ok(Condition::Down))
}

async fn left(client: &mut Client) -> Option<String> {
    match client.ask(Request::Jobs).await {
        Ok(Reply::Left { jobs, .. }) if jobs.is_empty() => None,
        Ok(Reply::Left { jobs, .. }) => {
            let names: Vec<String> = jobs
                .iter()
                .take(3)
                .map(|job| {
                    let id = job.id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
                    format!("job {}{id} {}", job.seq.0, job.state.as_str())
                })
                .collect();
            let more = if jobs.len() > 3 { format!(" and {} more", jobs.len() - 3) } else { String::new() };
            Some(format!("{}{more}", names.join(", ")))
        }
        _ => None,
    }
}
