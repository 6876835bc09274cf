//! What must hold after every event, checked by recounting.

use super::tasks::Standing;
use super::{Counts, End, Scheduler};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

impl Scheduler {
    /// Panics unless the state agrees with itself.
    pub(super) fn check_invariants(&self) {
        let mut totals = Counts::default();
        let mut queues: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        let mut startable: BTreeMap<u32, u64> = BTreeMap::new();
        for (slot, array) in self.arrays.iter().enumerate() {
            array.check();
            totals.add(&array.counts());
            *startable.entry(array.class).or_default() += u64::from(array.startable());
            if array.queued {
                let rank = (Reverse(array.priority), slot as u32);
                queues.entry(array.class).or_default().push(rank);
            }
            let standings: Vec<Standing> = array.after.iter().map(|d| self.standing(*d)).collect();
            let unmet = standings.iter().filter(|s| **s != Standing::Met).count();
            assert_eq!(unmet as u32, array.unmet);
            let failed = standings.iter().any(|s| matches!(s, Standing::Failed(_)));
            assert!(!failed || array.tally().idle == 0);
            let caused = |e| matches!(array.end(e), Some(End::DependencyFailed(_)));
            assert!(failed || !(0..array.count).any(caused));
        }
        assert_eq!(totals, self.totals);
        for (class, entry) in self.ready.classes().iter().enumerate() {
            let mut expected = queues.remove(&(class as u32)).unwrap_or_default();
            expected.sort_unstable();
            assert_eq!(entry.queue().collect::<Vec<_>>(), expected);
            assert_eq!(entry.startable(), startable.get(&(class as u32)).copied().unwrap_or(0));
        }
        let runs = || self.fleet.iter().flat_map(|(id, w)| w.runs().iter().map(move |r| (id, r)));
        let runs = || runs().filter(|(_, (_, entry))| entry.lead.is_none());
        self.ready.check(runs().map(|(_, (_, entry))| (entry.class, entry.variant)));
        self.fleet.check(|run| self.ready.class(run.class).needs.variant(run.variant).clone());
        let waiting = || self.fleet.iter().flat_map(|(id, w)| w.waiting().iter().map(move |r| (id, r)));
        let alive = runs().chain(waiting()).filter(|(_, (_, entry))| !entry.doomed);
        let mut tasks = BTreeSet::new();
        for (worker, (run, entry)) in alive {
            assert_eq!(self.running.get(&entry.task), Some(&(worker, *run)));
            assert!(tasks.insert(entry.task), "{:?} runs twice", entry.task);
        }
        assert_eq!(tasks.len(), self.running.len());
        let waiting = waiting().filter(|(_, (_, entry))| !entry.doomed).count() as u64;
        assert_eq!(tasks.len() as u64, totals.running + waiting);
        assert_eq!(self.arrays.iter().map(|array| u64::from(array.waiting)).sum::<u64>(), waiting);
        for (run, team) in &self.teams {
            let led = self.fleet.iter().any(|(_, w)| w.runs().get(run).is_some_and(|entry| entry.lead.is_none()));
            assert!(led, "{run:?} has no lead");
            let has = |member| self.fleet.get(member).is_none_or(|w| w.runs().contains_key(run));
            assert!(team.members.iter().all(|member| has(*member)));
        }
    }
}
