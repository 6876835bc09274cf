//! Answers about the state: numbers, tasks, workers, demand.
//!
//! Called by `server` for people and for scaling; nothing here changes anything.

use super::arrays::{Array, Cell};
use super::tasks::Standing;
use super::{End, Lasted, Millis, Scheduler};
use crate::runtime::ids::{ArrayId, RunId, TaskId, WorkerId};
use crate::runtime::protocol::{Capacity, Needs, TaskRef};

/// Numbers of tasks by what they are doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Waiting for their dependencies.
    pub waiting: u64,
    /// Ready to run.
    pub ready: u64,
    /// On a worker.
    pub running: u64,
    /// Ended with success.
    pub finished: u64,
    /// Failed by themselves, or poisonous.
    pub failed: u64,
    /// Cancelled, or ended because a dependency failed.
    pub cancelled: u64,
}

impl Counts {
    /// Returns how many have not ended.
    pub fn unfinished(&self) -> u64 {
        self.waiting + self.ready + self.running
    }
    fn pairs<'a>(&'a mut self, other: &'a Self) -> [(&'a mut u64, u64); 6] {
        [
            (&mut self.waiting, other.waiting),
            (&mut self.ready, other.ready),
            (&mut self.running, other.running),
            (&mut self.finished, other.finished),
            (&mut self.failed, other.failed),
            (&mut self.cancelled, other.cancelled),
        ]
    }
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, part) in self.pairs(other) {
            *sum += part;
        }
    }
    pub(super) fn subtract(&mut self, other: &Self) {
        for (sum, part) in self.pairs(other) {
            *sum -= part;
        }
    }
}

/// What a task is doing; the same divisions as [`Counts`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Waiting for its dependencies.
    Waiting,
    /// Ready to run.
    Ready,
    /// On a worker.
    Running,
    /// Ended with success.
    Finished,
    /// Failed by itself, or poisonous.
    Failed,
    /// Cancelled, or ended because a dependency failed.
    Cancelled,
}

/// What a task is doing, with the details.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskState {
    /// Waiting.
    Waiting {
        /// The first dependency that has not finished.
        on: TaskRef,
    },
    /// Ready; [`Scheduler::explain_ready`] says why it does not run.
    Ready,
    /// On a worker.
    Running {
        /// Which.
        worker: WorkerId,
        /// Its run.
        run: RunId,
        /// Whether it has its process.
        started: bool,
    },
    /// Ended.
    Ended(End),
}

impl TaskState {
    /// Returns the kind it counts as.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Waiting { .. } => Kind::Waiting,
            Self::Ready => Kind::Ready,
            Self::Running { .. } => Kind::Running,
            Self::Ended(End::Finished) => Kind::Finished,
            Self::Ended(End::Failed(_) | End::Poisonous) => Kind::Failed,
            Self::Ended(End::Cancelled | End::DependencyFailed(_)) => Kind::Cancelled,
        }
    }
}

/// What is on a worker and what is free there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerLoad {
    /// Runs that occupy it, those that were told to end included.
    pub running: usize,
    /// What it could still take, were it to take anything.
    pub free: Capacity,
    /// Whether it takes new tasks.
    pub accepts: bool,
}

/// Ready tasks that ask for the same.
#[derive(Clone, PartialEq, Debug)]
pub struct Demand<'a> {
    /// What each needs.
    pub needs: &'a Needs,
    /// Milliseconds that must be left on the worker.
    pub time_request: Option<Millis>,
    /// Their family.
    pub family: u32,
    /// How many could start now, were there room.
    pub tasks: u64,
    /// How many more the counters allow now, in the best variant; `None` = any number.
    pub counters_allow: Option<u64>,
    /// How long those that ended ran.
    pub lasted: Lasted,
}

impl Scheduler {
    /// Returns the numbers of a submission or of one task; `None` if there is no such thing.
    pub fn counts(&self, tasks: TaskRef) -> Option<Counts> {
        let task = match tasks {
            TaskRef::Array(array) => return Some(self.array(self.slot(array)?).counts()),
            TaskRef::Task(task) => task,
        };
        let mut counts = Counts::default();
        *match self.state(task)?.kind() {
            Kind::Waiting => &mut counts.waiting,
            Kind::Ready => &mut counts.ready,
            Kind::Running => &mut counts.running,
            Kind::Finished => &mut counts.finished,
            Kind::Failed => &mut counts.failed,
            Kind::Cancelled => &mut counts.cancelled,
        } = 1;
        Some(counts)
    }

