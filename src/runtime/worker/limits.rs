//! The deadlines of the running tasks: one per run, its time limit or the moment of its KILL.

use super::Millis;
use crate::runtime::ids::RunId;
use std::collections::{BTreeMap, BTreeSet};

/// At most one deadline per run, in order of time.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: BTreeSet<(Millis, RunId)>,
    by_run: BTreeMap<RunId, Millis>,
}

impl Deadlines {
    /// Sets the run's only deadline.
    pub(super) fn set(&mut self, run: RunId, at: Millis) {
        self.clear(run);
        self.by_run.insert(run, at);
        self.by_time.insert((at, run));
    }
    /// Sets the run's only deadline unless it has an earlier one.
    pub(super) fn set_earlier(&mut self, run: RunId, at: Millis) {
        if self.by_run.get(&run).is_none_or(|&old| at < old) {
            self.set(run, at);
        }
    }
    /// Forgets the run's deadline.
    pub(super) fn clear(&mut self, run: RunId) {
        if let Some(at) = self.by_run.remove(&run) {
            self.by_time.remove(&(at, run));
        }
    }
    /// Returns the next deadline.
    pub(super) fn next(&self) -> Option<Millis> {
        self.by_time.first().map(|&(at, _)| at)
    }
    /// Takes a run whose deadline has come.
    pub(super) fn take_due(&mut self, now: Millis) -> Option<RunId> {
        let &(at, run) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.clear(run);
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_deadline_per_run_in_order() {
        let mut deadlines = Deadlines::default();
        deadlines.set(RunId(1), 50);
        deadlines.set(RunId(2), 20);
        deadlines.set(RunId(1), 10);
        deadlines.set_earlier(RunId(2), 30);
        deadlines.set_earlier(RunId(3), 15);
        assert_eq!(deadlines.next(), Some(10));
        assert_eq!(deadlines.take_due(9), None);
        assert_eq!(deadlines.take_due(20), Some(RunId(1)));
        assert_eq!(deadlines.take_due(20), Some(RunId(3)));
        assert_eq!(deadlines.take_due(20), Some(RunId(2)));
        assert_eq!(deadlines.next(), None);
        deadlines.clear(RunId(1));
    }
}
