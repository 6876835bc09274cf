//! What must hold: the invariants of `reliability.md` section 9, by witnesses that do not ask the server.

use super::process::{CORES, JOBS, MEMORY};
use super::world::World;
use crate::backends::Submit;
use crate::runtime::control::TaskInfo;
use crate::runtime::ids::{ArrayId, RunId, TaskId};
use crate::runtime::protocol::{Outcome, Submission, TaskRef};
use crate::runtime::scheduler::{End, Kind, TaskState};
use crate::runtime::worker::TaskStart;
use crate::server::core::{ConnectionId, Core};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// So long after an acknowledged cancel a worker that listens must have heard of it.
const CANCEL_SPAN: u64 = 20_000;

/// A run as its machine sees it.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) task: TaskId,
    pub(super) started_at: u64,
    pub(super) ends_at: u64,
    pub(super) outcome: Outcome,
    pub(super) over: bool,
    pub(super) reported: bool,
    pub(super) recorded: bool,
    /// Its machine, or another that it uses, died before it or its outcome was known.
    pub(super) lost: bool,
    /// What it has, and where; its own machine first.
    pub(super) parts: Vec<Part>,
}

/// What a run has of a machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) machine: u32,
    cores: u32,
    memory: u64,
}

impl Run {
    pub(super) fn new(parts: Vec<Part>, task: TaskId, now: u64, ends_at: u64, outcome: Outcome, lost: bool) -> Self {
        let (over, reported, recorded) = (ends_at <= now, false, false);
        Self { task, started_at: now, ends_at, outcome, over, reported, recorded, lost, parts }
    }
}

/// What was submitted, and what was promised about it.
pub(super) struct Sent {
    pub(super) key: String,
    pub(super) submission: Submission,
    pub(super) acknowledged: Option<ArrayId>,
    /// Epoch of the server that got it first.
    pub(super) sent_to: Option<u32>,
    /// Failures that retries by users allow.
    pub(super) extra: u32,
    /// Its tasks take at most so many milliseconds.
    task_max: u64,
}

impl Sent {
    pub(super) fn new(key: String, submission: Submission, task_max: u64) -> Self {
        Self { key, submission, acknowledged: None, sent_to: None, extra: 0, task_max }
    }
}

/// A final state that somebody was shown.
struct Shown {
    kind: Kind,
    exit_code: Option<i32>,
    reason: Option<String>,
    asked_at: u64,
    seen_at: u64,
    epoch: u32,
}

/// All that is known from outside.
pub(super) struct Truth {
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) sent: Vec<Sent>,
    shown: BTreeMap<TaskId, Shown>,
    /// When, and by the server of which epoch, cancels were acknowledged.
    cancelled: BTreeMap<ArrayId, (u64, u32)>,
    /// Cancels were sent, answered or not.
    pub(super) given_up: BTreeSet<ArrayId>,
    pub(super) retried_at: u64,
    pub(super) retry_links: Vec<ConnectionId>,
    /// Tasks whose success was found on the disk.
    durable: BTreeSet<TaskId>,
    pub(super) next_request: u32,
    pub(super) next_id: u64,
    pub(super) wanted_max: usize,
    pub(super) scaled_at: u64,
}

impl Default for Truth {
    fn default() -> Self {
        Self {
            runs: BTreeMap::new(),
            sent: Vec::new(),
            shown: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            given_up: BTreeSet::new(),
            retried_at: 0,
            retry_links: Vec::new(),
            durable: BTreeSet::new(),
            next_request: 0,
            next_id: 100,
            wanted_max: JOBS as usize,
            scaled_at: 0,
        }
    }
}

impl World {
    /// T1: a submission is accepted once.
    pub(super) fn acknowledged(&mut self, key: &str, array: ArrayId, epoch: u32) {
        let sent = self.truth.sent.iter_mut().find(|sent| sent.key == key).expect("what we sent");
        let known = *sent.acknowledged.get_or_insert(array);
        assert_eq!(known, array, "T1: {key} is accepted twice");
        let twin = self.truth.sent.iter().find(|sent| sent.acknowledged == Some(array) && sent.key != key);
        assert!(twin.is_none(), "T1: {array} was given to {key}, and to another submission before");
        if epoch < self.claimed.load(Ordering::Relaxed) {
            self.mark("an answer of a server that was overtaken arrives late");
        }
    }

