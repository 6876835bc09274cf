//! What the backend says of jobs: listings, looks by name, accounting.
//!
//! A connected worker is stronger than all of it, and silence about a job is only ever counted here:
//! `settle` decides when there has been enough of it.

use super::book::Watch;
use super::limits::{EXIT_CODE_SPAN, POLL_MAX, REQUEUE_SPAN, STALE_SPAN};
use super::{EndReason, Job, JobState, Ledger, Moment, Notice};
use crate::backends::{EndedHow, JobRef, Observation, Observed};
use crate::runtime::ids::{JobName, JobSeq};
use std::collections::BTreeSet;

impl Ledger {
    /// A listing about `asked` came back.
    pub fn on_listed(&mut self, asked: &[JobRef], seen: &[Observation], now: Moment) {
        self.listing = false;
        self.listing_failures = 0;
        self.list_not_before = 0;
        self.listed_at = Some(now.clock);
        let (present, changed) = self.observe_all(seen, now);
        let mut missing = false;
        for reference in asked {
            let seq = JobName::parse(&self.id4, reference.name.as_str()).map(|(_, seq)| seq);
            if let Some(seq) = seq.filter(|seq| !present.contains(seq)) {
                missing |= self.absent(seq, now);
            }
        }
        self.list_by = u64::MAX;
        if changed || missing {
            self.poll_soon(now);
            self.list_by = now.clock + self.poll_interval;
        } else {
            self.poll_interval = (self.poll_interval * 3 / 2).min(POLL_MAX);
        }
    }

    /// A look by name came back: every job of ours that the backend still knows.
    pub fn on_found(&mut self, seen: &[Observation], now: Moment) {
        let asked = self.finding.take().unwrap_or_default();
        self.find_failures = 0;
        self.next_find = now.clock + super::limits::LOOKUP_INTERVAL;
        let (present, _) = self.observe_all(seen, now);
        let alive =
            seen.iter().any(|seen| !matches!(seen.state, Observed::Ended { .. }) && self.seq_of(seen).is_some());
        self.found_nothing = self.finding_last && !alive && self.live.is_empty();
        let mut given_up = None;
        for seq in asked.difference(&present) {
            let Some(job) = self.jobs.get(seq).filter(|job| job.live()) else { continue };
            if job.state != JobState::Intended {
                if job.id.is_none() {
                    self.absent(*seq, now);
                }
                self.watches.entry(*seq).or_default().looked = true;
                continue;
            }
            let watch = self.watches.entry(*seq).or_default();
            watch.lookups += 1;
            let since = *watch.lookup_since.get_or_insert(now.clock);
            if watch.lookups >= super::limits::LOOKUPS_MIN && now.clock >= since + super::limits::LOOKUP_SPAN {
                self.end(*seq, EndReason::Abandoned, now);
                given_up = Some(*seq);
            }
        }
        self.look_for_suspects(now);
        if let Some(seq) = given_up {
            self.count_submit_failure(format!("job {} never appeared after it was submitted", seq.0), now);
        }
    }

    /// Accounting came back about `asked`.
    pub fn on_accounted(&mut self, asked: &[JobRef], seen: &[Observation], now: Moment) {
        self.accounting = false;
        for reference in asked {
            if let Some((_, seq)) = JobName::parse(&self.id4, reference.name.as_str())
                && let Some(watch) = self.watches.get_mut(&seq)
            {
                watch.accounted = true;
            }
        }
        for observation in seen {
            if let Some(seq) = self.seq_of(observation)
                && self.live.contains(&seq)
                && matches!(observation.state, Observed::Ended { .. })
            {
                self.observe(seq, observation, now);
            }
        }
    }

    /// Takes observations in; returns the jobs they are about, and whether anything is new.
    fn observe_all(&mut self, seen: &[Observation], now: Moment) -> (BTreeSet<JobSeq>, bool) {
        let mut changed = false;
        let mut present = BTreeSet::new();
        for observation in seen {
            if let Some(seq) = self.seq_of(observation) {
                present.insert(seq);
                changed |= self.observe(seq, observation, now);
            }
        }
        (present, changed)
    }

