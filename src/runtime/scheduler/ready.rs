//! What waits for a place: interned requests, a queue of arrays each, and cluster-wide counters.
//!
//! Called by the other files of the scheduler. Invariants: `heads` holds the first array of every
//! class that has one; a counter's `used` is the sum over all runs that are on workers.

use super::Millis;
use crate::runtime::protocol::Request;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Order in which arrays are served: larger priority, then earlier submission (slot).
pub(super) type Rank = (Reverse<i32>, u32);

/// One distinct request, and the arrays that make it.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) request: Request,
    pub(super) time_request: Option<Millis>,
    /// Counters it needs: index and amount.
    counters: Vec<(u32, u64)>,
    queue: BTreeSet<Rank>,
    /// No worker fits it, but perhaps one of those that were freed since.
    pub(super) settled: bool,
    /// Since when it has found no place.
    pub(super) blocked_since: Option<Millis>,
    /// State of the fleet in which no worker could hold it even when empty.
    pub(super) infeasible_at: Option<u64>,
}

impl Class {
    /// Whether it needs one of the counters that `other` needs.
    pub(super) fn shares_counter(&self, other: &Self) -> bool {
        let wanted = |index: u32| other.counters.iter().any(|(i, _)| *i == index);
        self.counters.iter().any(|(index, _)| wanted(*index))
    }
    /// Returns the arrays in its queue, best first.
    pub(super) fn queue(&self) -> impl Iterator<Item = Rank> + '_ {
        self.queue.iter().copied()
    }
}

#[derive(Debug)]
struct Counter {
    name: String,
    total: u64,
    used: u128,
}

/// All classes and counters.
#[derive(Default, Debug)]
pub(super) struct Ready {
    classes: Vec<Class>,
    ids: FxHashMap<(Request, Option<Millis>), u32>,
    heads: BTreeMap<Rank, u32>,
    counters: Vec<Counter>,
    counter_ids: FxHashMap<String, u32>,
}

impl Ready {
    /// Returns the number of the class with this request.
    pub(super) fn intern(&mut self, request: Request, time_request: Option<Millis>) -> u32 {
        let key = (request, time_request);
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let request = key.0.clone();
        let wanted = request.counters.iter();
        let counters = wanted.map(|(name, amount)| (self.intern_counter(name), *amount)).collect();
        let id = self.classes.len() as u32;
        self.classes.push(Class {
            request,
            time_request,
            counters,
            queue: BTreeSet::new(),
            settled: false,
            blocked_since: None,
            infeasible_at: None,
        });
        self.ids.insert(key, id);
        id
    }

    /// Whether there is a class with this request.
    pub(super) fn knows(&self, request: &Request, time_request: Option<Millis>) -> bool {
        self.ids.contains_key(&(request.clone(), time_request))
    }

    fn intern_counter(&mut self, name: &str) -> u32 {
        if let Some(id) = self.counter_ids.get(name) {
            return *id;
        }
        let id = self.counters.len() as u32;
        self.counters.push(Counter { name: name.to_owned(), total: 0, used: 0 });
        self.counter_ids.insert(name.to_owned(), id);
        id
    }

    /// Returns a class.
    pub(super) fn class(&self, class: u32) -> &Class {
        &self.classes[class as usize]
    }

    /// Returns a class, to change it.
    pub(super) fn class_mut(&mut self, class: u32) -> &mut Class {
        &mut self.classes[class as usize]
    }

    /// Returns all classes.
    pub(super) fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Puts an array into the queue of its class.
    pub(super) fn insert(&mut self, class: u32, rank: Rank) {
        let entry = &mut self.classes[class as usize];
        let head = entry.queue.first().copied();
        entry.queue.insert(rank);
        if head.is_none() {
            entry.settled = false;
            entry.blocked_since = None;
        }
        self.move_head(class, head);
    }

    /// Takes an array out of the queue of its class.
    pub(super) fn remove(&mut self, class: u32, rank: Rank) {
        let entry = &mut self.classes[class as usize];
        let head = entry.queue.first().copied();
        entry.queue.remove(&rank);
        self.move_head(class, head);
    }

    fn move_head(&mut self, class: u32, old: Option<Rank>) {
        let new = self.classes[class as usize].queue.first().copied();
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.heads.remove(&old);
        }
        if let Some(new) = new {
            self.heads.insert(new, class);
        }
    }

    /// Returns the best array behind `last` that is the first of its class, and the class.
    pub(super) fn head_after(&self, last: Option<Rank>) -> Option<(Rank, u32)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = self.heads.range((from, Bound::Unbounded));
        behind.next().map(|(rank, class)| (*rank, *class))
    }

    /// Sets the totals; counters that are not named have none.
    pub(super) fn set_totals(&mut self, totals: &BTreeMap<String, u64>) {
        for counter in &mut self.counters {
            counter.total = 0;
        }
        for (name, total) in totals {
            let id = self.intern_counter(name);
            self.counters[id as usize].total = *total;
        }
    }

    /// Returns how many more runs of a class the counters allow.
    pub(super) fn counter_room(&self, class: u32) -> u32 {
        let wanted = self.class(class).counters.iter();
        let rooms = wanted.filter(|(_, amount)| *amount > 0).map(|(id, amount)| {
            let counter = &self.counters[*id as usize];
            let left = u128::from(counter.total).saturating_sub(counter.used);
            u32::try_from(left / u128::from(*amount)).unwrap_or(u32::MAX)
        });
        rooms.min().unwrap_or(u32::MAX)
    }

    /// Returns the first counter that can never satisfy a class: its name, what is wanted, the total.
    pub(super) fn missing_counter(&self, class: u32) -> Option<(&str, u64, u64)> {
        let wanted = self.class(class).counters.iter();
        let mut wanted = wanted.map(|(id, amount)| (&self.counters[*id as usize], *amount));
        let (counter, amount) = wanted.find(|(counter, amount)| *amount > counter.total)?;
        Some((&counter.name, amount, counter.total))
    }

    /// Takes what one run of a class needs from the counters.
    pub(super) fn take_counters(&mut self, class: u32) {
        for (id, amount) in &self.classes[class as usize].counters {
            self.counters[*id as usize].used += u128::from(*amount);
        }
    }

    /// Gives that back.
    pub(super) fn give_counters(&mut self, class: u32) {
        for (id, amount) in &self.classes[class as usize].counters {
            self.counters[*id as usize].used -= u128::from(*amount);
        }
    }
}

#[cfg(test)]
impl Ready {
    /// Panics unless heads, queues and counters agree with each other and with the runs.
    pub(super) fn check(&self, runs: impl Iterator<Item = u32>) {
        let mut used = vec![0; self.counters.len()];
        for class in runs {
            for (id, amount) in &self.class(class).counters {
                used[*id as usize] += u128::from(*amount);
            }
        }
        let recorded: Vec<u128> = self.counters.iter().map(|c| c.used).collect();
        assert_eq!(used, recorded);
        let mut heads = BTreeMap::new();
        for (class, entry) in self.classes.iter().enumerate() {
            if let Some(first) = entry.queue.first() {
                heads.insert(*first, class as u32);
            }
        }
        assert_eq!(heads, self.heads);
    }
}
