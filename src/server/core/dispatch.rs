//! What the scheduler wants, as records and messages to workers.

use super::{Core, Outgoing, Output, Turn};
use crate::ledger::Moment;
use crate::runtime::ids::{RunId, TaskId, WorkerId};
use crate::runtime::protocol::{Outcome, Place, ServerMessage, Start};
use crate::runtime::scheduler::{Action, Event, RequeueCause, TaskState};
use crate::server::record::Record;

/// A run to be sent to its worker.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) worker: WorkerId,
    task: TaskId,
    run: RunId,
    variant: u8,
    line: u32,
    waits: bool,
    place: Place,
}

/// Runs that were told to end, above which nobody looks whether their tasks may start again.
const DYING_LOOKED_AT_MAX: usize = 64;

impl Core {
    /// Turns what the scheduler wants into records and messages.
    pub(super) fn carry_out(&mut self, actions: Vec<Action>, now: Moment, out: &mut Output) {
        for action in actions {
            match action {
                Action::Assign { worker, task, run, variant, line, waits, place } => {
                    let start = Assignment { worker, task, run, variant, line, waits, place };
                    self.assign(start, now, out);
                }
                Action::TakeBack { worker, run, .. } => {
                    self.tell_worker(worker, 0, ServerMessage::TakeBack { runs: vec![run] }, out);
                }
                Action::Guest { worker, run, here } => {
                    self.tell_worker(worker, 0, ServerMessage::Guest { run, here }, out);
                }
                Action::Kill { worker, task, run } if self.forget_delayed(worker, run) => {
                    // It was never sent, so nobody else will say that it is over.
                    let over = Event::RunEnded { worker, task, run, outcome: Outcome::Killed, wall: 0 };
                    let mut more = Vec::new();
                    self.scheduler.apply(over, now.clock, &mut more);
                    self.carry_out(more, now, out);
                }
                Action::Kill { worker, task, run } => {
                    self.dying.insert((task, worker, run));
                    self.tell_worker(worker, self.turn, ServerMessage::Kill { task, run }, out);
                }
                Action::Ended { task, end } => self.ended(task, end, None, now, out),
                Action::Revived { task } => {
                    if let Some(array) = self.arrays.get_mut(&task.array) {
                        array.details.remove(task.element);
                    }
                    self.recount.insert(task.array);
                    self.again.insert(task, self.turn);
                    out.records.push(Record::Revived { task });
                }
                Action::Requeued { task, cause, .. } => {
                    self.running_since.remove(&task);
                    self.again.insert(task, self.turn);
                    match cause {
                        RequeueCause::Retry => out.records.push(Record::Retried { task }),
                        RequeueCause::Lost => out.records.push(Record::Lost { task }),
                        RequeueCause::Interrupted => {}
                    }
                }
            }
        }
    }

    pub(super) fn tell_worker(&self, worker: WorkerId, after: Turn, message: ServerMessage, out: &mut Output) {
        if let Some(connection) = self.workers.get(&worker).and_then(|worker| worker.connection) {
            out.sends.push((connection, after, Outgoing::Worker(message)));
        }
    }

    pub(super) fn assign(&mut self, start: Assignment, now: Moment, out: &mut Output) {
        let task = start.task;
        if self.is_dying(task) {
            // After a restart two runs of a task may turn up; one was told to end, and until it has, no
            // third may start.
            self.delayed.push(start);
            return;
        }
        let (Some(target), Some(array)) = (self.workers.get_mut(&start.worker), self.arrays.get(&task.array)) else {
            return;
        };
        let Some(connection) = target.connection else { return };
        // A run that another one preceded starts once it is on record that this one is over.
        let again = self.again.get(&task).copied().unwrap_or(0);
        let basis = if array.depends { self.turn } else { array.turn.max(target.joined).max(again) };
        if target.bodies.insert(task.array) {
            let message = ServerMessage::Body { array: task.array, body: Box::new(array.submission.body.clone()) };
            out.sends.push((connection, basis, Outgoing::Worker(message)));
        }
        let after_ends = start.waits.then_some(target.ends_seen);
        let input = array.submission.inputs.get(task.element as usize).cloned().unwrap_or_default();
        let mut place = start.place;
        for part in &mut place.nodes {
            part.node = self.nodes.get(&part.worker).cloned().unwrap_or_default();
        }
        self.running_since.insert(task, (start.worker, now));
        let place = (!place.is_empty()).then(|| Box::new(place));
        let next = Start { element: task.element, run: start.run, input, place };
        // Runs of one submission that follow each other share a message.
        if let Some((
            to,
            after,
            Outgoing::Worker(ServerMessage::Assign { array, variant, line, after_ends: ends, starts }),
        )) = out.sends.last_mut()
            && (*to, *after, *array, *variant, *line, *ends)
                == (connection, basis, task.array, start.variant, start.line, after_ends)
        {
            starts.push(next);
            return;
        }
        let message = ServerMessage::Assign {
            array: task.array,
            variant: start.variant,
            line: start.line,
            after_ends,
            starts: vec![next],
        };
        out.sends.push((connection, basis, Outgoing::Worker(message)));
    }

    /// Whether the start of a task may have to wait for the end of an earlier run of it.
    pub(super) fn may_delay(&self) -> bool {
        self.dying.len() > DYING_LOOKED_AT_MAX
            || self.dying.iter().any(|(task, ..)| !matches!(self.scheduler.state(*task), Some(TaskState::Ended(_))))
    }

    pub(super) fn is_dying(&self, task: TaskId) -> bool {
        let all = (task, WorkerId(0), RunId(0))..=(task, WorkerId(u32::MAX), RunId(u64::MAX));
        self.dying.range(all).next().is_some()
    }

    /// Drops a start that was not sent yet; returns whether there was one.
    pub(super) fn forget_delayed(&mut self, worker: WorkerId, run: RunId) -> bool {
        let before = self.delayed.len();
        self.delayed.retain(|start| (start.worker, start.run) != (worker, run));
        self.delayed.len() < before
    }

    /// Sends the starts that waited for the end of runs of the same tasks.
    pub(super) fn send_delayed(&mut self, now: Moment, out: &mut Output) {
        for start in std::mem::take(&mut self.delayed) {
            self.assign(start, now, out);
        }
    }
}
