//! What to do now: how many jobs, which to end.

use super::book::Breaker;
use super::evidence::judge;
use super::limits::{SECOND, SETTLE};
use super::{Job, JobState, Ledger, Moment, Notice, Order, Situation};
use crate::backends::{EndedHow, JobRef, Submit};
use crate::runtime::ids::{JobName, JobSeq};

impl Ledger {
    /// Decides what to do now. Call after every batch of evidence and at least once a second.
    pub fn plan(&mut self, situation: &Situation, now: Moment) -> Vec<Order> {
        let mut orders = Vec::new();
        self.settle(now);
        self.plan_scale(situation, now, &mut orders);
        self.plan_cancel(now, &mut orders);
        self.plan_queries(now, &mut orders);
        orders
    }

    /// Ends jobs whose script has ended but about which the backend has nothing to add, and gives up
    /// on workers that must have ended themselves.
    pub(super) fn settle(&mut self, now: Moment) {
        for seq in self.live.clone() {
            let (Some(job), Some(watch)) = (self.jobs.get(&seq), self.watches.get(&seq)) else {
                continue;
            };
            if watch.sentinel.is_some() && now.clock >= watch.sentinel_at + SETTLE {
                let reason = judge(job, EndedHow::Exited, None, watch.sentinel.as_ref());
                self.end(seq, reason, now);
            } else if let Some(since) = watch.silent_since
                && now.clock >= since + self.orphan_timeout + 30 * SECOND
                && matches!(job.state, JobState::Up | JobState::Draining)
            {
                self.notices.push(Notice::Over { job: seq, planned: false });
                if let Some(job) = self.jobs.get_mut(&seq) {
                    job.state = JobState::Started;
                    job.cancelling = true;
                    self.changed.insert(seq);
                }
                self.note(
                    "worker_lost",
                    Some(seq),
                    format!("the worker of job {} has been silent too long; cancelling the job", seq.0),
                );
            }
        }
    }

    pub(super) fn plan_scale(&mut self, situation: &Situation, now: Moment, orders: &mut Vec<Order>) {
        if self.stopping {
            for seq in self.live.clone() {
                let connected = self.watches.get(&seq).is_some_and(|watch| watch.connected);
                // Connected workers are told to stop and write their end; the rest is cancelled.
                let overdue = self.stop_by.is_some_and(|by| now.clock >= by);
                if (!connected || overdue)
                    && let Some(job) = self.jobs.get_mut(&seq)
                    && !job.cancelling
                    && job.state != JobState::Intended
                    && self.watches.get(&seq).is_none_or(|watch| watch.sentinel.is_none())
                {
                    job.cancelling = true;
                    self.changed.insert(seq);
                }
            }
            return;
        }
        let staying: Vec<JobSeq> = self
            .live
            .iter()
            .copied()
            .filter(|seq| {
                let over = self.watches.get(seq).is_some_and(|watch| watch.sentinel.is_some());
                self.jobs
                    .get(seq)
                    .is_some_and(|job| !job.cancelling && !job.draining && job.state != JobState::Draining)
                    && !over
            })
            .collect();
        let count = u32::try_from(staying.len()).unwrap_or(u32::MAX);
        if count >= self.wanted {
            self.reached = true;
        }
        if count > self.wanted {
            self.shrink(&staying, count - self.wanted, situation, orders);
            return;
        }
        let missing = self.wanted - count;
        let allowed = self.breaker == Breaker::Closed && now.clock >= self.retry_at && !self.submitting;
        if missing == 0 || !allowed || self.reached && !situation.work {
            return;
        }
        let missing = match self.cap {
            Some(cap) if cap > 0 && self.count_live() >= cap => 1,
            _ => missing,
        };
        self.intend(missing.min(self.jobs_per_submit), now, orders);
    }

    pub(super) fn intend(&mut self, count: u32, now: Moment, orders: &mut Vec<Order>) {
        let first = self.next;
        let mut jobs = Vec::new();
        for offset in 0..count {
            let seq = JobSeq(first.0 + offset);
            let name = JobName::new(&self.id4, seq);
            let job = Job {
                seq,
                name: name.clone(),
                pool: self.pool.clone(),
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
            };
            self.jobs.insert(seq, job);
            self.live.insert(seq);
            self.changed.insert(seq);
            jobs.push((seq, name));
        }
        self.next = JobSeq(first.0 + count);
        self.submitting = true;
        orders.push(Order::Submit(Submit { pool: self.pool.clone(), jobs }));
    }

    /// Too many jobs: pending ones go first (newest first), then the least loaded workers drain.
    pub(super) fn shrink(&mut self, staying: &[JobSeq], excess: u32, situation: &Situation, orders: &mut Vec<Order>) {
        let mut left = excess as usize;
        for seq in staying.iter().rev() {
            if left == 0 {
                return;
            }
            if let Some(job) = self.jobs.get_mut(seq)
                && matches!(job.state, JobState::Submitted | JobState::Pending | JobState::Started)
            {
                job.cancelling = true;
                self.changed.insert(*seq);
                left -= 1;
            }
        }
        for seq in situation.drain_first.iter().take(left) {
            if let Some(job) = self.jobs.get_mut(seq)
                && job.state == JobState::Up
                && !job.draining
            {
                job.draining = true;
                self.changed.insert(*seq);
                orders.push(Order::Drain(*seq));
            }
        }
    }

    pub(super) fn plan_cancel(&mut self, now: Moment, orders: &mut Vec<Order>) {
        if self.cancelling {
            return;
        }
        let due: Vec<JobRef> = self
            .live
            .iter()
            .filter_map(|seq| {
                let job = self.jobs.get(seq).filter(|job| job.cancelling && job.id.is_some())?;
                let again = self
                    .watches
                    .get(seq)
                    .and_then(|watch| watch.cancel_sent_at)
                    .is_none_or(|at| now.clock >= at + 10 * SECOND);
                again.then(|| job.reference())
            })
            .collect();
        if !due.is_empty() {
            self.cancelling = true;
            for job in &due {
                if let Some((_, seq)) = JobName::parse(&self.id4, job.name.as_str()) {
                    self.watches.entry(seq).or_default().cancel_sent_at = Some(now.clock);
                }
            }
            orders.push(Order::Cancel(due));
        }
    }
}
