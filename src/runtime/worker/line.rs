//! Runs that wait at the worker for room: each takes over from a run of its line, one that asked for the same.
//! So a worker with short tasks need not wait for its server between two of them. Pure; part of
//! [`Session`](super::Session).
//!
//! The server counts with the same rule, so both know at any time which runs have room: the k-th end of a line
//! makes room for the k-th run that waits in it. An end that met an empty line before the server saw it still
//! makes room: the server has counted the run that it sent meanwhile as the next.

use super::action::TaskStart;
use crate::runtime::ids::RunId;
use crate::runtime::protocol::Place;
use std::collections::{BTreeMap, VecDeque};

/// All lines of one connection.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: BTreeMap<u32, Line>,
    /// Ends said on this connection.
    ends: u64,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<TaskStart>,
    /// Room left by ends that met an empty line: the end's number, and what the run had.
    vacant: VecDeque<(u64, Place)>,
}

impl Line {
    /// Whether a run waits in it; they stand in order.
    fn has(&self, run: RunId) -> bool {
        self.waiting.binary_search_by_key(&run, |start| start.run).is_ok()
    }

    fn forget(&mut self, ends_seen: u64) {
        while self.vacant.front().is_some_and(|(end, _)| *end <= ends_seen) {
            self.vacant.pop_front();
        }
    }
}

impl Lines {
    /// A run of a line is over and this is being said: returns the run that takes its room.
    pub(super) fn on_end(&mut self, line: u32, place: Place) -> Option<TaskStart> {
        self.ends += 1;
        let line = self.lines.entry(line).or_default();
        match line.waiting.pop_front() {
            Some(next) => Some(TaskStart { place, ..next }),
            None => {
                line.vacant.push_back((self.ends, place));
                None
            }
        }
    }

    /// The end of a run that never had room, or is unknown here, is being said.
    pub(super) fn on_other_end(&mut self) {
        self.ends += 1;
    }

    /// A run joins its line; returned if there is room at once. The server had seen `ends_seen` ends.
    pub(super) fn join(&mut self, line: u32, ends_seen: u64, start: TaskStart) -> Option<TaskStart> {
        let line = self.lines.entry(line).or_default();
        line.forget(ends_seen);
        match line.vacant.pop_front() {
            Some((_, place)) => Some(TaskStart { place, ..start }),
            None => {
                line.waiting.push_back(start);
                None
            }
        }
    }

    /// The server has seen so many ends: room they left is none any more.
    pub(super) fn on_seen(&mut self, ends_seen: u64) {
        for line in self.lines.values_mut() {
            line.forget(ends_seen);
        }
    }

    /// Whether a run waits.
    pub(super) fn contains(&self, run: RunId) -> bool {
        self.lines.values().any(|line| line.waiting.back().is_some_and(|last| run <= last.run && line.has(run)))
    }

    /// Takes a run out of its line; `None` if it does not wait.
    pub(super) fn take(&mut self, run: RunId) -> Option<TaskStart> {
        self.lines.values_mut().find_map(|line| {
            // The last are asked back first.
            let at = line.waiting.iter().rposition(|start| start.run == run)?;
            line.waiting.remove(at)
        })
    }

    /// Takes out all that wait.
    pub(super) fn take_all(&mut self) -> Vec<TaskStart> {
        self.lines.values_mut().flat_map(|line| line.waiting.drain(..)).collect()
    }

    /// The connection is gone: nothing waits any more, and ends are counted anew.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
