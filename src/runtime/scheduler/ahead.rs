//! Short tasks are sent to workers before there is room for them, so that nobody waits for a message between
//! two of them. They wait there in lines: a run that ends hands its room over to the next of its line.
//!
//! Called by `placement`, after everything that fits has its place. The lines are short (`Class::ahead`), so that
//! what comes later with a higher rank, or needs a whole worker, is not kept waiting for long; where somebody
//! else has room, what waits is asked back.

use super::workers::{Run, Wanted, line};
use super::{Action, Millis, Scheduler};
use crate::runtime::ids::{RunId, TaskId, WorkerId};
use std::collections::BTreeSet;

/// Runs that wait at one worker.
const WAITING_MAX: usize = 2048;

impl Scheduler {
    /// Fills the lines of workers where something ended, and of all when a class has new work.
    pub(super) fn send_ahead(&mut self, touched: &[WorkerId], now: Millis, actions: &mut Vec<Action>) {
        if !self.ahead {
            return;
        }
        let mut last = None;
        while let Some((rank, class)) = self.ready.head_after(last) {
            last = Some(rank);
            let entry = self.ready.class(class);
            let ahead = entry.ahead();
            if ahead == 0 {
                if self.could_start(class) {
                    // What ranks behind it would hand its room over to its own kind.
                    break;
                }
                continue;
            }
            // Those that were not touched have as much as they had, unless the class has only now something to give.
            let everywhere = !std::mem::replace(&mut self.ready.class_mut(class).was_sent_ahead, true);
            let workers = if everywhere { self.fleet.iter().map(|(id, _)| id).collect() } else { touched.to_vec() };
            for worker in workers {
                if self.array(rank.1).startable() == 0 {
                    break;
                }
                self.fill_lines(class, rank.1, ahead, worker, now, actions);
            }
            if self.could_start(class) {
                break;
            }
        }
    }

    /// Whether a class has tasks that wait for nothing but a worker that can be had.
    fn could_start(&self, class: u32) -> bool {
        let entry = self.ready.class(class);
        let mut variants = 0..entry.needs.variants.len() as u8;
        entry.queue().next().is_some()
            && entry.infeasible_at != Some(self.fleet.version)
            && variants.any(|variant| self.ready.counter_room(class, variant) > 0)
    }

    fn fill_lines(
        &mut self,
        class: u32,
        slot: u32,
        ahead: u32,
        worker: WorkerId,
        now: Millis,
        actions: &mut Vec<Action>,
    ) {
        if self.reservation.as_ref().is_some_and(|(_, kept)| kept.contains(&worker)) {
            return;
        }
        let entry = self.ready.class(class);
        let time = entry.time_needed(self.fleet.longest());
        let Some(host) = self.fleet.get(worker).filter(|host| host.accepts() && host.has_time(time, now)) else {
            return;
        };
        let startable = self.array(slot).startable() as usize;
        // The last tasks go to whoever is free first.
        let share = startable / self.fleet.len().max(1);
        let mut free = WAITING_MAX.saturating_sub(host.waiting().len()).min(share);
        let mut wanted = Vec::new();
        for variant in 0..entry.needs.variants.len() as u8 {
            let Some(line) = host.line(class, variant) else { continue };
            let full = (line.holders * ahead) as usize;
            if line.waiting.len() * 2 < full {
                let count = (full - line.waiting.len()).min(free);
                free -= count;
                wanted.push((variant, count));
            }
        }
        for (variant, count) in wanted {
            for _ in 0..count {
                let (task, class, run) = self.start_next(slot);
                self.change(slot, |array| array.waiting += 1);
                self.running.insert(task, (worker, run));
                self.fleet.enqueue(worker, run, Run::new(task, class, variant));
                let (line, place) = (line(class, variant), Default::default());
                actions.push(Action::Assign { worker, task, run, variant, line, waits: true, place });
            }
        }
    }

    /// Asks for what waits somewhere and could start somewhere else at once.
    pub(super) fn take_back(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if self.fleet.hosts().is_empty() || self.fleet.is_full() {
            return;
        }
        let reserved = self.reservation.as_ref().map_or(&[][..], |(_, workers)| workers);
        let mut wanted: Vec<(WorkerId, TaskId, RunId)> = Vec::new();
        let mut chosen = BTreeSet::new();
        for idle in self.fleet.emptiest() {
            let Some(room) = self.fleet.get(idle).map(|worker| &worker.room) else { continue };
            let mut cores = room.free_cores();
            for host in self.fleet.hosts() {
                let Some(worker) = self.fleet.get(*host).filter(|worker| worker.accepts()) else { continue };
                for line in worker.lines() {
                    let class = self.ready.class(line.class());
                    let request = class.needs.variant(line.variant());
                    let time = class.time_needed(self.fleet.longest());
                    let wish = Wanted { request, time, now, except: reserved };
                    if cores < request.cores || self.fleet.find_among(&[idle], wish).is_none() {
                        continue;
                    }
                    // The last to start come first.
                    for run in line.waiting.iter().rev() {
                        let Some(entry) = worker.waiting().get(run) else { continue };
                        if cores < request.cores {
                            break;
                        }
                        if entry.doomed || !chosen.insert(*run) {
                            continue;
                        }
                        // Those that are on their way back already will take the room, too.
                        cores -= request.cores;
                        if !entry.asked {
                            wanted.push((*host, entry.task, *run));
                        }
                    }
                }
            }
        }
        for (worker, task, run) in wanted {
            if let Some(entry) = self.fleet.run_mut(worker, run) {
                entry.asked = true;
            }
            actions.push(Action::TakeBack { worker, task, run });
        }
    }
}
