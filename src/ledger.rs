//! What we know of each job, from the moment we intend it. Pure: evidence comes in, orders go out.
//!
//! Invariants: a job has a record before any command about it runs; a failed or empty query ends
//! nothing; a name is used once; jobs that may exist count against the number asked for.

use crate::backends::sentinel::Sentinel;
use crate::backends::{BackendError, EndedHow, ErrorClass, JobRef, Observation, Observed, Submit};
use crate::runtime::ids::{JobName, JobSeq, NativeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Now, on both clocks, in milliseconds: decisions use `clock` (monotonic), records `wall`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moment {
    /// Since the epoch.
    pub wall: u64,
    /// Monotonic.
    pub clock: u64,
}

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// We mean to submit it; the command may or may not have run.
    Intended,
    /// The backend gave it an id.
    Submitted,
    /// The backend lists it as waiting.
    Pending,
    /// The backend lists it as running; its worker has not called yet.
    Started,
    /// Its worker is (or was, see `silent`) connected.
    Up,
    /// Its worker takes no new task.
    Draining,
    /// Over.
    Ended,
}

impl JobState {
    /// Returns the word used in `status` and `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Submitted => "submitted",
            Self::Pending => "pending",
            Self::Started => "started",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Ended => "ended",
        }
    }
}

/// Why a job ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its worker left in order.
    Finished,
    /// We asked its worker to leave.
    Drained,
    /// Its time was over.
    Walltime,
    /// We cancelled it.
    CancelledByUs,
    /// Somebody else cancelled it.
    CancelledByOthers,
    /// The scheduler needed the node.
    Preempted,
    /// The node failed.
    NodeFailed,
    /// It used too much memory.
    OutOfMemory,
    /// Its worker never came up.
    CouldNotStart,
    /// Its worker was up and then died.
    Crashed,
    /// The backend forgot it and nothing says how it ended.
    Vanished,
    /// The submit command failed: there is no job.
    NotSubmitted,
}

impl EndReason {
    /// Returns the reason in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Drained => "drained",
            Self::Walltime => "walltime",
            Self::CancelledByUs => "cancelled by us",
            Self::CancelledByOthers => "cancelled by others",
            Self::Preempted => "preempted",
            Self::NodeFailed => "node failed",
            Self::OutOfMemory => "out of memory",
            Self::CouldNotStart => "could not start",
            Self::Crashed => "crashed",
            Self::Vanished => "vanished",
            Self::NotSubmitted => "not submitted",
        }
    }
    /// Whether tasks that ran there are innocent: planned ends do not make a task suspicious.
    pub fn planned(self) -> bool {
        matches!(
            self,
            Self::Finished
                | Self::Drained
                | Self::Walltime
                | Self::CancelledByUs
                | Self::CancelledByOthers
                | Self::Preempted
        )
    }
}

/// One job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Number.
    pub seq: JobSeq,
    /// Name.
    pub name: JobName,
    /// Pool.
    pub pool: String,
    /// Number of the first job of the submit command it belongs to.
    pub submit: JobSeq,
    /// Epoch of the server that intended it.
    pub epoch: u32,
    /// Where it stands.
    pub state: JobState,
    /// The last query about it gave no usable answer; the state is the last one known.
    #[serde(default)]
    pub unknown: bool,
    /// Its worker is not connected although the job is [`JobState::Up`] or draining.
    #[serde(default)]
    pub silent: bool,
    /// We asked the backend to cancel it.
    #[serde(default)]
    pub cancelling: bool,
    /// We asked its worker to leave.
    #[serde(default)]
    pub draining: bool,
    /// The backend's id.
    #[serde(default)]
    pub id: Option<NativeId>,
    /// The backend's words about it.
    #[serde(default)]
    pub reason: String,
    /// Where it runs.
    #[serde(default)]
    pub node: Option<String>,
    /// Exit code of its script.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Why it ended.
    #[serde(default)]
    pub end: Option<EndReason>,
    /// Milliseconds since the epoch.
    pub intended_at: u64,
    /// When it started, as far as we know.
    #[serde(default)]
    pub started_at: Option<u64>,
    /// When we knew that it had ended.
    #[serde(default)]
    pub ended_at: Option<u64>,
    /// Whether its worker ever connected.
    #[serde(default)]
    pub was_up: bool,
}