    pub(super) fn on_cancelled(&mut self, array: ArrayId, epoch: u32) {
        let sent = self.truth.sent.iter().find(|sent| sent.acknowledged == Some(array));
        if sent.is_some_and(|sent| sent.submission.after.is_empty()) {
            self.truth.cancelled.entry(array).or_insert((self.now, epoch));
        }
    }

    /// T2: what was shown as final stays so. T3: what is shown was witnessed.
    pub(super) fn on_page(&mut self, tasks: &[TaskInfo], asked_at: u64, epoch: u32) {
        let retries = self.retry_is_open();
        for info in tasks {
            let last = matches!(info.kind, Kind::Finished | Kind::Failed | Kind::Cancelled);
            if let Some(before) = self.truth.shown.get(&info.task) {
                let stands = before.kind == Kind::Finished || !retries && before.asked_at > self.truth.retried_at;
                let past = !last && (epoch < before.epoch || asked_at <= before.seen_at);
                if past {
                    self.mark("an older view arrives after a newer one");
                } else if stands {
                    assert_eq!(
                        (&before.kind, &before.exit_code, &before.reason),
                        (&info.kind, &info.exit_code, &info.reason),
                        "T2: {:?} was shown otherwise",
                        info.task
                    );
                }
                if past || stands {
                    continue;
                }
            }
            self.truth.shown.remove(&info.task);
            if last {
                self.check_witness(info);
                let (kind, exit_code, reason) = (info.kind, info.exit_code, info.reason.clone());
                let shown = Shown { kind, exit_code, reason, asked_at, seen_at: self.now, epoch };
                self.truth.shown.insert(info.task, shown);
            }
        }
    }

    fn check_witness(&self, info: &TaskInfo) {
        let seen = |outcome: &Outcome| {
            self.truth.runs.values().any(|run| run.task == info.task && run.over && run.outcome == *outcome)
        };
        if info.kind == Kind::Finished {
            assert!(seen(&Outcome::Finished), "T3: nobody saw {:?} succeed", info.task);
        } else if let Some(code) = info.exit_code.filter(|code| *code != 0 && info.kind == Kind::Failed) {
            assert!(seen(&Outcome::Failed { code }), "T3: nobody saw {:?} exit with {code}", info.task);
        }
    }

    /// A process is about to start. Returns what it has, and where.
    pub(super) fn check_start(&mut self, machine: u32, start: &TaskStart) -> Vec<Part> {
        let (task, id, body) = (start.task, start.run, &start.body);
        let sent = self.truth.sent.iter().find(|sent| sent.key == body.name).expect("only what was submitted runs");
        let allowed = sent.submission.retries + sent.extra;
        let after = sent.submission.after.clone();
        let mut failures = 0;
        for (other, run) in self.truth.runs.iter().filter(|(_, run)| run.task == task) {
            assert!(*other != id, "T4: {id:?} starts twice");
            assert!(run.over, "T4: {id:?} of {task:?} starts on {machine} while {other:?} runs: {run:?}");
            assert!(run.lost || run.outcome != Outcome::Finished, "T4: {task:?} has succeeded in {other:?}: {run:?}");
            let own = !matches!(run.outcome, Outcome::Killed | Outcome::Interrupted);
            failures += u32::from(own && !run.lost);
        }
        let before: Vec<_> = self.truth.runs.values().filter(|run| run.task == task).collect();
        assert!(failures <= allowed, "T4: {task:?} starts with {allowed} retries after {before:?}");
        let parts = self.parts(machine, start);
        for part in &parts {
            self.check_room(*part);
        }
        if let Some((at, epoch)) = self.truth.cancelled.get(&task.array) {
            let newer = id.0 >> 40 > u64::from(*epoch);
            let heard = self.machines.get(&machine).is_some_and(|machine| {
                machine.attentive_since.saturating_add(CANCEL_SPAN) < self.now && at + CANCEL_SPAN < self.now
            });
            assert!(!newer && !heard, "T6: {task:?} starts after its cancel was acknowledged");
        }
        for parent in after {
            let TaskRef::Array(parent) = parent else { continue };
            self.check_parent(task, parent);
        }
        parts
    }

