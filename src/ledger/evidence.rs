//! What the backend says of jobs: listings, looks by name, accounting, and failures of these.

use super::limits::{ABSENCE_SPAN, ABSENCES_MIN, BACKOFF_MAX, LOOKUP_INTERVAL, LOOKUPS_MIN, POLL_MAX, POLL_MIN};
use super::{EndReason, Job, JobState, Ledger, Moment, Notice, Order};
use crate::backends::sentinel::Sentinel;
use crate::backends::{BackendError, EndedHow, JobRef, Observation, Observed};
use crate::runtime::ids::{JobName, JobSeq};
use std::collections::BTreeSet;

impl Ledger {
    /// A listing about `asked` came back.
    pub fn on_listed(&mut self, asked: &[JobRef], seen: &[Observation], now: Moment) {
        self.listing = false;
        self.listing_failures = 0;
        let mut changed = false;
        let mut present = BTreeSet::new();
        for observation in seen {
            if let Some(seq) = self.seq_of(observation) {
                present.insert(seq);
                changed |= self.observe(seq, observation, now);
            }
        }
        for reference in asked {
            if let Some((_, seq)) = JobName::parse(&self.id4, reference.name.as_str())
                && !present.contains(&seq)
                && self.live.contains(&seq)
            {
                self.absent(seq, now);
            }
        }
        if changed {
            self.poll_soon(now);
        } else {
            self.poll_interval = (self.poll_interval * 3 / 2).min(POLL_MAX);
        }
        self.next_poll = now.clock + self.poll_interval;
    }

    /// A query failed: this says nothing about any job.
    pub fn on_query_failed(&mut self, order: &Order, error: &BackendError, now: Moment) {
        match order {
            Order::List(_) => {
                self.listing = false;
                self.listing_failures += 1;
                self.next_poll = now.clock + (POLL_MIN << self.listing_failures.min(5)).min(BACKOFF_MAX);
                for seq in self.live.clone() {
                    if let Some(job) = self.jobs.get_mut(&seq)
                        && !matches!(job.state, JobState::Up | JobState::Draining)
                        && !job.unknown
                    {
                        job.unknown = true;
                        self.changed.insert(seq);
                    }
                }
                if self.listing_failures == 1 {
                    self.note("query_failed", None, format!("{error}; jobs keep their last known state"));
                }
            }
            Order::Find => {
                self.finding = false;
                self.next_find = now.clock + LOOKUP_INTERVAL;
            }
            Order::Account(_) => {
                self.accounting = false;
                self.account_asked.clear();
            }
            Order::Cancel(_) => {
                self.cancelling = false;
                self.note("cancel_failed", None, format!("{error}; it will be tried again"));
                self.last_failure = Some(error.to_string());
            }
            Order::ReadSentinels(_) => self.reading = false,
            Order::Submit(_) | Order::Drain(_) => {}
        }
    }

    /// A look by name came back: every job of ours that the backend still knows.
    pub fn on_found(&mut self, seen: &[Observation], now: Moment) {
        self.finding = false;
        self.next_find = now.clock + LOOKUP_INTERVAL;
        let mut present = BTreeSet::new();
        for observation in seen {
            if let Some(seq) = self.seq_of(observation) {
                present.insert(seq);
                self.observe(seq, observation, now);
            }
        }
        for seq in self.live.clone() {
            let Some(job) = self.jobs.get_mut(&seq) else {
                continue;
            };
            if job.state != JobState::Intended || present.contains(&seq) || self.submitting && job.epoch == self.epoch {
                continue;
            }
            let watch = self.watches.entry(seq).or_default();
            watch.lookups += 1;
            if watch.lookups >= LOOKUPS_MIN {
                self.end(seq, EndReason::NotSubmitted, now);
                self.note(
                    "intent_closed",
                    Some(seq),
                    format!("job {} was never submitted: no job has its name", seq.0),
                );
                self.back_off(now);
            }
        }
        self.poll_soon(now);
    }

    /// Accounting came back.
    pub fn on_accounted(&mut self, seen: &[Observation], now: Moment) {
        self.accounting = false;
        for observation in seen {
            if let Some(seq) = self.seq_of(observation)
                && self.live.contains(&seq)
                && matches!(observation.state, Observed::Ended { .. })
            {
                self.observe(seq, observation, now);
            }
        }
    }

    /// The cancel command was accepted; whether the jobs are gone is for later listings to say.
    pub fn on_cancelled(&mut self, jobs: &[JobRef], now: Moment) {
        self.cancelling = false;
        for reference in jobs {
            if let Some((_, seq)) = JobName::parse(&self.id4, reference.name.as_str()) {
                self.watches.entry(seq).or_default().cancel_sent_at = Some(now.clock);
            }
        }
        self.poll_soon(now);
    }

    pub(super) fn seq_of(&self, observation: &Observation) -> Option<JobSeq> {
        JobName::parse(&self.id4, observation.name.as_str()).map(|(_, seq)| seq)
    }

