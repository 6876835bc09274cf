//! What happens to tasks: submitted, ended, requeued, cancelled, retried; and what that does to those
//! that wait for them.
//!
//! Called by `mod`, `runs` and `restore`. Invariants: an array with an idle element has no failed
//! dependency, and one with an element that ended because of a dependency has one.

use super::arrays::{Array, Cell};
use super::{Action, CLASSES_MAX, End, Scheduler, Shape, SubmitError, VARIANTS_MAX};
use crate::runtime::ids::{ArrayId, TaskId};
use crate::runtime::protocol::TaskRef;
use std::cmp::Reverse;
use std::ops::Range;

/// Tasks whose change concerns others: slot, element, and whether those that wait for the whole
/// array must be looked at too.
pub(super) type Ripples = Vec<(u32, u32, bool)>;

/// How a dependency stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Met,
    Pending,
    /// Because of this task.
    Failed(TaskId),
}

impl Scheduler {
    /// Checks a submission before it is accepted.
    ///
    /// # Errors
    ///
    /// If it asks for nothing, or waits for something that does not exist.
    pub fn validate(&self, shape: &Shape) -> Result<(), SubmitError> {
        if shape.count == 0 {
            return Err(SubmitError::Empty);
        }
        let needs = &shape.needs;
        if needs.variants.is_empty() || needs.variants.len() > usize::from(VARIANTS_MAX) {
            return Err(SubmitError::Variants(needs.variants.len()));
        }
        if needs.variants.iter().any(|request| request.cores == 0) {
            return Err(SubmitError::NoCores);
        }
        match needs.nodes {
            0 => return Err(SubmitError::NoNodes),
            1 => {}
            _ if needs.variants.len() > 1 => return Err(SubmitError::NodesAndVariants),
            _ => {}
        }
        if self.ready.classes().len() >= CLASSES_MAX && !self.ready.knows(needs, shape.time_request) {
            return Err(SubmitError::Classes);
        }
        if shape.at_most == Some(0) {
            return Err(SubmitError::NoneAtOnce);
        }
        for dependency in &shape.after {
            let (array, element) = match *dependency {
                TaskRef::Array(array) => (array, 0),
                TaskRef::Task(task) => (task.array, task.element),
            };
            let slot = self.slot(array);
            let slot = slot.ok_or(SubmitError::UnknownArray(array))?;
            let count = self.array(slot).count;
            if element >= count {
                return Err(SubmitError::UnknownElement { array, element, count });
            }
        }
        Ok(())
    }

    /// Adds the record of a submission; what it waits for is counted by [`Scheduler::link`].
    pub(super) fn add(&mut self, id: ArrayId, mut shape: Shape) -> u32 {
        let needs = std::mem::take(&mut shape.needs);
        let class = self.ready.intern(needs, shape.time_request, shape.family);
        let array = Array::new(id, class, &shape);
        self.totals.add(&array.counts());
        self.arrays.push(array);
        (self.arrays.len() - 1) as u32
    }

    pub(super) fn submit(&mut self, id: ArrayId, shape: Shape, actions: &mut Vec<Action>) {
        assert!(self.validate(&shape).is_ok(), "submission {id} was not validated");
        assert!(self.arrays.last().is_none_or(|last| last.id < id), "submission {id} is out of order");
        let slot = self.add(id, shape);
        let mut ripples = Ripples::new();
        if let Some(cause) = self.link(slot) {
            self.end_idle(slot, cause, actions, &mut ripples);
            self.spread(ripples, actions);
        }
    }

    /// Counts what an array waits for and enters it there; returns a dependency that has failed.
    pub(super) fn link(&mut self, slot: u32) -> Option<TaskId> {
        let mut unmet = 0;
        let mut failed = None;
        for at in 0..self.array(slot).after.len() {
            let dependency = self.array(slot).after[at];
            match self.standing(dependency) {
                Standing::Met => continue,
                Standing::Pending => {}
                Standing::Failed(cause) => failed = failed.or(Some(cause)),
            }
            unmet += 1;
            let (TaskRef::Array(on) | TaskRef::Task(TaskId { array: on, .. })) = dependency;
            let Some(on) = self.slot(on) else { continue };
            let dependents = self.arrays[on as usize].dependents_mut();
            match dependency {
                TaskRef::Array(_) => dependents.whole.push(slot),
                TaskRef::Task(task) => {
                    let waiting = dependents.elements.entry(task.element);
                    waiting.or_default().push(slot);
                }
            }
        }
        self.change(slot, |array| array.unmet = unmet);
        failed
    }

