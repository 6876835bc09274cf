//! `dcluster tasks`.

use super::Context;
use super::connect::{Condition, condition, connect, offline};
use super::context::{interrupted, selections};
use crate::client::{Client, unexpected};
use crate::cluster::Folder;
use crate::config::options::ClusterOption;
use crate::error::Problem;
use crate::runtime::control::{Reply, Request, TaskInfo};
use crate::runtime::ids::TaskId;
use crate::runtime::scheduler::Kind;
use crate::selection::Selection;
use crate::server::clock;
use crate::ui::table::{Align, Table};
use crate::ui::words::{duration, iso_time, size};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;

/// Rows that people are shown unless they ask for more.
const ROWS_SHOWN: usize = 1000;
const PAGE: u32 = 1000;

/// List tasks; works after `down`, too
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster tasks
  dcluster tasks --failed
  dcluster tasks 3 --json | jq -r 'select(.wall_seconds > 60) | .id'")]
pub(super) struct TasksArgs {
    /// Ids as submit printed them; all tasks when none is given.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Only tasks in this state; may be repeated.
    #[arg(long, value_enum, value_name = "STATE")]
    state: Vec<State>,
    /// Same as --state failed.
    #[arg(long)]
    failed: bool,
    #[command(flatten)]
    cluster: ClusterOption,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting,
    Ready,
    Running,
    Finished,
    Failed,
    Cancelled,
}

impl From<State> for Kind {
    fn from(state: State) -> Self {
        match state {
            State::Waiting => Self::Waiting,
            State::Ready => Self::Ready,
            State::Running => Self::Running,
            State::Finished => Self::Finished,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}

/// Where pages of tasks come from: the server, or the journal of a cluster that is down.
pub(super) enum Source {
    /// A server.
    Live(Box<Client>),
    /// The journal.
    Offline(Box<crate::server::core::Core>),
}

impl Source {
    /// Opens the source of a cluster.
    pub(super) async fn open(folder: &Folder, context: &Context) -> Result<Self, Problem> {
        match condition(folder)? {
            Condition::Down => Ok(Self::Offline(Box::new(offline(folder)?.0))),
            _ => Ok(Self::Live(Box::new(connect(folder, context).await?))),
        }
    }

    /// Returns the connection to the server, if there is one.
    pub(super) fn client(&mut self) -> Option<&mut Client> {
        match self {
            Self::Live(client) => Some(client),
            Self::Offline(_) => None,
        }
    }

    /// Returns a page and where the next one begins.
    pub(super) async fn page(
        &mut self,
        tasks: &[Selection],
        kinds: &[Kind],
        after: Option<TaskId>,
    ) -> Result<(Vec<TaskInfo>, Option<TaskId>), Problem> {
        match self {
            Self::Live(client) => {
                let request = Request::Tasks { tasks: tasks.to_vec(), kinds: kinds.to_vec(), after, limit: PAGE };
                match client.ask(request).await? {
                    Reply::Tasks { tasks, next } => Ok((tasks, next)),
                    other => Err(unexpected(&other)),
                }
            }
            Self::Offline(core) => core
                .task_page(tasks, kinds, after, PAGE, clock::now())
                .map_err(|what| Problem::new(crate::error::Kind::Usage, what)),
        }
    }
}

/// One line of `tasks --json`: a contract (docs/json.md).
#[derive(Serialize)]
struct Line<'a> {
    id: String,
    name: &'a str,
    state: Kind,
    reason: Option<&'a str>,
    node: Option<&'a str>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    started: Option<String>,
    wall_seconds: Option<f64>,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    command: String,
    stdout: String,
    stderr: String,
}

fn line(info: &TaskInfo) -> Line<'_> {
    let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
    Line {
        id: info.id(),
        name: &info.name,
        state: info.kind,
        reason: info.reason.as_deref(),
        node: info.node.as_deref(),
        exit_code: info.exit_code,
        signal: info.signal,
        started: info.started_at.and_then(|at| Timestamp::from_millisecond(at.cast_signed()).ok()).map(iso_time),
        wall_seconds: info.usage.map(|usage| seconds(usage.wall_milliseconds)),
        cpu_seconds: info.usage.map(|usage| seconds(usage.cpu_milliseconds)),
        memory_bytes: info.usage.map(|usage| usage.memory_bytes),
        command: info.command.to_string(),
        stdout: info.stdout.to_string(),
        stderr: info.stderr.to_string(),
    }
}

pub(super) fn run(args: &TasksArgs, context: &Context) -> Result<u8, Problem> {
    let folder = context.folder(&args.cluster)?;
    let tasks = selections(&args.ids)?;
    let mut kinds: Vec<Kind> = args.state.iter().copied().map(Kind::from).collect();
    if args.failed {
        kinds.push(Kind::Failed);
    }
    let work = async {
        let mut source = Source::open(&folder, context).await?;
        let mut after = None;
        let mut rows = Vec::new();
        loop {
            let (page, next) = source.page(&tasks, &kinds, after).await?;
            if context.printer.json {
                for info in &page {
                    context.printer.data_json(&line(info))?;
                }
            } else {
                rows.extend(page);
                if rows.len() >= ROWS_SHOWN && next.is_some() {
                    context.printer.note(&format!("the first {ROWS_SHOWN} tasks; all of them: --json"));
                    break;
                }
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        Ok(rows)
    };
    let rows = context.block_on(work, interrupted)?;
    if context.printer.json {
        return Ok(0);
    }
    if rows.is_empty() {
        context.printer.note("no such tasks");
        return Ok(0);
    }
    let mut table = Table::new(&[
        ("task", Align::Left),
        ("name", Align::Left),
        ("state", Align::Left),
        ("node", Align::Left),
        ("wall", Align::Right),
        ("cpu", Align::Right),
        ("memory", Align::Right),
        ("reason", Align::Left),
    ]);
    for info in &rows {
        let time = |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| duration(Duration::from_millis(ms)));
        table.row([
            info.id(),
            info.name.clone(),
            state_word(info.kind).to_owned(),
            info.node.clone().unwrap_or_else(|| "-".to_owned()),
            time(info.usage.map(|usage| usage.wall_milliseconds)),
            time(info.usage.map(|usage| usage.cpu_milliseconds)),
            info.usage.map_or("-".to_owned(), |usage| size(usage.memory_bytes)),
            info.reason.clone().unwrap_or_default(),
        ]);
    }
    context.printer.data(table.render(context.printer.table_width()))?;
    Ok(0)
}

/// The word for a state.
pub(super) fn state_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Waiting => "waiting",
        Kind::Ready => "ready",
        Kind::Running => "running",
        Kind::Finished => "finished",
        Kind::Failed => "failed",
        Kind::Cancelled => "cancelled",
    }
}
