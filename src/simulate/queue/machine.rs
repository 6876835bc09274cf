//! A machine under EASY backfilling (Lifka 1995): first come, first served; the first job that does not fit gets
//! a reservation for when, by the times that running jobs asked for, enough processors are free; a job behind it
//! may start earlier if it does not delay that.
//!
//! Running jobs end no later than asked, so that a reservation only ever gets earlier.

use super::starts::At;
use std::collections::{BTreeMap, BTreeSet};

/// Whose job it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Owner {
    /// Somebody's, by its place in the log.
    Log(usize),
    /// Ours, by its number.
    Own(u32),
}

/// A job as the machine sees it. Times in seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Job {
    pub(super) owner: Owner,
    pub(super) processors: u32,
    /// What it asked for: after this long it is ended.
    pub(super) requested: f64,
    /// How long it runs if nobody ends it; nobody knows that before.
    pub(super) run: f64,
}

/// A job that runs.
#[derive(Clone, Copy, Debug)]
struct Running {
    processors: u32,
    limit: At,
    end: At,
}

/// When the first job that waits can start at the latest, and how many processors it leaves free then.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Reservation {
    pub(super) owner: Owner,
    pub(super) at: f64,
    spare: u32,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Machine {
    free: u32,
    running: BTreeMap<Owner, Running>,
    /// Running jobs by when they have to end, and by when they do.
    limits: BTreeSet<(At, Owner)>,
    ends: BTreeSet<(At, Owner)>,
    /// In order of submission; the first one does not fit.
    waiting: Vec<Job>,
    reservation: Option<Reservation>,
    started: Vec<(f64, Owner)>,
}

impl Machine {
    pub(super) fn new(processors: u32) -> Self {
        Self {
            free: processors,
            running: BTreeMap::new(),
            limits: BTreeSet::new(),
            ends: BTreeSet::new(),
            waiting: Vec::new(),
            reservation: None,
            started: Vec::new(),
        }
    }

    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// Returns when the next running job ends.
    pub(super) fn next_end(&self) -> Option<f64> {
        self.ends.first().map(|(end, _)| end.0)
    }

    /// Returns the reservation there is.
    #[cfg(test)]
    pub(super) fn reservation(&self) -> Option<Reservation> {
        self.reservation
    }

    /// Returns the processors that running jobs hold.
    #[cfg(test)]
    pub(super) fn used(&self) -> u32 {
        self.running.values().map(|job| job.processors).sum()
    }

    /// Takes the jobs that have started, in order.
    pub(super) fn started(&mut self) -> Vec<(f64, Owner)> {
        std::mem::take(&mut self.started)
    }

    /// A job that has been running since `start`. There must be room for it.
    pub(super) fn found_running(&mut self, job: Job, start: f64) {
        self.hold(job, start);
    }

    /// A job comes.
    pub(super) fn arrive(&mut self, job: Job, now: f64) {
        if self.waiting.is_empty() && job.processors <= self.free {
            self.start(job, now);
            return;
        }
        // Nothing else has changed: those that waited wait on.
        match self.reservation.filter(|kept| self.may_overtake(job, *kept, now)) {
            Some(kept) => self.overtake(job, kept, now),
            None => self.waiting.push(job),
        }
        if self.reservation.is_none() {
            self.pass(now);
        }
    }

    /// Jobs end that are over by now.
    pub(super) fn end_until(&mut self, now: f64) {
        let mut some = false;
        while let Some((_, owner)) = self.ends.first().copied().filter(|(end, _)| end.0 <= now) {
            self.release(owner);
            some = true;
        }
        if some {
            self.pass(now);
        }
    }

    /// A job leaves before its end, or before its start.
    pub(super) fn leave(&mut self, owner: Owner, now: f64) {
        if self.release(owner) {
            self.pass(now);
        } else if let Some(place) = self.waiting.iter().position(|job| job.owner == owner) {
            self.waiting.remove(place);
            // Those behind the first one wait because of it; of the others nobody waits for anybody.
            if place == 0 {
                self.pass(now);
            }
        }
    }

    /// Starts whatever may start.
    fn pass(&mut self, now: f64) {
        let mut first = 0;
        while let Some(job) = self.waiting.get(first).copied().filter(|job| job.processors <= self.free) {
            self.start(job, now);
            first += 1;
        }
        self.waiting.drain(..first);
        self.reservation = self.waiting.first().map(|head| self.reserve(*head));
        let mut place = 1;
        while let (Some(job), Some(kept), 1..) = (self.waiting.get(place).copied(), self.reservation, self.free) {
            if self.may_overtake(job, kept, now) {
                self.waiting.remove(place);
                self.overtake(job, kept, now);
            } else {
                place += 1;
            }
        }
    }

    fn reserve(&self, head: Job) -> Reservation {
        let mut free = self.free;
        let mut at = f64::INFINITY;
        // All that have to end at that moment count.
        for (limit, owner) in &self.limits {
            if limit.0 > at {
                break;
            }
            free += self.running[owner].processors;
            if free >= head.processors {
                at = limit.0;
            }
        }
        Reservation { owner: head.owner, at, spare: free.saturating_sub(head.processors) }
    }

    fn may_overtake(&self, job: Job, kept: Reservation, now: f64) -> bool {
        job.processors <= self.free && (now + job.requested <= kept.at || job.processors <= kept.spare)
    }

    fn overtake(&mut self, job: Job, kept: Reservation, now: f64) {
        if now + job.requested > kept.at {
            self.reservation = Some(Reservation { spare: kept.spare - job.processors, ..kept });
        }
        self.start(job, now);
    }

    fn start(&mut self, job: Job, now: f64) {
        self.hold(job, now);
        self.started.push((now, job.owner));
    }

    fn hold(&mut self, job: Job, start: f64) {
        let limit = At(start + job.requested);
        let end = At(start + job.run.min(job.requested));
        self.free -= job.processors;
        self.running.insert(job.owner, Running { processors: job.processors, limit, end });
        self.limits.insert((limit, job.owner));
        self.ends.insert((end, job.owner));
    }

    fn release(&mut self, owner: Owner) -> bool {
        let Some(job) = self.running.remove(&owner) else { return false };
        self.free += job.processors;
        self.limits.remove(&(job.limit, owner));
        self.ends.remove(&(job.end, owner));
        true
    }
}