    /// Returns how a dependency stands; an unknown one is pending for ever.
    pub(super) fn standing(&self, dependency: TaskRef) -> Standing {
        let (array, element) = match dependency {
            TaskRef::Array(array) => (array, None),
            TaskRef::Task(task) => (task.array, Some(task.element)),
        };
        let Some(array) = self.slot(array).map(|slot| self.array(slot)) else {
            return Standing::Pending;
        };
        let (met, failed) = match element {
            None => (array.is_all_finished(), array.bad() > 0),
            Some(element) => (array.is_finished(element), array.is_bad(element)),
        };
        if met {
            return Standing::Met;
        }
        if !failed {
            return Standing::Pending;
        }
        let mut elements = element.map_or(0..array.count, |e| e..e + 1);
        match elements.find(|e| array.is_bad(*e)) {
            Some(element) => Standing::Failed(array.task(element)),
            None => Standing::Pending,
        }
    }

    /// Returns the slot of an array: its place counted from the first one, unless ids were skipped.
    pub(super) fn slot(&self, id: ArrayId) -> Option<u32> {
        let guess = id.0.checked_sub(self.arrays.first()?.id.0)?;
        if self.arrays.get(guess as usize).is_some_and(|a| a.id == id) {
            return Some(guess);
        }
        let found = self.arrays.binary_search_by_key(&id, |a| a.id);
        found.ok().map(|slot| slot as u32)
    }

    /// Returns the slot of a task's array if the task exists.
    pub(super) fn locate(&self, task: TaskId) -> Option<u32> {
        let slot = self.slot(task.array)?;
        (task.element < self.array(slot).count).then_some(slot)
    }

    /// Returns an array. Slots come from [`Scheduler::slot`] or the queues and never go away.
    pub(super) fn array(&self, slot: u32) -> &Array {
        &self.arrays[slot as usize]
    }

    /// Changes an array; totals and the queue of its class follow.
    pub(super) fn change<R>(&mut self, slot: u32, change: impl FnOnce(&mut Array) -> R) -> R {
        let array = &mut self.arrays[slot as usize];
        self.totals.subtract(&array.counts());
        let before = array.startable();
        let result = change(array);
        self.totals.add(&array.counts());
        let startable = array.startable();
        self.ready.count(array.class, before, startable);
        let queued = startable > 0;
        if queued != array.queued {
            array.queued = queued;
            let rank = (Reverse(array.priority), slot);
            if queued {
                self.ready.insert(array.class, rank);
            } else {
                self.ready.remove(array.class, rank);
            }
        }
        result
    }

    /// Gives a task its final state. Those that wait for it are served by [`Scheduler::spread`] if
    /// it did not finish with success, and at once if it did.
    pub(super) fn end(&mut self, slot: u32, element: u32, end: End, actions: &mut Vec<Action>, ripples: &mut Ripples) {
        let task = self.array(slot).task(element);
        let finished = end == End::Finished;
        actions.push(Action::Ended { task, end: end.clone() });
        self.change(slot, |array| array.finish(element, end));
        if self.array(slot).dependents().is_none() {
            return;
        }
        if !finished {
            ripples.push((slot, element, self.array(slot).bad() == 1));
            return;
        }
        let all = self.array(slot).is_all_finished();
        let dependents = self.arrays[slot as usize].dependents_mut();
        let mut met = dependents.elements.remove(&element).unwrap_or_default();
        if all {
            met.append(&mut dependents.whole);
        }
        for waiting in met {
            self.change(waiting, |array| array.unmet -= 1);
        }
    }

    /// Ends what waits for tasks that have failed, and what waits for that.
    pub(super) fn spread(&mut self, mut ripples: Ripples, actions: &mut Vec<Action>) {
        let mut at = 0;
        while let Some(&(slot, element, whole)) = ripples.get(at) {
            at += 1;
            let cause = self.array(slot).task(element);
            for waiting in self.waiting_for(slot, element, whole) {
                self.end_idle(waiting, cause, actions, &mut ripples);
            }
        }
    }

