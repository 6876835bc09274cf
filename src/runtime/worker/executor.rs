//! Starts and supervises the processes of command tasks. Called by the worker's loop, which passes the
//! time in and calls [`Executor::on_child_signal`] at each SIGCHLD.
//!
//! Invariants: the executor owns *all* children of its process (it reaps them all), so nothing else
//! in a worker may wait for a child; it is used by one thread; each successful start gives exactly
//! one report; a run's process id cannot be reused before its group was killed.
//!
//! The peak memory of a task is never below the worker's own: the kernel counts a process from before its
//! exec, when it still shares the worker's memory.

use super::Millis;
use super::action::TaskStart;
use super::cores::{Cores, Pinned};
use super::descendants::{self, OwnChildren};
use super::environment::{self, Base};
use super::label::Label;
use super::launch::{self, StartError, TaskUmask};
use super::limits::Deadlines;
use super::memory::{Excess, MemoryWatch};
use super::output::{self, Places};
use super::prepared::{ParseTemplate, Preparations};
use super::scratch::Scratch;
use super::shared::SharedSignals;
use super::spool::Spool;
use super::stock::{Share, Stock};
use crate::runtime::ids::{JobName, RunId, TaskId};
use crate::runtime::protocol::{EndReport, Outcome, Usage};
use crate::sys;
use bstr::BString;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::Pid;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// What an executor is told once.
#[derive(Clone, Debug)]
pub struct ExecutorOptions {
    /// Default outputs are below it.
    pub cluster_folder: PathBuf,
    /// For `DCLUSTER_CLUSTER`.
    pub cluster_name: String,
    /// For `DCLUSTER_JOB`; `None` for `worker join`.
    pub job: Option<JobName>,
    /// The worker's own environment.
    pub environment: BTreeMap<BString, BString>,
    /// Ids of the GPUs tasks may get, as `CUDA_VISIBLE_DEVICES` wants them.
    pub gpus: Vec<String>,
    /// With `--pin`: the cores tasks are pinned to.
    pub cores: Option<Cores>,
    /// The node's folder for temporary files: tasks get scratch folders in it.
    pub temporary: PathBuf,
    /// From TERM to KILL.
    pub kill_grace: Duration,
    /// Reads `map` templates.
    pub parse: ParseTemplate,
}

/// So long after its start a task's default outputs get their names: most tasks that print nothing are over.
const NAMELESS_FOR: Millis = 100;

/// Why we end a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    TimeLimit,
    Killed,
    Interrupted,
    MemoryLimit { used_bytes: u64, limit_bytes: u64 },
}

#[derive(Debug)]
struct Running {
    task: TaskId,
    pid: i32,
    started_at: Millis,
    cause: Option<Cause>,
    share: Share,
    places: Places,
}

/// Starts tasks, watches their limits, reports their ends.
#[derive(Debug)]
pub struct Executor {
    cluster_folder: PathBuf,
    parse: ParseTemplate,
    spool: Spool,
    preparations: Preparations,
    kill_grace: Millis,
    base: Base,
    stock: Stock,
    memory: MemoryWatch,
    running: BTreeMap<RunId, Running>,
    by_pid: BTreeMap<i32, RunId>,
    children: OwnChildren,
    /// Children we did not start, and the run they came from.
    adopted: BTreeMap<i32, RunId>,
    deadlines: Deadlines,
    /// Runs whose outputs may have no name yet, and when they get it.
    nameless: VecDeque<(Millis, RunId)>,
    shared: SharedSignals,
}

