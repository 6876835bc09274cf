//! A slow, obvious model of the scheduler: no queues, no counters, no index, everything recomputed.
//!
//! It predicts every action but the choice of places, and checks those: allowed, and none missed.

use super::{Action, Counts, End, Event, Kind, Millis, RequeueCause, Scheduler, Shape, TaskState};
use crate::runtime::ids::{ArrayId, RunId, TaskId, WorkerId};
use crate::runtime::protocol::{Capacity, Gpus, HeldRun, Outcome, Place, Request, TaskRef};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Doing {
    Idle,
    /// At a worker, where it waits for room.
    Waiting(WorkerId, RunId),
    Running(WorkerId, RunId),
    Ended(End),
}

#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) doing: Doing,
    pub(super) retries: u32,
    pub(super) losses: u8,
}

/// A run on a worker.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Hosted {
    pub(super) task: TaskId,
    pub(super) variant: u8,
    pub(super) place: Place,
    pub(super) hands_over: bool,
    /// It is a guest of this worker, which leads.
    pub(super) lead: Option<WorkerId>,
}

#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) capacity: Capacity,
    pub(super) ends_at: Option<Millis>,
    pub(super) accepts: bool,
    pub(super) drains: bool,
    /// Everything that occupies it.
    pub(super) runs: BTreeMap<RunId, Hosted>,
    /// What waits for room.
    pub(super) waiting: BTreeMap<RunId, Hosted>,
}

