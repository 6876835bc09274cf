//! What is shown: status, pages of tasks, reasons in words.

use super::{Core, scaling};
use crate::ledger::Moment;
use crate::runtime::control::{Failure, Status, TaskInfo, WorkerInfo};
use crate::runtime::ids::TaskId;
use crate::runtime::protocol::{Command, Outcome, TaskRef};
use crate::runtime::scheduler::{End, Kind, TaskState};
use crate::runtime::worker::output_paths;
use crate::selection::Selection;
use bstr::{BString, ByteVec};
use std::os::unix::ffi::OsStringExt;

/// Ended jobs that `status` lists.
const ENDED_JOBS_SHOWN: usize = 20;
const PAGE_MAX: u32 = 1_000;
/// A page ends behind the task with which it has so many bytes: a command line may have 2 MiB.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Says how a task ended.
pub(in crate::server) fn end_words(end: &End, label: impl Fn(TaskId) -> String) -> String {
    match end {
        End::Finished => "finished".to_owned(),
        End::Failed(Outcome::Failed { code }) => format!("exit code {code}"),
        End::Failed(Outcome::Signalled { signal }) => {
            let name = nix::sys::signal::Signal::try_from(*signal).map_or("", nix::sys::signal::Signal::as_str);
            format!("killed by signal {signal} {name}").trim_end().to_owned()
        }
        End::Failed(Outcome::TimeLimit) => "killed at its time limit".to_owned(),
        End::Failed(Outcome::MemoryLimit { used_bytes, limit_bytes }) => {
            let (used, limit) = (crate::ui::words::size(*used_bytes), crate::ui::words::size(*limit_bytes));
            format!("killed: it used {used}, more than its {limit} of memory (--memory asks for more)")
        }
        End::Failed(Outcome::NotStarted { error }) => error.clone(),
        End::Failed(Outcome::Interrupted) => {
            "ran three times until the end of the walltime: it needs jobs with a longer --walltime (or --time-request, if \
             it saves its state and goes on in the next job)"
                .to_owned()
        }
        End::Failed(outcome) => format!("{outcome:?}").to_lowercase(),
        End::Poisonous => "three workers were lost while it ran".to_owned(),
        End::Cancelled => "cancelled".to_owned(),
        End::DependencyFailed(task) => format!("task {} did not finish", label(*task)),
    }
}

