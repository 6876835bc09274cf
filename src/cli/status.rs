//! `dcluster status`.

use super::Context;
use super::connect::{Condition, condition, connect, not_up};
use super::context::interrupted;
use crate::cluster::Folder;
use crate::config::options::ClusterOption;
use crate::config::spec::{BackendKind, PoolSpec, Spec};
use crate::config::units::human_size;
use crate::error::Problem;
use crate::ledger::{Job, JobState};
use crate::runtime::control::Status;
use crate::ui::table::{Align, Table};
use crate::ui::words::{count, duration, escape, grouped, percent, size};
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

/// Show a cluster on one screen: work, jobs, workers, what it waits for
///
/// Exits with 69 when the cluster is not up.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster status
  dcluster status --verbose          jobs and workers one by one
  dcluster status --watch            print again on every change
  dcluster status --json | jq .tasks")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    cluster: ClusterOption,
    /// Print again whenever something changed, until Ctrl-C.
    #[arg(long, short)]
    watch: bool,
}

pub(super) fn run(args: &StatusArgs, context: &Context) -> Result<u8, Problem> {
    let folder = context.folder(&args.cluster)?;
    if condition(&folder)? != Condition::Up {
        return Err(not_up(&folder));
    }
    let spec = folder.spec()?;
    let work = async {
        let mut client = connect(&folder, context).await?;
        let mut told = String::new();
        loop {
            let status = super::up::status(&mut client).await?;
            let text = if context.printer.json {
                serde_json::to_string(&view(&folder, &spec, &status)).unwrap_or_default()
            } else {
                screen(&folder, &spec, &status, context)
            };
            // What only counts seconds is no change.
            let key = if args.watch { essence(&status) } else { text.clone() };
            if key != told {
                context.printer.data(&text)?;
                if args.watch && !context.printer.json {
                    context.printer.data("")?;
                }
                told = key;
            }
            if !args.watch {
                return Ok(0);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    context.block_on(work, interrupted)
}

fn essence(status: &Status) -> String {
    let jobs: Vec<_> =
        status.jobs.iter().map(|job| (job.seq, job.state, job.reason.clone(), job.unknown, job.silent)).collect();
    format!(
        "{:?} {:?} {:?} {:?} {:?} {}",
        status.tasks, jobs, status.waiting_for, status.trouble, status.journal_trouble, status.wanted
    )
}

fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One screen for people, at most 80 columns wide but for foreign words.
pub(super) fn screen(folder: &Folder, spec: &Spec, status: &Status, context: &Context) -> String {
    let backend = spec.backend;
    let flag = super::connect::cluster_flag(folder);
    let up = match status.uptime_seconds {
        0 => "less than 1 s".to_owned(),
        seconds => duration(Duration::from_secs(seconds)),
    };
    let mut text = format!("{} on {}, up {up}", folder.name(), backend.as_str());
    let mut line = |label: &str, words: &str| {
        let _ = write!(text, "\n  {label:<8} {words}");
    };
    for (at, (name, pool)) in spec.shapes().enumerate() {
        line(if at == 0 { "pool" } else { "" }, &pool_line(name, pool));
    }
    line("work", &work_line(status));
    line("jobs", &jobs_line(status));
    let workers: Vec<_> = status.workers.iter().filter(|worker| worker.state != "silent").collect();
    let cores: u64 = workers.iter().map(|worker| u64::from(worker.cores)).sum();
    line("workers", &format!("{} up, {}", grouped(workers.len() as u64), count(cores, "core")));
    if status.used.wall_milliseconds > 0 {
        line(
            "used",
            &format!(
                "{}, {}, {} wall, {} CPU",
                count(u64::from(status.jobs_submitted), "job"),
                count(status.tasks.finished + status.tasks.failed, "task"),
                duration(milliseconds(status.used.wall_milliseconds)),
                duration(milliseconds(status.used.cpu_milliseconds))
            ),
        );
    }
    if let Some(why) = &status.waiting_for {
        line("waiting", &escape(why));
    }
    let pending = status.jobs.iter().find(|job| job.state == JobState::Pending && !job.reason.is_empty());
    if let Some(meaning) = pending.and_then(|job| meaning(backend, &job.reason)) {
        line(if status.waiting_for.is_some() { "" } else { "pending" }, &meaning);
    }
    let said = status.waiting_for.as_deref().unwrap_or_default();
    if let Some(trouble) = status.trouble.as_ref().filter(|trouble| !said.starts_with(trouble.as_str())) {
        line("trouble", &escape(trouble));
        if let Some(advice) = &status.advice {
            line("", &escape(advice));
        }
    }
    if let Some(trouble) = &status.journal_trouble {
        line("disk", &format!("the journal cannot be written: {}", escape(trouble)));
        line("", "no new work is accepted; accepted work goes on");
    }
    for failure in &status.failures {
        let name =
            if failure.name.is_empty() { failure.array.to_string() } else { format!("\"{}\"", escape(&failure.name)) };
        line("failed", &format!("{} of {name}: {}", grouped(failure.tasks), escape(&failure.words)));
    }
    if status.tasks.failed > 0 {
        line("", &format!("look: dcluster logs{flag} --failed   again: dcluster retry{flag} --failed"));
    }
    let jobs: Vec<&Job> = status
        .jobs
        .iter()
        .filter(|job| job.live() || context.printer.verbosity > crate::ui::printer::Verbosity::Normal)
        .collect();
    if !jobs.is_empty() && (jobs.len() <= 10 || context.printer.verbosity > crate::ui::printer::Verbosity::Normal) {
        let _ = write!(text, "\n\n{}", job_table(&jobs, status, context));
    }
    if context.printer.verbosity > crate::ui::printer::Verbosity::Normal && !status.workers.is_empty() {
        let _ = write!(text, "\n\n{}", worker_table(status, context));
    }
    text
}

/// The shape of a job.
fn pool_line(name: &str, pool: &PoolSpec) -> String {
    let mut words = count(u64::from(pool.cores), "core");
    if let Some(bytes) = pool.memory_bytes {
        let _ = write!(words, ", {}", human_size(bytes));
    }
    if pool.gpus > 0 {
        let _ = write!(words, ", {}", count(u64::from(pool.gpus), "GPU"));
    }
    if let Some(seconds) = pool.walltime_seconds {
        let up_to = if pool.walltime_choices.is_empty() { "" } else { "up to " };
        let _ = write!(words, ", walltime {up_to}{}", duration(Duration::from_secs(seconds)));
    }
    if let Some(queue) = &pool.queue {
        let _ = write!(words, ", queue {}", escape(queue));
    }
    format!("{name}: {words} a job")
}

/// An id without what is the same of all: the host of PBS, what makes a process unique; of Grid Engine's `7.3` the
/// task stays.
fn short(id: &str) -> &str {
    match id.split_once('.') {
        Some((first, rest)) if !rest.bytes().all(|b| b.is_ascii_digit()) => first,
        _ => id,
    }
}

/// Says in plain English what a pending job waits for, and what can be done.
pub(super) fn meaning(backend: BackendKind, reason: &str) -> Option<String> {
    let known = crate::backends::reasons::meaning(backend, reason)?;
    Some(match known.fix {
        Some(fix) => format!("{}; {fix}", known.meaning),
        None => known.meaning.to_owned(),
    })
}

fn work_line(status: &Status) -> String {
    let tasks = &status.tasks;
    let total = tasks.unfinished() + tasks.finished + tasks.failed + tasks.cancelled;
    if total == 0 {
        return "no tasks yet".to_owned();
    }
    let mut words =
        format!("{} of {} done ({})", grouped(tasks.finished), count(total, "task"), percent(tasks.finished, total));
    for (number, word) in [
        (tasks.running, "running"),
        (tasks.ready, "ready"),
        (tasks.waiting, "waiting"),
        (tasks.failed, "failed"),
        (tasks.cancelled, "cancelled"),
    ] {
        if number > 0 {
            let _ = write!(words, ", {} {word}", grouped(number));
        }
    }
    words
}

fn jobs_line(status: &Status) -> String {
    let number = |pick: &dyn Fn(&Job) -> bool| status.jobs.iter().filter(|job| pick(job)).count() as u64;
    let bounds =
        status.adapt.map(|adapt| format!(" ({}..{} by load)", grouped(adapt.min.into()), grouped(adapt.max.into())));
    let mut words = format!("want {}{}: ", grouped(u64::from(status.wanted)), bounds.unwrap_or_default());
    let parts = [
        (number(&|job| job.state == JobState::Up && !job.silent), "up"),
        (number(&|job| job.state == JobState::Draining && !job.silent), "draining"),
        (number(&|job| job.live() && job.silent), "silent"),
        (number(&|job| job.state == JobState::Started), "starting"),
        (number(&|job| job.state == JobState::Pending), "pending"),
        (number(&|job| matches!(job.state, JobState::Intended | JobState::Submitted)), "submitted"),
        (number(&|job| job.live() && job.unknown), "with unknown state"),
        (u64::from(status.jobs_ended), "ended"),
    ];
    let said: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{} {word}", grouped(*number)))
        .collect();
    words.push_str(if said.is_empty() { "none" } else { "" });
    words.push_str(&said.join(", "));
    words
}

/// What a job does, in one word.
fn job_word(job: &Job) -> String {
    let state = match (job.end, job.silent) {
        (Some(end), _) => format!("ended: {}", end.words()),
        (None, true) => format!("{} (silent)", job.state.as_str()),
        _ => job.state.as_str().to_owned(),
    };
    if job.unknown { format!("{state} ?") } else { state }
}

fn job_table(jobs: &[&Job], status: &Status, context: &Context) -> String {
    let mut table = Table::new(&[
        ("job", Align::Right),
        ("id", Align::Left),
        ("state", Align::Left),
        ("node", Align::Left),
        ("age", Align::Right),
        ("queued", Align::Right),
        ("reason", Align::Left),
    ]);
    for job in jobs {
        let (queued, _) = times(job, status.now);
        let age = job.ended_at.unwrap_or(status.now).saturating_sub(job.intended_at);
        table.row([
            job.seq.0.to_string(),
            job.id.as_ref().map_or("-".to_owned(), |id| short(&id.0).to_owned()),
            job_word(job),
            job.node.clone().unwrap_or_else(|| "-".to_owned()),
            duration(milliseconds(age)),
            duration(milliseconds(queued)),
            job.reason.clone(),
        ]);
    }
    table.render(context.printer.table_width())
}

fn worker_table(status: &Status, context: &Context) -> String {
    let mut table = Table::new(&[
        ("worker", Align::Right),
        ("job", Align::Right),
        ("node", Align::Left),
        ("state", Align::Left),
        ("cores", Align::Right),
        ("memory", Align::Right),
        ("running", Align::Right),
    ]);
    for worker in &status.workers {
        table.row([
            worker.id.to_string(),
            worker.job.map_or("-".to_owned(), |job| job.to_string()),
            worker.node.clone(),
            worker.state.clone(),
            worker.cores.to_string(),
            size(worker.memory_bytes),
            worker.running.to_string(),
        ]);
    }
    table.render(context.printer.table_width())
}

/// Milliseconds in the queue and running.
fn times(job: &Job, now: u64) -> (u64, u64) {
    let end = job.ended_at.unwrap_or(now);
    let queued = job.started_at.unwrap_or(end).saturating_sub(job.intended_at);
    let running = job.started_at.map_or(0, |at| end.saturating_sub(at));
    (queued, running)
}

/// `status --json`: a contract (docs/json.md).
#[derive(Serialize)]
pub(super) struct View<'a> {
    cluster: &'a str,
    backend: &'static str,
    engine: &'static str,
    scaling: Scaling<'a>,
    server: ServerView<'a>,
    jobs: Vec<JobView<'a>>,
    workers: Vec<WorkerView<'a>>,
    tasks: crate::runtime::scheduler::Counts,
    used: Used,
    waiting_for: Option<&'a str>,
    trouble: Option<&'a str>,
    advice: Option<&'a str>,
    gave_up: bool,
    journal_trouble: Option<&'a str>,
}

#[derive(Serialize)]
struct Scaling<'a> {
    mode: &'static str,
    jobs: u32,
    min: Option<u32>,
    max: Option<u32>,
    efficiency: Option<f64>,
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct ServerView<'a> {
    host: &'a str,
    pid: u32,
    version: &'a str,
    uptime_seconds: u64,
    longest_turn_seconds: f64,
}

#[derive(Serialize)]
struct JobView<'a> {
    name: &'a str,
    id: Option<&'a str>,
    pool: &'a str,
    state: &'static str,
    reason: Option<String>,
    node: Option<&'a str>,
    cores: u32,
    memory_bytes: Option<u64>,
    walltime_seconds: Option<u64>,
    queued_seconds: u64,
    running_seconds: u64,
    exit_code: Option<i32>,
    unknown: bool,
}

