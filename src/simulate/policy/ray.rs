//! Ray's autoscaler v2 with its defaults, one node type.
//!
//! `ResourceDemandScheduler` in python/ray/autoscaler/v2/scheduler.py and the documented rate
//! (doc/source/cluster/autoscaling.rst, ray-project/ray, 2.48). Ready tasks are packed into the nodes there
//! are, then into new ones; nothing is known of durations. No more nodes may be pending than are up, and 5 at
//! least (`upscaling_speed` 1). A node that no request needs goes when it has been idle for 5 min, a pending
//! one when nothing has needed it for as long; Ray itself would ask for that one again instead.

use super::fit::fit;
use super::{Bounds, Policy, Ticks, count, give_up, staying};
use crate::adapt::{Decision, JobPhase, JobView, Observation};
use std::collections::BTreeMap;

/// Seconds between looks.
const INTERVAL: f64 = 5.0;
/// Seconds after which a node goes that is idle or not needed (`idle_timeout_minutes`).
const IDLE_MAX: f64 = 300.0;
/// Nodes that may always be pending, and the share of those up that may be.
const PENDING_MIN: u32 = 5;

pub(super) struct Ray {
    bounds: Bounds,
    ticks: Ticks,
    /// Since when no request has needed a job that is not up.
    unneeded: BTreeMap<u32, f64>,
}

impl Ray {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, ticks: Ticks::new(INTERVAL), unneeded: BTreeMap::new() }
    }
}

impl Policy for Ray {
    fn name(&self) -> &'static str {
        "ray"
    }

    fn decide(&mut self, seen: &Observation) -> Decision {
        let (mut decision, due) = self.ticks.look(seen.now);
        if !due {
            return decision;
        }
        let mut jobs = staying(seen);
        // Those that run first, then those that will sooner.
        jobs.sort_by_key(|job| (std::cmp::Reverse(job.phase), job.id));
        let have = count(jobs.iter());
        let up = count(jobs.iter().filter(|job| job.phase == JobPhase::Up));
        let room = self.bounds.max.saturating_sub(have);
        let need = fit(seen, &self.bounds.pool, &jobs, room);
        let launches = PENDING_MIN.max(up).saturating_sub(have - up);
        let more = need.more.min(launches).max(self.bounds.min.saturating_sub(have));
        self.bounds.submit(more, seen, &mut decision);

        let absent = jobs.iter().filter(|job| job.phase != JobPhase::Up && !need.used.contains(&job.id));
        let since = |job: &&JobView| (job.id, self.unneeded.get(&job.id).copied().unwrap_or(seen.now));
        self.unneeded = absent.map(since).collect();
        let unneeded = |job: &JobView| match job.phase {
            JobPhase::Up => job.idle_since.filter(|_| !need.used.contains(&job.id)),
            JobPhase::Pending | JobPhase::Started => self.unneeded.get(&job.id).copied(),
        };
        let over = jobs.iter().filter(|job| unneeded(job).is_some_and(|since| seen.now - since >= IDLE_MAX));
        let spare = have.saturating_sub(self.bounds.min) as usize;
        over.take(spare).for_each(|job| give_up(job, &mut decision));
        decision
    }
}
