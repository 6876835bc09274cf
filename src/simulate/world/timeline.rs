//! What happens, in order of time.

use crate::backends::{BackendError, Submit};
use crate::ledger::Order;
use crate::runtime::ids::{JobSeq, NativeId, RunId};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum What {
    /// Tasks are submitted.
    Arrive(Vec<u32>),
    /// A command of the batch system answers.
    Answer(Order),
    /// The submit command answers.
    Created(Submit, Result<Vec<NativeId>, BackendError>),
    /// A job's worker connects.
    Connect(JobSeq),
    /// A run ends.
    TaskEnds(JobSeq, RunId),
    /// A worker takes nothing new from now on, because its walltime nears.
    Drains(JobSeq),
    /// A walltime is over.
    TimeIsOver(JobSeq),
    /// A node fails.
    NodeFails(JobSeq),
    /// A pending job vanishes.
    Vanishes(JobSeq),
    /// A worker that has nothing to do any more leaves.
    Leaves(JobSeq),
}

#[derive(Debug)]
struct At {
    time: u64,
    order: u64,
    what: What,
}

impl PartialEq for At {
    fn eq(&self, other: &Self) -> bool {
        (self.time, self.order) == (other.time, other.order)
    }
}
impl Eq for At {}
impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for At {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.order).cmp(&(other.time, other.order))
    }
}

/// All that is known to happen. Of what happens at the same time, what was known first comes first.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    events: BinaryHeap<Reverse<At>>,
    order: u64,
}

impl Timeline {
    /// Something will happen at `time`, in milliseconds.
    pub(super) fn push(&mut self, time: u64, what: What) {
        self.order += 1;
        self.events.push(Reverse(At { time, order: self.order, what }));
    }

    /// Returns when something happens next.
    pub(super) fn next(&self) -> Option<u64> {
        self.events.peek().map(|at| at.0.time)
    }

    /// Takes the next that happens until `now`.
    pub(super) fn pop(&mut self, now: u64) -> Option<What> {
        if self.next()? > now {
            return None;
        }
        self.events.pop().map(|at| at.0.what)
    }
}
