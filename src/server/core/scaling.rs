//! The scaling loop: shows the controller the situation, and passes on what it decides.
//!
//! It looks when something has happened, at most four times a second, and when the controller asked for it. What the
//! ledger cannot do is asked for again, so nothing here is journalled but the wish itself.

use super::{Core, EventLine, Output};
use crate::adapt::{
    Controller, Decision, Durations, ExpectedWait, JobView, Learned, Observation, PoolShape, Ring, RunningTasks,
    Settings, TaskClass,
};
use crate::config::spec::{Adapt, PoolSpec, Spec};
use crate::ledger::{JobState, Moment, Order, Scaling};
use crate::runtime::control::{Decisions, JobDecisions};
use crate::runtime::ids::JobSeq;
use crate::runtime::scheduler::{Counts, Demand};
use crate::server::record::Record;
use crate::ui::words::{count, size};
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds between two looks at least.
const QUIET: u64 = 250;
/// Milliseconds between two times that what was learned is kept.
const KEEP_PAUSE: u64 = 10_000;
/// Milliseconds between two times that the batch system is asked when jobs would start.
const EXPECT_PAUSE: u64 = 600_000;
/// Jobs of which it is remembered which decisions concern them.
const JOBS_REMEMBERED: usize = 10_000;

/// Since when a job's worker has had nothing to do, and how many ends it had reported by then.
#[derive(Clone, Copy, Debug)]
struct Idle {
    since: u64,
    ends: u64,
}

/// The controller, and when to ask it.
#[derive(Debug)]
pub(super) struct Loop {
    adapt: Adapt,
    controller: Controller,
    ring: Ring,
    looked_at: Option<u64>,
    look_by: u64,
    /// What the tasks were like when it last looked.
    tasks: Counts,
    changed: bool,
    idle: BTreeMap<JobSeq, Idle>,
    jobs: BTreeMap<JobSeq, JobDecisions>,
    /// The decision whose jobs the ledger may be about to ask for.
    asking: Option<u64>,
    newest_job: JobSeq,
    kept_at: Option<u64>,
    kept: Learned,
    /// When the batch system was last asked when jobs would start, and what it said.
    expected_at: Option<u64>,
    expected: Vec<ExpectedWait>,
}

impl Loop {
    fn new(adapt: Adapt, spec: &Spec, seed: u64, learned: Learned) -> Self {
        Self {
            adapt,
            controller: Controller::new(settings(adapt, spec, seed), learned.clone()),
            ring: Ring::default(),
            looked_at: None,
            look_by: 0,
            tasks: Counts::default(),
            changed: true,
            idle: BTreeMap::new(),
            jobs: BTreeMap::new(),
            asking: None,
            newest_job: JobSeq(0),
            kept_at: None,
            kept: learned,
            expected_at: None,
            expected: Vec::new(),
        }
    }

    /// Returns what was asked for.
    pub(super) fn adapt(&self) -> Adapt {
        self.adapt
    }

    /// Records of jobs have changed.
    pub(super) fn jobs_changed(&mut self) {
        self.changed = true;
    }

    /// Returns why there are as many jobs as there are.
    pub(super) fn last_reason(&self) -> Option<String> {
        self.ring.entries().next_back().map(|entry| entry.decision.reason.clone())
    }

    fn is_due(&self, tasks: Counts, now: u64) -> bool {
        let Some(looked_at) = self.looked_at else { return true };
        let news = self.changed || tasks != self.tasks;
        now >= self.look_by || news && now >= looked_at + QUIET
    }

    /// Returns what to ask the batch system about: some of the walltimes there are to choose from.
    fn expectations(&mut self, spec: &Spec, ready: u64, now: u64) -> Vec<(String, u64)> {
        let due = self.expected_at.is_none_or(|at| ready > 0 && now >= at + EXPECT_PAUSE);
        let mut asked = Vec::new();
        for (name, pool) in spec.shapes().filter(|_| due) {
            let choices = &pool.walltime_choices;
            let few = [0, choices.len() / 2, choices.len().saturating_sub(1)];
            let few: BTreeSet<u64> = few.iter().filter_map(|at| choices.get(*at).copied()).collect();
            asked.extend(few.into_iter().map(|walltime| (name.to_owned(), walltime)));
        }
        if !asked.is_empty() {
            self.expected_at = Some(now);
        }
        asked
    }

