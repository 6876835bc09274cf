//! `dcluster explain`.

use super::Context;
use super::connect::connect;
use super::context::{interrupted, selections};
use super::tasks::Source;
use crate::adapt::{Decision, Entry};
use crate::client::{Client, unexpected};
use crate::cluster::Folder;
use crate::config::options::ClusterOption;
use crate::config::spec::BackendKind;
use crate::error::{Kind, Problem};
use crate::ledger::{Job, JobState};
use crate::runtime::control::{Decisions, JobDecisions, Reply, Request, Status, TaskInfo};
use crate::runtime::scheduler::Kind as TaskKind;
use crate::selection::Selection;
use crate::ui::words::{duration, escape, escape_bytes, local_time};
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::time::Duration;

/// Say why a task does not run, why a job was asked for or given up, why there are so many jobs
///
/// Without words, or with `scaling`: the last decisions about the number of jobs, with the figures they rest on.
/// `job N` is about a job, `task ID` (or the id alone) about a task.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster explain                   why there are as many jobs as there are
  dcluster explain job 3
  dcluster explain 7.12              a task
  dcluster explain scaling -n 50 --json | jq .decisions[].decision.numbers")]
pub(super) struct ExplainArgs {
    /// `scaling`, `job N`, `task ID`, or the id of a task.
    #[arg(value_name = "WHAT", num_args = 0..=2)]
    what: Vec<String>,
    /// How many decisions to show.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 5)]
    last: usize,
    #[command(flatten)]
    cluster: ClusterOption,
}

/// What is to be explained.
enum What {
    Scaling,
    Job(u32),
    Task(Selection),
}

impl What {
    fn of(words: &[String]) -> Result<Self, Problem> {
        let usage = |what: String| Problem::new(Kind::Usage, what).fix("dcluster explain [scaling | job N | task ID]");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let task = |id: &str| match selections(&[id.to_owned()])?.pop() {
            Some(selection) => Ok(Self::Task(selection)),
            None => Err(usage(format!("there is nothing like {id:?} to explain"))),
        };
        match words[..] {
            [] | ["scaling"] => Ok(Self::Scaling),
            ["job", number] => {
                number.parse().map(Self::Job).map_err(|_| usage(format!("{number:?} is no number of a job")))
            }
            ["job" | "task"] => Err(usage("which one?".to_owned())),
            ["task", id] | [id] => task(id),
            _ => Err(usage(format!("there is nothing like {:?} to explain", words.join(" ")))),
        }
    }
}

/// An explanation: what it is about, and lines of a label and words.
#[derive(Serialize)]
struct Explanation {
    about: String,
    lines: Vec<Line>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    decisions: Vec<Entry>,
}

#[derive(Serialize)]
struct Line {
    label: &'static str,
    text: String,
}

impl Explanation {
    fn about(about: String) -> Self {
        Self { about, lines: Vec::new(), decisions: Vec::new() }
    }

    fn line(&mut self, label: &'static str, text: impl Into<String>) {
        self.lines.push(Line { label, text: text.into() });
    }

    fn text(&self) -> String {
        let lines = self.lines.iter().map(|line| format!("\n  {:<12} {}", line.label, line.text));
        format!("{}{}", self.about, lines.collect::<String>())
    }
}

pub(super) fn run(args: &ExplainArgs, context: &Context) -> Result<u8, Problem> {
    let what = What::of(&args.what)?;
    let folder = context.folder(&args.cluster)?;
    let work = async {
        match what {
            What::Task(selection) => {
                let mut source = Source::open(&folder, context).await?;
                let task = one_task(&mut source, selection).await?;
                let scaling = match source.client() {
                    Some(client) => super::up::status(client).await?.scaling,
                    None => None,
                };
                Ok(task_words(&task, scaling.as_deref()))
            }
            What::Job(number) => {
                let mut client = connect(&folder, context).await?;
                let (status, decisions) = (super::up::status(&mut client).await?, decisions(&mut client).await?);
                job_words(&folder, number, &status, &decisions)
            }
            What::Scaling => {
                let mut client = connect(&folder, context).await?;
                let (status, decisions) = (super::up::status(&mut client).await?, decisions(&mut client).await?);
                Ok(scaling_words(&status, decisions, args.last))
            }
        }
    };
    let explanation: Explanation = context.block_on(work, interrupted)?;
    if context.printer.json {
        context.printer.data_json(&explanation)?;
    } else {
        context.printer.data(explanation.text())?;
    }
    Ok(0)
}