#[derive(Serialize)]
struct WorkerView<'a> {
    id: u32,
    job: Option<&'a str>,
    node: &'a str,
    cores: u32,
    memory_bytes: u64,
    running: u32,
    state: &'a str,
}

#[derive(Serialize)]
struct Used {
    jobs: u32,
    wall_seconds: f64,
    cpu_seconds: f64,
    memory_bytes_max: u64,
}

fn scaling(status: &Status) -> Scaling<'_> {
    let adapt = status.adapt.as_ref();
    Scaling {
        mode: if adapt.is_some() { "adapt" } else { "fixed" },
        jobs: status.wanted,
        min: adapt.map(|adapt| adapt.min),
        max: adapt.map(|adapt| adapt.max),
        efficiency: adapt.map(|adapt| f64::from(adapt.efficiency_percent) / 100.0),
        reason: status.scaling.as_deref(),
    }
}

/// Returns what `status --json` prints.
pub(super) fn view<'a>(folder: &'a Folder, spec: &Spec, status: &'a Status) -> View<'a> {
    let jobs = status
        .jobs
        .iter()
        .map(|job| {
            let (queued, running) = times(job, status.now);
            let reason = match job.end {
                Some(end) if job.reason.is_empty() => Some(end.words().to_owned()),
                Some(end) => Some(format!("{}: {}", end.words(), job.reason)),
                None => Some(job.reason.clone()).filter(|reason| !reason.is_empty()),
            };
            let pool = spec.shape(&job.pool);
            JobView {
                name: job.name.as_str(),
                id: job.id.as_ref().map(|id| id.0.as_str()),
                pool: &job.pool,
                state: job.state.as_str(),
                reason,
                node: job.node.as_deref(),
                cores: pool.cores,
                memory_bytes: pool.memory_bytes,
                walltime_seconds: job.walltime_seconds.or(pool.walltime_seconds),
                queued_seconds: queued / 1000,
                running_seconds: running / 1000,
                exit_code: job.exit_code,
                unknown: job.unknown,
            }
        })
        .collect();
    let job_name = |number: u32| status.jobs.iter().find(|job| job.seq.0 == number).map(|job| job.name.as_str());
    let workers = status
        .workers
        .iter()
        .map(|worker| WorkerView {
            id: worker.id,
            job: worker.job.and_then(job_name),
            node: &worker.node,
            cores: worker.cores,
            memory_bytes: worker.memory_bytes,
            running: worker.running,
            state: &worker.state,
        })
        .collect();
    let seconds = |ms: u64| milliseconds(ms).as_secs_f64();
    View {
        cluster: folder.name(),
        backend: spec.backend.as_str(),
        engine: "native",
        scaling: scaling(status),
        server: ServerView {
            host: &status.host,
            pid: status.pid,
            version: &status.version,
            uptime_seconds: status.uptime_seconds,
            longest_turn_seconds: Duration::from_micros(status.longest_turn_microseconds).as_secs_f64(),
        },
        jobs,
        workers,
        tasks: status.tasks,
        used: Used {
            jobs: status.jobs_submitted,
            wall_seconds: seconds(status.used.wall_milliseconds),
            cpu_seconds: seconds(status.used.cpu_milliseconds),
            memory_bytes_max: status.used.memory_bytes,
        },
        waiting_for: status.waiting_for.as_deref(),
        trouble: status.trouble.as_deref(),
        advice: status.advice.as_deref(),
        gave_up: status.gave_up,
        journal_trouble: status.journal_trouble.as_deref(),
    }
}
