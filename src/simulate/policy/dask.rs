//! Dask's `Adaptive` with its defaults.
//!
//! `Scheduler.adaptive_target` in distributed/scheduler.py (2026.8) and `AdaptiveCore.recommendations` in
//! distributed/deploy/adaptive_core.py (dask/distributed at 062bef8). Enough threads for the known work to be
//! done in 5 s, no more than there are tasks; threads are workers as long as there is no worker. Up at once;
//! down after three looks in a row, those that have not arrived first, in the order of a `set`, then idle ones.
//! Left out: the rule that adds workers when memory is short, and what it costs to move data.

use super::{Bounds, Policy, Ticks, count, give_up, staying};
use crate::adapt::{Decision, JobPhase, JobView, Observation, TaskClass};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Seconds between looks (`interval`), and in which all work is to be done (`target-duration`).
const INTERVAL: f64 = 1.0;
const TARGET: f64 = 5.0;
/// Looks in a row after which a worker is closed (`wait-count`).
const WAIT_COUNT: u32 = 3;
/// Seconds of a task of which nothing is known (`unknown-task-duration`).
const UNKNOWN: f64 = 0.5;
/// Queued tasks from which the duration of all is taken.
const SAMPLED: u64 = 100;

pub(super) struct Dask {
    bounds: Bounds,
    seed: u64,
    ticks: Ticks,
    close_counts: BTreeMap<u32, u32>,
}

impl Dask {
    pub(super) fn new(bounds: Bounds, seed: u64) -> Self {
        Self { bounds, seed, ticks: Ticks::new(INTERVAL), close_counts: BTreeMap::new() }
    }

    /// Returns how many workers there should be.
    fn target(&self, seen: &Observation, plan: &[&JobView]) -> u32 {
        let (mut occupancy, mut ready, mut busy) = (0.0, 0_u64, 0_u64);
        let (mut queued, mut sampled) = (0.0, 0_u64);
        for class in &seen.classes {
            let (duration, cores) = (duration(class), u64::from(class.cores));
            let running: u64 = class.running.iter().map(|some| u64::from(some.tasks)).sum();
            occupancy += (running * cores) as f64 * duration;
            let sample = class.ready.min(SAMPLED - sampled);
            queued += (sample * cores) as f64 * duration;
            sampled += sample;
            ready += class.ready;
            busy += running * cores;
        }
        if ready > SAMPLED {
            queued *= ready as f64 / SAMPLED as f64;
        }
        let most = super::slots(seen).0 + busy;
        let threads = (((occupancy + queued) / TARGET).ceil() as u64).min(most);
        let workers = count(plan.iter().filter(|job| job.phase == JobPhase::Up));
        let target = if workers > 0 {
            let target = u32::try_from(threads.div_ceil(u64::from(self.bounds.pool.cores))).unwrap_or(u32::MAX);
            let idle = count(plan.iter().filter(|job| is_idle(job)));
            if target < workers { workers - idle } else { target }
        } else {
            u32::try_from(threads.max(u64::from(ready > 0))).unwrap_or(u32::MAX)
        };
        target.min(self.bounds.max).max(self.bounds.min)
    }

    /// Returns whom to close, to come down to a target.
    fn to_close<'a>(&self, plan: &[&'a JobView], target: u32) -> Vec<&'a JobView> {
        let excess = count(plan.iter()).saturating_sub(target) as usize;
        let mut absent: Vec<&JobView> = plan.iter().copied().filter(|job| job.phase != JobPhase::Up).collect();
        // A `set` of names: in no order that means anything, and the same at every look.
        absent.sort_by_key(|job| fastrand::Rng::with_seed(self.seed ^ u64::from(job.id)).u64(..));
        absent.truncate(excess);
        let workers = count(plan.iter().filter(|job| job.phase == JobPhase::Up));
        let mut idle: Vec<&JobView> = plan.iter().copied().filter(|job| is_idle(job)).collect();
        idle.sort_by_key(|job| Reverse(job.id));
        idle.truncate(workers.saturating_sub(target).min((excess - absent.len()) as u32) as usize);
        absent.into_iter().chain(idle).collect()
    }
}

impl Policy for Dask {
    fn name(&self) -> &'static str {
        "dask"
    }

    fn decide(&mut self, seen: &Observation) -> Decision {
        let (mut decision, due) = self.ticks.look(seen.now);
        if !due {
            return decision;
        }
        let plan = staying(seen);
        let (have, target) = (count(plan.iter()), self.target(seen, &plan));
        if target >= have {
            self.close_counts.clear();
            self.bounds.submit(target - have, seen, &mut decision);
            return decision;
        }
        let mut counts = BTreeMap::new();
        for job in self.to_close(&plan, target) {
            let looks = self.close_counts.get(&job.id).copied().unwrap_or(0) + 1;
            if looks >= WAIT_COUNT {
                give_up(job, &mut decision);
            } else {
                counts.insert(job.id, looks);
            }
        }
        self.close_counts = counts;
        decision
    }
}

fn is_idle(job: &JobView) -> bool {
    job.phase == JobPhase::Up && job.idle_since.is_some()
}

/// Returns how long a task of a class is taken to run: the mean, or twice what the longest has run so far.
fn duration(class: &TaskClass) -> f64 {
    if class.durations.ended > 0 {
        return class.durations.mean;
    }
    let longest = class.running.iter().map(|some| some.elapsed).fold(0.0, f64::max);
    if longest > 0.0 { 2.0 * longest } else { UNKNOWN }
}