impl Job {
    /// Whether the job may still hold or get resources.
    pub fn live(&self) -> bool {
        self.state != JobState::Ended
    }
    /// Returns how the ledger and the backend refer to it.
    pub fn reference(&self) -> JobRef {
        JobRef { name: self.name.clone(), id: self.id.clone() }
    }
}

/// Something the server must do, after the records it rests on are durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Run the submit command.
    Submit(Submit),
    /// Query these jobs.
    List(Vec<JobRef>),
    /// Look for all jobs of this cluster by name.
    Find,
    /// Ask accounting.
    Account(Vec<JobRef>),
    /// Cancel these.
    Cancel(Vec<JobRef>),
    /// Ask the job's worker to leave when its tasks are done.
    Drain(JobSeq),
    /// Look whether the job script wrote its end.
    ReadSentinels(Vec<(JobSeq, JobName)>),
}

/// What others must know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A line for people, and for `events`.
    Event {
        /// Kind, for programs.
        kind: &'static str,
        /// The job.
        job: Option<JobSeq>,
        /// The sentence.
        text: String,
    },
    /// Nothing runs in this job any more.
    Over {
        /// The job.
        job: JobSeq,
        /// Whether its end was planned (then its tasks are innocent).
        planned: bool,
    },
    /// The backend says that the job is over, yet its worker is connected: it must leave.
    Dismiss {
        /// The job.
        job: JobSeq,
    },
    /// The batch system says how much time is left.
    TimeLeft {
        /// The job.
        job: JobSeq,
        /// Seconds.
        seconds: u64,
    },
}

const SECOND: u64 = 1000;
/// Successful listings without a job before it is called vanished, and how long they must span.
const ABSENCES_MIN: u32 = 3;
const ABSENCE_SPAN: u64 = 30 * SECOND;
/// How long the backend may take to say more about an end than the exit code of the script.
const SETTLE: u64 = 15 * SECOND;
/// How long the exit code of a script that has ended is looked for.
const EXIT_CODE_MAX: u64 = 3 * SECOND;
/// How long a worker may be connected after the backend said that its job is over.
const CONTRADICTION_MAX: u64 = 20 * SECOND;
/// Between two looks by name, and how many must find nothing before an intent is given up.
const LOOKUP_INTERVAL: u64 = 5 * SECOND;
const LOOKUPS_MIN: u32 = 2;
const POLL_MIN: u64 = 2 * SECOND;
const POLL_MAX: u64 = 180 * SECOND;
const BACKOFF_MAX: u64 = 60 * SECOND;
/// Failures in a row after which nothing is submitted until the user says so.
const BREAKER_FAILURES: u32 = 5;

/// What the ledger keeps of a job beside its record; not journalled.
#[derive(Clone, Debug, Default)]
struct Watch {
    absences: u32,
    absent_since: Option<u64>,
    sentinel: Option<Sentinel>,
    sentinel_at: u64,
    lookups: u32,
    silent_since: Option<u64>,
    connected: bool,
    cancel_sent_at: Option<u64>,
    /// A listing has shown it running, so the time it has left is known where there is a limit.
    timed: bool,
    /// It has a time limit.
    limited: bool,
    /// When the backend first said that its script has ended, without the exit code.
    exited_at: Option<u64>,
    /// When the backend first said that it is over, although its worker was connected.
    contradicted_at: Option<u64>,
}

/// Whether jobs are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Breaker {
    #[default]
    Closed,
    Open {
        sentence: String,
    },
}