#[derive(Clone, Default, Debug)]
pub(super) struct Oracle {
    pub(super) shapes: BTreeMap<ArrayId, Shape>,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    pub(super) hosts: BTreeMap<WorkerId, Host>,
    pub(super) counters: BTreeMap<String, u64>,
    pub(super) held: bool,
    /// Milliseconds each array's tasks need, asked for or learned.
    pub(super) times: BTreeMap<ArrayId, Millis>,
    /// Runs that were interrupted after so long count.
    pub(super) cut: Millis,
    /// Members that are not here: their lead came back before them.
    absent: BTreeMap<RunId, (WorkerId, Vec<WorkerId>)>,
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
                self.lose_member(worker, counts, &mut out);
                let lost = self.hosts.remove(&worker);
                let (runs, waiting) = lost.map_or_else(Default::default, |h| (h.runs, h.waiting));
                for (run, hosted) in waiting {
                    if self.tasks[&hosted.task].doing == Doing::Waiting(worker, run) {
                        self.requeue(hosted.task, run, RequeueCause::Interrupted, &mut out);
                    }
                }
                for (run, hosted) in runs {
                    if hosted.lead.is_some() {
                        continue;
                    }
                    self.dissolve(run, &mut out);
                    let task = hosted.task;
                    if self.tasks[&task].doing == Doing::Running(worker, run) {
                        self.run_again(task, run, counts.then_some(End::Poisonous), &mut out);
                    }
                }
            }
            Event::RunEnded { worker, task, run, outcome, wall } => {
                self.run_ended(worker, task, run, (outcome, wall), &mut out);
            }
            Event::Cancel { tasks } => {
                for task in tasks.iter().flat_map(|t| self.named(*t)).collect::<Vec<_>>() {
                    let doing = self.tasks[&task].doing.clone();
                    if let Doing::Running(worker, run) | Doing::Waiting(worker, run) = doing {
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
        running: &[HeldRun],
        out: &mut Vec<Action>,
    ) {
        let old = self.hosts.remove(&worker);
        let drains = old.as_ref().is_some_and(|h| h.drains);
        let (known, waited) = old.map_or_else(Default::default, |h| (h.runs, h.waiting));
        let lists = |run: &RunId, task: TaskId| running.iter().any(|held| (held.run, held.task) == (*run, task));
        let mut runs = BTreeMap::new();
        for (run, hosted) in known.iter().chain(&waited) {
            let task = hosted.task;
            if hosted.lead.is_some() || lists(run, task) {
                continue;
            }
            self.dissolve(*run, out);
            if matches!(self.tasks[&task].doing, Doing::Running(w, r) | Doing::Waiting(w, r) if (w, r) == (worker, *run))
            {
                self.requeue(task, *run, RequeueCause::Interrupted, out);
            }
        }
        runs.extend(known.iter().filter(|(_, h)| h.lead.is_some()).map(|(run, h)| (*run, h.clone())));
        let mut held: Vec<&HeldRun> = running.iter().collect();
        held.sort_unstable_by_key(|held| held.run);
        for held in held {
            let (task, run) = (held.task, held.run);
            let fresh =
                Hosted { task, variant: held.variant, place: held.place.clone(), hands_over: false, lead: None };
            let known_one = known.get(&run).map(|known| Hosted { hands_over: false, ..known.clone() });
            runs.insert(run, known_one.unwrap_or(fresh));
            let waits = self.tasks[&task].doing == Doing::Waiting(worker, run);
            // A known run of a ready task was told to end before the task became ready.
            if (self.is_ready(task) && !known.contains_key(&run) && !waited.contains_key(&run)) || waits {
                self.set(task, Doing::Running(worker, run));
                let members: Vec<WorkerId> = held.place.nodes.iter().skip(1).map(|part| part.worker).collect();
                if !members.is_empty() {
                    self.absent.insert(run, (worker, members));
                }
            } else if self.tasks[&task].doing != Doing::Running(worker, run) {
                out.push(Action::Kill { worker, task, run });
            }
        }
        let accepts = !drains;
        let waiting = BTreeMap::new();
        self.hosts.insert(worker, Host { capacity, ends_at, accepts, drains, runs, waiting });
        self.seat();
    }

    /// Members that are here have their guests.
    fn seat(&mut self) {
        for (run, (lead, members)) in &mut self.absent {
            let Some(hosted) = self.hosts.get(lead).and_then(|host| host.runs.get(run)).cloned() else { continue };
            members.retain(|member| {
                let Some(host) = self.hosts.get_mut(member) else { return true };
                let guest = Hosted { place: Place::default(), lead: Some(*lead), ..hosted.clone() };
                host.runs.entry(*run).or_insert(guest);
                false
            });
        }
        self.absent.retain(|_, (_, members)| !members.is_empty());
    }

    /// Returns the members of a run on several workers.
    fn members(&self, run: RunId) -> Vec<WorkerId> {
        let here = self.hosts.iter().filter(|(_, host)| host.runs.get(&run).is_some_and(|h| h.lead.is_some()));
        let absent = self.absent.get(&run).map(|(_, members)| members.clone()).unwrap_or_default();
        here.map(|(id, _)| *id).chain(absent).collect()
    }

    /// The next server knows nothing of teams until their leads are back.
    pub(super) fn forget_absent(&mut self) {
        self.absent.clear();
    }

    fn dissolve(&mut self, run: RunId, out: &mut Vec<Action>) {
        for member in self.members(run) {
            if let Some(host) = self.hosts.get_mut(&member) {
                host.runs.remove(&run);
            }
            out.push(Action::Guest { worker: member, run, here: false });
        }
        self.absent.remove(&run);
    }

    /// A worker where the task ran is lost.
    fn run_again(&mut self, task: TaskId, run: RunId, counts: Option<End>, out: &mut Vec<Action>) {
        let entry = self.tasks.get_mut(&task).expect("known task");
        entry.losses += u8::from(counts.is_some());
        match (counts, entry.losses) {
            (Some(end), 3) => self.end(task, end, out),
            (Some(_), _) => self.requeue(task, run, RequeueCause::Lost, out),
            (None, _) => self.requeue(task, run, RequeueCause::Interrupted, out),
        }
    }

    fn lose_member(&mut self, worker: WorkerId, counts: bool, out: &mut Vec<Action>) {
        let here = self.hosts.get(&worker).map(|host| host.runs.clone()).unwrap_or_default();
        let mut lost: Vec<(RunId, WorkerId)> = here.iter().filter_map(|(run, h)| Some((*run, h.lead?))).collect();
        for (run, (lead, members)) in &mut self.absent {
            if members.contains(&worker) {
                members.retain(|member| *member != worker);
                lost.push((*run, *lead));
            }
        }
        for (run, lead) in lost {
            let task = self.hosts[&lead].runs[&run].task;
            if self.tasks[&task].doing == Doing::Running(lead, run) {
                out.push(Action::Kill { worker: lead, task, run });
                self.run_again(task, run, counts.then_some(End::Poisonous), out);
            }
        }
    }

    fn run_ended(
        &mut self,
        worker: WorkerId,
        task: TaskId,
        run: RunId,
        (outcome, wall): (Outcome, Millis),
        out: &mut Vec<Action>,
    ) {
        let Some(host) = self.hosts.get_mut(&worker) else {
            return;
        };
        let of_task = |hosted: &&Hosted| hosted.task == task && hosted.lead.is_none();
        if host.runs.get(&run).filter(of_task).is_some() {
            self.vacate(worker, run);
            self.dissolve(run, out);
        } else if host.waiting.get(&run).filter(of_task).is_some() {
            host.waiting.remove(&run);
        } else {
            return;
        }
        let retries = self.shapes[&task.array].retries;
        let entry = self.tasks.get_mut(&task).expect("known task");
        if entry.doing != Doing::Running(worker, run) && entry.doing != Doing::Waiting(worker, run) {
            return;
        }
        match outcome {
            Outcome::Finished => self.end(task, End::Finished, out),
            Outcome::Interrupted if wall > 0 && wall >= self.cut && self.shapes[&task.array].time_request.is_none() => {
                self.run_again(task, run, Some(End::Failed(outcome)), out);
            }
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

    /// A run leaves its room to the first that waits for one like it.
    fn vacate(&mut self, worker: WorkerId, run: RunId) {
        let host = self.hosts.get_mut(&worker).expect("known host");
        let ended = host.runs.remove(&run).expect("known run");
        let needs = |hosted: &Hosted| {
            let shape = &self.shapes[&hosted.task.array];
            (shape.needs.clone(), shape.time_request, shape.family, hosted.variant)
        };
        let next = host.waiting.iter().find(|(_, next)| ended.hands_over && needs(next) == needs(&ended));
        if let Some((next, _)) = next.map(|(run, hosted)| (*run, hosted)) {
            let hosted = host.waiting.remove(&next).expect("just found");
            let task = hosted.task;
            host.runs.insert(next, Hosted { place: ended.place, ..hosted });
            if self.tasks[&task].doing == Doing::Waiting(worker, next) {
                self.set(task, Doing::Running(worker, next));
            }
        }
    }

    fn request(&self, task: TaskId, variant: u8) -> &Request {
        self.shapes[&task.array].needs.variant(variant)
    }

    /// Whether the task fits beside what is on the worker, in this variant.
    pub(super) fn fits(&self, task: TaskId, variant: u8, host: &Host, now: Millis) -> bool {
        let wanted = self.request(task, variant);
        let used = || host.runs.values().map(|h| self.request(h.task, h.variant));
        let time = self.times[&task.array];
        let share = |gpu: u32| -> u32 {
            let parts = host.runs.values().flat_map(|h| &h.place.gpus);
            parts.filter(|part| part.gpu == gpu).map(|part| part.share.0).sum()
        };
        let shares = || (0..host.capacity.gpus).map(share);
        let (whole, part) = (wanted.gpus.0 / Gpus::ONE, wanted.gpus.0 % Gpus::ONE);
        let untouched = shares().filter(|share| *share == 0).count() as u32;
        let beside = shares().any(|share| share > 0 && share + part <= Gpus::ONE);
        let gpus = untouched >= whole && (part == 0 || beside || untouched > whole);
        host.accepts
            && host.ends_at.is_none_or(|end| end > now && end - now >= time)
            && used().map(|r| r.cores).sum::<u32>() + wanted.cores <= host.capacity.cores
            && used().map(|r| r.memory_bytes).sum::<u64>() + wanted.memory_bytes <= host.capacity.memory_bytes
            && gpus
    }

    /// Whether the array's own bound allows one more.
    fn is_below_bound(&self, task: TaskId) -> bool {
        let placed = |t: &TaskId| matches!(self.tasks[t].doing, Doing::Running(..) | Doing::Waiting(..));
        let elements = self.named(TaskRef::Array(task.array));
        let placed = elements.iter().filter(|t| placed(t)).count();
        self.shapes[&task.array].at_most.is_none_or(|most| placed < most as usize)
    }

    /// Whether the counters allow one more in this variant.
    fn is_allowed(&self, task: TaskId, variant: u8) -> bool {
        let runs = || self.hosts.values().flat_map(|h| h.runs.values()).filter(|hosted| hosted.lead.is_none());
        self.request(task, variant).counters.iter().all(|(name, wanted)| {
            let used = runs().map(|h| self.request(h.task, h.variant).counters.get(name).unwrap_or(&0));
            used.sum::<u64>() + wanted <= self.counters.get(name).copied().unwrap_or(0)
        })
    }

    /// Takes in an assignment, which must be allowed.
    pub(super) fn assign(&mut self, worker: WorkerId, run: RunId, start: &Hosted, waits: bool, now: Millis) {
        let task = start.task;
        assert!(!self.held);
        assert!(self.is_ready(task), "{task:?} is not ready");
        assert!(self.is_below_bound(task), "{task:?} exceeds a bound");
        if waits {
            let host = &self.hosts[&worker];
            assert!(host.accepts && host.ends_at.is_none_or(|end| end >= now + self.times[&task.array].max(1)));
            self.set(task, Doing::Waiting(worker, run));
            let host = self.hosts.get_mut(&worker).expect("checked above");
            assert_eq!(host.waiting.insert(run, start.clone()), None);
            return;
        }
        assert!(self.fits(task, start.variant, &self.hosts[&worker], now), "{task:?} does not fit {worker}");
        assert!(self.is_allowed(task, start.variant), "{task:?} exceeds a counter");
        let nodes = self.shapes[&task.array].needs.nodes;
        assert_eq!(start.place.nodes.len() as u32, if nodes == 1 { 0 } else { nodes });
        for member in start.place.nodes.iter().skip(1) {
            let host = &self.hosts[&member.worker];
            assert!(self.fits(task, 0, host, now), "{task:?} does not fit its member {}", member.worker);
            // Its part of the place is known to the scheduler alone; tasks on several workers want no GPUs here.
            let guest = Hosted { place: Place::default(), lead: Some(worker), ..start.clone() };
            let host = self.hosts.get_mut(&member.worker).expect("checked above");
            assert_eq!(host.runs.insert(run, guest), None);
        }
        self.set(task, Doing::Running(worker, run));
        let host = self.hosts.get_mut(&worker).expect("checked above");
        assert_eq!(host.runs.insert(run, start.clone()), None);
    }

    /// Whether a ready task is left although it fits somewhere that is not reserved.
    pub(super) fn missed(&self, reserved: &[WorkerId], now: Millis) -> Option<TaskId> {
        let ready = self.ready().into_iter().filter(|_| !self.held);
        for task in ready.filter(|t| self.is_below_bound(*t)) {
            let needs = &self.shapes[&task.array].needs;
            for variant in 0..needs.variants.len() as u8 {
                let hosts = self.hosts.iter().filter(|(id, _)| !reserved.contains(*id));
                let fitting = hosts.filter(|(_, host)| self.fits(task, variant, host, now)).count();
                if fitting >= needs.nodes as usize && self.is_allowed(task, variant) {
                    return Some(task);
                }
            }
        }
        None
    }

    /// Returns a task that waits at a worker although it fits somewhere that is not reserved.
    pub(super) fn stuck(&self, reserved: &[WorkerId], now: Millis) -> Option<TaskId> {
        let waiting = self.hosts.values().filter(|host| host.accepts).flat_map(|host| &host.waiting);
        let wanted = waiting.filter(|(run, h)| matches!(self.tasks[&h.task].doing, Doing::Waiting(_, r) if r == **run));
        let mut hosts = self.hosts.iter().filter(|(id, _)| !reserved.contains(*id)).map(|(_, host)| host);
        let mut wanted = wanted.map(|(_, hosted)| hosted);
        wanted.find(|h| hosts.any(|host| self.fits(h.task, h.variant, host, now))).map(|h| h.task)
    }

    /// Compares every task, and the numbers, with the scheduler.
    pub(super) fn compare(&self, scheduler: &Scheduler) {
        let mut counts = Counts::default();
        let ready = self.ready();
        for (id, task) in &self.tasks {
            let state = scheduler.state(*id).expect("known task");
            match (&task.doing, &state) {
                (Doing::Idle, TaskState::Ready) => assert!(ready.contains(id)),
                (Doing::Waiting(..), TaskState::Ready) => {}
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
            let expected: BTreeMap<RunId, TaskId> = host.runs.iter().map(|(run, h)| (*run, h.task)).collect();
            assert_eq!(runs, expected, "on worker {id}");
        }
    }
}
