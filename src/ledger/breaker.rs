//! Whether, and how many, jobs may be asked for after failures: back-off, breaker, limits of the site.

use super::limits::{
    BACKOFF_MAX, BREAKER_FAILURES, BREAKER_REST, CAP_GROWS, HEAL_FAILURES, HEAL_REST, HEAL_REST_MAX, PROBE_PAUSE,
    PROBE_PAUSE_MAX, SECOND,
};
use super::{EndReason, Moment};
use crate::runtime::ids::JobSeq;

/// What was learned from failures; forgotten when the user scales.
///
/// While a number is held, the user is there to look, and jobs that keep failing pause it until he has. While
/// the loop decides (`heals`), nobody may be there: it tries again by itself, one job at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Breaker {
    open: Option<Open>,
    submit_failures: u32,
    /// Jobs in a row that ended before their workers had shown anything.
    early_ends: u32,
    retry_at: u64,
    last_failure: Option<String>,
    /// The site refuses more jobs than this.
    cap: Option<u32>,
    /// Since when the cap has been as it is, and what the site refused to exceed.
    cap_since: u64,
    refused_at: u32,
    probe_at: u64,
    probe_pause: u64,
    /// Largest number of jobs in the next submit command, and ever.
    batch: u32,
    batch_max: u32,
    /// Only what can never work pauses for good.
    heals: bool,
    /// How long the next pause after early ends is.
    rest: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Open {
    sentence: String,
    /// When one more is tried; `None` = only when the user says so.
    until: Option<u64>,
    /// Jobs end early: only one that shows itself closes it.
    ends_early: bool,
    /// Since when.
    since: u64,
    /// That one, while it is under way.
    probe: Option<JobSeq>,
}

impl Breaker {
    pub(super) fn new(batch_max: u32) -> Self {
        Self {
            open: None,
            submit_failures: 0,
            early_ends: 0,
            retry_at: 0,
            last_failure: None,
            cap: None,
            cap_since: 0,
            refused_at: 0,
            probe_at: 0,
            probe_pause: PROBE_PAUSE,
            batch: batch_max,
            batch_max,
            heals: false,
            rest: HEAL_REST,
        }
    }

    /// Sets whether it tries again by itself.
    pub(super) fn set_heals(&mut self, heals: bool) {
        self.heals = heals;
    }

    pub(super) fn heals(&self) -> bool {
        self.heals
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.open.as_ref().map(|open| open.sentence.as_str()).or(self.last_failure.as_deref())
    }

    /// Returns how many of `missing` jobs may be asked for now, while `existing` may exist.
    pub(super) fn allow(&self, missing: u32, existing: u32, now: Moment) -> u32 {
        if now.clock < self.retry_at {
            return 0;
        }
        if let Some(open) = &self.open {
            let due = open.until.is_some_and(|until| now.clock >= until) && open.probe.is_none();
            let room = if self.heals { self.cap_now(now).map_or(1, |cap| cap.saturating_sub(existing)) } else { 1 };
            return u32::from(due).min(missing).min(room);
        }
        let room = match self.cap_now(now) {
            Some(cap) if self.heals => cap.saturating_sub(existing),
            Some(cap) if existing >= cap => u32::from(now.clock >= self.probe_at),
            Some(cap) => cap - existing,
            None => u32::MAX,
        };
        missing.min(room).min(self.batch)
    }

    /// Returns the cap: while the loop decides, it grows by a quarter for every span without a refusal.
    fn cap_now(&self, now: Moment) -> Option<u32> {
        let mut cap = self.cap?;
        let spans = if self.heals { now.clock.saturating_sub(self.cap_since) / CAP_GROWS } else { 0 };
        // So many spans are more jobs than any site has.
        for _ in 0..spans.min(100) {
            cap = cap.saturating_add((cap / 4).max(1));
        }
        Some(cap)
    }

    /// A job is to be asked for; while jobs end early it is the one that is tried.
    pub(super) fn on_intended(&mut self, job: JobSeq) {
        if let Some(open) = self.open.as_mut().filter(|open| open.ends_early) {
            open.probe = Some(job);
        }
    }

    /// A job is gone, and its end says nothing about others: if it was the one that was tried, another one is.
    pub(super) fn on_gone(&mut self, job: JobSeq) {
        if let Some(open) = self.open.as_mut().filter(|open| open.probe == Some(job)) {
            open.probe = None;
        }
    }

    /// The backend took jobs; `existing` may exist now.
    pub(super) fn on_submitted(&mut self, existing: u32, now: Moment) {
        self.submit_failures = 0;
        self.last_failure = None;
        if self.open.as_ref().is_some_and(|open| open.until.is_some() && !open.ends_early) {
            self.open = None;
        }
        if self.heals {
            self.on_room(existing, now);
        } else if self.cap.is_some_and(|cap| existing > cap) {
            self.cap = None;
            self.probe_pause = PROBE_PAUSE;
        }
        self.batch = self.batch.saturating_mul(2).min(self.batch_max);
    }

