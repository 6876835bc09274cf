//! The events of a simulation: tasks arrive, jobs start, workers connect, tasks end, walltimes are over. The
//! cores that decide are the server's own.

mod class;
mod observe;
mod orders;
mod timeline;

use super::metrics::{Meter, Passed, TheEnd};
use super::policy::Policy;
use super::queue::Queue;
use super::site::{Real, Site, seconds};
use super::{Run, Scenario};
use crate::backends::EndedHow;
use crate::ledger::{Ledger, Moment, Scaling};
use crate::runtime::ids::{ArrayId, JobName, JobSeq, RunId, TaskId, WorkerId};
use crate::runtime::protocol::{Capacity, Needs, Outcome, Request, TaskRef};
use crate::runtime::scheduler::{Action, End, Event, Scheduler, Shape};
use class::Class;
use fastrand::Rng;
use std::collections::BTreeMap;
use timeline::{Timeline, What};

/// Milliseconds between decisions at least.
const QUIET: u64 = 1_000;
/// Seconds that a run may take more than a single job would at half its speed: whatever has not ended by then never
/// will.
const HORIZON: f64 = 20.0 * 86_400.0;
/// Milliseconds after the last task at which jobs that are left are left.
const SETTLE_MAX: u64 = 7_200_000;
/// Milliseconds that a worker takes to leave.
const LEAVES_AFTER: u64 = 100;
/// Share of what a fresh job offers to tasks. Runs that a walltime cut after so much, and so many of them: the task
/// would be cut in every job, and is given up. Our scheduler finds that out itself; others' never would.
const OFFERED: f64 = 0.9;
const CUTS: u8 = 3;

/// A worker that is connected.
#[derive(Debug)]
struct Worker {
    up: u64,
    /// By run: the task, and since when.
    running: BTreeMap<RunId, (u32, u64)>,
    /// Cores in use.
    busy: u32,
    idle_since: Option<u64>,
    leaving: bool,
}

/// A task's progress.
#[derive(Clone, Debug, Default)]
struct Progress {
    unmet: u32,
    /// It was submitted and waits for others.
    waits: bool,
    ready_at: Option<u64>,
    finished: bool,
    /// Runs that a walltime cut after nearly all that a fresh job offers.
    cuts: u8,
    id: Option<TaskId>,
}