    fn seq_of(&self, observation: &Observation) -> Option<JobSeq> {
        JobName::parse(&self.id4, observation.name.as_str()).map(|(_, seq)| seq)
    }

    /// Takes one observation in; returns whether it changed anything.
    fn observe(&mut self, seq: JobSeq, seen: &Observation, now: Moment) -> bool {
        let Some(job) = self.jobs.get_mut(&seq) else { return false };
        if !job.live() {
            return self.straggler(seq, seen, now);
        }
        let before = job.clone();
        job.id = Some(seen.id.clone());
        let watch = self.watches.entry(seq).or_default();
        watch.clear_absence();
        if seen.node.is_some() {
            watch.node.clone_from(&seen.node);
        }
        // Its own worker is better evidence of everything but the time that is left.
        let connected = watch.connected;
        job.unknown = !connected && matches!(seen.state, Observed::Unknown(_));
        if !connected && seen.node.is_some() {
            job.node = seen.node.clone();
        }
        match &seen.state {
            Observed::Pending if connected => {}
            Observed::Pending if job.state <= JobState::Pending => {
                watch.alive_at = Some(now.clock);
                job.state = JobState::Pending;
                job.reason = seen.reason.clone();
            }
            Observed::Pending => {
                watch.alive_at = Some(now.clock);
                let since = *watch.pending_since.get_or_insert(now.clock);
                if now.clock >= since + REQUEUE_SPAN {
                    self.requeued(seq, &seen.reason);
                } else {
                    self.poll_soon(now);
                    return true;
                }
            }
            Observed::Running => {
                watch.alive_at = Some(now.clock);
                watch.pending_since = None;
                watch.started.get_or_insert(now.clock);
                job.started_at.get_or_insert(now.wall);
                job.state = job.state.max(JobState::Started);
                if !connected {
                    job.reason = seen.reason.clone();
                }
                if let Some(seconds) = seen.seconds_left {
                    watch.limited = true;
                    self.notices.push(Notice::TimeLeft { job: seq, seconds });
                }
            }
            // Stale, or a node that the controller has lost: what runs there must end before it runs elsewhere.
            // Its worker is told to leave; once it has, the backend's word counts.
            Observed::Ended { .. } if connected => {
                if !watch.dismissed {
                    watch.dismissed = true;
                    self.notices.push(Notice::Dismiss { job: seq });
                }
                self.poll_soon(now);
                return true;
            }
            // The script leaves its exit code, where it can.
            Observed::Ended { how: EndedHow::Exited, exit_code: None }
                if watch.sentinel.is_none()
                    && !job.cancelling
                    && now.clock < *watch.exited_at.get_or_insert(now.clock) + EXIT_CODE_SPAN =>
            {
                // Only scripts of jobs that have started are looked for.
                job.state = job.state.max(JobState::Started);
                self.next_sentinels = now.clock;
                self.poll_soon(now);
                return true;
            }
            Observed::Ended { how, exit_code } => {
                let reason = judge(job, *how, *exit_code, watch);
                if !seen.reason.is_empty() {
                    job.reason = seen.reason.clone();
                }
                job.exit_code = job.exit_code.or(*exit_code);
                self.end(seq, reason, now);
                return true;
            }
            Observed::Unknown(word) => {
                watch.alive_at = Some(now.clock);
                if !connected {
                    job.reason = format!("unknown state {word}");
                }
            }
        }
        let job = &self.jobs[&seq];
        if *job == before {
            return false;
        }
        let (state, reason) = (job.state, job.reason.clone());
        self.changed.insert(seq);
        if state != before.state {
            let text = match state {
                JobState::Pending if reason.is_empty() => format!("job {} is pending", seq.0),
                JobState::Pending => format!("job {} is pending: {reason}", seq.0),
                other => format!("job {} is {}", seq.0, other.as_str()),
            };
            self.note("job_state", Some(seq), text);
        }
        true
    }