    /// Returns the numbers of all tasks.
    pub fn totals(&self) -> Counts {
        self.totals
    }

    /// Returns how many tasks have not ended.
    pub fn unfinished(&self) -> u64 {
        self.totals.unfinished()
    }

    /// Whether all tasks have ended and nothing is on a worker.
    pub fn is_idle(&self) -> bool {
        self.unfinished() == 0 && self.fleet.iter().all(|(_, w)| w.runs().is_empty() && w.waiting().is_empty())
    }

    /// Returns what a task is doing; `None` if there is no such task.
    pub fn state(&self, task: TaskId) -> Option<TaskState> {
        let array = self.array(self.locate(task)?);
        Some(self.state_in(array, task.element))
    }

    fn state_in(&self, array: &Array, element: u32) -> TaskState {
        if let Some(end) = array.end(element) {
            return TaskState::Ended(end);
        }
        if array.cell(element) != Cell::IDLE
            && let Some((worker, run)) = self.running.get(&array.task(element))
        {
            let entry = self.fleet.get(*worker).and_then(|w| w.runs().get(run));
            return match entry {
                Some(entry) => TaskState::Running { worker: *worker, run: *run, started: entry.started },
                // It waits there for room.
                None => TaskState::Ready,
            };
        }
        let mut unmet = array.after.iter();
        match unmet.find(|d| self.standing(**d) != Standing::Met) {
            Some(on) if array.unmet > 0 => TaskState::Waiting { on: *on },
            _ => TaskState::Ready,
        }
    }

    /// Returns the tasks of a submission of one kind (all if `None`), from element `from` on.
    pub fn tasks(
        &self,
        array: ArrayId,
        from: u32,
        limit: usize,
        kind: Option<Kind>,
    ) -> impl Iterator<Item = (TaskId, TaskState)> {
        let array = self.slot(array).map(|slot| self.array(slot));
        let elements =
            array.into_iter().flat_map(move |array| (from..array.count).map(move |element| (array, element)));
        let states = elements.map(|(array, element)| (array.task(element), self.state_in(array, element)));
        states.filter(move |(_, state)| kind.is_none_or(|kind| state.kind() == kind)).take(limit)
    }

    /// Returns the runs that occupy a worker, those that were told to end included.
    pub fn running_on(&self, worker: WorkerId) -> impl Iterator<Item = (TaskId, RunId)> {
        let runs = self.fleet.get(worker).into_iter().flat_map(|w| w.runs());
        runs.map(|(run, entry)| (entry.task, *run))
    }

    /// Returns what is on a worker; `None` if it is unknown.
    pub fn worker_load(&self, worker: WorkerId) -> Option<WorkerLoad> {
        self.fleet.get(worker).map(|worker| WorkerLoad {
            running: worker.runs().len(),
            free: worker.room.free(),
            accepts: worker.accepts(),
        })
    }

    /// Returns all classes that ever were, by number, also those of which no task is ready.
    pub fn classes(&self) -> impl Iterator<Item = Demand<'_>> {
        self.ready.classes().iter().zip(0_u32..).map(|(class, number)| {
            let room = self.ready.counter_room(number, 0);
            Demand {
                needs: &class.needs,
                time_request: class.time_request,
                family: class.family,
                tasks: class.startable(),
                counters_allow: (room < u32::MAX).then_some(u64::from(room)),
                lasted: class.lasted(),
            }
        })
    }

    /// Returns the tasks that occupy a worker with the numbers of their classes, as in [`Scheduler::classes`].
    pub fn classes_on(&self, worker: WorkerId) -> impl Iterator<Item = (TaskId, u32)> {
        let runs = self.fleet.get(worker).into_iter().flat_map(|w| w.runs());
        runs.map(|(_, entry)| (entry.task, entry.class))
    }
}
