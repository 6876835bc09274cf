//! What the ledger says to the rest: orders for the backend, notices for core and people.

use crate::adapt::{Decision, Submission};
use crate::backends::{JobRef, Submit};
use crate::runtime::ids::{JobName, JobSeq};

/// Something the server must do, after the records it rests on are durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Run the submit command.
    Submit(Submit),
    /// Query these jobs.
    List(Vec<JobRef>),
    /// Look for all jobs of this cluster by name.
    Find,
    /// Ask accounting.
    Account(Vec<JobRef>),
    /// Cancel these.
    Cancel(Vec<JobRef>),
    /// Ask when jobs of these pools and walltimes would start; from the scaling loop, not from the ledger.
    Expect(Vec<(String, u64)>),
    /// Ask the job's worker to leave when its tasks are done.
    Drain(JobSeq),
    /// Look whether the job script wrote its end.
    ReadSentinels(Vec<(JobSeq, JobName)>),
}

/// What others must know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A line for people, and for `events`.
    Event {
        /// Kind, for programs.
        kind: &'static str,
        /// The job.
        job: Option<JobSeq>,
        /// The sentence.
        text: String,
    },
    /// Nothing runs in this job any more.
    Over {
        /// The job.
        job: JobSeq,
        /// Whether its end was planned (then its tasks are innocent).
        planned: bool,
    },
    /// The backend says that the job is over, yet its worker is connected: it must leave.
    Dismiss {
        /// The job.
        job: JobSeq,
    },
    /// The batch system says how much time is left.
    TimeLeft {
        /// The job.
        job: JobSeq,
        /// Seconds.
        seconds: u64,
    },
}

/// What [`super::Ledger::plan`] must know of the rest.
#[derive(Clone, Debug, Default)]
pub struct Situation {
    /// Whether there is unfinished work.
    pub work: bool,
    /// Up jobs, least loaded first, for draining.
    pub drain_first: Vec<JobSeq>,
    /// What the scaling loop wants, while it decides; ignored while a number of jobs is held.
    pub scaling: Scaling,
}

/// What the scaling loop wants done now. It is a wish: what cannot be done is asked for again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scaling {
    /// Jobs to submit.
    pub submit: Vec<Wish>,
    /// Jobs to cancel, unless their workers are up.
    pub cancel: Vec<JobSeq>,
    /// Jobs to drain.
    pub drain: Vec<JobSeq>,
}

/// Jobs of one shape to submit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// The pool.
    pub pool: String,
    /// Walltime, where it is to be other than that of the pool.
    pub walltime_seconds: Option<u64>,
    /// How many.
    pub jobs: u32,
}

impl From<&Submission> for Wish {
    fn from(some: &Submission) -> Self {
        let walltime_seconds = some.walltime.map(|seconds| seconds.ceil() as u64);
        Self { pool: some.pool.clone(), walltime_seconds, jobs: some.jobs }
    }
}

impl From<&Decision> for Scaling {
    fn from(decision: &Decision) -> Self {
        let jobs = |ids: &[u32]| ids.iter().map(|id| JobSeq(*id)).collect();
        Self {
            submit: decision.submit.iter().map(Wish::from).collect(),
            cancel: jobs(&decision.cancel),
            drain: jobs(&decision.drain),
        }
    }
}