    /// What a run gets, by machine.
    fn parts(&mut self, machine: u32, start: &TaskStart) -> Vec<Part> {
        let request = start.body.needs.variant(start.variant);
        let (cores, memory) = (request.cores, request.memory_bytes);
        let nodes = &start.place.nodes;
        if start.body.needs.nodes == 1 {
            return vec![Part { machine, cores, memory }];
        }
        assert_eq!(nodes.len(), start.body.needs.nodes as usize, "T8: as many workers as asked for: {nodes:?}");
        let machines = nodes.iter().map(|node| node.node.trim_start_matches("node").parse().expect("our own name"));
        let parts: Vec<Part> = machines.map(|machine| Part { machine, cores, memory }).collect();
        assert_eq!(parts[0].machine, machine, "its own worker is the first of {nodes:?}");
        self.mark("a task on several workers");
        parts
    }

    /// T8: what runs fits where it runs.
    fn check_room(&self, new: Part) {
        let runs = self.truth.runs.values().filter(|run| !run.over);
        let here = runs.flat_map(|run| &run.parts).filter(|part| part.machine == new.machine);
        let (cores, memory) = here.fold((new.cores, new.memory), |sum, part| (sum.0 + part.cores, sum.1 + part.memory));
        assert!(cores <= CORES && memory <= MEMORY, "T8: {cores} cores and {memory} bytes on worker {}", new.machine);
    }

    /// How long a task of a submission may take at most.
    pub(super) fn task_max(&self, key: &str) -> u64 {
        let sent = self.truth.sent.iter().find(|sent| sent.key == key);
        sent.map_or(self.swarm.task_max, |sent| sent.task_max)
    }

    /// T5: the success of what a task waits for is on the disk when it starts.
    fn check_parent(&mut self, task: TaskId, parent: ArrayId) {
        let sent = self.truth.sent.iter().find(|sent| sent.acknowledged == Some(parent)).expect("an acknowledged one");
        let count = sent.submission.body.indexes.count();
        let elements = |element| TaskId { array: parent, element };
        let known = |world: &Self| (0..count).map(elements).all(|task| world.truth.durable.contains(&task));
        if !known(self) {
            let core = self.durable_core();
            let finished = core.scheduler().tasks(parent, 0, usize::MAX, Some(Kind::Finished));
            self.truth.durable.extend(finished.map(|(task, _)| task));
        }
        assert!(known(self), "T5: {task:?} starts before the success of {parent} is durable");
        self.mark("a task started after the success of its parents");
    }

    /// What a server knows when it begins to serve.
    pub(super) fn check_promises(&self, core: &Core) {
        for sent in &self.truth.sent {
            if let Some(array) = sent.acknowledged {
                assert_eq!(core.keys().get(sent.key.as_str()), Some(&array), "T1, S1: {} was acknowledged", sent.key);
            }
        }
        let retries = self.retry_is_open();
        for (task, shown) in &self.truth.shown {
            if shown.kind == Kind::Finished || !retries && shown.asked_at > self.truth.retried_at {
                let kind = core.scheduler().state(*task).map(|state| state.kind());
                assert_eq!(kind, Some(shown.kind), "T2, S1: {task:?} was shown as final");
            }
        }
        for array in self.truth.cancelled.keys() {
            let counts = core.scheduler().counts(TaskRef::Array(*array)).expect("it was acknowledged");
            assert_eq!(counts.unfinished(), 0, "T6, S1: the cancel of {array} was acknowledged");
        }
    }

