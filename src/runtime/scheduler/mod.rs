//! The task scheduler: which task runs on which worker. Pure: time comes in, actions go out.
//!
//! Called by `server` (real) and by tests (simulated). Invariants: a worker is never over-committed,
//! no task runs before its dependencies finished with success, none is lost or in two places, and a
//! ready task that fits an idle worker runs.

use super::ids::{ArrayId, RunId, TaskId, WorkerId};
use super::protocol::{Capacity, Outcome, Request, TaskRef};
use std::collections::BTreeMap;

/// Milliseconds on the caller's monotonic clock.
pub type Millis = u64;

/// What the scheduler needs to know of a submission.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Number of elements, at least 1.
    pub count: u32,
    /// What each of them needs.
    pub request: Request,
    /// Larger first.
    pub priority: i32,
    /// Own failures that are forgiven.
    pub retries: u32,
    /// Milliseconds that must be left on the worker.
    pub time_request: Option<Millis>,
    /// All of these must have finished with success.
    pub after: Vec<TaskRef>,
    /// Elements that may run at once.
    pub at_most: Option<u32>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A submission was accepted. `array` is larger than every earlier one.
    Submit {
        /// Its id.
        array: ArrayId,
        /// Its shape.
        shape: Shape,
    },
    /// A worker is here (new, or back after a reconnect with what it still runs). Runs that the scheduler does not
    /// expect there are answered with [`Action::Kill`]; runs it expects there and that are not listed
    /// go back to ready without using up a retry.
    WorkerJoined {
        /// The worker.
        worker: WorkerId,
        /// What it offers.
        capacity: Capacity,
        /// When its walltime ends.
        ends_at: Option<Millis>,
        /// Runs in progress there.
        running: Vec<(TaskId, RunId)>,
    },
    /// The walltime of a worker was learned or changed.
    WorkerEndsAt {
        /// The worker.
        worker: WorkerId,
        /// When it ends; `None` = no limit.
        ends_at: Option<Millis>,
    },
    /// The worker takes no new task.
    WorkerDrains {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker's connection is gone, but not proved dead: it keeps its runs and gets no new task.
    WorkerSilent {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker is proved gone. Its runs go back to ready without using up a retry;
    /// `counts` = its end was not planned, so each task that ran there is one step nearer to poisonous (three).
    WorkerLost {
        /// The worker.
        worker: WorkerId,
        /// Whether the loss counts against the tasks that ran there.
        counts: bool,
    },
    /// The run has its process.
    RunStarted {
        /// The task.
        task: TaskId,
        /// Its run.
        run: RunId,
    },
    /// A run ended. Ignored (no action) unless exactly this run is expected on that worker.
    RunEnded {
        /// Where.
        worker: WorkerId,
        /// The task.
        task: TaskId,
        /// Its run.
        run: RunId,
        /// How.
        outcome: Outcome,
    },
    /// Cancel what has not ended.
    Cancel {
        /// Which.
        tasks: Vec<TaskRef>,
    },
    /// Run failed tasks again, and those that were cancelled because these had failed.
    Retry {
        /// Which; failed ones among them.
        tasks: Vec<TaskRef>,
    },
    /// While held, nothing is assigned (a restarted server waits for its workers).
    Hold(bool),
    /// Totals of the cluster-wide counters.
    Counters(BTreeMap<String, u64>),
    /// Time has passed.
    Tick,
}

/// What to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Start this run.
    Assign {
        /// Where.
        worker: WorkerId,
        /// The task.
        task: TaskId,
        /// The new run.
        run: RunId,
    },
    /// End this run.
    Kill {
        /// Where.
        worker: WorkerId,
        /// The task.
        task: TaskId,
        /// Its run.
        run: RunId,
    },
    /// The task has its final state (until a retry).
    Ended {
        /// The task.
        task: TaskId,
        /// How.
        end: End,
    },
    /// The task is not final any more: it was asked to run again.
    Revived {
        /// The task.
        task: TaskId,
    },
    /// A run is over, the task will run again.
    Requeued {
        /// The task.
        task: TaskId,
        /// The run that ended.
        run: RunId,
        /// Why.
        cause: RequeueCause,
    },
}

/// Why a task runs again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequeueCause {
    /// It failed and had retries left.
    Retry,
    /// Its worker was lost.
    WorkerLost,
    /// Its worker drained, reached its walltime or was stopped.
    Interrupted,
}

/// A final state with its cause.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum End {
    /// Exit code 0.
    Finished,
    /// Failed by itself: the last run's outcome.
    Failed(Outcome),
    /// Three workers were lost while it ran.
    Poisonous,
    /// Somebody cancelled it.
    Cancelled,
    /// This dependency failed or was cancelled.
    DependencyFailed(TaskId),
}