    /// Takes one observation in; returns whether it changed anything.
    pub(super) fn observe(&mut self, seq: JobSeq, seen: &Observation, now: Moment) -> bool {
        let Some(job) = self.jobs.get_mut(&seq) else {
            return false;
        };
        if !job.live() {
            // A straggler: the record is closed, yet the job exists. It is cancelled at sight.
            if matches!(seen.state, Observed::Pending | Observed::Running) && job.end == Some(EndReason::NotSubmitted) {
                job.state = JobState::Submitted;
                job.end = None;
                job.ended_at = None;
                job.id = Some(seen.id.clone());
                job.cancelling = true;
                self.live.insert(seq);
                self.changed.insert(seq);
                self.note(
                    "straggler",
                    Some(seq),
                    format!("job {} appeared although it was given up; cancelling it", seq.0),
                );
                return true;
            }
            return false;
        }
        let before = job.clone();
        job.id = Some(seen.id.clone());
        job.unknown = matches!(seen.state, Observed::Unknown(_));
        let watch = self.watches.entry(seq).or_default();
        watch.absences = 0;
        watch.absent_since = None;
        if seen.node.is_some() {
            job.node = seen.node.clone();
        }
        match &seen.state {
            Observed::Pending => {
                job.reason = seen.reason.clone();
                if job.state < JobState::Pending {
                    job.state = JobState::Pending;
                }
                // Requeued under its id: nothing of the former attempt runs any more.
                if job.state > JobState::Pending && !watch.connected {
                    job.state = JobState::Pending;
                    job.silent = false;
                    watch.silent_since = None;
                    watch.sentinel = None;
                    self.notices.push(Notice::Over { job: seq, planned: false });
                }
            }
            Observed::Running => {
                job.started_at.get_or_insert(now.wall);
                if job.state < JobState::Started {
                    job.state = JobState::Started;
                }
                if !watch.connected {
                    job.reason = seen.reason.clone();
                }
                if let Some(seconds) = seen.seconds_left {
                    self.notices.push(Notice::TimeLeft { job: seq, seconds });
                }
            }
            Observed::Ended { how, exit_code } => {
                let reason = judge(job, *how, *exit_code, watch.sentinel.as_ref());
                if !seen.reason.is_empty() {
                    job.reason = seen.reason.clone();
                }
                if job.exit_code.is_none() {
                    job.exit_code = *exit_code;
                }
                self.end(seq, reason, now);
                return true;
            }
            Observed::Unknown(word) => job.reason = format!("unknown state {word}"),
        }
        let job = &self.jobs[&seq];
        let changed = *job != before;
        let (state, reason) = (job.state, job.reason.clone());
        if changed {
            self.changed.insert(seq);
            if state != before.state {
                let text = match state {
                    JobState::Pending if reason.is_empty() => format!("job {} is pending", seq.0),
                    JobState::Pending => format!("job {} is pending: {reason}", seq.0),
                    other => format!("job {} is {}", seq.0, other.as_str()),
                };
                self.note("job_state", Some(seq), text);
            }
        }
        changed
    }

    /// A successful listing did not hold a job that we asked about.
    pub(super) fn absent(&mut self, seq: JobSeq, now: Moment) {
        let Some(job) = self.jobs.get(&seq) else {
            return;
        };
        let watch = self.watches.entry(seq).or_default();
        if watch.connected || job.state == JobState::Intended {
            return;
        }
        watch.absences += 1;
        let since = *watch.absent_since.get_or_insert(now.clock);
        self.next_sentinels = now.clock;
        if watch.sentinel.is_some() {
            let reason = judge(job, EndedHow::Exited, None, watch.sentinel.as_ref());
            self.end(seq, reason, now);
        } else if watch.absences >= ABSENCES_MIN && now.clock.saturating_sub(since) >= ABSENCE_SPAN {
            let reason = if job.cancelling { EndReason::CancelledByUs } else { EndReason::Vanished };
            self.end(seq, reason, now);
        }
    }
}

/// Says why a job ended, from what the backend says, what the script wrote and what we did.
pub(super) fn judge(job: &Job, how: EndedHow, exit_code: Option<i32>, sentinel: Option<&Sentinel>) -> EndReason {
    match how {
        EndedHow::Walltime => EndReason::Walltime,
        EndedHow::Preempted => EndReason::Preempted,
        EndedHow::NodeFailed => EndReason::NodeFailed,
        EndedHow::OutOfMemory => EndReason::OutOfMemory,
        EndedHow::LaunchFailed => EndReason::CouldNotStart,
        EndedHow::Cancelled if job.cancelling => EndReason::CancelledByUs,
        EndedHow::Cancelled => EndReason::CancelledByOthers,
        EndedHow::Exited if job.cancelling => EndReason::CancelledByUs,
        EndedHow::Exited => {
            let code = sentinel.map(|sentinel| sentinel.exit_code).or(exit_code);
            match code {
                Some(0) if job.draining => EndReason::Drained,
                Some(0) => EndReason::Finished,
                _ if !job.was_up => EndReason::CouldNotStart,
                _ => EndReason::Crashed,
            }
        }
    }
}