    fn waiting_for(&self, slot: u32, element: u32, whole: bool) -> Vec<u32> {
        let Some(dependents) = self.array(slot).dependents() else {
            return Vec::new();
        };
        let on_element = dependents.elements.get(&element);
        let mut waiting = on_element.cloned().unwrap_or_default();
        if whole {
            waiting.extend(&dependents.whole);
        }
        waiting
    }

    /// Ends the idle elements of an array whose dependency has failed.
    pub(super) fn end_idle(&mut self, slot: u32, cause: TaskId, actions: &mut Vec<Action>, ripples: &mut Ripples) {
        for element in 0..self.array(slot).count {
            if self.array(slot).tally().idle == 0 {
                return;
            }
            if self.array(slot).cell(element) == Cell::IDLE {
                self.end(slot, element, End::DependencyFailed(cause), actions, ripples);
            }
        }
    }

    /// Returns the slot and elements a reference stands for; none if there is no such thing.
    fn resolve(&self, tasks: TaskRef) -> Option<(u32, Range<u32>)> {
        match tasks {
            TaskRef::Array(array) => {
                let slot = self.slot(array)?;
                Some((slot, 0..self.array(slot).count))
            }
            TaskRef::Task(task) => Some((self.locate(task)?, task.element..task.element + 1)),
        }
    }

    pub(super) fn cancel(&mut self, tasks: &[TaskRef], actions: &mut Vec<Action>) {
        // All that were named first: what depends on one of them is then cancelled, too, not ended
        // by its dependency.
        let mut ripples = Ripples::new();
        for tasks in tasks {
            let Some((slot, elements)) = self.resolve(*tasks) else {
                continue;
            };
            for element in elements {
                if self.array(slot).is_all_final() {
                    break;
                }
                if self.array(slot).cell(element).is_final() {
                    continue;
                }
                let task = self.array(slot).task(element);
                let running = self.running.remove(&task);
                if let Some((worker, run)) = running {
                    self.doom(worker, run);
                }
                self.end(slot, element, End::Cancelled, actions, &mut ripples);
                if let Some((worker, run)) = running {
                    actions.push(Action::Kill { worker, task, run });
                }
            }
        }
        self.spread(ripples, actions);
    }

    pub(super) fn retry(&mut self, tasks: &[TaskRef], actions: &mut Vec<Action>) {
        let mut ripples = Ripples::new();
        for tasks in tasks {
            let Some((slot, elements)) = self.resolve(*tasks) else {
                continue;
            };
            for element in elements {
                if self.array(slot).tally().failed == 0 {
                    break;
                }
                if let Some(End::Failed(_) | End::Poisonous) = self.array(slot).end(element) {
                    self.revive(slot, element, actions, &mut ripples);
                }
            }
        }
        let mut at = 0;
        while let Some(&(slot, element, whole)) = ripples.get(at) {
            at += 1;
            for waiting in self.waiting_for(slot, element, whole) {
                self.revive_dependents(waiting, actions, &mut ripples);
            }
        }
    }

    fn revive(&mut self, slot: u32, element: u32, actions: &mut Vec<Action>, ripples: &mut Ripples) {
        let task = self.array(slot).task(element);
        self.change(slot, |array| array.revive(element));
        actions.push(Action::Revived { task });
        if self.array(slot).dependents().is_some() {
            ripples.push((slot, element, self.array(slot).bad() == 0));
        }
    }

    /// Revives what ended because of a dependency, unless one is failed still.
    pub(super) fn revive_dependents(&mut self, slot: u32, actions: &mut Vec<Action>, ripples: &mut Ripples) {
        let array = self.array(slot);
        let failed = |d: &TaskRef| matches!(self.standing(*d), Standing::Failed(_));
        if array.tally().cancelled == 0 || array.after.iter().any(failed) {
            return;
        }
        for element in 0..array.count {
            if let Some(End::DependencyFailed(_)) = self.array(slot).end(element) {
                self.revive(slot, element, actions, ripples);
            }
        }
    }
}