impl Core {
    /// Returns one screen about the cluster.
    pub fn status(&self, now: Moment) -> Status {
        let ended: Vec<_> = self.ledger.jobs().filter(|job| !job.live()).collect();
        let mut jobs: Vec<_> = self.ledger.live().cloned().collect();
        jobs.extend(ended.iter().rev().take(ENDED_JOBS_SHOWN).rev().map(|job| (*job).clone()));
        jobs.sort_by_key(|job| job.seq);
        let workers = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.capacity.cores > 0)
            .map(|(id, worker)| WorkerInfo {
                id: id.0,
                job: worker.job.map(|job| job.0),
                node: worker.node.clone(),
                cores: worker.capacity.cores,
                memory_bytes: worker.capacity.memory_bytes,
                running: self
                    .scheduler
                    .worker_load(*id)
                    .map_or(0, |load| u32::try_from(load.running).unwrap_or(u32::MAX)),
                state: match (&worker.connection, worker.draining) {
                    (None, _) => "silent",
                    (_, true) => "draining",
                    _ => "up",
                }
                .to_owned(),
            })
            .collect();
        let mut failures: Vec<Failure> = self
            .failures
            .iter()
            .map(|((array, words), tasks)| Failure {
                tasks: *tasks,
                array: *array,
                name: self.arrays.get(array).map(|array| array.submission.body.name.clone()).unwrap_or_default(),
                words: words.clone(),
            })
            .collect();
        failures.sort_by_key(|failure| (std::cmp::Reverse(failure.tasks), failure.array));
        failures.truncate(5);
        let totals = self.scheduler.totals();
        let submitted = self.ledger.jobs().filter(|job| job.id.is_some()).count();
        Status {
            host: self.options.host.clone(),
            pid: self.options.pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.clock.saturating_sub(self.started.clock) / 1000,
            wanted: self.ledger.wanted(),
            adapt: self.scaling.as_ref().map(scaling::Loop::adapt),
            scaling: self.scaling.as_ref().and_then(scaling::Loop::last_reason),
            jobs,
            jobs_ended: u32::try_from(ended.iter().filter(|job| job.id.is_some()).count()).unwrap_or(u32::MAX),
            jobs_submitted: u32::try_from(submitted).unwrap_or(u32::MAX),
            workers,
            tasks: totals,
            used: self.used,
            now: now.wall,
            failures,
            waiting_for: if totals.running == 0 && totals.unfinished() > 0 { self.waiting_for(now) } else { None },
            trouble: self.ledger.trouble().map(str::to_owned),
            advice: self.ledger.advice().map(str::to_owned),
            gave_up: self.ledger.gave_up(),
            journal_trouble: self.journal_trouble.clone(),
            longest_turn_microseconds: u64::try_from(self.longest_turn.as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// Says why nothing runs.
    pub(super) fn waiting_for(&self, now: Moment) -> Option<String> {
        if self.stopped {
            return Some("the cluster is down; dcluster up goes on".to_owned());
        }
        if self.scheduler.totals().unfinished() == 0 {
            return None;
        }
        if self.connections.is_empty() {
            let no_job = || match &self.scaling {
                Some(scaling) => scaling.last_reason(),
                None => Some("there is no job: dcluster scale N".to_owned()),
            };
            return self.jobs_explain().or_else(no_job);
        }
        let ready = self.arrays.keys().find_map(|array| self.scheduler.tasks(*array, 0, 1, Some(Kind::Ready)).next());
        let (task, _) = ready?;
        let why = self.scheduler.explain_ready(task, now.clock)?;
        Some(format!("task {}: {why}", self.task_label(task)))
    }

    /// Returns a page of tasks and where the next one begins.
    ///
    /// # Errors
    ///
    /// If a task does not exist.
    pub fn task_page(
        &self,
        selections: &[Selection],
        kinds: &[Kind],
        after: Option<TaskId>,
        limit: u32,
        now: Moment,
    ) -> Result<(Vec<TaskInfo>, Option<TaskId>), String> {
        let limit = limit.clamp(1, PAGE_MAX) as usize;
        let wanted = self.resolve(selections)?;
        let mut page = Vec::new();
        let mut bytes = 0;
        for reference in wanted {
            let (array, only) = match reference {
                TaskRef::Array(array) => (array, None),
                TaskRef::Task(task) => (task.array, Some(task.element)),
            };
            let mut from = only.unwrap_or(0);
            if let Some(after) = after {
                match array.cmp(&after.array) {
                    std::cmp::Ordering::Less => continue,
                    std::cmp::Ordering::Equal if only.is_some_and(|element| element <= after.element) => continue,
                    std::cmp::Ordering::Equal if only.is_none() => from = after.element + 1,
                    _ => {}
                }
            }
            let kind = match kinds {
                [one] => Some(*one),
                _ => None,
            };
            let room = if only.is_some() { 1 } else { usize::MAX };
            for (task, state) in self.scheduler.tasks(array, from, room, kind) {
                if only.is_some_and(|element| element != task.element) {
                    break;
                }
                if !kinds.is_empty() && !kinds.contains(&state.kind()) {
                    continue;
                }
                if page.len() == limit || bytes >= PAGE_BYTES_MAX {
                    let last: Option<&TaskInfo> = page.last();
                    let next = last.map(|info| info.task);
                    return Ok((page, next));
                }
                let info = self.task_info(task, state, now);
                bytes += crate::runtime::transport::encoded_size(&info);
                page.push(info);
            }
        }
        Ok((page, None))
    }

    fn task_info(&self, task: TaskId, state: TaskState, now: Moment) -> TaskInfo {
        let array = &self.arrays[&task.array];
        let detail = array.details.get(task.element);
        let kind = state.kind();
        let (mut exit_code, mut signal) = (None, None);
        let reason = match &state {
            TaskState::Waiting { on } => Some(format!("waits for {}", self.reference_label(*on))),
            TaskState::Ready => self.scheduler.explain_ready(task, now.clock),
            TaskState::Running { started, .. } => (!started).then(|| "starting".to_owned()),
            TaskState::Ended(end) => {
                match end {
                    End::Finished => exit_code = Some(0),
                    End::Failed(Outcome::Failed { code }) => exit_code = Some(*code),
                    End::Failed(Outcome::Signalled { signal: number }) => signal = Some(*number),
                    // As it was done, and as a shell would say it.
                    End::Failed(Outcome::MemoryLimit { .. }) => signal = Some(nix::sys::signal::Signal::SIGKILL as i32),
                    _ => {}
                }
                (*end != End::Finished).then(|| end_words(end, |task| self.task_label(task)))
            }
        };
        let running = self.running_since.get(&task);
        let worker = running.map(|(worker, _)| *worker).or_else(|| detail.map(|detail| detail.worker));
        let (stdout, stderr) = output_paths(&array.submission.body, task, &self.options.folder).unwrap_or_default();
        let path = |path: std::path::PathBuf| {
            BString::from(Vec::from_os_string(path.into_os_string()).unwrap_or_else(|text| text.into_vec()))
        };
        TaskInfo {
            task,
            index: array.submission.body.indexes.index(task.element),
            name: array.submission.body.name.clone(),
            kind,
            reason,
            node: worker.and_then(|worker| self.nodes.get(&worker)).cloned(),
            exit_code,
            signal,
            started_at: running.map(|(_, at)| at.wall).or_else(|| detail.map(|detail| detail.started_at)),
            usage: detail.map(|detail| detail.usage),
            stdout: path(stdout),
            stderr: path(stderr),
            command: self.command_line(task),
        }
    }

    fn command_line(&self, task: TaskId) -> BString {
        let array = &self.arrays[&task.array];
        match &array.submission.body.command {
            Command::Argv(words) => crate::template::Rendered::Argv(words.clone()).display(),
            Command::Template(template) => {
                let inputs = array.submission.inputs.get(task.element as usize).map(Vec::as_slice).unwrap_or_default();
                match crate::template::Template::parse(template.as_ref()) {
                    Ok(parsed) => parsed.render(inputs, u64::from(task.element) + 1).display(),
                    Err(_) => template.clone(),
                }
            }
        }
    }

    fn reference_label(&self, reference: TaskRef) -> String {
        match reference {
            TaskRef::Array(array) => array.to_string(),
            TaskRef::Task(task) => self.task_label(task),
        }
    }
}
