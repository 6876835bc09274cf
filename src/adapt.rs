//! How many jobs there should be: what is seen comes in, what to do and why goes out. Pure.
//!
//! The server, `dcluster simulate` and `dcluster simulate --stdio` drive the same [`Controller`]. It is
//! level-triggered: every [`Observation`] holds the whole situation, so nothing is lost when one is missed.
//! All times are seconds on one monotonic clock of the caller, whose zero means nothing.
//!
//! This file holds what goes in and out; `controller` is the order of the decisions, `demand` how much work
//! there is and where it fits, `pool` what is known and wanted of the jobs of one shape, `waits` how long they
//! wait, `idle` when a job without tasks is given up, `pack` how many jobs ready tasks would fill, `words` the
//! sentences, `ring` the decisions that `explain` shows.

mod controller;
mod demand;
mod idle;
mod pack;
mod pool;
mod ring;
mod waits;
mod words;

#[cfg(test)]
mod tests;

pub use controller::Controller;
pub use ring::{Entry, Ring};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Shortest drain lead of a job with a walltime of its own, in seconds, and its share of that walltime.
const LEAD_MIN: f64 = 30.0;
const LEAD_SHARE: f64 = 0.1;

/// Name of the pool where none is said.
pub const DEFAULT_POOL: &str = "default";

/// The situation at one moment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// Now, in seconds.
    pub now: f64,
    /// Unfinished tasks that are ready or running, by class; tasks that wait for others are no demand.
    #[serde(default)]
    pub classes: Vec<TaskClass>,
    /// Every job that may exist.
    #[serde(default)]
    pub jobs: Vec<JobView>,
    /// How many jobs may be submitted now, as failures and limits of the site allow; `None` = any number.
    #[serde(default)]
    pub submit_max: Option<u32>,
    /// Why not more, in words.
    #[serde(default)]
    pub submit_limited_by: Option<String>,
    /// What the batch system itself expects of a job submitted now.
    #[serde(default)]
    pub expected_waits: Vec<ExpectedWait>,
}

/// A wait that the batch system expects (`sbatch --test-only`). Taken for what half of the jobs wait, while
/// too few have been seen.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedWait {
    /// The pool.
    #[serde(default = "default_pool")]
    pub pool: String,
    /// Seconds of walltime asked about; that of the pool if absent.
    #[serde(default)]
    pub walltime: Option<f64>,
    /// Seconds in the queue.
    pub wait: f64,
}

/// Tasks that are alike: same command template, same needs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskClass {
    /// Name; what is learned of its durations is kept under it.
    pub name: String,
    /// Cores of one task.
    #[serde(default = "one")]
    pub cores: u32,
    /// Memory of one task in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// GPUs of one task, in thousandths.
    #[serde(default)]
    pub gpu_thousandths: u32,
    /// Jobs that one task occupies together.
    #[serde(default = "one")]
    pub nodes: u32,
    /// Tasks that could start now, were there room.
    #[serde(default)]
    pub ready: u64,
    /// Tasks that wait for others: no demand, but a sign that more is to come.
    #[serde(default)]
    pub waiting: u64,
    /// Tasks that may run at once, of those that are ready and those that run; `None` = all.
    #[serde(default)]
    pub at_once_max: Option<u64>,
    /// Tasks that run.
    #[serde(default)]
    pub running: Vec<RunningTasks>,
    /// Seconds of walltime that a task asks for.
    #[serde(default)]
    pub time_request: Option<f64>,
    /// How long ended tasks of the class ran.
    #[serde(default)]
    pub durations: Durations,
}

/// Tasks of one class that run in one job.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunningTasks {
    /// The job.
    pub job: u32,
    /// How many.
    #[serde(default = "one")]
    pub tasks: u32,
    /// Seconds that they have been running, on average.
    pub elapsed: f64,
}

/// How long tasks that ended ran, in seconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Durations {
    /// How many have ended; 0 = nothing is known.
    pub ended: u64,
    /// Runs that the end of a walltime cut although they had most of it. They are in `mean`, `p90` and
    /// `longest` with half as much again as they ran, and not in `ended`.
    #[serde(default)]
    pub cut: u64,
    /// Mean.
    pub mean: f64,
    /// What nine of ten do not exceed.
    pub p90: f64,
    /// The longest.
    pub longest: f64,
}

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobPhase {
    /// Asked for; not started as far as anybody knows.
    Pending,
    /// Started; its worker has not connected yet.
    Started,
    /// Its worker is (or was, and is silent) connected.
    Up,
}