async fn decisions(client: &mut Client) -> Result<Decisions, Problem> {
    match client.ask(Request::Decisions).await? {
        Reply::Decisions(decisions) => Ok(decisions),
        other => Err(unexpected(&other)),
    }
}

/// Returns the task that was named; of an array the first that has not ended, else the first.
async fn one_task(source: &mut Source, selection: Selection) -> Result<TaskInfo, Problem> {
    let open = [TaskKind::Waiting, TaskKind::Ready, TaskKind::Running];
    let (mut tasks, _) = source.page(std::slice::from_ref(&selection), &open, None).await?;
    if tasks.is_empty() {
        tasks = source.page(&[selection], &[], None).await?.0;
    }
    tasks.into_iter().next().ok_or_else(|| Problem::new(Kind::Usage, "there is no such task").fix("dcluster tasks"))
}

fn task_words(task: &TaskInfo, scaling: Option<&str>) -> Explanation {
    let id = task.id();
    let state = match task.kind {
        TaskKind::Waiting => "waits for other tasks",
        TaskKind::Ready => "is ready and does not run yet",
        TaskKind::Running => "runs",
        TaskKind::Finished => "finished",
        TaskKind::Failed => "failed",
        TaskKind::Cancelled => "was cancelled",
    };
    let name = if task.name.is_empty() { escape_bytes(&task.command) } else { escape(&task.name) };
    let mut words = Explanation::about(format!("task {id} ({name}) {state}"));
    if let Some(reason) = &task.reason {
        words.line("because", escape(reason));
    }
    if let Some(node) = &task.node {
        words.line("node", escape(node));
    }
    if let Some(usage) = task.usage {
        words.line("ran", duration(Duration::from_millis(usage.wall_milliseconds)));
    }
    match task.kind {
        TaskKind::Ready => {
            if task.reason.is_none() {
                words.line("because", "it waits for its turn: a job with room for it");
            }
            if let Some(scaling) = scaling {
                words.line("we will", escape(scaling));
            }
            words.line("you can", "dcluster explain scaling; dcluster status says what jobs wait for");
        }
        TaskKind::Failed => words.line("you can", format!("dcluster logs {id}; dcluster retry {id}")),
        TaskKind::Running => words.line("you can", format!("dcluster logs {id}")),
        _ => {}
    }
    words.line("evidence", format!("dcluster tasks {id} --json"));
    words
}

fn job_words(folder: &Folder, number: u32, status: &Status, decisions: &Decisions) -> Result<Explanation, Problem> {
    let backend = folder.spec()?.backend;
    let Some(job) = status.jobs.iter().find(|job| job.seq.0 == number) else {
        return Err(Problem::new(Kind::Usage, format!("there is no job {number} that lives or ended lately"))
            .fix(format!("dcluster events --job {number}")));
    };
    let id = job.id.as_ref().map(|id| format!(" ({} {})", backend.as_str(), escape(&id.0))).unwrap_or_default();
    let node = job.node.as_ref().map(|node| format!(" on {}", escape(node))).unwrap_or_default();
    let state = match job.end {
        Some(end) => format!("ended: {}", end.words()),
        None => format!("is {}{node}", job.state.as_str()),
    };
    let mut words = Explanation::about(format!("job {number}{id} {state}"));
    if !job.reason.is_empty() {
        words.line(says(backend), escape(&job.reason));
        if let Some(meaning) = super::status::meaning(backend, &job.reason) {
            words.line("it means", meaning);
        }
    }
    let about = decisions.jobs.get(&number).copied().unwrap_or_default();
    words.line("asked for", asked(about, decisions, status));
    let waited = job.started_at.unwrap_or(job.ended_at.unwrap_or(status.now)).saturating_sub(job.intended_at);
    words.line("waited", format!("{} in the queue", duration(Duration::from_millis(waited))));
    if let Some(code) = job.exit_code {
        words.line("exit code", code.to_string());
    }
    let stays = job.live() && about.given_up.is_none();
    words.line(if stays { "we will" } else { "so" }, fate(job, about, decisions, status.now));
    if job.state == JobState::Pending && job.live() {
        words.line("you can", "dcluster adapt --max N, or dcluster scale N, for fewer; or wait");
    } else {
        words.line("you can", format!("dcluster logs job {number}"));
    }
    words.line("evidence", format!("dcluster events --job {number}"));
    Ok(words)
}

