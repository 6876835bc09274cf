//! Who decides how many jobs there are: our own controller, and the rules of others as read from their code.
//!
//! The others are shown what our ledger knows and get their way at once, without the faults of their own status
//! queries and records of jobs, which flatters them. Where they count tasks and slots, a task counts as many as it has cores.

mod dask;
mod fit;
mod fixed;
mod hyperqueue;
mod ours;
mod parsl;
mod ray;

use crate::adapt::{Controller, Decision, JobPhase, JobView, Learned, Observation, PoolShape, Settings, Submission};

/// A rule that sizes a cluster.
pub trait Policy {
    /// Returns its name, as `--policy` takes it.
    fn name(&self) -> &'static str;

    /// Looks at the situation and decides. Called when something happened and by [`Decision::next`] at the latest.
    fn decide(&mut self, seen: &Observation) -> Decision;

    /// Whether tasks are placed by the walltime that is left on a worker; the others' are not.
    fn knows_walltime(&self) -> bool {
        false
    }

    /// Whether somebody takes everything down when the last task has ended; else the rule does it itself.
    fn is_taken_down(&self) -> bool {
        false
    }
}

/// Names of the policies.
pub const NAMES: [&str; 6] = ["ours", "dask", "parsl", "hyperqueue", "ray", "static"];

/// Returns the policy of a name; `None` = there is none of it, or the settings have no pool.
pub fn named(name: &str, settings: &Settings) -> Option<Box<dyn Policy>> {
    let bounds = Bounds { min: settings.min, max: settings.max, pool: settings.pools.first()?.clone() };
    Some(match name {
        "ours" => Box::new(Controller::new(settings.clone(), Learned::default())),
        "dask" => Box::new(dask::Dask::new(bounds, settings.seed)),
        "parsl" => Box::new(parsl::Parsl::new(bounds)),
        "hyperqueue" => Box::new(hyperqueue::HyperQueue::new(bounds)),
        "ray" => Box::new(ray::Ray::new(bounds)),
        "static" => Box::new(fixed::Fixed::new(bounds)),
        _ => return None,
    })
}

/// What every rule is given.
#[derive(Clone, Debug)]
struct Bounds {
    min: u32,
    max: u32,
    pool: PoolShape,
}

impl Bounds {
    /// Asks for more jobs, as far as the maximum allows; jobs that leave count against it.
    fn submit(&self, jobs: u32, seen: &Observation, decision: &mut Decision) {
        let jobs = jobs.min(self.max.saturating_sub(count(seen.jobs.iter())));
        if jobs > 0 {
            decision.submit.push(Submission { pool: self.pool.name.clone(), jobs, walltime: None });
        }
    }
}

/// A rule that looks at regular intervals, in seconds, whatever happens.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    every: f64,
    next: f64,
}

impl Ticks {
    fn new(every: f64) -> Self {
        Self { every, next: f64::NEG_INFINITY }
    }

    /// Returns an empty decision, and whether it is time for a real one.
    fn look(&mut self, now: f64) -> (Decision, bool) {
        let due = now >= self.next;
        if due {
            self.next = now + self.every;
        }
        (Decision { now, next: self.next, ..Decision::default() }, due)
    }
}

/// Gives a job up: one whose worker is connected takes nothing new and leaves, another one is cancelled.
fn give_up(job: &JobView, decision: &mut Decision) {
    match job.phase {
        JobPhase::Up => decision.drain.push(job.id),
        JobPhase::Pending | JobPhase::Started => decision.cancel.push(job.id),
    }
}

/// Returns the jobs that are not about to leave.
fn staying(seen: &Observation) -> Vec<&JobView> {
    seen.jobs.iter().filter(|job| !job.leaving).collect()
}

/// Returns the cores of the tasks that are ready, and of those that run.
fn slots(seen: &Observation) -> (u64, u64) {
    let running = |class: &crate::adapt::TaskClass| class.running.iter().map(|some| u64::from(some.tasks)).sum::<u64>();
    seen.classes.iter().fold((0, 0), |(ready, busy), class| {
        let cores = u64::from(class.cores);
        (ready + class.ready * cores, busy + running(class) * cores)
    })
}

/// Counts of jobs are bounded by the maximum, far below 2³².
fn count<T>(jobs: impl Iterator<Item = T>) -> u32 {
    u32::try_from(jobs.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
