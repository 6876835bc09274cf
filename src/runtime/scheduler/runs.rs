//! What workers report: runs that started, ended, vanished with their worker or came back with it.
//!
//! Called by `mod`. Nothing a worker says is trusted: a report counts only for the run that is
//! expected on that worker, and ids this server never gave out are told to end.

use super::arrays::{Cell, LOSSES_TO_POISON};
use super::ready::Ended;
use super::tasks::Ripples;
use super::workers::Run;
use super::{Action, End, Millis, RequeueCause, Scheduler};
use crate::runtime::ids::{RunId, TaskId, WorkerId};
use crate::runtime::protocol::{HeldRun, Outcome, Place};
use std::collections::BTreeMap;

impl Scheduler {
    /// Puts a new run on a worker, with all it occupies; returns what exactly it got.
    pub(super) fn occupy(&mut self, worker: WorkerId, run: RunId, entry: Run) -> Place {
        let request = self.ready.class(entry.class).needs.variant(entry.variant);
        self.running.insert(entry.task, (worker, run));
        let (class, variant) = (entry.class, entry.variant);
        let place = self.fleet.occupy(worker, run, entry, request);
        self.ready.take_counters(class, variant);
        place
    }

    /// Takes a run off a worker; what waits for its room gets it, counters included.
    fn release(&mut self, worker: WorkerId, run: RunId, entry: &Run, actions: &mut Vec<Action>) {
        let request = self.ready.class(entry.class).needs.variant(entry.variant);
        match self.fleet.release(worker, run, request) {
            Some(next) => self.leave_line(next),
            None => self.ready.give_counters(entry.class, entry.variant),
        }
        self.dissolve(run, actions);
        if !entry.doomed {
            self.running.remove(&entry.task);
        }
    }

    /// A task does not wait at its worker any more.
    fn leave_line(&mut self, task: TaskId) {
        if self.running.contains_key(&task)
            && let Some(slot) = self.locate(task)
        {
            self.change(slot, |array| array.waiting -= 1);
        }
    }

    /// Takes a run off a worker where it waits for room.
    fn dequeue(&mut self, worker: WorkerId, run: RunId, entry: &Run) {
        self.fleet.dequeue(worker, run);
        if !entry.doomed {
            self.leave_line(entry.task);
            self.running.remove(&entry.task);
        }
    }