    /// J1, J2: a job has a durable record before the command that makes it, and is made once.
    pub(super) fn check_submit(&self, submit: &Submit) {
        let core = self.durable_core();
        for (seq, name) in &submit.jobs {
            assert!(core.ledger().job(*seq).is_some(), "J1: {name} is submitted without a durable record");
            assert!(!self.ids.contains_key(seq), "J2: {name} is submitted twice");
        }
    }

    /// J3: never more jobs than were ever asked for.
    pub(super) fn check_number_of_jobs(&self) {
        let (live, most) = (self.live_jobs(), self.truth.wanted_max);
        assert!(live <= most, "J3: {live} jobs, never more than {most} wanted");
    }

    /// J4: nothing is left of a cluster that is down.
    pub(super) fn check_nothing_left(&self) {
        assert_eq!(self.live_jobs(), 0, "J4: the cluster is down, and jobs live: {:#?}", self.jobs);
        let running: Vec<_> = self.truth.runs.values().filter(|run| !run.over).collect();
        assert!(running.is_empty() && self.machines.is_empty(), "J4: the cluster is down, and there runs {running:?}");
    }

    fn newest(&self) -> Option<&super::serving::Serving> {
        let claimed = self.claimed.load(Ordering::Relaxed);
        let process = self.servers.values().find(|process| process.epoch == claimed)?;
        process.serving.as_deref()
    }

    /// Whether the newest server serves a cluster that does not go down.
    pub(super) fn is_open(&self) -> bool {
        self.newest().is_some_and(|serving| !serving.core.is_stopping())
    }

    pub(super) fn is_settled(&self) -> bool {
        let Some(serving) = self.newest() else { return false };
        let alone = self.servers.len() == 1;
        alone && self.has_settled_users() && serving.core.scheduler().unfinished() == 0 && serving.is_quiet()
    }

    pub(super) fn standstill(&self) -> String {
        let open: Vec<&str> =
            self.truth.sent.iter().filter(|sent| sent.acknowledged.is_none()).map(|sent| sent.key.as_str()).collect();
        let core = self.newest().map_or_else(|| "no server".to_owned(), |serving| serving.core.standstill());
        let quiet = (self.has_settled_users(), self.newest().map(|serving| serving.is_quiet()));
        format!(
            "{} servers, down {}, quiet {quiet:?}; without an answer: {open:?}; {core}",
            self.servers.len(),
            self.is_down
        )
    }

    /// The record at the end, and the base that would be written of it.
    pub(super) fn check_record(&mut self) {
        let serving = self.newest().expect("it is settled");
        let core = &serving.core;
        self.check_promises(core);
        core.check_base(self.core(u32::MAX >> 8));
        let mut marks = Vec::new();
        for array in self.truth.sent.iter().filter_map(|sent| sent.acknowledged) {
            for (task, state) in core.scheduler().tasks(array, 0, usize::MAX, None) {
                let seen = |outcome: &Outcome| {
                    self.truth.runs.values().any(|run| run.task == task && run.over && run.outcome == *outcome)
                };
                match state {
                    TaskState::Ended(End::Finished) => {
                        assert!(seen(&Outcome::Finished), "T3: nobody saw {task:?} succeed");
                    }
                    TaskState::Ended(End::Failed(outcome)) => {
                        assert!(seen(&outcome), "T3: nobody saw {task:?} end with {outcome:?}");
                        marks.push("a task failed for good");
                    }
                    TaskState::Ended(End::DependencyFailed(_)) => marks.push("a dependency failed"),
                    TaskState::Ended(End::Cancelled) => marks.push("a task was cancelled"),
                    TaskState::Ended(End::Poisonous) => marks.push("a task lost three workers"),
                    other => panic!("T7: {task:?} is {other:?} at the end"),
                }
            }
        }
        for seq in self.jobs.keys() {
            assert!(core.ledger().job(*seq).is_some(), "J1: {seq:?} has no record");
        }
        for mark in marks {
            self.mark(mark);
        }
    }
}
