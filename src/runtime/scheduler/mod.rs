//! The task scheduler: which task runs on which worker. Pure: time comes in, actions go out.
//!
//! Called by `server` (real) and by tests (simulated). Invariants: a worker is never over-committed,
//! no task runs before its dependencies finished with success, none is lost or in two places, and a
//! ready task that fits an idle worker runs. Nothing happens by the passing of time alone: every
//! change follows from an event, so there is no wake-up to ask for.
//!
//! This file holds what goes in and out; `arrays` is the record of a submission, `ready` the queues and classes,
//! `durations` what was learned of them, `workers` the fleet, `room` what is free on a worker, `tasks` what
//! happens to tasks, `runs` what workers report, `placement` who goes where, `ahead` what waits at workers,
//! `teams` tasks on several workers, `restore` the way to and from the journal, `query` and `explain` the answers.

mod ahead;
mod arrays;
mod durations;
mod explain;
mod placement;
mod query;
mod ready;
mod restore;
mod room;
mod runs;
mod tasks;
mod teams;
mod workers;

#[cfg(test)]
mod invariants;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use durations::Lasted;
pub use query::{Counts, Demand, Kind, TaskState, WorkerLoad};
pub use restore::{ArrayView, RestoreError};

use super::ids::{ArrayId, RunId, TaskId, WorkerId};
use super::protocol::{Capacity, HeldRun, Needs, Outcome, Place, TaskRef};
use arrays::Array;
use ready::Ready;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use teams::Team;
use workers::Fleet;

/// Milliseconds on the caller's monotonic clock.
pub type Millis = u64;

/// Distinct requests; the time to place a task grows with their number.
pub const CLASSES_MAX: usize = 4_096;

/// What the scheduler needs to know of a submission.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Number of elements, at least 1.
    pub count: u32,
    /// What each of them needs.
    pub needs: Needs,
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
    /// Tasks of one family are taken to run about as long; 0 = of none.
    pub family: u32,
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
    /// A worker is here (new, or back after a reconnect with what it still runs). A run the scheduler
    /// does not know, of a task that is ready, is adopted: its start was not recorded before the
    /// server restarted. Other runs it does not expect there are answered with [`Action::Kill`];
    /// runs it expects there and that are not listed go back to ready without using up a retry.
    WorkerJoined {
        /// The worker.
        worker: WorkerId,
        /// What it offers.
        capacity: Capacity,
        /// When its walltime ends.
        ends_at: Option<Millis>,
        /// Runs in progress there, and those that have ended but whose report is not recorded yet:
        /// their [`Event::RunEnded`] follows, and must find them expected.
        running: Vec<HeldRun>,
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
        /// Milliseconds it ran, by the worker's account.
        wall: Millis,
    },
    /// Cancel what has not ended. A running task is `Cancelled` at once and its run gets a
    /// [`Action::Kill`]; the run occupies its worker until its end is reported, whatever that is.
    Cancel {
        /// Which.
        tasks: Vec<TaskRef>,
    },
    /// Run failed and poisonous tasks again with all their retries, and those that ended because
    /// these had failed, once none of their dependencies is failed any more.
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
        /// Which variant of what it needs.
        variant: u8,
        /// Its line on the worker: runs that hand their room over to each other.
        line: u32,
        /// It starts when a run of its line ends, not at once.
        waits: bool,
        /// What exactly it gets, as far as that can be told apart. The names of its nodes are left empty.
        place: Place,
    },
    /// Ask for this run back if it still waits. Its end is then reported as interrupted.
    TakeBack {
        /// Where.
        worker: WorkerId,
        /// The task.
        task: TaskId,
        /// Its run.
        run: RunId,
    },
    /// The worker has a guest, or has it no longer: a task that runs on another one uses it, too.
    Guest {
        /// Where.
        worker: WorkerId,
        /// The run.
        run: RunId,
        /// Whether it is there.
        here: bool,
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
    /// A worker where it ran was lost, or it ran until the end of the longest walltime there is: that counts against it.
    Lost,
    /// Its worker drained, reached its walltime or was stopped, or came back without it, or its loss was planned.
    Interrupted,
}

/// A final state with its cause.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum End {
    /// Exit code 0.
    Finished,
    /// Failed by itself: the last run's outcome. `Interrupted`: for the third time it ran until the end of the longest
    /// walltime there is.
    Failed(Outcome),
    /// Three workers were lost while it ran.
    Poisonous,
    /// Somebody cancelled it.
    Cancelled,
    /// This dependency failed or was cancelled.
    DependencyFailed(TaskId),
}

/// Variants of what a task needs.
pub const VARIANTS_MAX: u8 = 16;

