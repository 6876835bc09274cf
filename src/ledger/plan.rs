//! What to do now: how many jobs, which to end.

use super::book::Watch;
use super::limits::{CANCEL_PAUSE_MAX, SECOND};
use super::{Aim, Job, JobState, Ledger, Moment, Order, Scaling, Situation, Wish};
use crate::backends::{JobRef, Submit};
use crate::runtime::ids::{JobName, JobSeq};

impl Ledger {
    /// Decides what to do now. Call after every batch of evidence and at least once a second.
    pub fn plan(&mut self, situation: &Situation, now: Moment) -> Vec<Order> {
        let mut orders = Vec::new();
        self.settle(now);
        if self.stopping {
            self.plan_stop(now);
        } else {
            match self.aim {
                Aim::Hold => self.plan_scale(situation, now, &mut orders),
                Aim::Adapt { .. } => self.plan_adapt(&situation.scaling, now, &mut orders),
            }
        }
        self.plan_cancel(now, &mut orders);
        self.plan_queries(now, &mut orders);
        orders
    }

    /// Workers were told to leave and get the time they were promised; jobs without one are cancelled. An
    /// intent whose id is not known yet is cancelled when it is.
    fn plan_stop(&mut self, now: Moment) {
        let overdue = self.stop_by.is_some_and(|by| now.clock >= by);
        for seq in self.live.clone() {
            let watch = self.watches.get(&seq);
            let Some(job) = self.jobs.get_mut(&seq) else { continue };
            let leaves = matches!(job.state, JobState::Up | JobState::Draining)
                || watch.is_some_and(|watch| watch.sentinel.is_some());
            if !job.cancelling && (overdue || !leaves) {
                job.cancelling = true;
                self.changed.insert(seq);
            } else if leaves && !job.draining {
                job.draining = true;
                self.changed.insert(seq);
            }
        }
    }

    fn plan_scale(&mut self, situation: &Situation, now: Moment, orders: &mut Vec<Order>) {
        let over = |seq: &JobSeq| self.watches.get(seq).is_some_and(|watch| watch.sentinel.is_some());
        let staying = self.live().filter(|job| !job.leaves());
        let staying: Vec<JobSeq> = staying.map(|job| job.seq).filter(|seq| !over(seq)).collect();
        let count = u32::try_from(staying.len()).unwrap_or(u32::MAX);
        // An intent is no job yet: it may come to nothing, and is then tried again without any work, too.
        let intended = |seq: &&JobSeq| self.jobs.get(seq).is_some_and(|job| job.state == JobState::Intended);
        if count >= self.wanted && !staying.iter().any(|seq| intended(&seq)) {
            self.reached = true;
        }
        if count > self.wanted {
            self.shrink(&staying, count - self.wanted, situation, orders);
            return;
        }
        // What leaves has not left: the maximum is what the batch system counts.
        let existing = self.count_possible(now);
        let missing = self.wanted.saturating_sub(existing);
        if missing == 0 || !self.in_flight.is_empty() || self.reached && !situation.work {
            return;
        }
        let count = self.breaker.allow(missing, existing, now);
        if count > 0 {
            let wish = Wish { pool: self.pool.clone(), walltime_seconds: None, jobs: count };
            self.intend(wish, now, orders);
        }
    }

    /// Does what the scaling loop wants, as far as the maximum, the site and the state of the jobs allow.
    fn plan_adapt(&mut self, scaling: &Scaling, now: Moment, orders: &mut Vec<Order>) {
        for seq in &scaling.cancel {
            let connected = self.watches.get(seq).is_some_and(|watch| watch.connected);
            if let Some(job) = self.jobs.get_mut(seq)
                && job.state < JobState::Up
                && !connected
                && !job.cancelling
            {
                job.cancelling = true;
                self.changed.insert(*seq);
            }
        }
        for seq in &scaling.drain {
            self.drain(*seq, orders);
        }
        let mut room = self.may_submit(now);
        for wish in &scaling.submit {
            let jobs = wish.jobs.min(room);
            room -= jobs;
            if jobs > 0 {
                self.intend(Wish { jobs, ..wish.clone() }, now, orders);
            }
        }
        let staying = self.live().filter(|job| !job.leaves()).count();
        self.wanted = u32::try_from(staying).unwrap_or(u32::MAX);
    }

