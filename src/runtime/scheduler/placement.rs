//! Which ready task goes to which worker.
//!
//! Called by `mod` once per batch of events. Classes are served by the rank of their first array;
//! each takes the first worker in filling order that fits. The first class in rank that has found
//! no place for [`STARVATION_MILLISECONDS`] although it could have one gets a guard: the worker
//! that is nearest to free, and the counters it needs, are kept from those that rank behind it.

use super::ready::Rank;
use super::workers::Run;
use super::{Action, Millis, Scheduler};
use crate::runtime::ids::WorkerId;
use std::cmp::Reverse;

/// How long a class may be overtaken by smaller ones before a place is kept for it.
pub(super) const STARVATION_MILLISECONDS: Millis = 10_000;

/// What is kept for a class, from those behind it.
#[derive(Clone, Copy)]
struct Guard {
    class: u32,
    worker: Option<WorkerId>,
}

/// What was missing when a class could not be placed entirely.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Counters,
    Worker,
}

impl Scheduler {
    /// Assigns what is ready and fits; called once per batch of events.
    pub fn schedule(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if self.held {
            return;
        }
        // Whatever becomes of the reservation, that worker is looked at again.
        if let Some((_, worker)) = self.reservation {
            self.fleet.touch(worker);
        }
        let freed = self.fleet.settle();
        let mut guard: Option<Guard> = None;
        let mut last = None;
        while let Some((rank, class)) = self.ready.head_after(last) {
            if self.fleet.is_full() {
                break;
            }
            last = Some(rank);
            let missing = self.place(class, rank, guard, &freed, now, actions);
            if let Some(missing) = missing
                && guard.is_none()
                && self.is_starving(class, now)
            {
                guard = self.protect(class, missing, now);
            }
        }
        self.reservation = guard.and_then(|g| Some((g.class, g.worker?)));
    }

    /// Places elements of the first array of a class until nothing is left or something is missing.
    fn place(
        &mut self,
        class: u32,
        (_, slot): Rank,
        guard: Option<Guard>,
        freed: &[WorkerId],
        now: Millis,
        actions: &mut Vec<Action>,
    ) -> Option<Missing> {
        let except = guard.and_then(|guard| guard.worker);
        loop {
            let startable = self.array(slot).startable();
            if startable == 0 {
                return None;
            }
            let entry = self.ready.class(class);
            let kept = guard.is_some_and(|g| entry.shares_counter(self.ready.class(g.class)));
            let allowed = if kept { 0 } else { self.ready.counter_room(class) };
            if allowed == 0 {
                // The freed workers were not looked at.
                self.ready.class_mut(class).settled = false;
                return Some(Missing::Counters);
            }
            let found = if entry.settled {
                self.fleet.find_among(freed, entry, except, now)
            } else {
                self.fleet.find(entry, except, now)
            };
            let Some(worker) = found else {
                self.ready.class_mut(class).settled = true;
                return Some(Missing::Worker);
            };
            let room = self.fleet.get(worker).map_or(0, |w| w.room(&entry.request));
            for _ in 0..room.min(allowed).min(startable) {
                self.assign(slot, worker, actions);
            }
            self.fleet.reindex(worker);
            if self.reservation != Some((class, worker)) {
                self.ready.class_mut(class).blocked_since = None;
            }
        }
    }

    fn assign(&mut self, slot: u32, worker: WorkerId, actions: &mut Vec<Action>) {
        let (task, class) = self.change(slot, |array| {
            let element =
                array.next_idle().expect("a startable array has an idle element, before the cursor or behind it");
            array.start(element);
            (array.task(element), array.class)
        });
        let run = self.next_run;
        self.next_run = run.next();
        let entry = Run { task, class, started: false, doomed: false };
        self.occupy(worker, run, entry);
        actions.push(Action::Assign { worker, task, run });
    }

    /// Whether a class has waited too long; its clock starts here.
    fn is_starving(&mut self, class: u32, now: Millis) -> bool {
        let since = &mut self.ready.class_mut(class).blocked_since;
        let since = *since.get_or_insert(now);
        now.saturating_sub(since) >= STARVATION_MILLISECONDS
    }

    /// Returns what to keep for a class; nothing if it could not run anyway.
    fn protect(&mut self, class: u32, missing: Missing, now: Millis) -> Option<Guard> {
        let version = self.fleet.version;
        let entry = self.ready.class(class);
        if entry.infeasible_at == Some(version) || self.ready.missing_counter(class).is_some() {
            return None;
        }
        let holds = |id: &WorkerId| {
            let worker = self.fleet.get(*id);
            worker.is_some_and(|w| w.could_hold(entry, now))
        };
        let kept = self.reservation.filter(|(holder, _)| *holder == class);
        let kept = kept.map(|(_, worker)| worker).filter(holds);
        let nearest = || {
            let workers = self.fleet.iter().filter(|(_, w)| w.could_hold(entry, now));
            let nearest = workers.max_by_key(|(id, w)| (w.free().cores, Reverse(*id)));
            nearest.map(|(id, _)| id)
        };
        let Some(worker) = kept.or_else(nearest) else {
            self.ready.class_mut(class).infeasible_at = Some(version);
            return None;
        };
        Some(Guard {
            class,
            // While a counter is missing an idle worker would be a waste.
            worker: (missing == Missing::Worker).then_some(worker),
        })
    }
}
