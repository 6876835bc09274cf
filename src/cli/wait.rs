//! `dcluster wait`.

use super::Context;
use super::connect::connect;
use super::context::selections;
use crate::client::{Client, unexpected};
use crate::config::options::ClusterOption;
use crate::error::{Kind, Problem};
use crate::runtime::control::{Progress as Answer, Reply, Request};
use crate::runtime::scheduler::Counts;
use crate::selection::Selection;
use crate::ui::progress::Progress;
use crate::ui::progress_lines;
use clap::Args;
use std::time::{Duration, Instant};

/// Wait until tasks have ended
///
/// Exits with 0 when all finished, 1 when some failed or were cancelled, 124 when the time is over.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster wait                      for all tasks
  dcluster wait 3 4.1-10 --timeout 2h")]
pub(super) struct WaitArgs {
    /// Ids as submit printed them; all tasks when none is given.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Give up after this long, like 90s, 10m or 2h.
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    #[command(flatten)]
    cluster: ClusterOption,
}

pub(super) fn run(args: &WaitArgs, context: &Context) -> Result<u8, Problem> {
    let tasks = selections(&args.ids)?;
    let timeout = args.timeout.as_deref().map(|text| time("--timeout", text)).transpose()?;
    let folder = context.folder(&args.cluster)?;
    let work = async {
        let mut client = connect(&folder, context).await?;
        let until = timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        watch(&mut client, &tasks, until, context).await
    };
    let counts = context.block_on(work, || stopped(&args.ids.join(" ")))?;
    if context.printer.json {
        context.printer.data_json(&counts)?;
    }
    if counts.unfinished() > 0 {
        return Err(Problem::new(Kind::TimeOut, format!("{} of these tasks have not ended", counts.unfinished()))
            .done("they go on"));
    }
    Ok(u8::from(counts.failed + counts.cancelled > 0))
}

/// Parses a time given as an option.
pub(super) fn time(option: &str, text: &str) -> Result<u64, Problem> {
    crate::config::units::parse_duration(text).map_err(|error| {
        let fix = error.fix();
        Problem::new(Kind::Usage, error.to_string()).location(option.to_owned()).fix(fix)
    })
}

/// The end of waiting by Ctrl-C.
pub(super) fn stopped(ids: &str) -> Problem {
    let ids = if ids.is_empty() { String::new() } else { format!(" {ids}") };
    let cancel = if ids.is_empty() { " --all" } else { &ids };
    Problem::new(Kind::Interrupted, "stopped waiting; the tasks go on")
        .fix(format!("dcluster wait{ids}"))
        .fix(format!("dcluster cancel{cancel}"))
}

/// Asks once; returns when the tasks have ended, or after `timeout`.
pub(super) async fn ask(client: &mut Client, tasks: &[Selection], timeout: Duration) -> Result<Answer, Problem> {
    let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    match client.ask(Request::Wait { tasks: tasks.to_vec(), timeout }).await? {
        Reply::Progress(progress) => Ok(progress),
        other => Err(unexpected(&other)),
    }
}

/// Shows progress until the tasks have ended or the time is over.
async fn watch(
    client: &mut Client,
    tasks: &[Selection],
    until: Option<Instant>,
    context: &Context,
) -> Result<Counts, Problem> {
    let mut shown: Option<Progress> = None;
    let mut notes = Notes::default();
    loop {
        let step = Duration::from_millis(if shown.is_none() { 0 } else { 500 });
        let step = until.map_or(step, |until| step.min(until.saturating_duration_since(Instant::now())));
        let answer = ask(client, tasks, step).await?;
        let counts = progress_counts(&answer.counts);
        let over = until.is_some_and(|until| Instant::now() >= until);
        if answer.counts.unfinished() == 0 || over {
            if let Some(progress) = shown.take() {
                progress.finish(counts);
            }
            return Ok(answer.counts);
        }
        let progress = shown.get_or_insert_with(|| {
            let (face, unicode) = context.face();
            Progress::start(context.printer, face, unicode, counts)
        });
        progress.update(counts);
        notes.tell(&answer, |line| progress.note(line));
    }
}

/// What progress shows of the server's numbers.
pub(super) fn progress_counts(counts: &Counts) -> progress_lines::Counts {
    let ended = counts.finished + counts.failed + counts.cancelled;
    progress_lines::Counts { total: counts.unfinished() + ended, ended, failed: counts.failed }
}

/// Says why nothing runs, once it has lasted, and again when it changes.
#[derive(Default)]
pub(super) struct Notes {
    told: Option<String>,
    pending: Option<(String, u32)>,
}

impl Notes {
    /// Looks at an answer.
    pub(super) fn tell(&mut self, answer: &Answer, say: impl FnOnce(&str)) {
        let Some(why) = answer.waiting_for.as_ref().filter(|_| answer.counts.unfinished() > 0) else {
            self.pending = None;
            return;
        };
        let rounds = match &self.pending {
            Some((pending, rounds)) if pending == why => rounds + 1,
            _ => 1,
        };
        self.pending = Some((why.clone(), rounds));
        if rounds >= 4 && self.told.as_ref() != Some(why) {
            say(&format!("nothing runs: {}", crate::ui::words::escape(why)));
            self.told = Some(why.clone());
        }
    }
}
