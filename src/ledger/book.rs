//! The book itself: all records, what is remembered beside them, and how a record is closed.

use super::breaker::Breaker;
use super::limits::{
    CANCEL_PAUSE, FALL_SPAN, GHOST_SPAN, LOOKUP_INTERVAL, POLL_MIN, SECOND, SENTINEL_PAUSE, SUSPECT_SPAN,
};
use super::nodes::Nodes;
use super::{EndReason, Job, JobState, Moment, Notice};
use crate::backends::sentinel::Sentinel;
use crate::runtime::ids::{JobName, JobSeq};
use std::collections::{BTreeMap, BTreeSet};

/// What the ledger keeps of a live job beside its record; not journalled. Times are on the monotonic clock.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) connected: bool,
    /// When it was intended and when it started, if that was in this server's time.
    pub(super) intended: Option<u64>,
    pub(super) started: Option<u64>,
    pub(super) up_since: Option<u64>,
    /// Its worker was up long enough.
    pub(super) proven: bool,
    pub(super) silent_since: Option<u64>,
    /// Where it runs, by the backend's own name of the node.
    pub(super) node: Option<String>,
    /// When the backend last said that it waits or runs.
    pub(super) alive_at: Option<u64>,
    pub(super) absences: u32,
    pub(super) absent_since: Option<u64>,
    /// Since then, a look by name has not found it, and accounting has answered without it.
    pub(super) looked: bool,
    pub(super) accounted: bool,
    pub(super) account_at: u64,
    pub(super) account_pause: u64,
    /// Since when it is listed as pending although it had started.
    pub(super) pending_since: Option<u64>,
    pub(super) sentinel: Option<Sentinel>,
    pub(super) sentinel_at: u64,
    /// Its script had ended when what was left of the job was cancelled.
    pub(super) evicted: bool,
    /// Looks by name that did not find the intent, and the first of them.
    pub(super) lookups: u32,
    pub(super) lookup_since: Option<u64>,
    pub(super) cancel_at: u64,
    pub(super) cancel_pause: u64,
    /// It has a time limit.
    pub(super) limited: bool,
    /// When the backend first said that its script has ended, without the exit code.
    pub(super) exited_at: Option<u64>,
    /// The backend said that it is over although its worker was connected; the worker was told to leave.
    pub(super) dismissed: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            connected: false,
            intended: None,
            started: None,
            up_since: None,
            proven: false,
            silent_since: None,
            node: None,
            alive_at: None,
            absences: 0,
            absent_since: None,
            looked: false,
            accounted: false,
            account_at: 0,
            account_pause: super::limits::ACCOUNT_PAUSE,
            pending_since: None,
            sentinel: None,
            sentinel_at: 0,
            evicted: false,
            lookups: 0,
            lookup_since: None,
            cancel_at: 0,
            cancel_pause: CANCEL_PAUSE,
            limited: false,
            exited_at: None,
            dismissed: false,
        }
    }
}

impl Watch {
    /// The job was seen, by whomever.
    pub(super) fn clear_absence(&mut self) {
        self.absences = 0;
        self.absent_since = None;
        self.looked = false;
        self.accounted = false;
        self.account_at = 0;
        self.account_pause = super::limits::ACCOUNT_PAUSE;
        self.lookups = 0;
        self.lookup_since = None;
    }
}

/// Who decides how many jobs there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// A number that is held.
    Hold,
    /// The scaling loop ([`super::Scaling`]), up to a maximum.
    Adapt {
        /// Jobs that may exist at most, as the batch system counts.
        max: u32,
    },
}

