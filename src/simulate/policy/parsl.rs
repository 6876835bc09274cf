//! Parsl's `htex_auto_scale` with its defaults.
//!
//! `Strategy._general_strategy` in parsl/jobs/strategy.py (Parsl/parsl at 03b03fd) and
//! `HighThroughputExecutor.scale_in`. A slot for every task (`parallelism` 1), blocks that are pending count
//! as slots; nothing is known of durations. Down to the number of tasks, those that no manager has connected
//! from at once, idle ones after 120 s; everything 120 s after the last task. The minimum is started with and
//! not restored. Only blocks that are spare as a whole are given up: rounded up, as at 03b03fd, one that is
//! pending for a few tasks is submitted and cancelled for ever (Parsl/parsl#3696, repaired since).

use super::{Bounds, Policy, Ticks, count, give_up, slots, staying};
use crate::adapt::{Decision, JobPhase, JobView, Observation};

/// Seconds between looks (`strategy_period`), and after which an idle block goes (`max_idletime`).
const PERIOD: f64 = 5.0;
const IDLE_MAX: f64 = 120.0;

pub(super) struct Parsl {
    bounds: Bounds,
    ticks: Ticks,
    begun: bool,
    /// Since when there has been no task.
    idle_since: Option<f64>,
}

impl Parsl {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, ticks: Ticks::new(PERIOD), begun: false, idle_since: None }
    }

    /// Ends so many blocks, the longest idle first; those without a manager are idle for ever. With a limit
    /// only those that have been idle for longer.
    fn scale_in(blocks: &[&JobView], many: u32, idle_max: Option<f64>, now: f64, decision: &mut Decision) {
        let idle = |job: &JobView| match job.phase {
            JobPhase::Up => job.idle_since.map_or(0.0, |since| now - since),
            JobPhase::Pending | JobPhase::Started => f64::INFINITY,
        };
        let mut order: Vec<(f64, &JobView)> = blocks.iter().map(|job| (idle(job), *job)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.tasks.cmp(&b.1.tasks)).then(a.1.id.cmp(&b.1.id)));
        let may = |(idle, job): &&(f64, &JobView)| idle_max.is_none_or(|most| *idle > most && job.tasks == 0);
        order.iter().filter(may).take(many as usize).for_each(|(_, job)| give_up(job, decision));
    }
}

impl Policy for Parsl {
    fn name(&self) -> &'static str {
        "parsl"
    }

    fn decide(&mut self, seen: &Observation) -> Decision {
        let (mut decision, due) = self.ticks.look(seen.now);
        if !due {
            return decision;
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.bounds.submit(self.bounds.min, seen, &mut decision);
            return decision;
        }
        let (ready, busy) = slots(seen);
        let (tasks, each) = (ready + busy, u64::from(self.bounds.pool.cores));
        let blocks = staying(seen);
        let have = count(blocks.iter());
        let active_slots = u64::from(have) * each;
        let spare = have.saturating_sub(self.bounds.min);
        if tasks == 0 {
            let since = *self.idle_since.get_or_insert(seen.now);
            if seen.now - since > IDLE_MAX {
                Self::scale_in(&blocks, spare, None, seen.now, &mut decision);
            }
            return decision;
        }
        self.idle_since = None;
        if active_slots < tasks {
            let missing = u32::try_from((tasks - active_slots).div_ceil(each)).unwrap_or(u32::MAX);
            self.bounds.submit(missing, seen, &mut decision);
        } else if active_slots > tasks {
            let excess = u32::try_from((active_slots - tasks) / each).unwrap_or(u32::MAX).min(spare);
            Self::scale_in(&blocks, excess, Some(IDLE_MAX), seen.now, &mut decision);
        }
        decision
    }
}
