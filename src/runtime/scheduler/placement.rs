//! Which ready task goes to which worker.
//!
//! Called by `mod` once per batch of events. Classes are served by the rank of their first array;
//! each takes the first worker in filling order that fits its best variant, else the next variant. The first
//! class in rank that has found no place for [`STARVATION_MILLISECONDS`] although it could have one gets a
//! guard: the workers that are nearest to free, and the counters it needs, are kept from those that rank
//! behind it.

use super::ready::{Class, Rank};
use super::workers::{Run, Wanted};
use super::{Action, Millis, Scheduler};
use crate::runtime::ids::{RunId, TaskId, WorkerId};
use crate::runtime::protocol::Request;
use std::cmp::Reverse;

/// How long a class may be overtaken by smaller ones before a place is kept for it.
pub(super) const STARVATION_MILLISECONDS: Millis = 10_000;

/// What is kept for a class, from those behind it.
struct Guard {
    class: u32,
    workers: Vec<WorkerId>,
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
        // Whatever becomes of the reservation, those workers are looked at again.
        let reserved = self.reservation.as_ref().map(|(_, workers)| workers.clone());
        for worker in reserved.unwrap_or_default() {
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
            let missing = self.place(class, rank, guard.as_ref(), &freed, now, actions);
            if let Some(missing) = missing
                && guard.is_none()
                && self.is_starving(class, now)
            {
                guard = self.protect(class, missing, now);
            }
        }
        let kept = guard.filter(|guard| !guard.workers.is_empty());
        self.reservation = kept.map(|guard| (guard.class, guard.workers));
        self.take_back(now, actions);
        self.send_ahead(&freed, now, actions);
    }

    /// Places elements of the first array of a class until nothing is left or something is missing.
    fn place(
        &mut self,
        class: u32,
        (_, slot): Rank,
        guard: Option<&Guard>,
        freed: &[WorkerId],
        now: Millis,
        actions: &mut Vec<Action>,
    ) -> Option<Missing> {
        let except = guard.map_or(&[][..], |guard| &guard.workers);
        loop {
            let startable = self.array(slot).startable();
            if startable == 0 {
                return None;
            }
            let entry = self.ready.class(class);
            let kept = guard.is_some_and(|g| entry.shares_counter(self.ready.class(g.class)));
            let allowed = |variant| if kept { 0 } else { self.ready.counter_room(class, variant) };
            let variants = (0..entry.needs.variants.len() as u8).filter(|variant| allowed(*variant) > 0);
            let variants: arrayvec::ArrayVec<u8, { super::VARIANTS_MAX as usize }> = variants.collect();
            if variants.is_empty() {
                // The freed workers were not looked at.
                self.ready.class_mut(class).settled = false;
                return Some(Missing::Counters);
            }
            let time = entry.time_needed(self.fleet.longest());
            let found = variants.iter().find_map(|variant| {
                let wanted = Wanted { request: entry.needs.variant(*variant), time, now, except };
                if entry.needs.nodes > 1 {
                    return Some((*variant, self.find_team(entry, wanted, freed)?));
                }
                let found = match entry.settled {
                    true => self.fleet.find_among(freed, wanted),
                    false => self.fleet.find(wanted),
                };
                Some((*variant, vec![found?]))
            });
            let Some((variant, workers)) = found else {
                self.ready.class_mut(class).settled = true;
                return Some(Missing::Worker);
            };
            if let [worker] = workers[..] {
                let request = entry.needs.variant(variant);
                let room = self.fleet.get(worker).map_or(0, |w| w.room.copies(request));
                for _ in 0..room.min(allowed(variant)).min(startable) {
                    self.assign(slot, worker, variant, actions);
                }
            } else {
                self.assign_team(slot, &workers, actions);
            }
            for worker in &workers {
                self.fleet.reindex(*worker);
            }
            if self.reservation.as_ref().is_none_or(|(holder, kept)| *holder != class || *kept != workers) {
                self.ready.class_mut(class).blocked_since = None;
            }
        }
    }

    /// Returns as many workers as a class needs at once, all of which have room; `None` if there are not enough.
    fn find_team(&self, class: &Class, wanted: Wanted<'_>, freed: &[WorkerId]) -> Option<Vec<WorkerId>> {
        if class.settled && freed.is_empty() {
            return None;
        }
        let mut taken = wanted.except.to_vec();
        let own = taken.len();
        for _ in 0..class.needs.nodes {
            taken.push(self.fleet.find(Wanted { except: &taken, ..wanted })?);
        }
        Some(taken.split_off(own))
    }

    fn assign(&mut self, slot: u32, worker: WorkerId, variant: u8, actions: &mut Vec<Action>) {
        let (task, class, run) = self.start_next(slot);
        let entry = Run::new(task, class, variant);
        let line = entry.line();
        let place = self.occupy(worker, run, entry);
        actions.push(Action::Assign { worker, task, run, variant, line, waits: false, place });
    }

    /// Takes the next element of an array and gives it a new run.
    pub(super) fn start_next(&mut self, slot: u32) -> (TaskId, u32, RunId) {
        let (task, class) = self.change(slot, |array| {
            let element =
                array.next_idle().expect("a startable array has an idle element, before the cursor or behind it");
            array.start(element);
            (array.task(element), array.class)
        });
        let run = self.next_run;
        self.next_run = run.next();
        (task, class, run)
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
        let (nodes, time) = (entry.needs.nodes as usize, entry.time_needed(self.fleet.longest()));
        let able = |requests: &[&Request]| -> Vec<(WorkerId, u32)> {
            let able = self.fleet.iter().filter(|(_, worker)| worker.could_hold(requests, time, now));
            able.map(|(id, worker)| (id, worker.room.free_cores())).collect()
        };
        if able(&self.ready.possible(class)).len() < nodes {
            self.ready.class_mut(class).infeasible_at = Some(version);
            return None;
        }
        let variants = (0..entry.needs.variants.len() as u8).filter(|at| self.ready.counter_room(class, *at) > 0);
        let allowed: Vec<&Request> = variants.map(|at| entry.needs.variant(at)).collect();
        let mut able = able(&allowed);
        if missing == Missing::Counters || able.len() < nodes {
            // An idle worker would be a waste.
            return Some(Guard { class, workers: Vec::new() });
        }
        let before = self.reservation.as_ref().filter(|(holder, _)| *holder == class);
        let kept = |id: WorkerId| before.is_some_and(|(_, workers)| workers.contains(&id));
        able.sort_unstable_by_key(|(id, free)| (!kept(*id), Reverse(*free), *id));
        Some(Guard { class, workers: able[..nodes].iter().map(|(id, _)| *id).collect() })
    }
}