    /// Keeps in mind which decisions concern which jobs.
    fn note(&mut self, decision: &Decision, number: u64) {
        for id in decision.cancel.iter().chain(&decision.drain) {
            self.jobs.entry(JobSeq(*id)).or_default().given_up = Some(number);
        }
        if !decision.submit.is_empty() {
            self.asking = Some(number);
        }
        while self.jobs.len() > JOBS_REMEMBERED {
            self.jobs.pop_first();
        }
    }
}

fn settings(adapt: Adapt, spec: &Spec, seed: u64) -> Settings {
    let shape = |(name, pool): (&str, &PoolSpec)| PoolShape {
        name: name.to_owned(),
        memory_bytes: pool.memory_bytes,
        gpus: pool.gpus,
        walltime: pool.walltime_seconds.map(|seconds| seconds as f64),
        drain_lead: pool.drain_lead_seconds as f64,
        walltime_choices: pool.walltime_choices.iter().map(|seconds| *seconds as f64).collect(),
        ..PoolShape::new(pool.cores)
    };
    Settings {
        efficiency: f64::from(adapt.efficiency_percent) / 100.0,
        idle_timeout: adapt.idle_timeout_seconds.map(|seconds| seconds as f64),
        max_pending: adapt.max_pending,
        rate_per_minute: adapt.rate_per_minute.map(f64::from),
        seed,
        ..Settings::new(adapt.min, adapt.max, spec.shapes().map(shape).collect())
    }
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

impl Core {
    /// Gives the core what earlier clusters of the same queue have learned; before any replay.
    pub fn set_learned(&mut self, learned: Learned) {
        self.learned = learned;
    }

    /// Holds a number of jobs.
    pub(super) fn scale(&mut self, jobs: u32, now: Moment, out: &mut Output) {
        self.stop_scaling(out);
        self.ledger.scale(jobs, now);
        out.records.push(Record::Scaled { jobs, reached: false });
        let text = format!("scaled to {}", count(u64::from(jobs), "job"));
        out.events.push(EventLine { kind: "scaled", job: None, task: None, text });
    }

    /// Lets the number of jobs follow the load.
    pub(super) fn adapt(&mut self, adapt: Adapt, now: Moment, out: &mut Output) {
        self.stop_scaling(out);
        self.ledger.adapt(adapt.max, now);
        self.start_scaling(adapt);
        out.records.push(Record::Adapted(adapt));
        let text = format!("the number of jobs follows the load: {} to {}", adapt.min, adapt.max);
        out.events.push(EventLine { kind: "adapted", job: None, task: None, text });
    }

    pub(super) fn start_scaling(&mut self, adapt: Adapt) {
        let seed = u64::from(self.options.epoch);
        self.scaling = Some(Loop::new(adapt, &self.options.spec, seed, self.learned.clone()));
        self.scheduler.set_cautious(true);
    }

    /// What was learned so far is kept for whoever scales next.
    pub(super) fn stop_scaling(&mut self, out: &mut Output) {
        self.scheduler.set_cautious(false);
        if let Some(scaling) = self.scaling.take() {
            self.learned = scaling.controller.learned();
            out.learned = Some(Box::new(self.learned.clone()));
        }
    }

    /// The cluster goes down: what was learned outlives it.
    pub(super) fn keep_learned(&self, out: &mut Output) {
        if let Some(scaling) = &self.scaling {
            out.learned = Some(Box::new(scaling.controller.learned()));
        }
    }

    /// The batch system has said when jobs would start.
    pub(super) fn expect(&mut self, starts: Vec<(String, u64, u64)>, now: Moment) {
        let Some(scaling) = &mut self.scaling else { return };
        scaling.changed = true;
        scaling.expected = starts
            .into_iter()
            .map(|(pool, walltime, start)| ExpectedWait {
                pool,
                walltime: Some(walltime as f64),
                wait: seconds(start.saturating_sub(now.wall)),
            })
            .collect();
    }

    /// Returns the last decisions.
    pub(super) fn decisions(&self) -> Decisions {
        let Some(scaling) = &self.scaling else { return Decisions::default() };
        let jobs = scaling.jobs.iter().map(|(job, decisions)| (job.0, *decisions)).collect();
        Decisions { entries: scaling.ring.entries().cloned().collect(), jobs }
    }

    /// Decides, if it is time to. Nothing is decided while it is not known what runs, or nothing may be done.
    pub(super) fn decide_scaling(&mut self, now: Moment, out: &mut Output) -> Scaling {
        self.note_new_jobs();
        let tasks = self.scheduler.totals();
        let due = self.scaling.as_ref().is_some_and(|scaling| scaling.is_due(tasks, now.clock));
        if !due || self.stopped || self.journal_trouble.is_some() || !self.awaited.is_empty() {
            return Scaling::default();
        }
        let seen = self.observe(now);
        let Some(scaling) = &mut self.scaling else { return Scaling::default() };
        let decision = scaling.controller.decide(&seen);
        scaling.looked_at = Some(now.clock);
        scaling.look_by = (decision.next * 1000.0).ceil() as u64;
        scaling.tasks = tasks;
        scaling.changed = false;
        let wish = Scaling::from(&decision);
        let asked = scaling.expectations(&self.options.spec, decision.numbers.ready, now.clock);
        if !asked.is_empty() {
            out.orders.push(Order::Expect(asked));
        }
        let acts = decision.acts();
        let number = scaling.ring.push(decision, now.wall);
        if let Some(entry) = scaling.ring.get(number).filter(|_| acts).cloned() {
            scaling.note(&entry.decision, number);
            out.decisions.push(entry);
        }
        if scaling.kept_at.is_none_or(|at| now.clock >= at + KEEP_PAUSE) {
            scaling.kept_at = Some(now.clock);
            let learned = scaling.controller.learned();
            if learned != scaling.kept {
                scaling.kept = learned.clone();
                out.learned = Some(Box::new(learned));
            }
        }
        wish
    }

    /// Jobs that have come since the last decision were asked for by it.
    fn note_new_jobs(&mut self) {
        let Some(scaling) = &mut self.scaling else { return };
        let newest = self.ledger.live().next_back().map_or(JobSeq(0), |job| job.seq);
        if newest <= scaling.newest_job {
            return;
        }
        if let Some(number) = scaling.asking.take() {
            let new = self.ledger.live().rev().take_while(|job| job.seq > scaling.newest_job);
            for job in new {
                scaling.jobs.entry(job.seq).or_default().asked = Some(number);
            }
        }
        scaling.newest_job = newest;
    }

    /// Returns the situation as the controller sees it.
    fn observe(&mut self, now: Moment) -> Observation {
        let jobs = self.observe_jobs(now);
        let trouble = self.ledger.trouble().map(str::to_owned);
        Observation {
            now: seconds(now.clock),
            classes: self.observe_classes(now),
            jobs,
            submit_max: Some(self.ledger.may_submit(now)),
            submit_limited_by: trouble,
            expected_waits: self.scaling.as_mut().map_or(Vec::new(), |scaling| std::mem::take(&mut scaling.expected)),
        }
    }

    fn observe_jobs(&mut self, now: Moment) -> Vec<JobView> {
        let mut by_job = BTreeMap::new();
        for (id, worker) in &self.workers {
            if let Some(job) = worker.job {
                let tasks = self.scheduler.worker_load(*id).map_or(0, |load| load.running);
                by_job.insert(job, (tasks, worker.ends_seen, worker.ends_at));
            }
        }
        let Some(scaling) = &mut self.scaling else { return Vec::new() };
        scaling.idle.retain(|job, _| by_job.get(job).is_some_and(|(tasks, ..)| *tasks == 0));
        let mut views = Vec::new();
        for job in self.ledger.live() {
            let [intended, started, up] = self.ledger.times(job.seq);
            let worker = by_job.get(&job.seq);
            let is_up = matches!(job.state, JobState::Up | JobState::Draining);
            let idle = worker.filter(|(tasks, ..)| *tasks == 0 && is_up).map(|(_, ends, _)| {
                let idle = scaling.idle.entry(job.seq).or_insert(Idle { since: now.clock, ends: *ends });
                if idle.ends != *ends {
                    // It had something to do meanwhile.
                    *idle = Idle { since: now.clock, ends: *ends };
                }
                idle.since
            });
            views.push(JobView {
                id: job.seq.0,
                pool: job.pool.clone(),
                phase: job.state.into(),
                leaving: job.leaves(),
                submitted_at: intended.map(seconds),
                started_at: started.map(seconds),
                up_at: up.filter(|_| is_up).map(seconds),
                ends_at: worker.and_then(|(_, _, ends)| *ends).map(|at| seconds(at + super::WALLTIME_MARGIN)),
                walltime: job.walltime_seconds.map(|seconds| seconds as f64),
                tasks: worker.map_or(0, |(tasks, ..)| u32::try_from(*tasks).unwrap_or(u32::MAX)),
                idle_since: idle.map(seconds),
                silent: job.silent,
            });
        }
        views
    }

    fn observe_classes(&self, now: Moment) -> Vec<TaskClass> {
        let mut running: BTreeMap<u32, BTreeMap<JobSeq, (u32, u64)>> = BTreeMap::new();
        for (id, worker) in &self.workers {
            let Some(job) = worker.job else { continue };
            for (task, class) in self.scheduler.classes_on(*id) {
                let since = self.running_since.get(&task).map_or(now.clock, |(_, since)| since.clock);
                let (tasks, elapsed) = running.entry(class).or_default().entry(job).or_default();
                *tasks += 1;
                *elapsed += now.clock.saturating_sub(since);
            }
        }
        let mut classes = Vec::new();
        for (number, demand) in (0u32..).zip(self.scheduler.classes()) {
            let jobs = running.remove(&number).unwrap_or_default();
            if demand.tasks == 0 && jobs.is_empty() {
                continue;
            }
            let here: u64 = jobs.values().map(|(tasks, _)| u64::from(*tasks)).sum();
            let jobs = jobs.into_iter().map(|(job, (tasks, elapsed))| RunningTasks {
                job: job.0,
                tasks,
                elapsed: seconds(elapsed) / f64::from(tasks),
            });
            let family = (demand.family as usize).checked_sub(1).and_then(|at| self.families.get(at));
            classes.push(class_of(&demand, family, jobs.collect(), here));
        }
        let waiting = self.scheduler.totals().waiting;
        if waiting > 0 {
            // What they need is of no matter yet: that more is to come is.
            classes.push(TaskClass { waiting, ..TaskClass::new("tasks that wait for others") });
        }
        classes
    }
}

fn class_of(demand: &Demand<'_>, family: Option<&String>, running: Vec<RunningTasks>, here: u64) -> TaskClass {
    let first = demand.needs.variant(0);
    let mut name = family.map(|family| format!("{family}, ")).unwrap_or_default();
    name.push_str(&count(first.cores.into(), "core"));
    if first.memory_bytes > 0 {
        name.push_str(&format!(", {}", size(first.memory_bytes)));
    }
    if let Some(time) = demand.time_request {
        name.push_str(&format!(", {} s", time / 1000));
    }
    TaskClass {
        cores: first.cores,
        memory_bytes: first.memory_bytes,
        gpu_thousandths: first.gpus.0,
        nodes: demand.needs.nodes,
        ready: demand.tasks,
        at_once_max: demand.counters_allow.map(|more| more.saturating_add(here)),
        running,
        time_request: demand.time_request.map(seconds),
        durations: Durations {
            ended: demand.lasted.ended,
            cut: demand.lasted.cut,
            mean: demand.lasted.mean / 1000.0,
            p90: seconds(demand.lasted.p90),
            longest: seconds(demand.lasted.longest),
        },
        ..TaskClass::new(name)
    }
}
