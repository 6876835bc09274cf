//! A slow, obvious model of the scheduler: no queues, no counters, no index, everything recomputed.
//!
//! It predicts every action but the choice of places, and checks those: allowed, and none missed.

use super::{Action, Counts, End, Event, Kind, Millis, RequeueCause, Scheduler, Shape, TaskState};
use crate::runtime::ids::{ArrayId, RunId, TaskId, WorkerId};
use crate::runtime::protocol::{Capacity, Outcome, Request, TaskRef};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Doing {
    Idle,
    Running(WorkerId, RunId),
    Ended(End),
}

#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) doing: Doing,
    pub(super) retries: u32,
    pub(super) losses: u8,
}

#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) capacity: Capacity,
    pub(super) ends_at: Option<Millis>,
    pub(super) accepts: bool,
    pub(super) drains: bool,
    /// Everything that occupies it.
    pub(super) runs: BTreeMap<RunId, TaskId>,
}

#[derive(Clone, Default, Debug)]
pub(super) struct Oracle {
    pub(super) shapes: BTreeMap<ArrayId, Shape>,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    pub(super) hosts: BTreeMap<WorkerId, Host>,
    pub(super) counters: BTreeMap<String, u64>,
    pub(super) held: bool,
}

impl Oracle {
    pub(super) fn named(&self, tasks: TaskRef) -> Vec<TaskId> {
        let (array, first, last) = match tasks {
            TaskRef::Array(array) => (array, 0, u32::MAX),
            TaskRef::Task(task) => (task.array, task.element, task.element),
        };
        let id = |element| TaskId { array, element };
        let range = self.tasks.range(id(first)..=id(last));
        range.map(|(id, _)| *id).collect()
    }

    fn dependencies(&self, array: ArrayId) -> Vec<TaskId> {
        self.shapes[&array].after.iter().flat_map(|d| self.named(*d)).collect()
    }

    fn is_bad(&self, task: TaskId) -> bool {
        matches!(&self.tasks[&task].doing, Doing::Ended(end) if *end != End::Finished)
    }

    pub(super) fn is_ready(&self, task: TaskId) -> bool {
        let finished = |t: &TaskId| self.tasks[t].doing == Doing::Ended(End::Finished);
        self.tasks[&task].doing == Doing::Idle && self.dependencies(task.array).iter().all(finished)
    }

    /// Returns all tasks that could run, were there room.
    fn ready(&self) -> BTreeSet<TaskId> {
        let first = |array| TaskId { array, element: 0 };
        let open = |array: &ArrayId| {
            let finished = |t: &TaskId| self.tasks[t].doing == Doing::Ended(End::Finished);
            self.dependencies(*array).iter().all(finished)
        };
        let arrays = self.shapes.iter().filter(|(array, _)| open(array));
        let tasks = arrays.flat_map(|(array, shape)| self.tasks.range(first(*array)..).take(shape.count as usize));
        let idle = tasks.filter(|(_, task)| task.doing == Doing::Idle);
        idle.map(|(id, _)| *id).collect()
    }

    fn set(&mut self, task: TaskId, doing: Doing) {
        let entry = self.tasks.get_mut(&task).expect("known task");
        if matches!(doing, Doing::Ended(_)) {
            (entry.retries, entry.losses) = (0, 0);
        }
        entry.doing = doing;
    }

    fn end(&mut self, task: TaskId, end: End, out: &mut Vec<Action>) {
        self.set(task, Doing::Ended(end.clone()));
        out.push(Action::Ended { task, end });
    }

    fn requeue(&mut self, task: TaskId, run: RunId, cause: RequeueCause, out: &mut Vec<Action>) {
        self.set(task, Doing::Idle);
        out.push(Action::Requeued { task, run, cause });
    }

