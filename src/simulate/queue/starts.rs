//! Jobs whose start is known when they are submitted.

use std::collections::{BTreeMap, BTreeSet};

/// A time, with an order.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct At(pub(super) f64);

impl Eq for At {}

impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for At {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Pending jobs by the time of their start; of those with the same one the first submitted starts first.
#[derive(Debug, Default)]
pub(super) struct Starts {
    order: BTreeSet<(At, u64, u32)>,
    places: BTreeMap<u32, (At, u64)>,
    submitted: u64,
}

impl Starts {
    pub(super) fn add(&mut self, job: u32, start: f64) {
        self.remove(job);
        self.submitted += 1;
        self.order.insert((At(start), self.submitted, job));
        self.places.insert(job, (At(start), self.submitted));
    }

    pub(super) fn remove(&mut self, job: u32) {
        if let Some((start, number)) = self.places.remove(&job) {
            self.order.remove(&(start, number, job));
        }
    }

    pub(super) fn next(&self) -> Option<f64> {
        self.order.first().map(|(start, _, _)| start.0)
    }

    /// Takes the jobs that start until `now`.
    pub(super) fn until(&mut self, now: f64) -> Vec<(f64, u32)> {
        let mut started = Vec::new();
        while let Some((start, _, job)) = self.order.first().copied().filter(|(start, _, _)| start.0 <= now) {
            self.remove(job);
            started.push((start.0, job));
        }
        started
    }
}