/// One job that may exist.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobView {
    /// Its number: larger = asked for later.
    pub id: u32,
    /// Its pool.
    #[serde(default = "default_pool")]
    pub pool: String,
    /// Where it stands.
    pub phase: JobPhase,
    /// It leaves, by our will or because its walltime nears: it takes no new task.
    #[serde(default)]
    pub leaving: bool,
    /// When it was submitted, if known.
    #[serde(default)]
    pub submitted_at: Option<f64>,
    /// When it started, if known.
    #[serde(default)]
    pub started_at: Option<f64>,
    /// When its worker connected, if known.
    #[serde(default)]
    pub up_at: Option<f64>,
    /// When its walltime ends, if known.
    #[serde(default)]
    pub ends_at: Option<f64>,
    /// Seconds of walltime it was asked for with; that of the pool if absent.
    #[serde(default)]
    pub walltime: Option<f64>,
    /// Tasks on it; those that were told to end included.
    #[serde(default)]
    pub tasks: u32,
    /// Since when it has had no task; absent while it has one.
    #[serde(default)]
    pub idle_since: Option<f64>,
    /// Its worker is cut off, or the backend says nothing usable of it.
    #[serde(default)]
    pub silent: bool,
}

/// What the user asked for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Jobs there always are.
    pub min: u32,
    /// Jobs there never are more of.
    pub max: u32,
    /// Share of a new job's time that must be useful, 0.05 to 0.95.
    #[serde(default = "balanced")]
    pub efficiency: f64,
    /// Seconds after which an idle job is given up; `None` = learned.
    #[serde(default)]
    pub idle_timeout: Option<f64>,
    /// Jobs that may be pending at once.
    #[serde(default)]
    pub max_pending: Option<u32>,
    /// Jobs that may be submitted in a minute.
    #[serde(default)]
    pub rate_per_minute: Option<f64>,
    /// The job shapes there are to choose from, the preferred one first.
    pub pools: Vec<PoolShape>,
    /// Seed of the random thresholds.
    #[serde(default)]
    pub seed: u64,
}

/// The shape of the jobs of one pool.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolShape {
    /// Name.
    #[serde(default = "default_pool")]
    pub name: String,
    /// Cores of one job.
    pub cores: u32,
    /// Memory of one job in bytes; `None` = never the limit.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// GPUs of one job.
    #[serde(default)]
    pub gpus: u32,
    /// Walltime of one job in seconds; `None` = no limit.
    #[serde(default)]
    pub walltime: Option<f64>,
    /// Seconds before the end of the walltime at which a job takes no new task.
    #[serde(default = "drain_lead")]
    pub drain_lead: f64,
    /// Walltimes to choose from, in seconds, when the walltime is to be found (`--walltime auto`);
    /// `walltime` is then the longest.
    #[serde(default)]
    pub walltime_choices: Vec<f64>,
}

/// What to do, and why.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Decision {
    /// The moment of the observation, in seconds.
    pub now: f64,
    /// Jobs to submit.
    pub submit: Vec<Submission>,
    /// Pending jobs to cancel.
    pub cancel: Vec<u32>,
    /// Jobs to drain: they finish what they run, take nothing new and leave.
    pub drain: Vec<u32>,
    /// Classes that no job could ever run, each with a sentence that says what would.
    pub parked: Vec<Parked>,
    /// What decided.
    pub rule: Rule,
    /// The decision in a sentence.
    pub reason: String,
    /// What it rests on.
    pub numbers: Numbers,
    /// Observe again by then at the latest, in seconds.
    pub next: f64,
}

/// Jobs of one pool to submit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Submission {
    /// The pool.
    pub pool: String,
    /// How many.
    pub jobs: u32,
    /// Seconds of walltime, where it is to be other than that of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walltime: Option<f64>,
}

/// A class of tasks that no job could ever run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Parked {
    /// The class.
    pub class: String,
    /// How many of its tasks are ready.
    pub tasks: u64,
    /// Why, and what would make them run.
    pub reason: String,
}

