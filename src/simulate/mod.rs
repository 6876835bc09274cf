//! A day of a cluster in milliseconds: the same cores as the server's (scheduler, ledger, scaling), with a
//! simulated batch system, simulated workers and tasks, and virtual time. Deterministic: everything random
//! comes from one seed.

mod elasticity;
pub mod input;
mod metrics;
pub mod plot;
pub mod policy;
pub mod queue;
pub mod report;
mod site;
pub mod stdio;
#[cfg(test)]
mod tests;
pub mod trace;
pub mod workload;
mod world;

pub use elasticity::Elasticity;
use serde::Serialize;

/// What is simulated.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// The tasks.
    pub workload: workload::Workload,
    /// Jobs: minimum, maximum, shape.
    pub settings: crate::adapt::Settings,
    /// Seconds from the start of a job until its worker has connected, on average.
    pub startup: f64,
    /// What goes wrong.
    pub faults: Faults,
    /// Seed.
    pub seed: u64,
}

/// What goes wrong, and how often.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Faults {
    /// Share of jobs that vanish without a trace if they are still pending after a while: a minute on average.
    pub vanish: f64,
    /// Share of listings that fail.
    pub listings_fail: f64,
    /// Seconds from the beginning during which no listing succeeds.
    pub blind_seconds: f64,
    /// Share of submissions that are rejected.
    pub reject: f64,
    /// Share of jobs whose node dies, at a random time of their walltime, if they last so long.
    pub node_fails: f64,
}

/// The outcome, as `dcluster simulate --json` prints it. Times in seconds.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Summary {
    /// Name of the policy.
    pub policy: String,
    /// Seed.
    pub seed: u64,
    /// From the first task's arrival to the end of the last; until it was given up, where tasks had not ended then.
    pub makespan_seconds: f64,
    /// From when a task is ready to its end: median of those that finished, the makespan where none did.
    pub response_p50_seconds: f64,
    /// Nineteen of twenty are faster.
    pub response_p95_seconds: f64,
    /// Cores of all jobs × the time from their start to their end.
    pub core_seconds_billed: f64,
    /// Of these: what tasks used that finished.
    pub core_seconds_useful: f64,
    /// Jobs that the batch system accepted.
    pub jobs_submitted: u32,
    /// Of these: jobs in which no task ended, those that were cancelled before they started among them.
    pub jobs_useless: u32,
    /// Jobs that were cancelled while they were pending.
    pub jobs_cancelled_pending: u32,
    /// Runs that a walltime ended.
    pub tasks_killed_by_walltime: u64,
    /// Tasks that finished.
    pub tasks_finished: u64,
    /// All others. No job could run them: they are too large for a job, longer than a walltime as the policy says, or
    /// were cut by a walltime after nine tenths of what a fresh job offers to tasks, which holds for every policy. Or
    /// they wait for such a task. Or they had not ended when the simulation was given up.
    pub tasks_parked: u64,
    /// Time during which fewer jobs than the minimum were known to exist, the first second of each such time
    /// excepted, and what passes until more may be asked for again after failures.
    pub below_min_seconds: f64,
    /// Time during which there were more jobs than the maximum.
    pub above_max_seconds: f64,
    /// From the end of the last task until there were no more jobs than the minimum.
    pub settle_seconds: f64,
}

/// What came of a simulation.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The figures.
    pub summary: Summary,
    /// Decisions that did something.
    pub decisions: Vec<crate::adapt::Decision>,
    /// Seconds from when a task is ready to its end, on average.
    pub mean_response: f64,
    /// Core-seconds of runs that did not end by themselves.
    pub lost_core_seconds: f64,
    /// How well supply followed demand.
    pub elasticity: Elasticity,
    /// Seconds until the end of the simulation.
    pub seconds: f64,
    /// Tasks that could still have finished when the simulation was given up.
    pub unfinished: u64,
    /// Cores that ready and running tasks want, as many as there may be at most: from each time (s) on.
    pub demand: Vec<(f64, f64)>,
    /// Cores of jobs that have started.
    pub held: Vec<(f64, f64)>,
    /// Cores that running tasks use.
    pub busy: Vec<(f64, f64)>,
    /// Jobs that are pending.
    pub pending: Vec<(f64, f64)>,
}

/// Simulates until the last task has ended and no more jobs are left than the minimum, two hours after it at the
/// latest. Given up 20 days after the time within which one job alone would have done all at half its speed. The settings must have a pool; others than the first are not used.
pub fn run(scenario: &Scenario, queue: Box<dyn queue::Queue>, policy: &mut dyn policy::Policy) -> Run {
    world::World::new(scenario, queue, policy).run()
}