/// The jobs of one cluster.
#[derive(Debug)]
pub struct Ledger {
    pub(super) id4: String,
    pub(super) epoch: u32,
    /// Pool of the jobs of a number that is held.
    pub(super) pool: String,
    pub(super) jobs: BTreeMap<JobSeq, Job>,
    /// Of live jobs.
    pub(super) watches: BTreeMap<JobSeq, Watch>,
    pub(super) live: BTreeSet<JobSeq>,
    pub(super) next: JobSeq,
    pub(super) aim: Aim,
    pub(super) wanted: u32,
    /// Jobs were brought up to `wanted` once; from then on ended ones are replaced only for work.
    pub(super) reached: bool,
    pub(super) stopping: bool,
    pub(super) stop_by: Option<u64>,
    pub(super) jobs_per_submit: u32,
    pub(super) changed: BTreeSet<JobSeq>,
    pub(super) notices: Vec<Notice>,
    pub(super) breaker: Breaker,
    /// Where a job last ended early although its worker had come up, and when.
    pub(super) fallen: Option<(String, u64)>,
    pub(super) nodes: Nodes,
    /// Intents whose submit command has not answered yet.
    pub(super) in_flight: BTreeSet<JobSeq>,
    /// Closed on weak evidence, and until when we look for them.
    pub(super) suspects: BTreeMap<JobSeq, u64>,
    /// When jobs ended in this server's time.
    pub(super) ended_clock: BTreeMap<JobSeq, u64>,
    /// Intents given up, of a server that may only be frozen: they count until this time.
    pub(super) ghosts: BTreeSet<JobSeq>,
    pub(super) ghosts_until: u64,
    /// The look by name under way, with the jobs it is about.
    pub(super) finding: Option<BTreeSet<JobSeq>>,
    /// That look was asked when nothing was left any more.
    pub(super) finding_last: bool,
    /// It found nothing.
    pub(super) found_nothing: bool,
    pub(super) find_failures: u32,
    pub(super) next_find: u64,
    pub(super) listing: bool,
    pub(super) listed_at: Option<u64>,
    pub(super) listing_failures: u32,
    /// After a failed listing not before this.
    pub(super) list_not_before: u64,
    /// A listing is wanted by then whatever the interval says.
    pub(super) list_by: u64,
    pub(super) poll_interval: u64,
    pub(super) accounting: bool,
    pub(super) cancelling: bool,
    pub(super) cancel_trouble: Option<String>,
    /// What to do about the last refused submission.
    pub(super) advice: Option<String>,
    pub(super) reading: bool,
    pub(super) next_sentinels: u64,
    pub(super) sentinel_pause: u64,
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
            aim: Aim::Hold,
            wanted: 0,
            reached: false,
            stopping: false,
            stop_by: None,
            jobs_per_submit: jobs_per_submit.max(1),
            changed: BTreeSet::new(),
            notices: Vec::new(),
            breaker: Breaker::new(jobs_per_submit.max(1)),
            fallen: None,
            nodes: Nodes::default(),
            in_flight: BTreeSet::new(),
            suspects: BTreeMap::new(),
            ended_clock: BTreeMap::new(),
            ghosts: BTreeSet::new(),
            ghosts_until: 0,
            finding: None,
            finding_last: false,
            found_nothing: false,
            find_failures: 0,
            next_find: 0,
            listing: false,
            listed_at: None,
            listing_failures: 0,
            list_not_before: 0,
            list_by: 0,
            poll_interval: POLL_MIN,
            accounting: false,
            cancelling: false,
            cancel_trouble: None,
            advice: None,
            reading: false,
            next_sentinels: 0,
            sentinel_pause: SENTINEL_PAUSE,
            orphan_timeout: orphan_timeout_seconds * SECOND,
        }
    }

    /// Takes a record back from the journal.
    pub fn restore(&mut self, job: Job) {
        self.next = JobSeq(self.next.0.max(job.seq.0.saturating_add(1)));
        if job.live() {
            self.live.insert(job.seq);
        } else {
            self.live.remove(&job.seq);
        }
        self.jobs.insert(job.seq, job);
    }

    /// Restores the number of jobs asked for, and whether so many were there once.
    pub fn restore_wanted(&mut self, jobs: u32, reached: bool) {
        self.aim = Aim::Hold;
        self.breaker.set_heals(false);
        self.wanted = jobs;
        self.reached = reached;
    }

    /// Begins life after [`Ledger::restore`]: workers are not connected, and intents of a former
    /// server may or may not have become jobs, so they are looked up and never submitted again.
    /// `proved`: the former server is known to be dead, so nothing of it can be submitted any more.
    pub fn finish_restore(&mut self, proved: bool, now: Moment) {
        for seq in self.live.clone() {
            let watch = self.watches.entry(seq).or_default();
            if let Some(job) = self.jobs.get_mut(&seq)
                && matches!(job.state, JobState::Up | JobState::Draining)
            {
                job.silent = true;
                watch.silent_since = Some(now.clock);
            }
        }
        let weak = self.jobs.values().filter(|job| job.end.is_some_and(EndReason::is_weak));
        self.suspects = weak.map(|job| (job.seq, now.clock + SUSPECT_SPAN)).collect();
        if !proved {
            self.ghosts_until = now.clock + GHOST_SPAN;
        }
        self.poll_soon(now);
        self.next_find = now.clock;
    }

    /// Returns all jobs, by number.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// Returns the jobs that are not over.
    pub fn live(&self) -> impl DoubleEndedIterator<Item = &Job> {
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

    /// Returns the number of jobs asked for; while the scaling loop decides: those that stay, and those it last asked for.
    pub fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Returns whether so many jobs were there once: from then on ended ones are replaced only for work.
    pub fn reached(&self) -> bool {
        self.reached
    }

    /// Returns whether, after [`Ledger::stop`], nothing of the cluster is left: no record is open and a
    /// last look by name has found no job of ours.
    pub fn is_clear(&self) -> bool {
        self.stopping && self.live.is_empty() && (self.found_nothing || !self.may_have_left())
    }

    /// Whether any job ever came to be, as far as we know.
    pub(super) fn may_have_left(&self) -> bool {
        self.jobs.values().any(|job| job.id.is_some() || job.end == Some(EndReason::Abandoned))
    }

    /// Returns why no job is asked for, or one does not go away, as a sentence.
    pub fn trouble(&self) -> Option<&str> {
        self.breaker.trouble().or(self.cancel_trouble.as_deref())
    }

    /// Returns what to do about [`Ledger::trouble`].
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref().filter(|_| self.breaker.trouble().is_some())
    }

    /// Whether no job is asked for until the user does something.
    pub fn gave_up(&self) -> bool {
        self.breaker.is_open_for_good()
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
        self.aim = Aim::Hold;
        self.wanted = jobs;
        self.reached = false;
        self.breaker = Breaker::new(self.jobs_per_submit);
        self.nodes = Nodes::default();
        self.poll_soon(now);
    }

    /// Leaves the number of jobs to the scaling loop from now on, and forgets former failures.
    pub fn adapt(&mut self, max: u32, now: Moment) {
        self.scale(0, now);
        self.restore_adapt(max);
    }

    /// Restores who decides how many jobs there are.
    pub fn restore_adapt(&mut self, max: u32) {
        self.aim = Aim::Adapt { max };
        self.breaker.set_heals(true);
    }

    /// Returns when a live job was intended, started and came up, by the monotonic clock in milliseconds;
    /// `None` = before this server's time, or not yet.
    pub fn times(&self, seq: JobSeq) -> [Option<u64>; 3] {
        self.watches.get(&seq).map_or([None; 3], |watch| [watch.intended, watch.started, watch.up_since])
    }

    /// Returns who decides how many jobs there are.
    pub fn aim(&self) -> Aim {
        self.aim
    }

    /// Returns how many jobs may be asked for now, as failures, limits of the site and the maximum allow.
    pub fn may_submit(&self, now: Moment) -> u32 {
        let Aim::Adapt { max } = self.aim else { return 0 };
        if !self.in_flight.is_empty() || self.stopping {
            return 0;
        }
        let existing = self.count_possible(now);
        self.breaker.allow(max.saturating_sub(existing), existing, now)
    }

    /// Ends all jobs and starts no more. Workers are asked to leave; those that have not after `patience`
    /// milliseconds are cancelled (`None` = they may take their time).
    pub fn stop(&mut self, patience: Option<u64>, now: Moment) {
        let by = patience.map(|patience| now.clock + patience);
        self.stop_by = match (self.stopping, self.stop_by) {
            // Asked again: a stop is only ever hurried.
            (true, Some(before)) => Some(by.map_or(before, |by| by.min(before))),
            _ => by,
        };
        self.stopping = true;
        self.wanted = 0;
        self.poll_soon(now);
        self.next_find = self.next_find.min(now.clock);
    }

    /// Closes a record.
    pub(super) fn end(&mut self, seq: JobSeq, reason: EndReason, now: Moment) {
        let Some(job) = self.jobs.get_mut(&seq).filter(|job| job.live()) else { return };
        job.state = JobState::Ended;
        job.end = Some(reason);
        job.ended_at = Some(now.wall);
        job.unknown = false;
        job.silent = false;
        let (was_up, code, words) = (job.was_up, job.exit_code, job.reason.clone());
        let old = job.epoch < self.epoch;
        self.live.remove(&seq);
        self.in_flight.remove(&seq);
        let watch = self.watches.remove(&seq).unwrap_or_default();
        self.changed.insert(seq);
        self.ended_clock.insert(seq, now.clock);
        if reason.is_weak() {
            self.suspects.insert(seq, now.clock + SUSPECT_SPAN);
        }
        if self.stopping && self.live.is_empty() {
            self.next_find = self.next_find.min(now.clock);
        }
        self.notices.push(Notice::Over { job: seq, planned: reason.planned() });
        match reason {
            EndReason::NotSubmitted => return self.breaker.on_gone(seq),
            EndReason::Abandoned => {
                self.breaker.on_gone(seq);
                if old && now.clock < self.ghosts_until {
                    self.ghosts.insert(seq);
                }
                let text = format!("job {} was never submitted: no job has its name", seq.0);
                return self.note("intent_closed", Some(seq), text);
            }
            _ => {}
        }
        let code = code.map(|code| format!(", exit code {code}")).unwrap_or_default();
        let words =
            if words.is_empty() || words.starts_with("exit code") { String::new() } else { format!(" ({words})") };
        self.note("job_ended", Some(seq), format!("job {} ended: {}{code}{words}", seq.0, reason.words()));
        if self.stopping || reason.is_ours() {
            return self.breaker.on_gone(seq);
        }
        if was_up && watch.proven {
            self.nodes.on_fine(seq, watch.node, now);
            self.breaker.on_proven(watch.up_since);
        } else if was_up && self.fell_together(seq, watch.intended, now)
            || self.blames_node(seq, watch.node, reason, now)
        {
            self.breaker.on_gone(seq);
        } else if let Some(text) = self.breaker.on_early_end(seq, reason, now) {
            self.note("breaker_open", Some(seq), text);
        }
    }

    /// A job ended early although its worker had come up; returns whether others of its node did so just before that
    /// were there together with it: one node that fails is one failure, however many jobs it held.
    fn fell_together(&mut self, seq: JobSeq, intended: Option<u64>, now: Moment) -> bool {
        let Some(node) = self.jobs.get(&seq).and_then(|job| job.node.clone()) else { return false };
        let before = self.fallen.as_ref().filter(|(last, at)| *last == node && now.clock < at + FALL_SPAN);
        let together = self.breaker.heals() && before.is_some_and(|(_, at)| intended.is_none_or(|since| since <= *at));
        if !together {
            self.fallen = Some((node, now.clock));
        }
        together
    }

    /// A job ended early; returns whether its node alone is to blame, so that it says nothing of others.
    fn blames_node(&mut self, seq: JobSeq, node: Option<String>, reason: EndReason, now: Moment) -> bool {
        let Some(node) = node.filter(|_| self.breaker.heals() && reason.blames_node()) else { return false };
        let live = &self.live;
        if let Some(text) = self.nodes.on_failed(&node, reason, |job| live.contains(&job), now) {
            self.note("node_avoided", Some(seq), text);
        }
        self.nodes.is_avoided(&node, now)
    }

    pub(super) fn note(&mut self, kind: &'static str, job: Option<JobSeq>, text: String) {
        self.notices.push(Notice::Event { kind, job, text });
    }

    /// Returns how many jobs may exist, as the batch system counts.
    pub(super) fn count_possible(&self, now: Moment) -> u32 {
        let ghosts = if now.clock < self.ghosts_until { self.ghosts.len() } else { 0 };
        u32::try_from(self.live.len() + ghosts).unwrap_or(u32::MAX)
    }

    /// Something happened: the next listing comes soon, and its followers closer together.
    pub(super) fn poll_soon(&mut self, now: Moment) {
        self.poll_interval = POLL_MIN;
        self.list_by = self.list_by.min(now.clock + POLL_MIN / 4);
        self.look_for_sentinels(now);
    }

    pub(super) fn look_for_sentinels(&mut self, now: Moment) {
        self.sentinel_pause = SENTINEL_PAUSE;
        self.next_sentinels = self.next_sentinels.min(now.clock + SENTINEL_PAUSE);
    }

    pub(super) fn find_soon(&mut self, now: Moment) {
        self.next_find = self.next_find.min(now.clock + LOOKUP_INTERVAL / 5);
    }
}
