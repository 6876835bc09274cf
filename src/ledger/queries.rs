//! What to ask the backend, when, and what a failed question means (nothing about any job).

use super::limits::{BACKOFF_MAX, LOOKUP_INTERVAL, POLL_MAX, POLL_MIN, SECOND, SENTINEL_PAUSE_MAX, SUSPECT_INTERVAL};
use super::{JobState, Ledger, Moment, Order};
use crate::backends::{BackendError, JobRef};
use crate::runtime::ids::{JobName, JobSeq};
use std::collections::BTreeSet;

impl Ledger {
    pub(super) fn plan_queries(&mut self, now: Moment, orders: &mut Vec<Order>) {
        self.plan_list(now, orders);
        self.plan_find(now, orders);
        self.plan_account(now, orders);
        self.plan_sentinels(now, orders);
    }

    /// When the next listing is due. While every job that is not pending has a live worker, there is nothing
    /// to learn but the time that is left.
    pub(super) fn list_due(&self) -> u64 {
        let Some(listed_at) = self.listed_at else { return self.list_not_before };
        let quiet = self.live().all(|job| {
            let connected = self.watches.get(&job.seq).is_some_and(|watch| watch.connected);
            !job.cancelling && (job.state == JobState::Pending || connected)
        });
        let running = self.live().any(|job| job.state != JobState::Pending);
        let pause = if quiet && running { POLL_MAX } else { self.poll_interval };
        // However much happens, never twice within a second.
        self.list_by.min(listed_at + pause).max(listed_at + SECOND).max(self.list_not_before)
    }

    fn plan_list(&mut self, now: Moment, orders: &mut Vec<Order>) {
        if self.listing || now.clock < self.list_due() {
            return;
        }
        let known: Vec<JobRef> = self.live().filter(|job| job.id.is_some()).map(|job| job.reference()).collect();
        if !known.is_empty() {
            self.listing = true;
            orders.push(Order::List(known));
        }
    }

    /// By name are looked up: jobs whose id is not known, jobs that listings do not show, now and then those
    /// that were closed on weak evidence, and at the end whether anything is left.
    fn plan_find(&mut self, now: Moment, orders: &mut Vec<Order>) {
        if self.finding.is_some() || now.clock < self.next_find {
            return;
        }
        let lost = |seq: &JobSeq| self.watches.get(seq).is_some_and(|watch| watch.absences > 1 && !watch.looked);
        let asked: BTreeSet<JobSeq> = self
            .live()
            .filter(|job| !self.in_flight.contains(&job.seq) && (job.id.is_none() || lost(&job.seq)))
            .map(|job| job.seq)
            .collect();
        let last = self.stopping && self.live.is_empty() && !self.found_nothing && self.may_have_left();
        if asked.is_empty() && self.suspects.is_empty() && !last {
            return;
        }
        self.finding_last = last;
        self.finding = Some(asked);
        orders.push(Order::Find);
    }

    fn plan_account(&mut self, now: Moment, orders: &mut Vec<Order>) {
        if self.accounting {
            return;
        }
        let mut asked = Vec::new();
        for seq in &self.live {
            let (Some(job), Some(watch)) = (self.jobs.get(seq), self.watches.get_mut(seq)) else { continue };
            if watch.absences > 0 && job.id.is_some() && now.clock >= watch.account_at {
                // What accounting does not know yet it may know in a while.
                watch.account_at = now.clock + watch.account_pause;
                watch.account_pause = (watch.account_pause * 2).min(BACKOFF_MAX);
                asked.push(job.reference());
            }
        }
        if !asked.is_empty() {
            self.accounting = true;
            orders.push(Order::Account(asked));
        }
    }

    fn plan_sentinels(&mut self, now: Moment, orders: &mut Vec<Order>) {
        if self.reading || now.clock < self.next_sentinels {
            return;
        }
        let silent: Vec<(JobSeq, JobName)> = self
            .live()
            .filter(|job| {
                let watch = self.watches.get(&job.seq);
                watch.is_some_and(|watch| !watch.connected && watch.sentinel.is_none())
                    && (job.state > JobState::Pending || watch.is_some_and(|watch| watch.absences > 0))
            })
            .map(|job| (job.seq, job.name.clone()))
            .collect();
        self.next_sentinels = now.clock + self.sentinel_pause;
        self.sentinel_pause = (self.sentinel_pause * 2).min(SENTINEL_PAUSE_MAX);
        if !silent.is_empty() {
            self.reading = true;
            orders.push(Order::ReadSentinels(silent));
        }
    }

    /// A query failed: this says nothing about any job.
    pub fn on_query_failed(&mut self, order: &Order, error: &BackendError, now: Moment) {
        match order {
            Order::List(_) => self.on_listing_failed(error, now),
            Order::Find => {
                self.finding = None;
                self.find_failures += 1;
                self.next_find = now.clock + (LOOKUP_INTERVAL << self.find_failures.min(4)).min(BACKOFF_MAX / 2);
            }
            Order::Account(_) => self.accounting = false,
            Order::Cancel(_) => {
                self.cancelling = false;
                self.note("cancel_failed", None, format!("{error}; it will be tried again"));
                self.cancel_trouble = Some(format!("jobs could not be cancelled: {error}"));
            }
            Order::ReadSentinels(_) => self.reading = false,
            Order::Submit(_) | Order::Expect(_) | Order::Drain(_) => {}
        }
    }

    fn on_listing_failed(&mut self, error: &BackendError, now: Moment) {
        self.listing = false;
        self.listing_failures += 1;
        let pause = (POLL_MIN << self.listing_failures.min(5)).min(BACKOFF_MAX);
        self.list_not_before = now.clock + pause;
        for seq in &self.live {
            let connected = self.watches.get(seq).is_some_and(|watch| watch.connected);
            if let Some(job) = self.jobs.get_mut(seq)
                && !connected
                && !job.unknown
                && job.id.is_some()
            {
                job.unknown = true;
                self.changed.insert(*seq);
            }
        }
        if self.listing_failures == 1 {
            self.note("query_failed", None, format!("{error}; jobs keep their last known state"));
        }
    }

    /// When suspects alone are the reason to look, it is rarely.
    pub(super) fn look_for_suspects(&mut self, now: Moment) {
        let lost = self.watches.values().any(|watch| watch.absences > 0 && !watch.looked);
        let unknown = self.live().any(|job| job.id.is_none());
        let last = self.stopping && self.live.is_empty();
        if !(lost || unknown || last) {
            self.next_find = self.next_find.max(now.clock + SUSPECT_INTERVAL);
        }
    }

    /// Asks for a listing at once (before a decision that rests on the walltime).
    pub fn refresh(&mut self, now: Moment) {
        self.list_by = now.clock;
    }
}