    /// The batch system took a job back into its queue under the same id: nothing of the former attempt runs.
    fn requeued(&mut self, seq: JobSeq, reason: &str) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        job.state = JobState::Pending;
        job.silent = false;
        job.was_up = false;
        job.node = None;
        job.exit_code = None;
        job.started_at = None;
        job.reason = reason.to_owned();
        job.requeues += 1;
        // It was to leave anyway.
        job.cancelling |= job.draining;
        let watch = self.watches.entry(seq).or_default();
        watch.node = None;
        watch.silent_since = None;
        watch.intended = None;
        watch.started = None;
        watch.up_since = None;
        watch.proven = false;
        watch.pending_since = None;
        watch.sentinel = None;
        watch.evicted = false;
        self.changed.insert(seq);
        self.notices.push(Notice::Over { job: seq, planned: false });
    }

    /// A job whose record is closed exists after all: it is cancelled at sight.
    fn straggler(&mut self, seq: JobSeq, seen: &Observation, now: Moment) -> bool {
        let state = match seen.state {
            Observed::Pending => JobState::Pending,
            Observed::Running => JobState::Started,
            _ => return false,
        };
        if self.ended_clock.get(&seq).is_some_and(|at| now.clock < at + STALE_SPAN) {
            return false;
        }
        let Some(job) = self.jobs.get_mut(&seq) else { return false };
        job.state = state;
        job.end = None;
        job.ended_at = None;
        job.was_up = false;
        job.id = Some(seen.id.clone());
        job.cancelling = true;
        self.live.insert(seq);
        self.watches.insert(seq, Default::default());
        self.suspects.remove(&seq);
        self.ghosts.remove(&seq);
        self.changed.insert(seq);
        let text = format!("job {} exists although it was given up; cancelling it", seq.0);
        self.note("straggler", Some(seq), text);
        true
    }

    /// A successful query did not hold a job that it was about. Returns whether that says anything.
    fn absent(&mut self, seq: JobSeq, now: Moment) -> bool {
        let Some(job) = self.jobs.get_mut(&seq).filter(|job| job.live()) else { return false };
        let watch = self.watches.entry(seq).or_default();
        if watch.connected {
            return false;
        }
        watch.absences = watch.absences.saturating_add(1);
        watch.absent_since.get_or_insert(now.clock);
        watch.pending_since = None;
        if !job.unknown {
            job.unknown = true;
            self.changed.insert(seq);
        }
        self.find_soon(now);
        true
    }
}

/// Says why a job ended, from what the backend says, what the script wrote and what we did.
pub(super) fn judge(job: &Job, how: EndedHow, exit_code: Option<i32>, watch: &Watch) -> EndReason {
    let wrote = watch.sentinel.as_ref().map(|sentinel| sentinel.exit_code);
    // Its script ended by itself: that the rest was cancelled is not why. A sentinel alone may be that of a former run.
    let cancelled = job.cancelling && !(watch.evicted && wrote.is_some() && wrote == exit_code);
    match how {
        EndedHow::Walltime => EndReason::Walltime,
        EndedHow::Preempted => EndReason::Preempted,
        EndedHow::NodeFailed => EndReason::NodeFailed,
        EndedHow::OutOfMemory => EndReason::OutOfMemory,
        EndedHow::LaunchFailed if job.was_up => EndReason::Crashed,
        EndedHow::LaunchFailed => EndReason::CouldNotStart,
        EndedHow::Cancelled if job.cancelling => EndReason::CancelledByUs,
        EndedHow::Cancelled => EndReason::CancelledByOthers,
        EndedHow::Exited => {
            match wrote.or(exit_code) {
                Some(0) if job.draining => EndReason::Drained,
                _ if cancelled => EndReason::CancelledByUs,
                // Nobody asked its worker to drain: it was short of time.
                Some(0) if job.state == JobState::Draining && watch.limited => EndReason::Walltime,
                Some(0) => EndReason::Finished,
                _ if !job.was_up => EndReason::CouldNotStart,
                _ => EndReason::Crashed,
            }
        }
    }
}
