//! What workers report: runs that started, ended, vanished with their worker or came back with it.
//!
//! Called by `mod`. Nothing a worker says is trusted: a report counts only for the run that is
//! expected on that worker, and ids this server never gave out are told to end.

use super::arrays::{Cell, LOSSES_TO_POISON};
use super::tasks::Ripples;
use super::workers::Run;
use super::{Action, End, RequeueCause, Scheduler};
use crate::runtime::ids::{RunId, TaskId, WorkerId};
use crate::runtime::protocol::Outcome;
use std::collections::BTreeSet;

impl Scheduler {
    /// Puts a run on a worker, with all it occupies.
    pub(super) fn occupy(&mut self, worker: WorkerId, run: RunId, entry: Run) {
        let request = &self.ready.class(entry.class).request;
        self.fleet.occupy(worker, run, entry, request);
        self.ready.take_counters(entry.class);
        if !entry.doomed {
            self.running.insert(entry.task, (worker, run));
        }
    }

    /// Takes a run off a worker.
    fn release(&mut self, worker: WorkerId, run: RunId, entry: Run) {
        let request = &self.ready.class(entry.class).request;
        self.fleet.release(worker, run, request);
        self.ready.give_counters(entry.class);
        if !entry.doomed {
            self.running.remove(&entry.task);
        }
    }

    pub(super) fn mark_started(&mut self, task: TaskId, run: RunId) {
        if let Some((worker, expected)) = self.running.get(&task)
            && *expected == run
            && let Some(entry) = self.fleet.run_mut(*worker, run)
        {
            entry.started = true;
        }
    }

    pub(super) fn end_run(
        &mut self,
        worker: WorkerId,
        task: TaskId,
        run: RunId,
        outcome: Outcome,
        actions: &mut Vec<Action>,
    ) {
        let entry = self.fleet.get(worker).and_then(|w| w.runs().get(&run));
        let Some(entry) = entry.copied().filter(|entry| entry.task == task) else {
            return;
        };
        self.release(worker, run, entry);
        let Some(slot) = self.locate(task).filter(|_| !entry.doomed) else {
            return;
        };
        let element = task.element;
        let end = match outcome {
            Outcome::Finished => End::Finished,
            // A kill nobody remembers was asked for by a server that died before it was on record.
            Outcome::Interrupted | Outcome::Killed => {
                self.requeue(slot, element, run, RequeueCause::Interrupted, actions);
                return;
            }
            outcome => {
                let array = self.array(slot);
                if array.retries_used(element) < array.retries {
                    self.change(slot, |array| array.add_retry(element));
                    self.requeue(slot, element, run, RequeueCause::Retry, actions);
                    return;
                }
                End::Failed(outcome)
            }
        };
        let mut ripples = Ripples::new();
        self.end(slot, element, end, actions, &mut ripples);
        self.spread(ripples, actions);
    }

    fn requeue(&mut self, slot: u32, element: u32, run: RunId, cause: RequeueCause, actions: &mut Vec<Action>) {
        self.change(slot, |array| array.requeue(element));
        let task = self.array(slot).task(element);
        actions.push(Action::Requeued { task, run, cause });
    }

    /// A loss counts whether or not the start was reported: a task that kills its worker at once
    /// would never be found poisonous otherwise.
    pub(super) fn lose(&mut self, worker: WorkerId, counts: bool, actions: &mut Vec<Action>) {
        let mut ripples = Ripples::new();
        for (run, entry) in self.fleet.remove(worker) {
            self.ready.give_counters(entry.class);
            let Some(slot) = self.locate(entry.task).filter(|_| !entry.doomed) else {
                continue;
            };
            self.running.remove(&entry.task);
            let element = entry.task.element;
            if counts && self.array(slot).losses_of(element) + 1 >= LOSSES_TO_POISON {
                self.end(slot, element, End::Poisonous, actions, &mut ripples);
                continue;
            }
            if counts {
                self.change(slot, |array| array.add_loss(element));
            }
            self.requeue(slot, element, run, RequeueCause::WorkerLost, actions);
        }
        self.spread(ripples, actions);
    }

    /// Compares what a worker says it runs with what is expected there.
    pub(super) fn reconcile(&mut self, worker: WorkerId, reported: &[(TaskId, RunId)], actions: &mut Vec<Action>) {
        let listed: BTreeSet<(RunId, TaskId)> = reported.iter().map(|(t, r)| (*r, *t)).collect();
        let Some(entry) = self.fleet.get(worker) else {
            return;
        };
        let unlisted = entry.runs().iter();
        let unlisted = unlisted.filter(|(run, entry)| !listed.contains(&(**run, entry.task)));
        let unlisted: Vec<(RunId, Run)> = unlisted.map(|(run, entry)| (*run, *entry)).collect();
        for (run, entry) in unlisted {
            self.release(worker, run, entry);
            if let Some(slot) = self.locate(entry.task).filter(|_| !entry.doomed) {
                let element = entry.task.element;
                self.requeue(slot, element, run, RequeueCause::Interrupted, actions);
            }
        }
        for (run, task) in listed {
            if !self.recognise(worker, task, run) {
                actions.push(Action::Kill { worker, task, run });
            }
        }
    }

    /// Whether a run goes on: it is expected, or its task is ready. Other runs of known tasks still
    /// occupy the worker until they have ended; one that was told to end once stays so.
    fn recognise(&mut self, worker: WorkerId, task: TaskId, run: RunId) -> bool {
        let expected = self.fleet.get(worker).and_then(|w| w.runs().get(&run));
        if let Some(expected) = expected {
            return expected.task == task && !expected.doomed;
        }
        let Some(slot) = self.locate(task).filter(|_| run < self.next_run) else {
            return false;
        };
        let array = self.array(slot);
        let adopt = array.unmet == 0 && array.cell(task.element) == Cell::IDLE;
        let entry = Run { task, class: array.class, started: true, doomed: !adopt };
        self.occupy(worker, run, entry);
        if adopt {
            self.change(slot, |array| array.start(task.element));
        }
        adopt
    }
}
