//! What waits for a place: interned requests, a queue of arrays each, and cluster-wide counters.
//!
//! Called by the other files of the scheduler. Invariants: `heads` holds the first array of every
//! class that has one; a counter's `used` is the sum over all runs that are on workers.

use super::Millis;
use super::durations::Durations;
use crate::runtime::protocol::{Needs, Request};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Order in which arrays are served: larger priority, then earlier submission (slot).
pub(super) type Rank = (Reverse<i32>, u32);

/// Milliseconds of work that may wait at a worker for each run that has room there.
const AHEAD: f64 = 20.0;
/// Runs that may wait for each run that has room, were they ever so short.
const AHEAD_MAX: f64 = 1024.0;
/// Classes from which on no new one is made for a family alone: the time to place a task grows with their number.
const FAMILY_CLASSES_MAX: usize = 1_024;
/// Mean milliseconds of tasks for which nothing waits: the round trip to the server is nothing to them.
const AHEAD_MEAN_MAX: f64 = 100.0;

/// How a run came to its end, as far as it says something about durations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// It was done.
    ByItself,
    /// It would have gone on.
    Interrupted,
    /// So would it, and it had had most of what any worker offers.
    Cut,
}

/// Tasks that need the same, and the arrays they are of.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) needs: Needs,
    pub(super) time_request: Option<Millis>,
    pub(super) family: u32,
    /// Counters that each variant needs: index and amount.
    counters: Vec<Vec<(u32, u64)>>,
    durations: Durations,
    /// While little is known of its durations, its tasks keep off workers with little time left.
    cautious: bool,
    queue: BTreeSet<Rank>,
    /// Elements of its arrays that may be started now.
    startable: u64,
    /// No worker fits it, but perhaps one of those that were freed since.
    pub(super) settled: bool,
    /// What it had was sent ahead to all workers whose lines it may join.
    pub(super) was_sent_ahead: bool,
    /// Since when it has found no place.
    pub(super) blocked_since: Option<Millis>,
    /// State of the fleet in which no worker could hold it even when empty.
    pub(super) infeasible_at: Option<u64>,
}

impl Class {
    /// Whether it needs one of the counters that `other` needs.
    pub(super) fn shares_counter(&self, other: &Self) -> bool {
        let wanted = |index: u32| other.counters.iter().flatten().any(|(i, _)| *i == index);
        self.counters.iter().flatten().any(|(index, _)| wanted(*index))
    }
    /// Returns the milliseconds that must be left on a worker: what was asked for, or else what nine of ten
    /// tasks took, though not so much that no fresh worker had it.
    pub(super) fn time_needed(&self, longest: Millis) -> Millis {
        let most = longest - longest / 10;
        let learned = || match self.durations.p90() {
            Some(p90) => p90.min(most),
            None if self.cautious && longest < Millis::MAX => self.guess(longest).min(most),
            None => 0,
        };
        self.time_request.unwrap_or_else(learned)
    }
    /// Returns what the time that its tasks need is taken from.
    fn sign(&self) -> Option<Millis> {
        let early = || self.cautious.then(|| self.durations.lasted().longest);
        self.durations.p90().or_else(early)
    }
    /// Returns what a task may take while little is known: half as much again as the longest so far; half of
    /// what a fresh worker has when none has ended.
    fn guess(&self, longest: Millis) -> Millis {
        let lasted = self.durations.lasted();
        if lasted.ended == 0 { longest / 2 } else { lasted.longest.saturating_add(lasted.longest / 2) }
    }
    /// Whether the time it needs was learned, not asked for.
    pub(super) fn is_time_learned(&self) -> bool {
        self.time_request.is_none() && self.durations.p90().is_some()
    }
    /// Returns how many of its runs may wait for each that has room; 0 while nothing is known.
    pub(super) fn ahead(&self) -> u32 {
        match self.durations.mean() {
            Some(mean) if mean <= AHEAD_MEAN_MAX && self.needs.nodes == 1 && self.is_free_of_counters() => {
                (AHEAD / mean).clamp(1.0, AHEAD_MAX) as u32
            }
            _ => 0,
        }
    }
    /// Whether no variant needs a counter: those would be handed over past whoever waits for them.
    fn is_free_of_counters(&self) -> bool {
        self.counters.iter().all(Vec::is_empty)
    }
    /// A task has run so long, to its end or until it was interrupted.
    pub(super) fn learn(&mut self, wall: Millis, ended: Ended) {
        let before = self.sign();
        match ended {
            Ended::ByItself => self.durations.add(wall),
            Ended::Interrupted => self.durations.add_interrupted(wall),
            Ended::Cut => self.durations.add_cut(wall),
        }
        if self.sign() != before {
            // Where there was too little time before, there may be enough now.
            self.settled = false;
            self.infeasible_at = None;
        }
    }
    /// Returns how long its ended tasks ran.
    pub(super) fn lasted(&self) -> super::Lasted {
        self.durations.lasted()
    }
    /// Returns the arrays in its queue, best first.
    pub(super) fn queue(&self) -> impl Iterator<Item = Rank> + '_ {
        self.queue.iter().copied()
    }
    /// Returns how many of its tasks may be started now.
    pub(super) fn startable(&self) -> u64 {
        self.startable
    }
}

#[derive(Debug)]
struct Counter {
    name: String,
    total: u64,
    used: u128,
}

