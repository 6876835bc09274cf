//! The way to the journal and back: the state as compact ranges, and its replay.
//!
//! Called by `server` at start and when it writes a base. Replay has no consequences: what an end
//! caused has records of its own. What was running is ready again, and its workers bring it back.

use super::arrays::Array;
use super::tasks::Ripples;
use super::{Action, End, Scheduler, Shape, SubmitError};
use crate::runtime::ids::{ArrayId, TaskId};

/// Why a journal makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RestoreError {
    /// A record is about a task that was never submitted.
    #[error("the journal speaks of a task that it never introduced: submission {}, position {}", .0.array, .0.element)]
    UnknownTask(TaskId),
    /// A submission comes before an earlier one, or twice.
    #[error("submission {0} is out of order in the journal")]
    OutOfOrder(ArrayId),
    /// A submission that could not have been accepted.
    #[error("submission {array} in the journal is impossible: {reason}")]
    Impossible {
        /// The submission.
        array: ArrayId,
        /// What is wrong with it.
        reason: SubmitError,
    },
}

/// One submission as the journal's base keeps it.
#[derive(Clone, Copy, Debug)]
pub struct ArrayView<'a> {
    scheduler: &'a Scheduler,
    array: &'a Array,
}

impl<'a> ArrayView<'a> {
    /// Returns its id.
    pub fn id(&self) -> ArrayId {
        self.array.id
    }
    /// Returns the shape it was submitted with.
    pub fn shape(&self) -> Shape {
        let class = self.scheduler.ready.class(self.array.class);
        self.array.shape(&class.needs, class.time_request, class.family)
    }
    /// Returns the final states: first element, last element, end; elements in no range have none.
    pub fn ends(&self) -> impl Iterator<Item = (u32, u32, End)> + 'a {
        let array = self.array;
        let mut element = 0;
        std::iter::from_fn(move || {
            while element < array.count {
                let first = element;
                let last = array.end_of_stretch(first);
                element = last + 1;
                if let Some(end) = array.end(first) {
                    return Some((first, last, end));
                }
            }
            None
        })
    }
    /// Returns the lost workers that count against elements, where there are any.
    pub fn losses(&self) -> impl Iterator<Item = (u32, u8)> + 'a {
        self.array.losses()
    }
    /// Returns the retries that elements have used, where there are any.
    pub fn retries(&self) -> impl Iterator<Item = (u32, u32)> + 'a {
        self.array.retries()
    }
}

impl Scheduler {
    /// Returns all submissions in order, to be restored in that order.
    pub fn arrays(&self) -> impl Iterator<Item = ArrayView<'_>> {
        self.arrays.iter().map(|array| ArrayView { scheduler: self, array })
    }

    /// Returns one submission; `None` if there is no such thing.
    pub fn array_view(&self, array: ArrayId) -> Option<ArrayView<'_>> {
        let slot = self.slot(array)?;
        Some(ArrayView { scheduler: self, array: self.array(slot) })
    }

    /// Adds a submission of the journal. It stands still until [`Scheduler::finish_restore`].
    ///
    /// # Errors
    ///
    /// If the submission is out of order or could not have been accepted.
    pub fn restore_array(&mut self, array: ArrayId, shape: Shape) -> Result<(), RestoreError> {
        if self.arrays.last().is_some_and(|last| last.id >= array) {
            return Err(RestoreError::OutOfOrder(array));
        }
        self.validate(&shape).map_err(|reason| RestoreError::Impossible { array, reason })?;
        self.add(array, shape);
        Ok(())
    }

    /// Gives a task its final state.
    ///
    /// # Errors
    ///
    /// If there is no such task.
    pub fn restore_end(&mut self, task: TaskId, end: End) -> Result<(), RestoreError> {
        self.restore_ends(task.array, task.element, task.element, end)
    }

    /// Gives the elements `first..=last` their final state.
    ///
    /// # Errors
    ///
    /// If there are no such tasks.
    pub fn restore_ends(&mut self, array: ArrayId, first: u32, last: u32, end: End) -> Result<(), RestoreError> {
        let slot = self.restored(TaskId { array, element: last })?;
        self.change(slot, |array| {
            for element in first..=last {
                array.finish(element, end.clone());
            }
        });
        Ok(())
    }

    /// Takes the final state of a task away again; nothing if it has none.
    ///
    /// # Errors
    ///
    /// If there is no such task.
    pub fn restore_revived(&mut self, task: TaskId) -> Result<(), RestoreError> {
        let slot = self.restored(task)?;
        if self.array(slot).is_bad(task.element) {
            self.change(slot, |array| array.revive(task.element));
        }
        Ok(())
    }

    /// Counts a lost worker against a task; nothing if it has ended.
    ///
    /// # Errors
    ///
    /// If there is no such task.
    pub fn restore_loss(&mut self, task: TaskId) -> Result<(), RestoreError> {
        self.restore_mark(task, Array::add_loss)
    }

    /// Uses up a retry of a task; nothing if it has ended.
    ///
    /// # Errors
    ///
    /// If there is no such task.
    pub fn restore_retry(&mut self, task: TaskId) -> Result<(), RestoreError> {
        self.restore_mark(task, Array::add_retry)
    }

    fn restore_mark(&mut self, task: TaskId, mark: impl FnOnce(&mut Array, u32)) -> Result<(), RestoreError> {
        let slot = self.restored(task)?;
        if !self.array(slot).cell(task.element).is_final() {
            self.change(slot, |array| mark(array, task.element));
        }
        Ok(())
    }

    fn restored(&self, task: TaskId) -> Result<u32, RestoreError> {
        self.locate(task).ok_or(RestoreError::UnknownTask(task))
    }

    /// Ends the replay: finds out what waits for what. A journal that ends in the middle of what a
    /// failure or a retry did to others gives actions that complete it; a whole one gives none.
    pub fn finish_restore(&mut self, actions: &mut Vec<Action>) {
        let mut ripples = Ripples::new();
        // In order of submission: what an array waits for has been dealt with before.
        for slot in 0..self.arrays.len() as u32 {
            match self.link(slot) {
                Some(cause) => self.end_idle(slot, cause, actions, &mut ripples),
                None => self.revive_dependents(slot, actions, &mut ripples),
            }
        }
    }
}