/// The jobs of one cluster.
#[derive(Debug)]
pub struct Ledger {
    id4: String,
    epoch: u32,
    pool: String,
    jobs: BTreeMap<JobSeq, Job>,
    watches: BTreeMap<JobSeq, Watch>,
    live: BTreeSet<JobSeq>,
    next: JobSeq,
    wanted: u32,
    /// Jobs were brought up to `wanted` once; from then on ended ones are replaced only for work.
    reached: bool,
    stopping: bool,
    stop_by: Option<u64>,
    jobs_per_submit: u32,
    /// The backend starts jobs at once and forgets nothing: no sense in waiting for its word.
    changed: BTreeSet<JobSeq>,
    notices: Vec<Notice>,
    breaker: Breaker,
    failures: u32,
    cap: Option<u32>,
    retry_at: u64,
    submitting: bool,
    listing: bool,
    finding: bool,
    accounting: bool,
    cancelling: bool,
    reading: bool,
    poll_interval: u64,
    next_poll: u64,
    /// The next poll is not put off because all is well.
    refreshing: bool,
    next_find: u64,
    next_sentinels: u64,
    account_asked: BTreeSet<JobSeq>,
    listing_failures: u32,
    last_failure: Option<String>,
    /// What to do about the last failed submission.
    advice: Option<String>,
    orphan_timeout: u64,
}

/// What [`Ledger::plan`] must know of the rest.
#[derive(Clone, Debug, Default)]
pub struct Situation {
    /// Whether there is unfinished work.
    pub work: bool,
    /// Up jobs, least loaded first, for draining.
    pub drain_first: Vec<JobSeq>,
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
            refreshing: false,
            next_find: 0,
            next_sentinels: 0,
            account_asked: BTreeSet::new(),
            listing_failures: 0,
            last_failure: None,
            advice: None,
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