    /// The site has taken `existing` jobs. That says something of its limit only where they are as many as the
    /// cap allows.
    fn on_room(&mut self, existing: u32, now: Moment) {
        let Some(cap) = self.cap_now(now).filter(|cap| existing >= *cap) else { return };
        self.cap = Some(cap.saturating_add(1));
        self.cap_since = now.clock;
        if existing > self.refused_at {
            self.probe_pause = PROBE_PAUSE;
        }
    }

    /// A submission was refused, or nobody knows what became of it; may pass by itself. Returns what to tell.
    pub(super) fn on_submit_failed(&mut self, sentence: String, now: Moment) -> Option<String> {
        self.submit_failures = self.submit_failures.saturating_add(1);
        self.back_off(self.submit_failures, now);
        if self.submit_failures < BREAKER_FAILURES {
            self.last_failure = Some(sentence);
            return None;
        }
        let until = now.clock + BREAKER_REST;
        if let Some(open) = self.open.as_mut().filter(|open| open.ends_early) {
            // That submissions work again would not show that jobs do.
            open.until = open.until.map(|before| before.max(until));
            return None;
        }
        let or = if self.heals { "" } else { ", or dcluster scale N" };
        let text = format!(
            "{} submissions in a row failed: {sentence}; the next try is in {} minutes{or}",
            self.submit_failures,
            BREAKER_REST / 60 / SECOND
        );
        let since = now.clock;
        self.open = Some(Open { sentence: text.clone(), until: Some(until), ends_early: false, since, probe: None });
        Some(text)
    }

    /// It will never work as it is.
    pub(super) fn on_permanent(&mut self, sentence: String) {
        self.open = Some(Open { sentence, until: None, ends_early: false, since: 0, probe: None });
    }

    /// The site has a limit: `asked` more than `existing` are too many.
    pub(super) fn on_limit(&mut self, asked: u32, existing: u32, sentence: String, now: Moment) {
        self.last_failure = Some(sentence);
        if asked > 1 {
            // Fewer may fit: halving finds the limit in a few steps.
            self.batch = asked / 2;
            self.retry_at = now.clock + 2 * SECOND;
            return;
        }
        self.cap = Some(existing);
        self.probe_at = now.clock + self.probe_pause;
        if self.heals {
            // One that is refused while there is none must be tried again, too.
            self.cap = Some(existing.max(1));
            self.cap_since = now.clock;
            self.refused_at = existing;
            self.retry_at = self.retry_at.max(self.probe_at);
        }
        self.probe_pause = (self.probe_pause * 2).min(PROBE_PAUSE_MAX);
        self.batch = 1;
    }

    /// A job ended before its worker had shown anything. Returns what to tell if that was one too many.
    pub(super) fn on_early_end(&mut self, job: JobSeq, reason: EndReason, now: Moment) -> Option<String> {
        self.early_ends = self.early_ends.saturating_add(1);
        self.back_off(self.early_ends, now);
        let probed = self.open.as_ref().is_some_and(|open| open.probe == Some(job));
        let most = if self.heals { HEAL_FAILURES } else { BREAKER_FAILURES };
        if !probed && (self.early_ends < most || self.open.is_some()) {
            return None;
        }
        let what = match reason {
            EndReason::CouldNotStart => "could not start".to_owned(),
            other => format!("ended within a minute (the last one: {})", other.words()),
        };
        let count = self.early_ends;
        let (next, until) = if self.heals {
            let rest = self.rest;
            self.rest = (rest * 2).min(HEAL_REST_MAX);
            (format!("one more is tried in {} min", rest / 60 / SECOND), Some(now.clock + rest))
        } else {
            ("then dcluster scale N".to_owned(), None)
        };
        let sentence = format!("{count} jobs in a row {what}; look at dcluster logs job {}, {next}", job.0);
        let since = now.clock;
        self.open = Some(Open { sentence: sentence.clone(), until, ends_early: self.heals, since, probe: None });
        Some(sentence)
    }

    /// The worker of a job was up long enough, since `up`, to show that jobs work.
    pub(super) fn on_proven(&mut self, up: Option<u64>) {
        self.early_ends = 0;
        // Jobs that were up before prove nothing about those that come now.
        let shows = |open: &Open| open.ends_early && up.is_some_and(|up| up >= open.since);
        if self.open.as_ref().is_some_and(shows) {
            self.open = None;
            self.rest = HEAL_REST;
            self.retry_at = 0;
        }
    }

    /// Whether only the user may close it.
    pub(super) fn is_open_for_good(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.until.is_none())
    }

    fn back_off(&mut self, failures: u32, now: Moment) {
        self.retry_at = self.retry_at.max(now.clock + (SECOND << failures.min(6)).min(BACKOFF_MAX));
    }
}
