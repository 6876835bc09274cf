//! The book itself: all records, what is remembered beside them, and how a record is closed.

use super::limits::{BREAKER_FAILURES, POLL_MIN, SECOND};
use super::{EndReason, Job, JobState, Moment, Notice};
use crate::backends::sentinel::Sentinel;
use crate::runtime::ids::{JobName, JobSeq};
use std::collections::{BTreeMap, BTreeSet};

/// What the ledger keeps of a job beside its record; not journalled.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    pub(super) absences: u32,
    pub(super) absent_since: Option<u64>,
    pub(super) sentinel: Option<Sentinel>,
    pub(super) sentinel_at: u64,
    pub(super) lookups: u32,
    pub(super) silent_since: Option<u64>,
    pub(super) connected: bool,
    pub(super) cancel_sent_at: Option<u64>,
}

/// Whether jobs are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Breaker {
    #[default]
    Closed,
    Open {
        sentence: String,
    },
}

/// The jobs of one cluster.
#[derive(Debug)]
pub struct Ledger {
    pub(super) id4: String,
    pub(super) epoch: u32,
    pub(super) pool: String,
    pub(super) jobs: BTreeMap<JobSeq, Job>,
    pub(super) watches: BTreeMap<JobSeq, Watch>,
    pub(super) live: BTreeSet<JobSeq>,
    pub(super) next: JobSeq,
    pub(super) wanted: u32,
    /// Jobs were brought up to `wanted` once; from then on ended ones are replaced only for work.
    pub(super) reached: bool,
    pub(super) stopping: bool,
    pub(super) stop_by: Option<u64>,
    pub(super) jobs_per_submit: u32,
    /// The backend starts jobs at once and forgets nothing: no sense in waiting for its word.
    pub(super) changed: BTreeSet<JobSeq>,
    pub(super) notices: Vec<Notice>,
    pub(super) breaker: Breaker,
    pub(super) failures: u32,
    pub(super) cap: Option<u32>,
    pub(super) retry_at: u64,
    pub(super) submitting: bool,
    pub(super) listing: bool,
    pub(super) finding: bool,
    pub(super) accounting: bool,
    pub(super) cancelling: bool,
    pub(super) reading: bool,
    pub(super) poll_interval: u64,
    pub(super) next_poll: u64,
    pub(super) next_find: u64,
    pub(super) next_sentinels: u64,
    pub(super) account_asked: BTreeSet<JobSeq>,
    pub(super) listing_failures: u32,
    pub(super) last_failure: Option<String>,
    pub(super) orphan_timeout: u64,
}

impl Ledger {
    /// Makes an empty ledger of the cluster whose id begins with `id4`.
    pub fn new(id4: &str, epoch: u32, pool: &str, jobs_per_submit: u32, orphan_timeout_seconds: u64) -> Self {
        Self {
            id4: id4.to_owned(),
            epoch,
            pool: pool.to_owned(),
            jobs: BTreeMap::new(),
            watches: BTreeMap::new(),
            live: BTreeSet::new(),
            next: JobSeq(1),
            wanted: 0,
            reached: false,
            stopping: false,
            stop_by: None,
            jobs_per_submit: jobs_per_submit.max(1),
            changed: BTreeSet::new(),
            notices: Vec::new(),
            breaker: Breaker::Closed,
            failures: 0,
            cap: None,
            retry_at: 0,
            submitting: false,
            listing: false,
            finding: false,
            accounting: false,
            cancelling: false,
            reading: false,
            poll_interval: POLL_MIN,
            next_poll: 0,
            next_find: 0,
            next_sentinels: 0,
            account_asked: BTreeSet::new(),
            listing_failures: 0,
            last_failure: None,
            orphan_timeout: orphan_timeout_seconds * SECOND,
        }
    }

    /// Takes a record back from the journal.
    pub fn restore(&mut self, job: Job) {
        self.next = JobSeq(self.next.0.max(job.seq.0 + 1));
        if job.live() {
            self.live.insert(job.seq);
        } else {
            self.live.remove(&job.seq);
        }
        self.jobs.insert(job.seq, job);
    }

