//! `dcluster logs`.

use super::Context;
use super::context::{interrupted, selections};
use super::follow::Copier;
use super::tasks::Source;
use crate::cluster::Folder;
use crate::config::options::ClusterOption;
use crate::error::{Kind, Problem};
use crate::runtime::control::TaskInfo;
use crate::runtime::ids::{JobName, JobSeq};
use crate::runtime::scheduler::Kind as TaskKind;
use clap::Args;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Print the output of tasks, or of a job's script; works after `down`, too
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster logs 3.7                  of a task
  dcluster logs 3 --follow           of a task that runs, as it is written
  dcluster logs --failed             of all tasks that failed
  dcluster logs job 2                of job 2: prologue, worker, batch system")]
pub(super) struct LogsArgs {
    /// Ids of tasks as submit printed them; or `job N`; or the name of a job.
    #[arg(value_name = "JOB|TASK", required_unless_present = "failed")]
    what: Vec<String>,
    /// Tasks that failed (of those named, or all).
    #[arg(long)]
    failed: bool,
    /// Go on printing until the tasks have ended.
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    cluster: ClusterOption,
}

pub(super) fn run(args: &LogsArgs, context: &Context) -> Result<u8, Problem> {
    let folder = context.folder(&args.cluster)?;
    if !folder.exists() {
        return Err(super::connect::not_up(&folder));
    }
    let identity = folder.open()?;
    if let Some(job) = job(&args.what, &identity.letters)? {
        return job_log(&folder, &identity.letters, job);
    }
    let tasks = selections(&args.what)?;
    let kinds = if args.failed { vec![TaskKind::Failed] } else { Vec::new() };
    let work = async {
        let mut source = Source::open(&folder, context).await?;
        let mut after = None;
        let mut shown = 0u64;
        loop {
            let (page, next) = source.page(&tasks, &kinds, after).await?;
            let several = shown > 0 || page.len() > 1 || next.is_some();
            for info in page {
                if several {
                    header(&info);
                }
                shown += 1;
                print(info, args.follow, &mut source).await?;
            }
            after = next;
            if after.is_none() {
                return Ok(shown);
            }
        }
    };
    let shown = context.block_on(work, interrupted)?;
    if shown == 0 {
        context.printer.note("no such tasks");
    }
    Ok(0)
}

/// Recognises a job among the words.
fn job(words: &[String], letters: &str) -> Result<Option<JobSeq>, Problem> {
    match words {
        [name] => Ok(JobName::parse(letters, name).map(|(_, seq)| seq)),
        [word, number] if word == "job" => {
            let seq: u32 = number.parse().map_err(|_| {
                Problem::new(Kind::Usage, format!("`{number}` is no number of a job"))
                    .fix("dcluster status -v  lists them")
            })?;
            Ok(Some(JobSeq(seq)))
        }
        _ => Ok(None),
    }
}

/// A line between outputs, on standard error: data stays data.
fn header(info: &TaskInfo) {
    let id = info.id();
    let reason =
        info.reason.as_deref().map(|reason| format!(" ({})", crate::ui::words::escape(reason))).unwrap_or_default();
    // Nothing can be done when standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "==> task {id} {}{reason}", super::tasks::state_word(info.kind));
}

async fn print(mut info: TaskInfo, follow: bool, source: &mut Source) -> Result<(), Problem> {
    let mut copier = Copier::new();
    let mut any = false;
    loop {
        let ended = matches!(info.kind, TaskKind::Finished | TaskKind::Failed | TaskKind::Cancelled);
        // All there is of one that has ended, also when it comes in parts.
        while copier.copy(&info, source.client()).await? {
            any = true;
            if !ended {
                break;
            }
        }
        if ended || !follow {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let selection =
            crate::selection::Selection { array: info.task.array, indexes: info.index.map(|index| (index, index)) };
        let (page, _) = source.page(&[selection], &[], None).await?;
        if let Some(newer) = page.into_iter().next() {
            info = newer;
        }
    }
    if !any && std::io::stdout().is_terminal() {
        let _ = writeln!(std::io::stderr().lock(), "(no output)");
    }
    Ok(())
}

fn job_log(folder: &Folder, letters: &str, job: JobSeq) -> Result<u8, Problem> {
    let backend = folder.spec()?.backend;
    let Some(path) = crate::backends::job_logs(backend, folder.path(), letters, job).find(|path| path.exists()) else {
        return Err(Problem::new(Kind::Failed, format!("job {} has written nothing", job.0))
            .fix("dcluster status -v  says what it does"));
    };
    let bytes = std::fs::read(&path).map_err(|error| {
        Problem::new(Kind::Failed, format!("cannot read {}", path.display())).says(error.to_string())
    })?;
    std::io::stdout().lock().write_all(&bytes).map_err(|error| Problem::new(Kind::OutputClosed, error.to_string()))?;
    Ok(0)
}