    /// Ends what waits for something bad and revives what no longer does, until nothing changes.
    fn settle(&mut self, out: &mut Vec<Action>) {
        for array in self.shapes.keys().copied().collect::<Vec<_>>() {
            let bad = self.dependencies(array).into_iter().find(|t| self.is_bad(*t));
            for task in self.named(TaskRef::Array(array)) {
                match (&self.tasks[&task].doing, bad) {
                    (Doing::Idle, Some(cause)) => {
                        self.end(task, End::DependencyFailed(cause), out);
                    }
                    (Doing::Ended(End::DependencyFailed(_)), None) => {
                        self.set(task, Doing::Idle);
                        out.push(Action::Revived { task });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Takes in an event; returns all actions it must cause but assignments.
    pub(super) fn apply(&mut self, event: &Event) -> Vec<Action> {
        let mut out = Vec::new();
        match event.clone() {
            Event::Submit { array, shape } => {
                for element in 0..shape.count {
                    let fresh = Task { doing: Doing::Idle, retries: 0, losses: 0 };
                    self.tasks.insert(TaskId { array, element }, fresh);
                }
                self.shapes.insert(array, shape);
            }
            Event::WorkerJoined { worker, capacity, ends_at, running } => {
                self.join(worker, capacity, ends_at, &running, &mut out);
            }
            Event::WorkerEndsAt { worker, ends_at } => {
                if let Some(host) = self.hosts.get_mut(&worker) {
                    host.ends_at = ends_at;
                }
            }
            Event::WorkerDrains { worker } => {
                if let Some(host) = self.hosts.get_mut(&worker) {
                    (host.accepts, host.drains) = (false, true);
                }
            }
            Event::WorkerSilent { worker } => {
                if let Some(host) = self.hosts.get_mut(&worker) {
                    host.accepts = false;
                }
            }
            Event::WorkerLost { worker, counts } => {
                let runs = self.hosts.remove(&worker).map_or(BTreeMap::new(), |h| h.runs);
                for (run, task) in runs {
                    let entry = self.tasks.get_mut(&task).expect("known task");
                    if entry.doing != Doing::Running(worker, run) {
                        continue;
                    }
                    entry.losses += u8::from(counts);
                    if entry.losses == 3 {
                        self.end(task, End::Poisonous, &mut out);
                    } else {
                        self.requeue(task, run, RequeueCause::WorkerLost, &mut out);
                    }
                }
            }
            Event::RunEnded { worker, task, run, outcome } => {
                self.run_ended(worker, task, run, outcome, &mut out);
            }
            Event::Cancel { tasks } => {
                for task in tasks.iter().flat_map(|t| self.named(*t)).collect::<Vec<_>>() {
                    let doing = self.tasks[&task].doing.clone();
                    if let Doing::Running(worker, run) = doing {
                        out.push(Action::Kill { worker, task, run });
                    }
                    if !matches!(doing, Doing::Ended(_)) {
                        self.end(task, End::Cancelled, &mut out);
                    }
                }
            }
            Event::Retry { tasks } => {
                for task in tasks.iter().flat_map(|t| self.named(*t)).collect::<Vec<_>>() {
                    let doing = &self.tasks[&task].doing;
                    if let Doing::Ended(End::Failed(_) | End::Poisonous) = doing {
                        self.set(task, Doing::Idle);
                        out.push(Action::Revived { task });
                    }
                }
            }
            Event::Hold(held) => self.held = held,
            Event::Counters(totals) => self.counters = totals,
            Event::RunStarted { .. } | Event::Tick => {}
        }
        self.settle(&mut out);
        out
    }

    fn join(
        &mut self,
        worker: WorkerId,
        capacity: Capacity,
        ends_at: Option<Millis>,
        running: &[(TaskId, RunId)],
        out: &mut Vec<Action>,
    ) {
        let old = self.hosts.remove(&worker);
        let drains = old.as_ref().is_some_and(|h| h.drains);
        let known = old.map_or(BTreeMap::new(), |h| h.runs);
        for (run, task) in known.clone() {
            if self.tasks[&task].doing == Doing::Running(worker, run) && !running.contains(&(task, run)) {
                self.requeue(task, run, RequeueCause::Interrupted, out);
            }
        }
        let mut runs = BTreeMap::new();
        let mut running = running.to_vec();
        running.sort_unstable_by_key(|(_, run)| *run);
        for (task, run) in running {
            runs.insert(run, task);
            // A known run of a ready task was told to end before the task became ready.
            if self.is_ready(task) && !known.contains_key(&run) {
                self.set(task, Doing::Running(worker, run));
            } else if self.tasks[&task].doing != Doing::Running(worker, run) {
                out.push(Action::Kill { worker, task, run });
            }
        }
        let accepts = !drains;
        self.hosts.insert(worker, Host { capacity, ends_at, accepts, drains, runs });
    }

    fn run_ended(&mut self, worker: WorkerId, task: TaskId, run: RunId, outcome: Outcome, out: &mut Vec<Action>) {
        let Some(host) = self.hosts.get_mut(&worker) else {
            return;
        };
        if host.runs.get(&run) != Some(&task) {
            return;
        }
        host.runs.remove(&run);
        let retries = self.shapes[&task.array].retries;
        let entry = self.tasks.get_mut(&task).expect("known task");
        if entry.doing != Doing::Running(worker, run) {
            return;
        }
        match outcome {
            Outcome::Finished => self.end(task, End::Finished, out),
            Outcome::Killed | Outcome::Interrupted => {
                self.requeue(task, run, RequeueCause::Interrupted, out);
            }
            _ if entry.retries < retries => {
                entry.retries += 1;
                self.requeue(task, run, RequeueCause::Retry, out);
            }
            outcome => self.end(task, End::Failed(outcome), out),
        }
    }

    fn request(&self, task: TaskId) -> &Request {
        &self.shapes[&task.array].request
    }

    /// Whether the task fits beside what is on the worker.
    fn fits(&self, task: TaskId, host: &Host, now: Millis) -> bool {
        let wanted = self.request(task);
        let used = || host.runs.values().map(|t| self.request(*t));
        let time = self.shapes[&task.array].time_request.unwrap_or(0);
        host.accepts
            && host.ends_at.is_none_or(|end| end > now && end - now >= time)
            && used().map(|r| r.cores).sum::<u32>() + wanted.cores <= host.capacity.cores
            && used().map(|r| r.memory_bytes).sum::<u64>() + wanted.memory_bytes <= host.capacity.memory_bytes
            && used().map(|r| r.gpus).sum::<u32>() + wanted.gpus <= host.capacity.gpus
    }

    /// Whether counters and the array's own bound allow one more.
    fn is_allowed(&self, task: TaskId) -> bool {
        let running = |t: &TaskId| matches!(self.tasks[t].doing, Doing::Running(..));
        let elements = self.named(TaskRef::Array(task.array));
        let running = elements.iter().filter(|t| running(t)).count();
        let at_most = self.shapes[&task.array].at_most;
        let runs = || self.hosts.values().flat_map(|h| h.runs.values());
        at_most.is_none_or(|most| running < most as usize)
            && self.request(task).counters.iter().all(|(name, wanted)| {
                let used = runs().map(|t| self.request(*t).counters.get(name).unwrap_or(&0));
                used.sum::<u64>() + wanted <= self.counters.get(name).copied().unwrap_or(0)
            })
    }

    /// Takes in an assignment, which must be allowed.
    pub(super) fn assign(&mut self, worker: WorkerId, task: TaskId, run: RunId, now: Millis) {
        assert!(!self.held);
        assert!(self.is_ready(task), "{task:?} is not ready");
        assert!(self.fits(task, &self.hosts[&worker], now), "{task:?} does not fit {worker}");
        assert!(self.is_allowed(task), "{task:?} exceeds a bound");
        self.set(task, Doing::Running(worker, run));
        let host = self.hosts.get_mut(&worker).expect("checked above");
        assert_eq!(host.runs.insert(run, task), None);
    }

    /// Whether a ready task is left although it fits somewhere that is not reserved.
    pub(super) fn missed(&self, reserved: Option<WorkerId>, now: Millis) -> Option<(TaskId, WorkerId)> {
        let ready = self.ready().into_iter().filter(|_| !self.held);
        for task in ready.filter(|t| self.is_allowed(*t)) {
            let mut hosts = self.hosts.iter().filter(|(id, _)| reserved != Some(**id));
            if let Some((id, _)) = hosts.find(|(_, host)| self.fits(task, host, now)) {
                return Some((task, *id));
            }
        }
        None
    }

    /// Compares every task, and the numbers, with the scheduler.
    pub(super) fn compare(&self, scheduler: &Scheduler) {
        let mut counts = Counts::default();
        let ready = self.ready();
        for (id, task) in &self.tasks {
            let state = scheduler.state(*id).expect("known task");
            match (&task.doing, &state) {
                (Doing::Idle, TaskState::Ready) => assert!(ready.contains(id)),
                (Doing::Idle, TaskState::Waiting { on }) => {
                    let finished = Doing::Ended(End::Finished);
                    assert!(self.named(*on).iter().any(|t| self.tasks[t].doing != finished));
                    assert!(self.shapes[&id.array].after.contains(on));
                }
                (Doing::Running(w, r), TaskState::Running { worker, run, .. }) => {
                    assert_eq!((w, r), (worker, run));
                }
                (Doing::Ended(End::DependencyFailed(_)), TaskState::Ended(End::DependencyFailed(cause))) => {
                    assert!(self.dependencies(id.array).contains(cause))
                }
                (Doing::Ended(expected), TaskState::Ended(end)) => assert_eq!(expected, end),
                (expected, found) => panic!("{id:?}: {found:?} instead of {expected:?}"),
            }
            *match state.kind() {
                Kind::Waiting => &mut counts.waiting,
                Kind::Ready => &mut counts.ready,
                Kind::Running => &mut counts.running,
                Kind::Finished => &mut counts.finished,
                Kind::Failed => &mut counts.failed,
                Kind::Cancelled => &mut counts.cancelled,
            } += 1;
        }
        assert_eq!(counts, scheduler.totals());
        for (id, host) in &self.hosts {
            let runs: BTreeMap<RunId, TaskId> = scheduler.running_on(*id).map(|(t, r)| (r, t)).collect();
            assert_eq!(runs, host.runs, "on worker {id}");
        }
    }
}
