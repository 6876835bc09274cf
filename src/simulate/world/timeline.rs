//! What happens, in order of time.

use crate::backends::{BackendError, Submit};
use crate::ledger::Order;
use crate::runtime::ids::{JobSeq, NativeId, RunId};
use std::collections::BTreeMap;

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

/// All that is known to happen. Of what happens at the same time, what was known first comes first.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// By time, and by when it was known.
    events: BTreeMap<(u64, u64), What>,
    known: u64,
}

impl Timeline {
    /// Something will happen at `time`, in milliseconds.
    pub(super) fn push(&mut self, time: u64, what: What) {
        self.known += 1;
        self.events.insert((time, self.known), what);
    }

    /// Returns when something happens next.
    pub(super) fn next(&self) -> Option<u64> {
        self.events.first_key_value().map(|((time, _), _)| *time)
    }

    /// Takes the next that happens until `now`.
    pub(super) fn pop(&mut self, now: u64) -> Option<What> {
        if self.next()? > now {
            return None;
        }
        self.events.pop_first().map(|(_, what)| what)
    }
}
