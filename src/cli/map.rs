//! `dcluster map`.

use super::Context;
use super::follow::code;
use super::submit::{Borrowed, TaskOptions, all_of, before_first, send};
use super::wait::{Notes, ask, progress_counts};
use crate::client::{Client, unexpected};
use crate::config::options::ClusterOption;
use crate::error::{Kind, Problem};
use crate::map::halt::{Counts as HaltCounts, Decision, Halt};
use crate::map::inputs::{Origin, combine, parse_tail, short_name, split_records};
use crate::map::joblog::{Entry, HEADER};
use crate::runtime::control::{Reply, Request, TaskInfo};
use crate::runtime::ids::{ArrayId, TaskId};
use crate::runtime::protocol::{Command, Indexes, Outcome};
use crate::runtime::scheduler::{Counts, Kind as TaskKind};
use crate::template::Template;
use crate::ui::progress::Progress;
use bstr::{BString, ByteSlice};
use clap::Args;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

/// Run a command on every input, in parallel, like GNU parallel
///
/// Placeholders: {} the input, {.} without extension, {/} without folder, {//} the folder, {/.} both,
/// {#} number of the task, {1} {2} … the inputs of several sources. Every value is one word for the
/// command, whatever characters it has. A shell is used only where the template needs one.
///
/// Waits until all have ended and exits with 1 if any failed. Where no cluster is up it starts the one
/// that the configuration describes (this machine without any) and takes it down again.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster map 'gzip {}' ::: *.nc
  dcluster map 'ncks -d time,0 {} out/{/.}.nc' ::: in/*.nc
  ls in/*.nc | dcluster map --joblog log 'cdo monmean {} out/{/}'
  dcluster map './run --member {1} --year {2}' ::: a b c ::: 1997 1998

docs/map.md has the rest: :::: FILE, :::+, quoting, what differs from GNU parallel.")]
pub(super) struct MapArgs {
    /// Command template, then ::: INPUTS, :::: FILE, or inputs on standard input.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    words: Vec<OsString>,
    /// Tasks that may run at once (default: as many as fit).
    #[arg(long = "max-tasks", short = 'j', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    at_most: Option<u32>,
    /// Write a line per task, as GNU parallel does.
    #[arg(long, value_name = "FILE")]
    joblog: Option<PathBuf>,
    /// Stop early: never, soon,fail=1, now,fail=20%, now,success=1 …
    #[arg(long, value_name = "WHEN", default_value = "never", hide_default_value = true)]
    halt: String,
    /// Print the commands and run nothing.
    #[arg(long)]
    dry_run: bool,
    /// Inputs end with NUL, not newline (find -print0).
    #[arg(long, short = '0')]
    null: bool,
    /// Keep the cluster up that this command started.
    #[arg(long)]
    keep: bool,
    /// Name of the cluster (default: "default").
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    #[command(flatten)]
    task: TaskOptions,
}

fn usage(what: impl std::fmt::Display) -> Problem {
    Problem::new(Kind::Usage, what.to_string()).done("nothing was run")
}

fn read(origin: Origin, null: bool) -> Result<Vec<BString>, Problem> {
    let fail = |name: String, error: std::io::Error| {
        usage(format!("cannot read the inputs from {name}")).says(error.to_string())
    };
    let text = match origin {
        Origin::Values(values) => return Ok(values),
        Origin::File(path) if path != "-" => {
            std::fs::read(OsString::from_vec(path.to_vec())).map_err(|error| fail(path.to_string(), error))?
        }
        Origin::File(_) | Origin::Stdin => {
            let mut text = Vec::new();
            std::io::stdin().lock().read_to_end(&mut text).map_err(|error| fail("standard input".to_owned(), error))?;
            text
        }
    };
    split_records(&text, null).map_err(usage)
}

pub(super) fn run(args: &MapArgs, context: &Context) -> Result<u8, Problem> {
    let words: Vec<BString> = args.words.iter().map(|word| BString::from(word.clone().into_vec())).collect();
    let halt: Halt = args.halt.parse().map_err(|error| usage(error).location("--halt").fix("--halt soon,fail=1"))?;
    let tail = parse_tail(&words).map_err(usage)?;
    let template = Template::from_words(&tail.command).map_err(|error| {
        let fix = error.fix();
        usage(error).fix(fix)
    })?;
    if template.inputs_needed() > tail.sources.len() {
        return Err(usage(format!(
            "the template wants {} inputs, there are {}",
            template.inputs_needed(),
            tail.sources.len()
        ))
        .fix("give one ::: for each: ::: a b ::: 1 2"));
    }
    if tail.sources.iter().any(|source| source.origin == Origin::Stdin)
        && std::io::IsTerminal::is_terminal(&std::io::stdin())
    {
        return Err(usage("there are no inputs")
            .fix("dcluster map 'gzip {}' ::: *.nc")
            .fix("ls *.nc | dcluster map 'gzip {}'"));
    }
    let mut sources = Vec::new();
    for source in tail.sources {
        sources.push((source.linked, read(source.origin, args.null)?));
    }
    let inputs = combine(sources).map_err(usage)?;
    if inputs.is_empty() {
        context.printer.note("no inputs: nothing to run");
        return Ok(0);
    }
    if args.dry_run {
        for (number, input) in (1u64..).zip(&inputs) {
            context.printer.data(template.render(input, number).display())?;
        }
        return Ok(0);
    }
    let count = u32::try_from(inputs.len()).map_err(usage)?;
    let source = BString::from(bstr::join(" ", &tail.command));
    let mut submission =
        args.task.submission(Command::Template(source), Indexes::Range { first: 1, count, step: 1 }, context)?;
    submission.body.name = short_name(&tail.command);
    submission.inputs = inputs;
    submission.at_most = args.at_most;
    let mut log = args.joblog.as_deref().map(Log::create).transpose()?;

    let cluster = ClusterOption { name: args.cluster.clone() };
    let id = std::cell::Cell::new(None);
    let started = std::cell::Cell::new(false);
    let work = async {
        let mut borrowed = Borrowed::get(&cluster, args.keep, context).await?;
        let array = send(&mut borrowed.client, submission).await?;
        id.set(Some(array));
        started.set(borrowed.ours());
        let watched = watch(&mut borrowed.client, array, halt, log.as_mut(), context).await;
        borrowed.give_back(context).await?;
        watched
    };
    let counts = context.block_on(work, || match id.get() {
        Some(array) => super::wait::stopped(&ArrayId::to_string(&array)).fix_if(started.get(), "dcluster down"),
        None => super::context::interrupted(),
    })?;
    if context.printer.json {
        context
            .printer
            .data_json(&serde_json::json!({ "id": id.get().map(|array| array.to_string()), "tasks": counts }))?;
    }
    Ok(u8::from(counts.failed + counts.cancelled > 0))
}

/// Shows progress, writes the log, stops early; until all has ended.
async fn watch(
    client: &mut Client,
    array: ArrayId,
    halt: Halt,
    mut log: Option<&mut Log>,
    context: &Context,
) -> Result<Counts, Problem> {
    let (face, unicode) = context.face();
    let tasks = all_of(array);
    let mut progress: Option<Progress> = None;
    let mut notes = Notes::default();
    let mut halted = false;
    loop {
        let answer = ask(client, &tasks, Duration::from_millis(if progress.is_some() { 200 } else { 0 })).await?;
        let counts = answer.counts;
        let shown =
            progress.get_or_insert_with(|| Progress::start(context.printer, face, unicode, progress_counts(&counts)));
        shown.update(progress_counts(&counts));
        notes.tell(&answer, |line| shown.note(line));
        if let Some(log) = log.as_deref_mut() {
            log.update(client, array, counts.unfinished() == 0).await?;
        }
        if counts.unfinished() == 0 {
            if let Some(progress) = progress.take() {
                progress.finish(progress_counts(&counts));
            }
            tell_failures(client, array, &counts, context).await?;
            return Ok(counts);
        }
        let decided = halt.decide(
            HaltCounts { succeeded: counts.finished, failed: counts.failed },
            counts.unfinished() + counts.finished + counts.failed + counts.cancelled,
        );
        if !halted && decided != Decision::Continue {
            halted = true;
            stop(client, array, decided, context).await?;
        }
    }
}

/// Cancels what waits (`soon`), or everything (`now`).
async fn stop(client: &mut Client, array: ArrayId, decided: Decision, context: &Context) -> Result<(), Problem> {
    context.printer.note("stopping early, as --halt says");
    let tasks = if decided == Decision::Now {
        all_of(array)
    } else {
        let mut waiting = Vec::new();
        let mut after = before_first(array);
        loop {
            let request = Request::Tasks { tasks: all_of(array), kinds: vec![TaskKind::Ready], after, limit: 1000 };
            let Reply::Tasks { tasks, next } = client.ask(request).await? else { break };
            waiting.extend(tasks.iter().filter_map(|info| {
                let index = info.index?;
                Some(crate::selection::Selection { array, indexes: Some((index, index)) })
            }));
            after = next;
            if after.is_none() {
                break;
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        waiting
    };
    client.ask(Request::Cancel { tasks }).await.map(|_| ())
}

/// Shows the first failures, with the end of what they wrote to standard error.
async fn tell_failures(client: &mut Client, array: ArrayId, counts: &Counts, context: &Context) -> Result<(), Problem> {
    if counts.failed == 0 {
        return Ok(());
    }
    let request = Request::Tasks { tasks: all_of(array), kinds: vec![TaskKind::Failed], after: None, limit: 3 };
    let failed = match client.ask(request).await? {
        Reply::Tasks { tasks, .. } => tasks,
        other => return Err(unexpected(&other)),
    };
    for info in &failed {
        let id = info.id();
        let reason = crate::ui::words::escape(info.reason.as_deref().unwrap_or("failed"));
        let path = PathBuf::from(OsString::from_vec(info.stderr.to_vec()));
        let last = super::connect::tail(&path, 2000);
        let last = last
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .map(|line| format!(": {}", crate::ui::words::escape(line.trim())));
        context.printer.note(&format!("task {id} failed: {reason}{}", last.unwrap_or_default()));
    }
    if counts.failed > 3 {
        context.printer.note(&format!("and {} more; all of them: dcluster tasks {array} --failed", counts.failed - 3));
    }
    context.printer.note(&format!("look: dcluster logs {array} --failed"));
    Ok(())
}

/// `--joblog`: lines in the order of the tasks.
struct Log {
    file: std::fs::File,
    path: PathBuf,
    after: Option<Option<TaskId>>,
}

impl Log {
    fn create(path: &std::path::Path) -> Result<Self, Problem> {
        let fail = |error: std::io::Error| {
            usage(format!("cannot write {}", path.display())).says(error.to_string()).location("--joblog")
        };
        let mut file = std::fs::File::create(path).map_err(fail)?;
        file.write_all(HEADER.as_bytes()).map_err(fail)?;
        Ok(Self { file, path: path.to_owned(), after: None })
    }

    /// Writes the tasks that have ended since, as far as all before them have; at the end all of them.
    async fn update(&mut self, client: &mut Client, array: ArrayId, last: bool) -> Result<(), Problem> {
        loop {
            let after = self.after.unwrap_or_else(|| before_first(array));
            let request = Request::Tasks { tasks: all_of(array), kinds: Vec::new(), after, limit: 1000 };
            let page = match client.ask(request).await? {
                Reply::Tasks { tasks, .. } => tasks,
                other => return Err(unexpected(&other)),
            };
            let ended: Vec<&TaskInfo> = page
                .iter()
                .take_while(|info| {
                    last || matches!(info.kind, TaskKind::Finished | TaskKind::Failed | TaskKind::Cancelled)
                })
                .collect();
            let mut text = Vec::new();
            for info in &ended {
                text.extend_from_slice(&entry(info));
            }
            self.file.write_all(&text).map_err(|error| {
                Problem::new(Kind::Failed, format!("cannot write {}", self.path.display()))
                    .says(error.to_string())
                    .done("the tasks go on")
            })?;
            match ended.last() {
                Some(info) => self.after = Some(Some(info.task)),
                None => return Ok(()),
            }
            if ended.len() < page.len() {
                return Ok(());
            }
        }
    }
}

fn entry(info: &TaskInfo) -> BString {
    let outcome = match (info.kind, info.exit_code, info.signal) {
        (TaskKind::Finished, ..) => Outcome::Finished,
        (_, Some(code), _) => Outcome::Failed { code },
        (_, _, Some(signal)) => Outcome::Signalled { signal },
        (TaskKind::Failed, ..) if code(info) == Kind::TimeOut as u8 => Outcome::TimeLimit,
        (TaskKind::Failed, ..) => Outcome::NotStarted { error: String::new() },
        _ => Outcome::Killed,
    };
    Entry {
        sequence: u64::from(info.task.element) + 1,
        node: info.node.as_deref().unwrap_or(":"),
        start_milliseconds: info.started_at.unwrap_or(0),
        wall_milliseconds: info.usage.map_or(0, |usage| usage.wall_milliseconds),
        outcome: &outcome,
        command: info.command.as_bstr(),
    }
    .line()
}
