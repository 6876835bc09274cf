//! What to ask, and when.

use super::limits::{POLL_MAX, POLL_MIN, SECOND};
use super::{Job, JobState, Ledger, Moment, Order};
use crate::backends::JobRef;
use crate::runtime::ids::{JobName, JobSeq};

impl Ledger {
    pub(super) fn plan_queries(&mut self, now: Moment, orders: &mut Vec<Order>) {
        let intended = self.live.iter().any(|seq| {
            self.jobs
                .get(seq)
                .is_some_and(|job| job.state == JobState::Intended && !(self.submitting && job.epoch == self.epoch))
        });
        if intended && !self.finding && now.clock >= self.next_find {
            self.finding = true;
            orders.push(Order::Find);
        }
        let known: Vec<&Job> = self.live().filter(|job| job.id.is_some()).collect();
        let settled = known.iter().all(|job| job.state == JobState::Up && !job.silent && !job.cancelling);
        let due = if settled {
            self.next_poll.max(self.next_poll + POLL_MAX - self.poll_interval.min(POLL_MAX))
        } else {
            self.next_poll
        };
        if !known.is_empty() && !self.listing && now.clock >= due {
            let asked = known.iter().map(|job| job.reference()).collect();
            self.listing = true;
            orders.push(Order::List(asked));
        }
        let absent: Vec<JobRef> = self
            .live()
            .filter(|job| {
                self.watches.get(&job.seq).is_some_and(|watch| watch.absences > 0)
                    && !self.account_asked.contains(&job.seq)
            })
            .map(Job::reference)
            .collect();
        if !absent.is_empty() && !self.accounting {
            self.accounting = true;
            orders.push(Order::Account(absent));
        }
        if !self.reading && now.clock >= self.next_sentinels {
            let silent: Vec<(JobSeq, JobName)> = self
                .live()
                .filter(|job| {
                    self.watches.get(&job.seq).is_some_and(|watch| !watch.connected && watch.sentinel.is_none())
                        && job.state != JobState::Intended
                        && job.state != JobState::Pending
                })
                .map(|job| (job.seq, job.name.clone()))
                .collect();
            self.next_sentinels = now.clock + SECOND;
            if !silent.is_empty() {
                self.reading = true;
                orders.push(Order::ReadSentinels(silent));
            }
        }
    }

    /// Asks for a listing at once (before a decision that rests on the walltime).
    pub fn refresh(&mut self, now: Moment) {
        self.next_poll = now.clock;
        self.poll_interval = POLL_MIN;
    }
}