impl Executor {
    /// Prepares this process to run tasks: orphans below it become its children, no signal is blocked or ignored,
    /// no inherited descriptor reaches a task. Once per process, before other threads start.
    pub fn new(options: ExecutorOptions) -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        SigSet::empty().thread_set_mask()?;
        sys::catch_ignored_signals();
        sys::close_inherited_on_exec()?;
        Ok(Self {
            spool: Spool::new(options.cluster_folder.join("tasks")),
            cluster_folder: options.cluster_folder,
            parse: options.parse,
            preparations: Preparations::default(),
            kill_grace: milliseconds(options.kill_grace),
            stock: Stock::new(options.gpus, options.cores, Scratch::below(options.temporary, options.job.as_ref())),
            memory: MemoryWatch::default(),
            base: Base::new(options.environment, options.cluster_name, options.job),
            running: BTreeMap::new(),
            by_pid: BTreeMap::new(),
            children: OwnChildren::new(),
            adopted: BTreeMap::new(),
            deadlines: Deadlines::default(),
            nameless: VecDeque::new(),
            shared: SharedSignals::default(),
        })
    }

    /// Starts a run and returns its process id. An error is the run's end: it gives no report.
    pub fn start(&mut self, start: &TaskStart, now: Millis) -> Result<u32, StartError> {
        let TaskStart { task, run, variant, place, body, input: _ } = start;
        let (task, run, request) = (*task, *run, body.needs.variant(*variant));
        assert!(!self.running.contains_key(&run), "run {run:?} runs already");
        let share = self.stock.hand_out(request, place)?;
        let (pid, places) = match self.launch(start, &share, now) {
            Ok(launched) => launched,
            Err(error) => {
                self.stock.take_back(share);
                return Err(error);
            }
        };

        let process = i32::try_from(pid).expect("Linux process ids are below 2^22");
        self.by_pid.insert(process, run);
        self.running.insert(run, Running { task, pid: process, started_at: now, cause: None, share, places });
        self.nameless.push_back((now.saturating_add(NAMELESS_FOR), run));
        if let Some(limit) = launch::time_limit(body) {
            self.deadlines.set(run, now.saturating_add(limit));
        }
        if request.memory_bytes > 0 {
            self.memory.add(run, process, request.memory_bytes, now);
        }
        Ok(pid)
    }

    fn launch(&mut self, start: &TaskStart, share: &Share, now: Millis) -> Result<(u32, Places), StartError> {
        let TaskStart { task, run, variant, place: _, body, input } = start;
        let prepared = self.preparations.of(task.array, *variant, body, &self.base, self.parse, now)?;
        let label = Label::new(*task, body);
        let mut places = Places::of_task(body, &label, &prepared.cwd, &self.cluster_folder)?;
        let stdin = output::open_stdin(body, &prepared.cwd)?;
        let streams = places.open(body, &mut self.spool)?;
        let spawned = {
            let _umask = TaskUmask::of(body);
            let _pinned = match share.cores.as_slice() {
                [] => None,
                cores => Some(Pinned::to(cores).map_err(|source| StartError::Pin { source })?),
            };
            let of_run = environment::of_run(body, &label, *run, share);
            prepared.spawn(input, task.element, of_run, stdin, streams)
        };
        match spawned {
            Ok(pid) => Ok((pid, places)),
            Err(error) => {
                places.close(&mut self.spool);
                Err(error)
            }
        }
    }

    /// Ends a run that the server does not want: TERM, then KILL. Unknown runs are ignored.
    pub fn kill(&mut self, run: RunId, now: Millis) {
        self.shared.kill(run);
        self.end(run, Cause::Killed, self.kill_grace, now);
    }

    /// Ends all runs without fault of theirs: TERM, then KILL after this grace. A program that answers with exit
    /// code 0 says that it has finished.
    pub fn interrupt_all(&mut self, grace: Duration, now: Millis) {
        let runs: Vec<RunId> = self.running.keys().copied().collect();
        for run in runs {
            self.end(run, Cause::Interrupted, milliseconds(grace), now);
        }
        self.shared.interrupt_all();
    }

    /// This process got a signal: runs that it ends too are not to blame.
    pub fn on_signal(&mut self, signal: Signal, now: Millis) {
        self.shared.on_signal(signal as i32, now);
    }

    /// Returns when [`Self::on_deadline`] has something to do.
    pub fn next_deadline(&self) -> Option<Millis> {
        let name_at = self.nameless.front().map(|(at, _)| *at);
        [self.deadlines.next(), name_at, self.memory.next(), self.shared.next()].into_iter().flatten().min()
    }

    /// Ends runs at their limits of time and memory, kills those that outlived their grace, names the outputs of those that have
    /// run for a moment.
    pub fn on_deadline(&mut self, now: Millis) {
        while let Some((_, run)) = self.nameless.pop_front_if(|(at, _)| *at <= now) {
            if let Some(running) = self.running.get_mut(&run) {
                running.places.name();
            }
        }
        for excess in self.memory.look(&self.adopted, now) {
            let Excess { run, used_bytes, limit_bytes, pids } = excess;
            // At once: while it could tidy up it would go on growing.
            self.end(run, Cause::MemoryLimit { used_bytes, limit_bytes }, 0, now);
            for pid in pids {
                // Those that left the group; an error means that it has ended meanwhile.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        while let Some(run) = self.deadlines.take_due(now) {
            match self.running.get(&run) {
                Some(running) if running.cause.is_some() => signal(running.pid, Signal::SIGKILL),
                _ => self.end(run, Cause::TimeLimit, self.kill_grace, now),
            }
        }
    }

    /// Reaps all ended children and returns the ends of runs. What a run leaves behind is killed, in
    /// its process group or out of it.
    pub fn on_child_signal(&mut self, now: Millis) -> Vec<EndReport> {
        let mut ended = Vec::new();
        let mut reaped = false;
        while let Some(pid) = sys::ended_child() {
            let run = self.by_pid.remove(&pid);
            if run.is_some() {
                // Before the group's number is free for somebody else. No group is the normal case.
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let Some(child) = sys::reap(pid) else { break };
            reaped = true;
            self.adopted.remove(&pid);
            if let Some(run) = run
                && let Some(running) = self.running.remove(&run)
            {
                self.deadlines.clear(run);
                ended.push((run, running, child));
            }
        }
        if reaped {
            self.kill_leftovers();
        }
        for (run, running, child) in ended {
            let report = self.report(run, running, &child, now);
            self.shared.put(report, now);
        }
        self.shared.take(now)
    }

    /// Returns the runs in progress.
    pub fn running(&self) -> impl Iterator<Item = (TaskId, RunId)> {
        self.running.iter().map(|(run, it)| (it.task, *run))
    }

    /// Kills everything below this process, again and again until nothing is left or patience ends (a
    /// process in an uninterruptible system call cannot die). Blocks; for the end of a worker.
    pub fn kill_descendants(&mut self, patience: Duration, now: Millis) -> Vec<EndReport> {
        for running in self.running.values_mut() {
            running.cause.get_or_insert(Cause::Interrupted);
        }
        self.shared.interrupt_all();
        let give_up = Instant::now() + patience;
        let mut reports = Vec::new();
        loop {
            reports.extend(self.on_child_signal(now));
            let children = self.children.list();
            if children.is_empty() {
                return reports;
            }
            if Instant::now() >= give_up {
                tracing::warn!(?children, "processes that cannot be killed are left behind");
                return reports;
            }
            for pid in children {
                // Its children become ours. An error means that it has ended meanwhile.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The first cause stands, but what the server killed is not run again for an interruption.
    fn end(&mut self, run: RunId, cause: Cause, grace: Millis, now: Millis) {
        let Some(running) = self.running.get_mut(&run) else {
            return;
        };
        let kill_at = now.saturating_add(grace);
        match running.cause {
            None => {
                running.cause = Some(cause);
                self.deadlines.set(run, kill_at);
                signal(running.pid, Signal::SIGTERM);
                // A stopped process sees TERM only when it goes on.
                signal(running.pid, Signal::SIGCONT);
            }
            Some(earlier) => {
                if earlier == Cause::Interrupted && cause == Cause::Killed {
                    running.cause = Some(cause);
                }
                self.deadlines.set_earlier(run, kill_at);
            }
        }
        if grace == 0 {
            signal(running.pid, Signal::SIGKILL);
        }
    }

    /// Kills children that ended runs have left to us. Their own children come to us when they die, so this is
    /// repeated after every reaped child.
    fn kill_leftovers(&mut self) {
        for pid in self.children.list() {
            if self.by_pid.contains_key(&pid) {
                continue;
            }
            let run = match self.adopted.get(&pid) {
                Some(run) => *run,
                None => match descendants::run_of(pid) {
                    Some(run) => run,
                    None => continue,
                },
            };
            self.adopted.insert(pid, run);
            if !self.running.contains_key(&run) {
                // An error means that it has ended meanwhile.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    fn report(&mut self, run: RunId, running: Running, child: &sys::EndedChild, now: Millis) -> EndReport {
        running.places.close(&mut self.spool);
        // Ended runs wait here for their turn, but not for more than the running ones.
        while self.nameless.pop_front_if(|(_, run)| !self.running.contains_key(run)).is_some() {}
        self.stock.take_back(running.share);
        let seen = self.memory.remove(run);
        EndReport {
            task: running.task,
            run,
            outcome: outcome(child.status, running.cause),
            usage: Usage {
                wall_milliseconds: now.saturating_sub(running.started_at),
                cpu_milliseconds: child.cpu_milliseconds,
                memory_bytes: child.memory_bytes.max(seen),
            },
        }
    }
}

fn outcome(status: ExitStatus, cause: Option<Cause>) -> Outcome {
    match (cause, status.code()) {
        (Some(Cause::TimeLimit), _) => Outcome::TimeLimit,
        (Some(Cause::Killed), _) => Outcome::Killed,
        (_, Some(0)) => Outcome::Finished,
        (Some(Cause::MemoryLimit { used_bytes, limit_bytes }), _) => Outcome::MemoryLimit { used_bytes, limit_bytes },
        (Some(Cause::Interrupted), _) => Outcome::Interrupted,
        (None, Some(code)) => Outcome::Failed { code },
        (None, None) => Outcome::Signalled { signal: status.signal().unwrap_or(0) },
    }
}

/// Signals a run's process group, or its process if that has moved to another group. The process was not
/// reaped, so the number is still its own; that it may have ended is no error.
fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid);
    if killpg(pid, signal).is_err() {
        let _ = kill(pid, signal);
    }
}

fn milliseconds(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
#[path = "executor_tests.rs"]
mod tests;