    /// Asks the worker of a job to leave; returns whether it was asked just now.
    fn drain(&mut self, seq: JobSeq, orders: &mut Vec<Order>) -> bool {
        let Some(job) = self.jobs.get_mut(&seq) else { return false };
        if job.state != JobState::Up || job.draining || job.cancelling {
            return false;
        }
        job.draining = true;
        self.changed.insert(seq);
        orders.push(Order::Drain(seq));
        true
    }

    fn intend(&mut self, wish: Wish, now: Moment, orders: &mut Vec<Order>) {
        let Wish { pool, walltime_seconds, jobs: count } = wish;
        let first = self.next;
        let mut jobs = Vec::new();
        for seq in (first.0..first.0 + count).map(JobSeq) {
            let name = JobName::new(&self.id4, seq);
            let job = Job {
                seq,
                name: name.clone(),
                pool: pool.clone(),
                walltime_seconds,
                submit: first,
                epoch: self.epoch,
                state: JobState::Intended,
                unknown: false,
                silent: false,
                cancelling: false,
                draining: false,
                id: None,
                reason: String::new(),
                node: None,
                exit_code: None,
                end: None,
                intended_at: now.wall,
                started_at: None,
                ended_at: None,
                was_up: false,
                requeues: 0,
            };
            self.jobs.insert(seq, job);
            self.live.insert(seq);
            self.watches.insert(seq, Watch { intended: Some(now.clock), ..Watch::default() });
            self.in_flight.insert(seq);
            self.changed.insert(seq);
            jobs.push((seq, name));
        }
        self.next = JobSeq(first.0 + count);
        self.breaker.on_intended(first);
        let exclude = self.nodes.avoided(now);
        orders.push(Order::Submit(Submit { pool, walltime_seconds, jobs, exclude }));
    }

    /// Too many jobs: those without a worker go first (newest first), then the least loaded workers drain.
    fn shrink(&mut self, staying: &[JobSeq], excess: u32, situation: &Situation, orders: &mut Vec<Order>) {
        let mut left = excess as usize;
        for seq in staying.iter().rev() {
            if left == 0 {
                return;
            }
            if let Some(job) = self.jobs.get_mut(seq)
                && job.state < JobState::Up
            {
                job.cancelling = true;
                self.changed.insert(*seq);
                left -= 1;
            }
        }
        for seq in &situation.drain_first {
            if left == 0 {
                return;
            }
            if self.drain(*seq, orders) {
                left -= 1;
            }
        }
    }

    fn plan_cancel(&mut self, now: Moment, orders: &mut Vec<Order>) {
        if self.cancelling {
            return;
        }
        let cancelled = self.live.iter().filter(|seq| {
            self.jobs.get(seq).is_some_and(|job| job.cancelling && job.id.is_some())
                && self.watches.get(seq).is_none_or(|watch| now.clock >= watch.cancel_at)
        });
        let due: Vec<JobSeq> = cancelled.copied().collect();
        if due.is_empty() {
            return;
        }
        self.cancelling = true;
        for seq in &due {
            let watch = self.watches.entry(*seq).or_default();
            watch.cancel_at = now.clock + watch.cancel_pause;
            watch.cancel_pause = (watch.cancel_pause * 2).min(CANCEL_PAUSE_MAX);
        }
        orders.push(Order::Cancel(due.iter().filter_map(|seq| Some(self.jobs.get(seq)?.reference())).collect()));
    }

    /// The cancel command was accepted; whether the jobs are gone is for later listings to say.
    pub fn on_cancelled(&mut self, _jobs: &[JobRef], now: Moment) {
        self.cancelling = false;
        self.cancel_trouble = None;
        self.poll_soon(now);
        self.next_sentinels = self.next_sentinels.min(now.clock + SECOND);
    }
}