/// Why a submission is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SubmitError {
    /// No element.
    #[error("a submission needs at least one task")]
    Empty,
    /// No core.
    #[error("a task needs at least one core")]
    NoCores,
    /// No variant of what it needs, or too many.
    #[error("a task may say what it needs in 1 to {VARIANTS_MAX} variants, not {0}")]
    Variants(usize),
    /// No worker at all.
    #[error("a task needs at least one worker")]
    NoNodes,
    /// Several workers and several variants.
    #[error("a task that runs on several workers has one way to say what it needs on each")]
    NodesAndVariants,
    /// Too many different needs.
    #[error("a cluster distinguishes at most {CLASSES_MAX} different requests; there are as many already")]
    Classes,
    /// Nothing of it may ever run.
    #[error("at least one task of a submission must be allowed to run at a time")]
    NoneAtOnce,
    /// One more distinct request.
    #[error("the tasks of a cluster make at most {CLASSES_MAX} distinct requests (resources and time)")]
    TooManyRequests,
    /// It depends on a submission that does not exist.
    #[error("there is no task {0} to wait for")]
    UnknownArray(ArrayId),
    /// It depends on an element that does not exist.
    #[error("submission {array} has only {count} tasks, so there is none to wait for at position {element}")]
    UnknownElement {
        /// The submission.
        array: ArrayId,
        /// The position asked for, from 0.
        element: u32,
        /// How many it has.
        count: u32,
    },
}

/// The scheduler's state.
#[derive(Debug)]
pub struct Scheduler {
    /// By slot, in order of submission.
    arrays: Vec<Array>,
    ready: Ready,
    fleet: Fleet,
    /// Where each running task is.
    running: FxHashMap<TaskId, (WorkerId, RunId)>,
    totals: Counts,
    next_run: RunId,
    held: bool,
    /// Whether runs may be sent to wait at workers.
    ahead: bool,
    /// The class that waits for workers to become free enough, and those workers.
    reservation: Option<(u32, Vec<WorkerId>)>,
    /// Runs on several workers.
    teams: BTreeMap<RunId, Team>,
}

impl Scheduler {
    /// Makes an empty one; its runs are numbered from `first_run`.
    pub fn new(first_run: RunId) -> Self {
        Self {
            arrays: Vec::new(),
            ready: Ready::default(),
            fleet: Fleet::default(),
            running: FxHashMap::default(),
            totals: Counts::default(),
            next_run: first_run,
            held: false,
            ahead: true,
            reservation: None,
            teams: BTreeMap::new(),
        }
    }

    /// Whether runs may be sent to workers to wait there for room (the default).
    pub fn allow_ahead(&mut self, allowed: bool) {
        self.ahead = allowed;
    }

    /// Whether tasks of which little is known, and that ask for no time, keep off workers with little walltime left
    /// (not the default): somebody sees to it that there are others.
    pub fn set_cautious(&mut self, cautious: bool) {
        self.ready.set_cautious(cautious);
        self.fleet.version += 1;
    }

    /// Takes in one event, then places what is ready.
    pub fn step(&mut self, event: Event, now: Millis) -> Vec<Action> {
        let mut actions = Vec::new();
        self.apply(event, now, &mut actions);
        self.schedule(now, &mut actions);
        actions
    }

    /// Takes in one event; nothing is assigned before [`Scheduler::schedule`], which is called once
    /// per batch of events.
    ///
    /// # Panics
    ///
    /// If a submission is applied that [`Scheduler::validate`] refuses, or out of order.
    pub fn apply(&mut self, event: Event, now: Millis, actions: &mut Vec<Action>) {
        match event {
            Event::Submit { array, shape } => self.submit(array, shape, actions),
            Event::WorkerJoined { worker, capacity, ends_at, running } => {
                let ready = &self.ready;
                let request = |run: &workers::Run| ready.class(run.class).needs.variant(run.variant).clone();
                self.fleet.join(worker, capacity, ends_at, now, request);
                self.seat_guests(worker);
                self.reconcile(worker, &running, actions);
            }
            Event::WorkerEndsAt { worker, ends_at } => {
                self.fleet.update(worker, |w| w.ends_at = ends_at);
            }
            Event::WorkerDrains { worker } => self.fleet.update(worker, |w| w.draining = true),
            Event::WorkerSilent { worker } => self.fleet.update(worker, |w| w.silent = true),
            Event::WorkerLost { worker, counts } => self.lose(worker, counts, actions),
            Event::RunStarted { task, run } => self.mark_started(task, run),
            Event::RunEnded { worker, task, run, outcome, wall } => {
                self.end_run(worker, task, run, outcome, wall, actions);
            }
            Event::Cancel { tasks } => self.cancel(&tasks, actions),
            Event::Retry { tasks } => self.retry(&tasks, actions),
            Event::Hold(held) => self.held = held,
            Event::Counters(totals) => {
                self.ready.set_totals(&totals);
                self.fleet.version += 1;
            }
            Event::Tick => {}
        }
    }
}