fn says(backend: BackendKind) -> &'static str {
    match backend {
        BackendKind::Local => "we know",
        BackendKind::Slurm => "Slurm says",
        BackendKind::Pbs => "PBS says",
        BackendKind::Sge => "SGE says",
        BackendKind::Lsf => "LSF says",
        BackendKind::Oar => "OAR says",
        BackendKind::Condor => "HTCondor says",
    }
}

fn asked(about: JobDecisions, decisions: &Decisions, status: &Status) -> String {
    match about.asked.and_then(|number| find(decisions, number)) {
        Some(entry) => format!("by {}", sentence(entry, status.now)),
        None if status.adapt.is_some() => "before this server began, or before jobs followed the load".to_owned(),
        None => format!("since {} to be held", crate::ui::words::count(u64::from(status.wanted), "job")),
    }
}

fn fate(job: &Job, about: JobDecisions, decisions: &Decisions, now: u64) -> String {
    match about.given_up.and_then(|number| find(decisions, number)) {
        Some(entry) => format!("it was given up by {}", sentence(entry, now)),
        None if !job.live() => "nothing more: it has ended by itself or with its cluster".to_owned(),
        None if job.cancelling || job.draining => "end it: fewer jobs are to be held".to_owned(),
        None => match decisions.entries.last() {
            Some(entry) => format!("keep it; last decision: {}", escape(&entry.decision.reason)),
            None => "keep it".to_owned(),
        },
    }
}

fn find(decisions: &Decisions, number: u64) -> Option<&Entry> {
    decisions.entries.iter().find(|entry| entry.number == number)
}

/// `now` is the server's, in milliseconds since 1970.
fn sentence(entry: &Entry, now: u64) -> String {
    let time = |at: u64| Timestamp::from_millisecond(at.cast_signed()).unwrap_or_default();
    let at = local_time(time(entry.at), time(now), &TimeZone::system());
    format!("decision {} of {at}: {}", entry.number, escape(&entry.decision.reason))
}

fn scaling_words(status: &Status, decisions: Decisions, last: usize) -> Explanation {
    let mut words = Explanation::about(super::adapt::mode(status));
    let skipped = decisions.entries.len().saturating_sub(last);
    let shown: Vec<Entry> = decisions.entries.into_iter().skip(skipped).collect();
    for entry in &shown {
        let times = if entry.times > 1 { format!(" ({} times)", entry.times) } else { String::new() };
        words.line("decision", format!("{}{times}", sentence(entry, status.now)));
    }
    if let Some(entry) = shown.last() {
        for (label, text) in figures(&entry.decision) {
            words.line(label, text);
        }
    }
    if let Some(trouble) = &status.trouble {
        words.line("trouble", escape(trouble));
    }
    words.line("you can", "dcluster adapt --min N --max N --prefer speed|thrift; dcluster simulate tries it out");
    words.line("evidence", "dcluster events --json (kind scaling)");
    words.decisions = shown;
    words
}

/// Returns the figures that a decision rests on.
fn figures(decision: &Decision) -> Vec<(&'static str, String)> {
    let numbers = &decision.numbers;
    let time = |seconds: f64| duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX));
    let mut figures = vec![
        ("tasks", format!("{} ready, {} running", numbers.ready, numbers.running)),
        (
            "jobs",
            format!(
                "{} pending ({} more than needed), {} started, {} up ({} idle), {} leaving",
                numbers.pending, numbers.surplus, numbers.started, numbers.up, numbers.idle, numbers.leaving
            ),
        ),
        (
            "work",
            format!(
                "{} in time of whole jobs; the jobs there are will do {} of it",
                time(numbers.work),
                time(numbers.cover)
            ),
        ),
        ("worth", format!("{} more jobs by work, {} by width", numbers.by_work, numbers.by_width)),
        (
            "learned",
            format!(
                "a quarter of jobs wait less than {}, half less than {}; start-up {}; a new job must have {} to do",
                time(numbers.wait_p25),
                time(numbers.wait_p50),
                time(numbers.startup),
                time(numbers.useful_life)
            ),
        ),
    ];
    for parked in &decision.parked {
        let tasks = crate::ui::words::count(parked.tasks, "task");
        figures.push(("parked", format!("{tasks}: {}", escape(&parked.reason))));
    }
    figures
}