    /// Begins life after [`Ledger::restore`]: workers are not connected, and intents of a former
    /// server may or may not have become jobs, so they are looked up and never submitted again.
    pub fn finish_restore(&mut self, now: Moment) {
        for seq in self.live.clone() {
            let watch = self.watches.entry(seq).or_default();
            if let Some(job) = self.jobs.get_mut(&seq)
                && matches!(job.state, JobState::Up | JobState::Draining)
            {
                job.silent = true;
                watch.silent_since = Some(now.clock);
            }
        }
        self.poll_soon(now);
        self.next_find = now.clock;
    }

    /// Returns all jobs, by number.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// Returns the jobs that are not over.
    pub fn live(&self) -> impl Iterator<Item = &Job> {
        self.live.iter().filter_map(|seq| self.jobs.get(seq))
    }

    /// Returns a job.
    pub fn job(&self, seq: JobSeq) -> Option<&Job> {
        self.jobs.get(&seq)
    }

    /// Returns a job by its name.
    pub fn by_name(&self, name: &JobName) -> Option<&Job> {
        let (_, seq) = JobName::parse(&self.id4, name.as_str())?;
        self.jobs.get(&seq)
    }

    /// Returns the number of jobs asked for.
    pub fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Returns why no job is asked for at the moment, as a sentence.
    pub fn trouble(&self) -> Option<&str> {
        match &self.breaker {
            Breaker::Open { sentence } => Some(sentence),
            Breaker::Closed => self.last_failure.as_deref(),
        }
    }

    /// Returns the records that changed since the last call; they must be durable before any order is carried out.
    pub fn take_changed(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.changed).iter().filter_map(|seq| self.jobs.get(seq).cloned()).collect()
    }

    /// Returns what others must know.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Sets the number of jobs asked for, and forgets former failures: the user has looked.
    pub fn scale(&mut self, jobs: u32, now: Moment) {
        self.wanted = jobs;
        self.reached = false;
        self.reset_breaker();
        self.poll_soon(now);
    }

    /// Restores the number of jobs asked for.
    pub fn restore_wanted(&mut self, jobs: u32) {
        self.wanted = jobs;
    }

    /// Ends all jobs and starts no more. Connected workers were asked to leave; those that have not
    /// after `patience` milliseconds are cancelled (`None` = they may take their time).
    pub fn stop(&mut self, patience: Option<u64>, now: Moment) {
        self.stop_by = patience.map(|patience| now.clock + patience);
        self.stopping = true;
        self.wanted = 0;
        self.poll_soon(now);
    }

    pub(super) fn reset_breaker(&mut self) {
        self.breaker = Breaker::Closed;
        self.failures = 0;
        self.cap = None;
        self.retry_at = 0;
        self.last_failure = None;
    }

    pub(super) fn poll_soon(&mut self, now: Moment) {
        self.poll_interval = POLL_MIN;
        self.next_poll = self.next_poll.min(now.clock + POLL_MIN / 4);
    }

    /// Closes a record.
    pub(super) fn end(&mut self, seq: JobSeq, reason: EndReason, now: Moment) {
        let Some(job) = self.jobs.get_mut(&seq) else {
            return;
        };
        if !job.live() {
            return;
        }
        job.state = JobState::Ended;
        job.end = Some(reason);
        job.ended_at = Some(now.wall);
        job.unknown = false;
        job.silent = false;
        let (was_up, code, words) = (job.was_up, job.exit_code, job.reason.clone());
        self.live.remove(&seq);
        self.watches.remove(&seq);
        self.changed.insert(seq);
        self.notices.push(Notice::Over { job: seq, planned: reason.planned() });
        if reason == EndReason::NotSubmitted {
            return;
        }
        let code = code.map(|code| format!(", exit code {code}")).unwrap_or_default();
        let words = if words.is_empty() { String::new() } else { format!(" ({words})") };
        self.note("job_ended", Some(seq), format!("job {} ended: {}{code}{words}", seq.0, reason.words()));
        if !was_up && reason == EndReason::CouldNotStart {
            self.back_off(now);
            if self.failures >= BREAKER_FAILURES {
                self.breaker = Breaker::Open {
                    sentence: format!(
                        "{BREAKER_FAILURES} jobs in a row could not start; look at dcluster logs {}, then dcluster scale N",
                        seq.0
                    ),
                };
            }
        }
    }

    pub(super) fn note(&mut self, kind: &'static str, job: Option<JobSeq>, text: String) {
        self.notices.push(Notice::Event { kind, job, text });
    }

    pub(super) fn count_live(&self) -> u32 {
        u32::try_from(self.live.len()).unwrap_or(u32::MAX)
    }
}