    /// Returns what to do about [`Ledger::trouble`].
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref().filter(|_| self.trouble().is_some())
    }

    /// Whether no job is asked for until the user does something.
    pub fn gave_up(&self) -> bool {
        self.breaker != Breaker::Closed
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
        self.refresh(now);
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

    fn reset_breaker(&mut self) {
        self.breaker = Breaker::Closed;
        self.failures = 0;
        self.cap = None;
        self.retry_at = 0;
        self.last_failure = None;
        self.advice = None;
    }

    fn poll_soon(&mut self, now: Moment) {
        self.poll_interval = POLL_MIN;
        self.next_poll = self.next_poll.min(now.clock + POLL_MIN / 4);
    }

    // ---- evidence ------------------------------------------------------------------------------

    /// The submit command said yes.
    pub fn on_submitted(&mut self, submit: &Submit, ids: Vec<NativeId>, now: Moment) {
        self.submitting = false;
        self.last_failure = None;
        for ((seq, _), id) in submit.jobs.iter().zip(ids) {
            if let Some(job) = self.jobs.get_mut(seq) {
                job.id = Some(id);
                if job.state == JobState::Intended {
                    job.state = JobState::Submitted;
                }
                self.changed.insert(*seq);
            }
        }
        let (first, count) = (submit.jobs.first(), submit.jobs.len());
        if let Some((seq, _)) = first {
            let what = if count == 1 {
                format!("job {} submitted", seq.0)
            } else {
                format!("{count} jobs submitted, {} and following", seq.0)
            };
            self.note("job_submitted", Some(*seq), what);
        }
        self.poll_soon(now);
    }

    /// The submit command failed.
    pub fn on_submit_failed(&mut self, submit: &Submit, error: &BackendError, now: Moment) {
        self.submitting = false;
        if error.class == ErrorClass::Ambiguous {
            self.note(
                "submit_ambiguous",
                None,
                format!("{error}; looking the job up by name before anything is tried again"),
            );
            self.last_failure = Some(error.to_string());
            self.next_find = now.clock;
            return;
        }
        for (seq, _) in &submit.jobs {
            self.end(*seq, EndReason::NotSubmitted, now);
            if let Some(job) = self.jobs.get_mut(seq) {
                job.reason = error.says.clone();
            }
        }
        let sentence = error.says.clone();
        self.advice = error.fix.clone();
        let advice = error.fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
        self.note("submit_failed", None, format!("{} refused: {sentence}{advice}", error.command));
        match error.class {
            ErrorClass::Permanent => {
                self.breaker = Breaker::Open { sentence };
            }
            ErrorClass::Limit => {
                self.cap = Some(self.count_live());
                self.last_failure = Some(sentence);
                self.retry_at = now.clock + BACKOFF_MAX;
            }
            ErrorClass::Transient | ErrorClass::Ambiguous => {
                self.last_failure = Some(sentence);
                self.back_off(now);
            }
        }
    }

    fn back_off(&mut self, now: Moment) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now.clock + (SECOND << self.failures.min(6)).min(BACKOFF_MAX);
    }

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
        // What failed before was this controller's silence, or an answer that got lost.
        self.last_failure = None;
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
        self.last_failure = None;
        for reference in jobs {
            if let Some((_, seq)) = JobName::parse(&self.id4, reference.name.as_str()) {
                self.watches.entry(seq).or_default().cancel_sent_at = Some(now.clock);
            }
        }
        self.poll_soon(now);
    }

    /// Sentinels were looked for; those that exist.
    pub fn on_sentinels(&mut self, found: Vec<(JobSeq, Sentinel)>, now: Moment) {
        self.reading = false;
        for (seq, sentinel) in found {
            if !self.live.contains(&seq) {
                continue;
            }
            let watch = self.watches.entry(seq).or_default();
            if watch.sentinel.is_none() {
                watch.sentinel_at = now.clock;
                watch.sentinel = Some(sentinel.clone());
                watch.connected = false;
                let planned =
                    self.jobs.get(&seq).is_some_and(|job| job.cancelling || job.draining || sentinel.exit_code == 0);
                if let Some(job) = self.jobs.get_mut(&seq) {
                    job.exit_code = Some(sentinel.exit_code);
                    self.changed.insert(seq);
                }
                self.notices.push(Notice::Over { job: seq, planned });
                // The listing may know the cause (walltime, preemption, memory): ask at once.
                self.next_poll = now.clock;
            }
        }
    }

    /// The worker of a job connected. Returns whether it may stay, and a reason if not.
    pub fn on_worker_up(&mut self, name: &JobName, node: &str, now: Moment) -> Result<JobSeq, String> {
        let Some(seq) = self.by_name(name).map(|job| job.seq) else {
            return Err(format!("job {name} is not a job of this cluster"));
        };
        let watch = self.watches.entry(seq).or_default();
        let Some(job) = self.jobs.get_mut(&seq) else {
            return Err(format!("no job {name}"));
        };
        if !job.live() {
            let reason = job.end.map_or("ended", EndReason::words);
            return Err(format!("job {name} has ended ({reason})"));
        }
        if job.cancelling {
            return Err(format!("job {name} is being cancelled"));
        }
        watch.connected = true;
        watch.silent_since = None;
        watch.absences = 0;
        watch.absent_since = None;
        job.silent = false;
        job.unknown = false;
        job.node = Some(node.to_owned());
        job.started_at.get_or_insert(now.wall);
        self.failures = 0;
        if !job.was_up || !matches!(job.state, JobState::Up | JobState::Draining) {
            job.was_up = true;
            job.state = JobState::Up;
            job.reason = String::new();
            watch.timed = false;
            self.next_poll = self.next_poll.min(now.clock + POLL_MIN / 4);
            self.notices.push(Notice::Event {
                kind: "job_up",
                job: Some(seq),
                text: format!("job {} is up on {node}", seq.0),
            });
        }
        self.changed.insert(seq);
        Ok(seq)
    }

    /// The worker said that it takes no new task.
    pub fn on_worker_draining(&mut self, seq: JobSeq) {
        if let Some(job) = self.jobs.get_mut(&seq)
            && job.state == JobState::Up
        {
            job.state = JobState::Draining;
            self.changed.insert(seq);
            self.note("job_draining", Some(seq), format!("job {} drains: it takes no new task", seq.0));
        }
    }

    /// The worker said goodbye: it left in order.
    pub fn on_worker_goodbye(&mut self, seq: JobSeq, now: Moment) {
        if let Some(job) = self.jobs.get_mut(&seq)
            && job.live()
        {
            job.state = JobState::Draining;
            self.changed.insert(seq);
        }
        self.on_worker_silent(seq, now);
    }

    /// The worker's connection is gone.
    pub fn on_worker_silent(&mut self, seq: JobSeq, now: Moment) {
        let watch = self.watches.entry(seq).or_default();
        watch.connected = false;
        watch.silent_since.get_or_insert(now.clock);
        if let Some(job) = self.jobs.get_mut(&seq)
            && job.live()
        {
            job.silent = true;
            self.changed.insert(seq);
            self.next_sentinels = now.clock;
            self.poll_soon(now);
        }
    }

    fn seq_of(&self, observation: &Observation) -> Option<JobSeq> {
        JobName::parse(&self.id4, observation.name.as_str()).map(|(_, seq)| seq)
    }

    /// Takes one observation in; returns whether it changed anything.
    fn observe(&mut self, seq: JobSeq, seen: &Observation, now: Moment) -> bool {
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
                watch.timed = true;
                job.started_at.get_or_insert(now.wall);
                if job.state < JobState::Started {
                    job.state = JobState::Started;
                }
                if !watch.connected {
                    job.reason = seen.reason.clone();
                }
                if let Some(seconds) = seen.seconds_left {
                    watch.limited = true;
                    self.notices.push(Notice::TimeLeft { job: seq, seconds });
                }
            }
            Observed::Ended { how, exit_code } => {
                // A node that the controller has lost may go on: what runs there must end before it runs elsewhere.
                if watch.connected && watch.contradicted_at.is_none_or(|at| now.clock < at + CONTRADICTION_MAX) {
                    if watch.contradicted_at.is_none() {
                        watch.contradicted_at = Some(now.clock);
                        self.notices.push(Notice::Dismiss { job: seq });
                    }
                    job.reason = seen.reason.clone();
                    self.changed.insert(seq);
                    self.refresh(now);
                    return true;
                }
                // The script has left its exit code by then, where it could.
                if *how == EndedHow::Exited && exit_code.is_none() && watch.sentinel.is_none() && !job.cancelling {
                    let since = *watch.exited_at.get_or_insert(now.clock);
                    if now.clock < since + EXIT_CODE_MAX {
                        job.state = job.state.max(JobState::Started);
                        self.next_sentinels = now.clock;
                        self.refresh(now);
                        return true;
                    }
                }
                let reason = judge(job, *how, *exit_code, watch);
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
    fn absent(&mut self, seq: JobSeq, now: Moment) {
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
            let reason = judge(job, EndedHow::Exited, None, watch);
            self.end(seq, reason, now);
        } else if watch.absences >= ABSENCES_MIN && now.clock.saturating_sub(since) >= ABSENCE_SPAN {
            let reason = if job.cancelling { EndReason::CancelledByUs } else { EndReason::Vanished };
            self.end(seq, reason, now);
        }
    }

    /// Closes a record.
    fn end(&mut self, seq: JobSeq, reason: EndReason, now: Moment) {
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
            // It was counted while it was meant to be: what was asked for was never there.
            self.reached = false;
            return;
        }
        let code = code.map(|code| format!(", exit code {code}")).unwrap_or_default();
        let words = if words.is_empty() { String::new() } else { format!(" ({words})") };
        self.note("job_ended", Some(seq), format!("job {} ended: {}{code}{words}", seq.0, reason.words()));
        if !was_up && reason == EndReason::CouldNotStart {
            self.back_off(now);
            if self.failures >= BREAKER_FAILURES {
                self.breaker = Breaker::Open { sentence: format!("{BREAKER_FAILURES} jobs in a row could not start") };
                self.advice = Some(format!("look at dcluster logs job {}, then dcluster scale N", seq.0));
            }
        }
    }

    fn note(&mut self, kind: &'static str, job: Option<JobSeq>, text: String) {
        self.notices.push(Notice::Event { kind, job, text });
    }

    fn count_live(&self) -> u32 {
        u32::try_from(self.live.len()).unwrap_or(u32::MAX)
    }

    // ---- decisions -----------------------------------------------------------------------------

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
    fn settle(&mut self, now: Moment) {
        for seq in self.live.clone() {
            let (Some(job), Some(watch)) = (self.jobs.get(&seq), self.watches.get(&seq)) else {
                continue;
            };
            if watch.sentinel.is_some() && now.clock >= watch.sentinel_at + SETTLE {
                let reason = judge(job, EndedHow::Exited, None, watch);
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

    fn plan_scale(&mut self, situation: &Situation, now: Moment, orders: &mut Vec<Order>) {
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

    fn intend(&mut self, count: u32, now: Moment, orders: &mut Vec<Order>) {
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
    fn shrink(&mut self, staying: &[JobSeq], excess: u32, situation: &Situation, orders: &mut Vec<Order>) {
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

    fn plan_cancel(&mut self, now: Moment, orders: &mut Vec<Order>) {
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

    fn plan_queries(&mut self, now: Moment, orders: &mut Vec<Order>) {
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
        let settled = known.iter().all(|job| {
            let timed = self.watches.get(&job.seq).is_some_and(|watch| watch.timed);
            job.state == JobState::Up && !job.silent && !job.cancelling && timed
        });
        let due = if settled && !self.refreshing {
            self.next_poll.max(self.next_poll + POLL_MAX - self.poll_interval.min(POLL_MAX))
        } else {
            self.next_poll
        };
        if !known.is_empty() && !self.listing && now.clock >= due {
            let asked = known.iter().map(|job| job.reference()).collect();
            self.listing = true;
            self.refreshing = false;
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
        self.refreshing = true;
    }
}

/// Says why a job ended, from what the backend says, what the script wrote and what we did.
fn judge(job: &Job, how: EndedHow, exit_code: Option<i32>, watch: &Watch) -> EndReason {
    match how {
        EndedHow::Walltime => EndReason::Walltime,
        EndedHow::Preempted => EndReason::Preempted,
        EndedHow::NodeFailed => EndReason::NodeFailed,
        EndedHow::OutOfMemory => EndReason::OutOfMemory,
        EndedHow::LaunchFailed if job.was_up => EndReason::Crashed,
        EndedHow::LaunchFailed => EndReason::CouldNotStart,
        EndedHow::Cancelled if job.cancelling => EndReason::CancelledByUs,
        EndedHow::Cancelled => EndReason::CancelledByOthers,
        EndedHow::Exited if job.cancelling => EndReason::CancelledByUs,
        EndedHow::Exited => {
            let code = watch.sentinel.as_ref().map(|sentinel| sentinel.exit_code).or(exit_code);
            match code {
                Some(0) if job.draining => EndReason::Drained,
                // Nobody asked its worker to drain: it was short of time.
                Some(0) if job.state == JobState::Draining && watch.limited => EndReason::Walltime,
                Some(0) => EndReason::Finished,
                _ if !job.was_up => EndReason::CouldNotStart,
                _ => EndReason::Crashed,
            }
        }
    }
}