pub(super) struct World<'a> {
    scenario: &'a Scenario,
    policy: &'a mut dyn Policy,
    site: Site,
    ledger: Ledger,
    scheduler: Scheduler,
    now: u64,
    timeline: Timeline,
    tasks: Vec<Progress>,
    children: Vec<Vec<u32>>,
    classes: Vec<Class>,
    arrays: Vec<Vec<u32>>,
    workers: BTreeMap<JobSeq, Worker>,
    arrivals: usize,
    finished: u64,
    /// Tasks that were tried as long as any job lasts.
    given_up: u64,
    dirty: bool,
    decided: Option<u64>,
    decide_by: u64,
    ledger_by: u64,
    scaling: Scaling,
    meter: Meter,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, queue: Box<dyn Queue>, policy: &'a mut dyn Policy) -> Self {
        let pool = &scenario.settings.pools[0];
        let site = Site::new(queue, scenario.faults, pool.cores, scenario.seed);
        let mut ledger = Ledger::new("simu", 1, "default", 1000, 300);
        ledger.adapt(scenario.settings.max, moment(0));
        let mut scheduler = Scheduler::new(RunId::first(1));
        scheduler.allow_ahead(false);
        scheduler.set_cautious(policy.knows_walltime());
        let workload = &scenario.workload;
        let mut children = vec![Vec::new(); workload.tasks.len()];
        let mut tasks = vec![Progress::default(); workload.tasks.len()];
        let mut classes = vec![Class::default(); workload.classes.len()];
        let mut arrivals: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (at, task) in (0u32..).zip(&workload.tasks) {
            tasks[at as usize].unmet = task.parents.len() as u32;
            task.parents.iter().for_each(|parent| children[*parent as usize].push(at));
            let class = &mut classes[task.class as usize];
            class.cores = class.cores.max(task.cores);
            class.memory_bytes = class.memory_bytes.max(task.memory_bytes);
            arrivals.entry(milliseconds(task.arrives)).or_default().push(at);
        }
        for class in &mut classes {
            let memory = pool.memory_bytes.unwrap_or(u64::MAX);
            class.too_large = class.cores > pool.cores || class.memory_bytes > memory;
            class.parked = class.too_large;
        }
        let arriving = arrivals.len();
        let mut timeline = Timeline::default();
        for (time, tasks) in arrivals {
            timeline.push(time, What::Arrive(tasks));
        }
        Self {
            scenario,
            policy,
            site,
            ledger,
            scheduler,
            now: 0,
            timeline,
            tasks,
            children,
            classes,
            arrays: Vec::new(),
            workers: BTreeMap::new(),
            arrivals: arriving,
            finished: 0,
            given_up: 0,
            dirty: true,
            decided: None,
            decide_by: 0,
            ledger_by: 0,
            scaling: Scaling::default(),
            meter: Meter::default(),
        }
    }

    /// What a job is in for: the same with every policy.
    fn luck(&self, job: JobSeq) -> Rng {
        Rng::with_seed(self.scenario.seed ^ 0x77_0d1d ^ (u64::from(job.0) << 24))
    }

    fn push(&mut self, time: u64, what: What) {
        self.timeline.push(time, what);
    }

    /// Lives until all is done; returns what was seen.
    pub(super) fn run(mut self) -> Run {
        let horizon = self.horizon();
        let mut done_at: Option<u64> = None;
        while self.now < horizon {
            self.turn();
            let over = self.finished + self.parked_tasks() == self.tasks.len() as u64 || self.is_stuck();
            if over && done_at.is_none() {
                done_at = Some(self.now);
            }
            if done_at.is_some_and(|at| self.policy.is_taken_down() || self.now >= at + SETTLE_MAX || self.is_settled())
            {
                break;
            }
        }
        let left = self.tasks.len() as u64 - self.finished;
        let end = TheEnd {
            policy: self.policy.name(),
            now: self.now,
            done_at,
            finished: self.finished,
            parked: left,
            unfinished: if done_at.is_some() { 0 } else { left.saturating_sub(self.parked_tasks()) },
        };
        self.meter.finish(self.scenario, &self.site, &end)
    }

    fn horizon(&self) -> u64 {
        let tasks = &self.scenario.workload.tasks;
        let cores = f64::from(self.scenario.settings.pools[0].cores);
        let alone: f64 = tasks.iter().map(|task| task.run * f64::from(task.cores) / cores).sum();
        let last = tasks.iter().map(|task| task.arrives).fold(0.0, f64::max);
        milliseconds(HORIZON + last + 2.0 * alone)
    }

    /// Goes to the next time at which something happens, and lets it happen.
    fn turn(&mut self) {
        let event = self.timeline.next();
        let queue = self.site.queue.next().map(milliseconds_up);
        let next = [event, queue, Some(self.decision_due()), Some(self.ledger_by)].into_iter().flatten().min();
        self.advance(next.unwrap_or(0).max(self.now));
        while let Some(what) = self.timeline.pop(self.now) {
            self.happen(what);
        }
        for (_, job) in self.site.queue.advance(seconds(self.now)) {
            self.job_starts(JobSeq(job));
        }
        self.place();
        if self.now >= self.decision_due() {
            self.decide();
        }
        if self.now >= self.ledger_by {
            self.plan();
        }
    }

    fn decision_due(&self) -> u64 {
        if self.dirty { self.decided.map_or(0, |at| at + QUIET) } else { self.decide_by }
    }

    /// There are no more jobs than there always are, and it is known.
    fn is_settled(&self) -> bool {
        let min = self.scenario.settings.min;
        self.site.live <= min && self.ledger.live().count() <= min as usize
    }

    fn parked_tasks(&self) -> u64 {
        let parked = self.classes.iter().filter(|class| class.parked);
        self.given_up + parked.map(|class| class.ready).sum::<u64>()
    }

    /// Nothing can happen to tasks any more: what is left waits for parked ones.
    fn is_stuck(&self) -> bool {
        self.arrivals == 0
            && self.workers.values().all(|worker| worker.running.is_empty())
            && self.classes.iter().all(|class| class.parked || class.ready == 0)
            && self.parked_tasks() > 0
    }

    fn advance(&mut self, to: u64) {
        if to > self.now {
            let busy: u64 = self.workers.values().map(|worker| u64::from(worker.busy)).sum();
            let wanted = self.classes.iter().filter(|class| !class.parked);
            let wanted: u64 = wanted.map(|class| class.ready * u64::from(class.cores)).sum();
            let missing = self.ledger.live().count() < self.scenario.settings.min as usize
                && self.ledger.may_submit(self.moment()) > 0;
            let passed = Passed { from: self.now, to, wanted: wanted + busy, busy, missing };
            self.meter.pass(&passed, &self.scenario.settings);
        }
        self.now = to;
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Arrive(tasks) => {
                self.arrivals -= 1;
                let (ready, later): (Vec<u32>, Vec<u32>) =
                    tasks.into_iter().partition(|task| self.tasks[*task as usize].unmet == 0);
                for task in later {
                    self.classes[self.scenario.workload.tasks[task as usize].class as usize].waiting += 1;
                    self.tasks[task as usize].waits = true;
                }
                self.make_ready(&ready);
            }
            What::Created(submit, result) => {
                match result {
                    Ok(ids) => self.ledger.on_submitted(&submit, ids, self.moment()),
                    Err(error) => self.ledger.on_submit_failed(&submit, &error, self.moment()),
                }
                self.touch();
            }
            What::Answer(order) => self.answer(order),
            What::Connect(job) => self.connect(job),
            What::TaskEnds(job, run) => self.task_ends(job, run),
            What::Drains(job) => self.drain(job),
            What::TimeIsOver(job) => self.kill(job, EndedHow::Walltime),
            What::NodeFails(job) => self.kill(job, EndedHow::NodeFailed),
            What::Vanishes(job) => {
                if let Some(real) = self.site.jobs.get_mut(&job).filter(|real| real.real == Real::Pending) {
                    real.vanished = true;
                    self.end(job, EndedHow::Cancelled);
                }
            }
            What::Leaves(job) => {
                if self.workers.get(&job).is_some_and(|worker| worker.leaving && worker.running.is_empty()) {
                    self.workers.remove(&job);
                    self.feed(Event::WorkerLost { worker: WorkerId(job.0), counts: false });
                    self.ledger.on_worker_goodbye(job, self.moment());
                    self.end(job, EndedHow::Exited);
                }
            }
        }
    }

    fn end(&mut self, job: JobSeq, how: EndedHow) {
        let was_running = self.site.jobs.get(&job).is_some_and(|job| job.real == Real::Running);
        if self.site.end(job, how, self.now) {
            self.meter.job_gone(was_running);
            self.touch();
        }
    }

    fn touch(&mut self) {
        self.dirty = true;
        self.ledger_by = self.ledger_by.min(self.now);
    }

    fn moment(&self) -> Moment {
        moment(self.now)
    }

    fn make_ready(&mut self, tasks: &[u32]) {
        let mut by_class: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for task in tasks {
            let class = self.scenario.workload.tasks[*task as usize].class;
            let progress = &mut self.tasks[*task as usize];
            progress.ready_at = Some(self.now);
            self.classes[class as usize].waiting -= u64::from(std::mem::take(&mut progress.waits));
            by_class.entry(class).or_default().push(*task);
        }
        for (class, tasks) in by_class {
            let known = &mut self.classes[class as usize];
            known.ready += tasks.len() as u64;
            let request = Request { cores: known.cores, memory_bytes: known.memory_bytes, ..Request::default() };
            let shape = Shape {
                count: tasks.len() as u32,
                needs: Needs::from(request),
                priority: 0,
                retries: 0,
                time_request: None,
                after: Vec::new(),
                at_most: None,
                family: class + 1,
            };
            let array = ArrayId(self.arrays.len() as u32);
            for (element, task) in (0u32..).zip(&tasks) {
                self.tasks[*task as usize].id = Some(TaskId { array, element });
            }
            self.arrays.push(tasks);
            self.feed(Event::Submit { array, shape });
        }
        self.dirty = true;
    }

    fn feed(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.scheduler.apply(event, self.now, &mut actions);
        self.carry_out(actions);
    }

    fn place(&mut self) {
        let mut actions = Vec::new();
        self.scheduler.schedule(self.now, &mut actions);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Assign { worker, task, run, .. } => {
                    let index = self.arrays[task.array.0 as usize][task.element as usize];
                    let job = JobSeq(worker.0);
                    let spec = &self.scenario.workload.tasks[index as usize];
                    self.classes[spec.class as usize].ready -= 1;
                    if let Some(there) = self.workers.get_mut(&job) {
                        there.running.insert(run, (index, self.now));
                        there.busy += spec.cores;
                        there.idle_since = None;
                    }
                    self.push(self.now + milliseconds(spec.run).max(1), What::TaskEnds(job, run));
                    self.dirty = true;
                }
                Action::Requeued { task, .. } => {
                    let index = self.arrays[task.array.0 as usize][task.element as usize];
                    self.classes[self.scenario.workload.tasks[index as usize].class as usize].ready += 1;
                }
                Action::Ended { end: End::Failed(_), .. } => self.given_up += 1,
                _ => {}
            }
        }
    }

    fn task_ends(&mut self, job: JobSeq, run: RunId) {
        let Some(worker) = self.workers.get_mut(&job) else { return };
        let Some((index, started)) = worker.running.remove(&run) else { return };
        let spec = &self.scenario.workload.tasks[index as usize];
        worker.busy -= spec.cores;
        if worker.running.is_empty() {
            worker.idle_since = Some(self.now);
            if worker.leaving {
                self.timeline.push(self.now + LEAVES_AFTER, What::Leaves(job));
            }
        }
        let progress = &mut self.tasks[index as usize];
        progress.finished = true;
        self.finished += 1;
        self.classes[spec.class as usize].learn(spec.run);
        self.meter.task_finished(self.now - progress.ready_at.unwrap_or(self.now), spec.run * f64::from(spec.cores));
        if let Some(real) = self.site.jobs.get_mut(&job) {
            real.tasks_ended += 1;
        }
        let Some(task) = progress.id else { return };
        let wall = self.now - started;
        self.feed(Event::RunEnded { worker: WorkerId(job.0), task, run, outcome: Outcome::Finished, wall });
        let mut ready = Vec::new();
        for child in std::mem::take(&mut self.children[index as usize]) {
            let progress = &mut self.tasks[child as usize];
            progress.unmet -= 1;
            if progress.unmet == 0 && milliseconds(self.scenario.workload.tasks[child as usize].arrives) <= self.now {
                ready.push(child);
            }
        }
        self.make_ready(&ready);
    }

    fn job_starts(&mut self, job: JobSeq) {
        let Some(real) = self.site.jobs.get_mut(&job).filter(|real| real.real == Real::Pending) else { return };
        real.real = Real::Running;
        real.started = Some(self.now);
        let walltime = real.walltime;
        self.meter.job_started();
        let mut luck = self.luck(job);
        let startup = self.scenario.startup * (0.7 + 0.6 * luck.f64());
        self.push(self.now + milliseconds(startup), What::Connect(job));
        if let Some(walltime) = walltime {
            let lead = self.scenario.settings.pools[0].lead(Some(walltime));
            self.push(self.now + milliseconds(walltime), What::TimeIsOver(job));
            if self.policy.knows_walltime() {
                self.push(self.now + milliseconds((walltime - lead).max(0.0)), What::Drains(job));
            }
        }
        if luck.f64() < self.scenario.faults.node_fails {
            let life = walltime.unwrap_or(3600.0) * luck.f64();
            self.push(self.now + milliseconds(life), What::NodeFails(job));
        }
    }

    fn connect(&mut self, job: JobSeq) {
        let Some(real) = self.site.jobs.get(&job).filter(|real| real.real == Real::Running) else { return };
        let started = real.started.unwrap_or(self.now);
        let walltime = real.walltime;
        let name = JobName::new("simu", job);
        self.touch();
        if self.ledger.on_worker_up(&name, "node", self.moment()).is_err() {
            self.end(job, EndedHow::Exited);
            return;
        }
        let pool = &self.scenario.settings.pools[0];
        let capacity = Capacity {
            cores: pool.cores,
            memory_bytes: pool.memory_bytes.unwrap_or(u64::MAX / 4),
            gpus: pool.gpus,
            numa: Vec::new(),
        };
        let worker =
            Worker { up: self.now, running: BTreeMap::new(), busy: 0, idle_since: Some(self.now), leaving: false };
        self.workers.insert(job, worker);
        let ends = walltime.map(|walltime| started + milliseconds(walltime));
        let ends_at = ends
            .filter(|_| self.policy.knows_walltime())
            .map(|ends| ends - milliseconds(pool.lead(walltime)).min(ends));
        self.feed(Event::WorkerJoined { worker: WorkerId(job.0), capacity, ends_at, running: Vec::new() });
    }

    /// A worker takes nothing new, and leaves when it is empty.
    fn drain(&mut self, job: JobSeq) {
        let Some(worker) = self.workers.get_mut(&job) else { return };
        if worker.leaving {
            return;
        }
        worker.leaving = true;
        let empty = worker.running.is_empty();
        self.feed(Event::WorkerDrains { worker: WorkerId(job.0) });
        self.ledger.on_worker_draining(job);
        if empty {
            self.push(self.now + LEAVES_AFTER, What::Leaves(job));
        }
        self.touch();
    }

    /// A job is gone with all that runs in it.
    fn kill(&mut self, job: JobSeq, how: EndedHow) {
        if !self.site.jobs.get(&job).is_some_and(|real| real.real == Real::Running) {
            return;
        }
        if let Some(worker) = self.workers.remove(&job) {
            let walltime = self.site.jobs.get(&job).and_then(|real| real.walltime);
            let over = how == EndedHow::Walltime;
            let mut hopeless = Vec::new();
            for (run, (index, started)) in &worker.running {
                let spec = &self.scenario.workload.tasks[*index as usize];
                let (wall, ran) = (self.now - started, seconds(self.now - started));
                self.meter.task_killed(over, ran * f64::from(spec.cores));
                if over && walltime.is_some_and(|walltime| ran >= walltime / 2.0) {
                    self.classes[spec.class as usize].learn_cut(ran);
                }
                if over && !self.policy.knows_walltime() && ran >= OFFERED * self.offered() {
                    let progress = &mut self.tasks[*index as usize];
                    progress.cuts += 1;
                    if progress.cuts == CUTS {
                        hopeless.push(*index);
                    }
                }
                // A worker that knows of the walltime interrupts them itself, and says so.
                if over
                    && self.policy.knows_walltime()
                    && let Some(task) = self.tasks[*index as usize].id
                {
                    let worker = WorkerId(job.0);
                    self.feed(Event::RunEnded { worker, task, run: *run, outcome: Outcome::Interrupted, wall });
                }
            }
            self.feed(Event::WorkerLost { worker: WorkerId(job.0), counts: false });
            hopeless.into_iter().for_each(|index| self.give_up(index));
            self.ledger.on_worker_silent(job, self.moment());
        }
        self.end(job, how);
    }

    /// Returns the seconds that a fresh job has for tasks.
    fn offered(&self) -> f64 {
        let pool = &self.scenario.settings.pools[0];
        let lifetime = pool.walltime.map_or(f64::INFINITY, |walltime| walltime - pool.drain_lead);
        (lifetime - self.scenario.startup).max(0.0)
    }

    /// A ready task is not tried again.
    fn give_up(&mut self, index: u32) {
        let Some(task) = self.tasks[index as usize].id else { return };
        self.classes[self.scenario.workload.tasks[index as usize].class as usize].ready -= 1;
        self.given_up += 1;
        self.feed(Event::Cancel { tasks: vec![TaskRef::Task(task)] });
    }

    fn decide(&mut self) {
        let seen = self.observe();
        let decision = self.policy.decide(&seen);
        self.dirty = false;
        self.decided = Some(self.now);
        self.decide_by = milliseconds_up(decision.next).max(self.now + QUIET);
        for (class, name) in self.classes.iter_mut().zip(&self.scenario.workload.classes) {
            class.parked = class.too_large || decision.parked.iter().any(|parked| parked.class == *name);
        }
        self.scaling = Scaling::from(&decision);
        if decision.acts() {
            self.ledger_by = self.now;
            self.meter.decided(decision);
        }
    }
}

fn moment(now: u64) -> Moment {
    Moment { wall: 1_700_000_000_000 + now, clock: now }
}

fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0).round().max(0.0) as u64
}

/// Never earlier.
fn milliseconds_up(seconds: f64) -> u64 {
    (seconds * 1000.0).ceil().max(0.0) as u64
}