/// What decided; the first that applies names the decision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// There are more jobs than the maximum allows.
    AboveMax,
    /// There are fewer jobs than the minimum.
    BelowMin,
    /// Tasks are ready and there is no job at all.
    FirstJob,
    /// There is enough work for more jobs.
    MoreWork,
    /// Pending jobs have been superfluous for long enough.
    SurplusPending,
    /// A job has been idle for long enough.
    Idle,
    /// A job has too little time left for any task there is.
    TooLittleTime,
    /// More jobs would be useful, and something forbids them.
    Held,
    /// Nothing to do.
    #[default]
    Steady,
}

/// What a decision rests on. Times in seconds, work in seconds of whole jobs.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Numbers {
    /// Ready tasks that some job could run.
    pub ready: u64,
    /// Tasks that run.
    pub running: u64,
    /// Jobs that are pending, started, up and leaving.
    pub pending: u32,
    /// Started without a worker.
    pub started: u32,
    /// With a worker, not leaving.
    pub up: u32,
    /// Leaving.
    pub leaving: u32,
    /// Of those up: without a task.
    pub idle: u32,
    /// Work there is.
    pub work: f64,
    /// Work that the jobs there are will do before a new job could be useful.
    pub cover: f64,
    /// Jobs that the work is worth, beyond those there are.
    pub by_work: u32,
    /// Jobs that ready tasks could fill, beyond those there are.
    pub by_width: u32,
    /// Wait in the queue: one in four jobs waits less.
    pub wait_p25: f64,
    /// Half of them wait less.
    pub wait_p50: f64,
    /// From start to worker.
    pub startup: f64,
    /// What a new job must do to be worth its start-up.
    pub useful_life: f64,
    /// Pending jobs more than needed.
    pub surplus: u32,
    /// Idle time at which the job that has been idle longest is given up.
    pub idle_threshold: f64,
}

impl TaskClass {
    /// Returns a class of one-core tasks, none of which is ready, runs or has ended.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            cores: one(),
            memory_bytes: 0,
            gpu_thousandths: 0,
            nodes: one(),
            ready: 0,
            waiting: 0,
            at_once_max: None,
            running: Vec::new(),
            time_request: None,
            durations: Durations::default(),
        }
    }
}

impl Settings {
    /// Returns what holds where only the bounds and the pools are said.
    pub fn new(min: u32, max: u32, pools: Vec<PoolShape>) -> Self {
        Self {
            min,
            max,
            efficiency: balanced(),
            idle_timeout: None,
            max_pending: None,
            rate_per_minute: None,
            pools,
            seed: 0,
        }
    }
}

impl PoolShape {
    /// Returns how long before its end a job takes no new task, in seconds. A job with a walltime of its own has a
    /// lead of its own: a tenth of it, but no less than 30 s, and no more than that of the pool.
    pub fn lead(&self, walltime: Option<f64>) -> f64 {
        walltime.map_or(self.drain_lead, |walltime| self.drain_lead.min((walltime * LEAD_SHARE).max(LEAD_MIN)))
    }

    /// Returns the shape of jobs of which only the cores are said.
    pub fn new(cores: u32) -> Self {
        Self {
            name: default_pool(),
            cores,
            memory_bytes: None,
            gpus: 0,
            walltime: None,
            drain_lead: drain_lead(),
            walltime_choices: Vec::new(),
        }
    }
}

fn one() -> u32 {
    1
}

fn default_pool() -> String {
    DEFAULT_POOL.to_owned()
}

fn balanced() -> f64 {
    0.65
}

fn drain_lead() -> f64 {
    60.0
}

/// What was learned, to be kept over restarts and for later clusters of the same backend and queue.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Learned {
    /// By pool.
    #[serde(default)]
    pub pools: BTreeMap<String, LearnedPool>,
    /// Durations by class.
    #[serde(default)]
    pub durations: BTreeMap<String, Durations>,
}

/// What was learned of the jobs of one pool. All in seconds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct LearnedPool {
    /// The last waits in the queue, oldest first, with the walltime asked for.
    #[serde(default)]
    pub waits: Vec<(f64, f64)>,
    /// From start to worker, smoothed.
    #[serde(default)]
    pub startup: Option<f64>,
    /// The last times without a task between two tasks of a job, oldest first.
    #[serde(default)]
    pub gaps: Vec<f64>,
    /// What idling and new jobs have cost, and what they would have cost whoever knows the future.
    #[serde(default)]
    pub paid: f64,
    /// See `paid`.
    #[serde(default)]
    pub clairvoyant: f64,
}