/// Needs, and time asked for.
type Wants = (Needs, Option<Millis>);

/// All classes and counters.
#[derive(Default, Debug)]
pub(super) struct Ready {
    classes: Vec<Class>,
    cautious: bool,
    /// By needs and time asked for: families and their classes, the oldest first.
    ids: FxHashMap<Wants, Vec<(u32, u32)>>,
    heads: BTreeMap<Rank, u32>,
    counters: Vec<Counter>,
    counter_ids: FxHashMap<String, u32>,
}

impl Ready {
    /// Returns the number of the class with these needs and this family; of another family, if there are very many
    /// classes.
    pub(super) fn intern(&mut self, needs: Needs, time_request: Option<Millis>, family: u32) -> u32 {
        let key = (needs, time_request);
        if let Some(alike) = self.ids.get(&key) {
            let same = alike.iter().find(|(other, _)| *other == family);
            let full = self.classes.len() >= FAMILY_CLASSES_MAX;
            if let Some((_, id)) = same.or(alike.first().filter(|_| full)) {
                return *id;
            }
        }
        let needs = key.0.clone();
        let counters = needs.variants.iter().map(|request| self.counters_of(request)).collect();
        let id = self.classes.len() as u32;
        self.classes.push(Class {
            needs,
            time_request,
            family,
            counters,
            durations: Durations::default(),
            cautious: self.cautious,
            queue: BTreeSet::new(),
            startable: 0,
            settled: false,
            was_sent_ahead: false,
            blocked_since: None,
            infeasible_at: None,
        });
        self.ids.entry(key).or_default().push((family, id));
        id
    }

    /// Whether there is a class with these needs.
    pub(super) fn knows(&self, needs: &Needs, time_request: Option<Millis>) -> bool {
        self.ids.contains_key(&(needs.clone(), time_request))
    }

    /// Whether tasks of which little is known keep off workers with little time left.
    pub(super) fn set_cautious(&mut self, cautious: bool) {
        self.cautious = cautious;
        for class in &mut self.classes {
            class.cautious = cautious;
            class.settled = false;
            class.infeasible_at = None;
        }
    }

    fn counters_of(&mut self, request: &Request) -> Vec<(u32, u64)> {
        let wanted = request.counters.iter();
        wanted.map(|(name, amount)| (self.intern_counter(name), *amount)).collect()
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
            entry.was_sent_ahead = false;
            entry.blocked_since = None;
        }
        self.move_head(class, head);
    }

    /// Another number of elements of an array of a class may be started now.
    pub(super) fn count(&mut self, class: u32, before: u32, now: u32) {
        let count = &mut self.classes[class as usize].startable;
        *count = *count + u64::from(now) - u64::from(before);
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

    /// Returns how many more runs of a class and variant the counters allow.
    pub(super) fn counter_room(&self, class: u32, variant: u8) -> u32 {
        let wanted = self.class(class).counters[usize::from(variant)].iter();
        let rooms = wanted.filter(|(_, amount)| *amount > 0).map(|(id, amount)| {
            let counter = &self.counters[*id as usize];
            let left = u128::from(counter.total).saturating_sub(counter.used);
            u32::try_from(left / u128::from(*amount)).unwrap_or(u32::MAX)
        });
        rooms.min().unwrap_or(u32::MAX)
    }

    /// Returns the first counter that can never satisfy a class in any variant: its name, what the first variant
    /// wants, the total.
    pub(super) fn missing_counter(&self, class: u32) -> Option<(&str, u64, u64)> {
        let variants = &self.class(class).counters;
        let missing = variants.iter().map(|wanted| {
            let mut wanted = wanted.iter().map(|(id, amount)| (&self.counters[*id as usize], *amount));
            wanted.find(|(counter, amount)| *amount > counter.total)
        });
        let missing: Option<Vec<_>> = missing.collect();
        let (counter, amount) = missing?.into_iter().next()?;
        Some((&counter.name, amount, counter.total))
    }

    /// Returns the variants of a class whose counters could ever suffice.
    pub(super) fn possible(&self, class: u32) -> Vec<&Request> {
        let class = self.class(class);
        let enough = |wanted: &[(u32, u64)]| wanted.iter().all(|(id, n)| *n <= self.counters[*id as usize].total);
        let variants = class.needs.variants.iter().zip(&class.counters);
        variants.filter(|(_, wanted)| enough(wanted)).map(|(request, _)| request).collect()
    }

    /// Takes what one run of a class and variant needs from the counters.
    pub(super) fn take_counters(&mut self, class: u32, variant: u8) {
        for (id, amount) in &self.classes[class as usize].counters[usize::from(variant)] {
            self.counters[*id as usize].used += u128::from(*amount);
        }
    }

    /// Gives that back.
    pub(super) fn give_counters(&mut self, class: u32, variant: u8) {
        for (id, amount) in &self.classes[class as usize].counters[usize::from(variant)] {
            self.counters[*id as usize].used -= u128::from(*amount);
        }
    }
}

#[cfg(test)]
impl Ready {
    /// Panics unless heads, queues and counters agree with each other and with the runs.
    pub(super) fn check(&self, runs: impl Iterator<Item = (u32, u8)>) {
        let mut used = vec![0; self.counters.len()];
        for (class, variant) in runs {
            for (id, amount) in &self.class(class).counters[usize::from(variant)] {
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
