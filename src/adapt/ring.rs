//! The last decisions, for people who ask why.

use super::{Decision, Rule};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Decisions that are kept.
const KEPT: usize = 1024;

/// A decision, or several that did the same nothing for the same reason.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 1.
    pub number: u64,
    /// Milliseconds since the epoch.
    pub at: u64,
    /// The last of them.
    pub decision: Decision,
    /// How many they are.
    pub times: u32,
}

/// The last decisions of one server.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    entries: VecDeque<Entry>,
    next: u64,
}

impl Ring {
    /// Adds a decision taken at `at`, in milliseconds since the epoch; returns its number.
    pub fn push(&mut self, decision: Decision, at: u64) -> u64 {
        if let Some(last) = self.entries.back_mut()
            && !decision.acts()
            && !last.decision.acts()
            && decision.rule == last.decision.rule
            && decision.parked == last.decision.parked
            && (decision.rule != Rule::Held || decision.reason == last.decision.reason)
        {
            last.decision = decision;
            last.at = at;
            last.times = last.times.saturating_add(1);
            return last.number;
        }
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.next += 1;
        self.entries.push_back(Entry { number: self.next, at, decision, times: 1 });
        self.next
    }

    /// Returns the decisions, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Returns a decision by its number, if it is still kept.
    pub fn get(&self, number: u64) -> Option<&Entry> {
        let first = self.entries.front()?.number;
        self.entries.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }
}

impl Decision {
    /// Whether anything is to be done.
    pub fn acts(&self) -> bool {
        !(self.submit.is_empty() && self.cancel.is_empty() && self.drain.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_nothing_is_kept_once_and_numbers_go_on() {
        let mut ring = Ring::default();
        assert_eq!(ring.push(Decision::default(), 1), 1);
        assert_eq!(ring.push(Decision::default(), 2), 1);
        let acting = Decision { drain: vec![3], ..Decision::default() };
        assert_eq!(ring.push(acting.clone(), 3), 2);
        assert_eq!(ring.push(acting, 4), 3);
        assert_eq!(ring.entries().map(|entry| entry.times).collect::<Vec<_>>(), [2, 1, 1]);
        for at in 0..2000 {
            ring.push(Decision { drain: vec![at], ..Decision::default() }, 5);
        }
        assert_eq!(ring.entries().count(), KEPT);
        assert_eq!(ring.get(3), None);
        assert_eq!(ring.get(2003).map(|entry| entry.decision.drain.clone()), Some(vec![1999]));
    }
}
