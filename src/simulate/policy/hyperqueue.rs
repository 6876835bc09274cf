//! HyperQueue's automatic allocation with its defaults.
//!
//! `perform_submits`, `create_queue_worker_query` and `compute_submission_permit` in
//! crates/hyperqueue/src/server/autoalloc/process.rs (It4innovations/hyperqueue at 010c198). Another worker is
//! asked for while it would get a task that finds no room on those connected, `backlog` (1) queued allocations
//! at a time. Queued ones are never cancelled; a worker goes when it has been idle for 5 min. There is no
//! minimum. Tasks ask for no time (`--time-request` is the user's), so their walltimes are not known.

use super::fit::fit;
use super::{Bounds, Policy, Ticks, count, staying};
use crate::adapt::{Decision, JobPhase, Observation};

/// Seconds between looks.
const TICK: f64 = 5.0;
/// Allocations that may be queued (`--backlog`).
const BACKLOG: u32 = 1;
/// Seconds after which an idle worker leaves (`--idle-timeout`).
const IDLE_MAX: f64 = 300.0;

pub(super) struct HyperQueue {
    bounds: Bounds,
    ticks: Ticks,
}

impl HyperQueue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, ticks: Ticks::new(TICK) }
    }
}

impl Policy for HyperQueue {
    fn name(&self) -> &'static str {
        "hyperqueue"
    }

    fn decide(&mut self, seen: &Observation) -> Decision {
        let (mut decision, due) = self.ticks.look(seen.now);
        if !due {
            return decision;
        }
        let jobs = staying(seen);
        let up: Vec<_> = jobs.iter().copied().filter(|job| job.phase == JobPhase::Up).collect();
        let queued = count(jobs.iter().filter(|job| job.phase == JobPhase::Pending));
        // The query is for as many workers as may be queued at all, those that are among them.
        let wanted = fit(seen, &self.bounds.pool, &up, BACKLOG).more;
        let jobs = wanted.saturating_sub(queued).min(BACKLOG.saturating_sub(queued));
        self.bounds.submit(jobs, seen, &mut decision);
        let idle = up.iter().filter(|job| job.idle_since.is_some_and(|since| seen.now - since >= IDLE_MAX));
        decision.drain = idle.map(|job| job.id).collect();
        decision
    }
}
