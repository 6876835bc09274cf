//! What a simulation is judged by.

use super::elasticity::Elasticity;
use super::site::{Real, Site, seconds};
use super::{Run, Scenario, Summary};
use crate::adapt::{Decision, Settings};

/// A figure over time: its value from each time (seconds) on.
pub(super) type Series = Vec<(f64, f64)>;

/// Milliseconds within which a job that is missing is asked for.
const GRACE: u64 = 1_000;

/// Counts while the simulation goes on.
#[derive(Debug, Default)]
pub(super) struct Meter {
    responses: Vec<f64>,
    useful: f64,
    lost: f64,
    killed: u64,
    submitted: u32,
    live: u32,
    started: u32,
    below_since: Option<u64>,
    below_min: f64,
    above_max: f64,
    decisions: Vec<Decision>,
    demand: Series,
    held: Series,
    busy: Series,
    pending: Series,
}

/// Time that passes without any change, in milliseconds.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Cores that ready and running tasks want.
    pub(super) wanted: u64,
    /// Cores that running tasks use.
    pub(super) busy: u64,
    /// Whether fewer jobs than the minimum are known to exist, and more may be asked for.
    pub(super) missing: bool,
}

/// How it ended. Times in milliseconds.
#[derive(Debug)]
pub(super) struct TheEnd {
    pub(super) policy: &'static str,
    pub(super) now: u64,
    /// When the last task had ended, if it has.
    pub(super) done_at: Option<u64>,
    pub(super) finished: u64,
    /// Tasks that did not finish, and of these those that still could have.
    pub(super) parked: u64,
    pub(super) unfinished: u64,
}

impl Meter {
    /// Time passes without any change.
    pub(super) fn pass(&mut self, passed: &Passed, settings: &Settings) {
        let span = seconds(passed.to - passed.from);
        let cores = settings.pools[0].cores;
        let most = u64::from(settings.max) * u64::from(cores);
        if passed.missing {
            let counts_from = *self.below_since.get_or_insert(passed.from) + GRACE;
            self.below_min += seconds(passed.to.saturating_sub(passed.from.max(counts_from)));
        } else {
            self.below_since = None;
        }
        if self.live > settings.max {
            self.above_max += span;
        }
        let at = seconds(passed.from);
        keep(&mut self.demand, at, passed.wanted.min(most) as f64);
        keep(&mut self.held, at, f64::from(self.started * cores));
        keep(&mut self.busy, at, passed.busy as f64);
        keep(&mut self.pending, at, f64::from(self.live - self.started));
    }

    pub(super) fn task_finished(&mut self, response: u64, useful: f64) {
        self.responses.push(seconds(response));
        self.useful += useful;
    }

    pub(super) fn task_killed(&mut self, walltime: bool, lost: f64) {
        self.killed += u64::from(walltime);
        self.lost += lost;
    }

    pub(super) fn jobs_created(&mut self, jobs: u32) {
        self.submitted += jobs;
        self.live += jobs;
    }

    pub(super) fn job_started(&mut self) {
        self.started += 1;
    }

    pub(super) fn job_gone(&mut self, was_running: bool) {
        self.live -= 1;
        self.started -= u32::from(was_running);
    }

    pub(super) fn decided(&mut self, decision: Decision) {
        self.decisions.push(decision);
    }

    /// Sums up.
    pub(super) fn finish(mut self, scenario: &Scenario, site: &Site, end: &TheEnd) -> Run {
        self.responses.sort_by(f64::total_cmp);
        let first = scenario.workload.tasks.iter().map(|task| task.arrives).fold(f64::INFINITY, f64::min);
        let done = seconds(end.done_at.unwrap_or(end.now));
        let makespan = if first.is_finite() { (done - first).max(0.0) } else { 0.0 };
        let quantile = |p: f64| {
            let last = self.responses.len().saturating_sub(1);
            self.responses.get((p * last as f64).round() as usize).copied().unwrap_or(makespan)
        };
        let cores = f64::from(scenario.settings.pools[0].cores);
        let billed = site.jobs.values().filter_map(|job| {
            let started = job.started?;
            Some(seconds(job.ended.unwrap_or(end.now) - started) * cores)
        });
        let useless = site.jobs.values().filter(|job| job.tasks_ended == 0).count();
        let cancelled = site.jobs.values().filter(|job| job.cancelled_pending && job.real != Real::Running).count();
        let summary = Summary {
            policy: end.policy.to_owned(),
            seed: scenario.seed,
            makespan_seconds: makespan,
            response_p50_seconds: quantile(0.5),
            response_p95_seconds: quantile(0.95),
            core_seconds_billed: billed.fold(0.0, |sum, some| sum + some),
            core_seconds_useful: self.useful,
            jobs_submitted: self.submitted,
            jobs_useless: useless as u32,
            jobs_cancelled_pending: cancelled as u32,
            tasks_killed_by_walltime: self.killed,
            tasks_finished: end.finished,
            tasks_parked: end.parked,
            below_min_seconds: self.below_min,
            above_max_seconds: self.above_max,
            settle_seconds: end.done_at.map_or(0.0, |at| seconds(end.now - at)),
        };
        let span = (if first.is_finite() { first } else { 0.0 }, seconds(end.now));
        let most = f64::from(scenario.settings.max) * cores;
        Run {
            summary,
            decisions: self.decisions,
            mean_response: self.responses.iter().sum::<f64>() / self.responses.len().max(1) as f64,
            seconds: seconds(end.now),
            unfinished: end.unfinished,
            elasticity: Elasticity::of(&self.demand, &self.held, most, span),
            lost_core_seconds: self.lost,
            demand: self.demand,
            held: self.held,
            busy: self.busy,
            pending: self.pending,
        }
    }
}

fn keep(series: &mut Series, at: f64, value: f64) {
    if series.last().is_none_or(|(_, last)| *last != value) {
        series.push((at, value));
    }
}