    /// How a run ends does not matter any more.
    pub(super) fn doom(&mut self, worker: WorkerId, run: RunId) {
        let waits = self.fleet.get(worker).is_some_and(|w| w.waiting().contains_key(&run));
        let Some(entry) = self.fleet.run_mut(worker, run) else { return };
        entry.doomed = true;
        let task = entry.task;
        if waits && let Some(slot) = self.locate(task) {
            self.change(slot, |array| array.waiting -= 1);
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
        wall: Millis,
        actions: &mut Vec<Action>,
    ) {
        let Some(host) = self.fleet.get(worker) else { return };
        let entry = if let Some(entry) = host.runs().get(&run).filter(|entry| entry.lead.is_none()) {
            let entry = entry.clone();
            if entry.task != task {
                return;
            }
            match outcome {
                _ if entry.doomed => {}
                Outcome::Finished | Outcome::TimeLimit => {
                    self.ready.class_mut(entry.class).learn(wall, Ended::ByItself);
                }
                Outcome::Interrupted if wall > 0 => {
                    let ended = if self.fleet.is_cut(wall) { Ended::Cut } else { Ended::Interrupted };
                    self.ready.class_mut(entry.class).learn(wall, ended);
                }
                _ => {}
            }
            self.release(worker, run, &entry, actions);
            entry
        } else if let Some(entry) = host.waiting().get(&run).filter(|entry| entry.task == task) {
            let entry = entry.clone();
            self.dequeue(worker, run, &entry);
            entry
        } else {
            return;
        };
        let Some(slot) = self.locate(task).filter(|_| !entry.doomed) else {
            return;
        };
        let element = task.element;
        let end = match outcome {
            Outcome::Finished => End::Finished,
            // Every walltime would cut it. One that says its time may save its state, and go on in the next job.
            Outcome::Interrupted if self.fleet.is_cut(wall) && self.ready.class(entry.class).time_request.is_none() => {
                let mut ripples = Ripples::new();
                self.run_again(slot, element, run, Some(End::Failed(outcome)), actions, &mut ripples);
                self.spread(ripples, actions);
                return;
            }
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

    pub(super) fn requeue(
        &mut self,
        slot: u32,
        element: u32,
        run: RunId,
        cause: RequeueCause,
        actions: &mut Vec<Action>,
    ) {
        self.change(slot, |array| array.requeue(element));
        let task = self.array(slot).task(element);
        actions.push(Action::Requeued { task, run, cause });
    }

    /// A loss counts whether or not the start was reported: a task that kills its worker at once
    /// would never be found poisonous otherwise.
    pub(super) fn lose(&mut self, worker: WorkerId, counts: bool, actions: &mut Vec<Action>) {
        let mut ripples = Ripples::new();
        self.lose_member(worker, counts, actions, &mut ripples);
        let (runs, waiting) = self.fleet.remove(worker);
        for (run, entry) in waiting {
            if let Some(slot) = self.locate(entry.task).filter(|_| !entry.doomed) {
                self.leave_line(entry.task);
                self.running.remove(&entry.task);
                self.requeue(slot, entry.task.element, run, RequeueCause::Interrupted, actions);
            }
        }
        for (run, entry) in runs {
            if entry.lead.is_some() {
                continue;
            }
            self.ready.give_counters(entry.class, entry.variant);
            self.dissolve(run, actions);
            let Some(slot) = self.locate(entry.task).filter(|_| !entry.doomed) else {
                continue;
            };
            self.running.remove(&entry.task);
            self.run_again(slot, entry.task.element, run, counts.then_some(End::Poisonous), actions, &mut ripples);
        }
        self.spread(ripples, actions);
    }

    /// A task was lost: it runs again. The third loss that counts ends it so.
    pub(super) fn run_again(
        &mut self,
        slot: u32,
        element: u32,
        run: RunId,
        counts: Option<End>,
        actions: &mut Vec<Action>,
        ripples: &mut Ripples,
    ) {
        match counts {
            None => self.requeue(slot, element, run, RequeueCause::Interrupted, actions),
            Some(end) if self.array(slot).losses_of(element) + 1 >= LOSSES_TO_POISON => {
                self.end(slot, element, end, actions, ripples);
            }
            Some(_) => {
                self.change(slot, |array| array.add_loss(element));
                self.requeue(slot, element, run, RequeueCause::Lost, actions);
            }
        }
    }

    /// Compares what a worker says it runs with what is expected there.
    pub(super) fn reconcile(&mut self, worker: WorkerId, reported: &[HeldRun], actions: &mut Vec<Action>) {
        let listed: BTreeMap<(RunId, TaskId), &HeldRun> = reported.iter().map(|h| ((h.run, h.task), h)).collect();
        let Some(host) = self.fleet.get(worker) else {
            return;
        };
        let unlisted = host.runs().iter().chain(host.waiting()).filter(|(_, entry)| entry.lead.is_none());
        let unlisted = unlisted.filter(|(run, entry)| !listed.contains_key(&(**run, entry.task)));
        let unlisted: Vec<(RunId, Run)> = unlisted.map(|(run, entry)| (*run, entry.clone())).collect();
        for (run, entry) in unlisted {
            if self.fleet.get(worker).is_some_and(|host| host.waiting().contains_key(&run)) {
                self.dequeue(worker, run, &entry);
            } else {
                self.release(worker, run, &entry, actions);
            }
            if let Some(slot) = self.locate(entry.task).filter(|_| !entry.doomed) {
                let element = entry.task.element;
                self.requeue(slot, element, run, RequeueCause::Interrupted, actions);
            }
        }
        for ((run, task), held) in listed {
            if !self.recognise(worker, held) {
                actions.push(Action::Kill { worker, task, run });
            }
        }
    }

    /// Whether a run goes on: it is expected, or its task is ready. Other runs of known tasks still
    /// occupy the worker until they have ended; one that was told to end once stays so.
    fn recognise(&mut self, worker: WorkerId, held: &HeldRun) -> bool {
        let (task, run) = (held.task, held.run);
        let Some(host) = self.fleet.get(worker) else { return false };
        if let Some(expected) = host.runs().get(&run) {
            return expected.task == task && !expected.doomed;
        }
        let waited = host.waiting().get(&run).filter(|entry| entry.task == task).cloned();
        let Some(slot) = self.locate(task).filter(|_| run < self.next_run) else {
            return false;
        };
        if let Some(entry) = &waited {
            // It got its room by an end whose report was lost with the connection.
            self.fleet.dequeue(worker, run);
            if !entry.doomed {
                self.leave_line(task);
            }
        }
        let array = self.array(slot);
        let ready = waited.is_none() && array.unmet == 0 && array.cell(task.element) == Cell::IDLE;
        let wanted = ready || waited.is_some_and(|entry| !entry.doomed);
        let class = array.class;
        let variants = self.ready.class(class).needs.variants.len() as u8;
        let variant = held.variant.min(variants - 1);
        let entry = Run {
            started: true,
            doomed: !wanted,
            hands_over: false,
            place: held.place.clone(),
            ..Run::new(task, class, variant)
        };
        let request = self.ready.class(class).needs.variant(variant);
        self.fleet.adopt(worker, run, entry, request);
        self.ready.take_counters(class, variant);
        if ready {
            self.change(slot, |array| array.start(task.element));
        }
        if wanted {
            self.running.insert(task, (worker, run));
            self.readmit_team(worker, run, task, class, &held.place);
        }
        wanted
    }
}
