//! Whether, and how many, jobs may be asked for after failures: back-off, breaker, limits of the site.

use super::limits::{BACKOFF_MAX, BREAKER_FAILURES, BREAKER_REST, PROBE_PAUSE, PROBE_PAUSE_MAX, SECOND};
use super::{EndReason, Moment};
use crate::runtime::ids::JobSeq;

/// What was learned from failures; forgotten when the user scales.
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
    probe_at: u64,
    probe_pause: u64,
    /// Largest number of jobs in the next submit command, and ever.
    batch: u32,
    batch_max: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Open {
    sentence: String,
    /// When one more is tried; `None` = only when the user says so.
    until: Option<u64>,
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
            probe_at: 0,
            probe_pause: PROBE_PAUSE,
            batch: batch_max,
            batch_max,
        }
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
            return u32::from(open.until.is_some_and(|until| now.clock >= until)).min(missing);
        }
        let room = match self.cap {
            Some(cap) if existing >= cap => u32::from(now.clock >= self.probe_at),
            Some(cap) => cap - existing,
            None => u32::MAX,
        };
        missing.min(room).min(self.batch)
    }

    /// The backend took jobs; `existing` may exist now.
    pub(super) fn on_submitted(&mut self, existing: u32) {
        self.submit_failures = 0;
        self.last_failure = None;
        if self.open.as_ref().is_some_and(|open| open.until.is_some()) {
            self.open = None;
        }
        if self.cap.is_some_and(|cap| existing > cap) {
            self.cap = None;
            self.probe_pause = PROBE_PAUSE;
        }
        self.batch = self.batch.saturating_mul(2).min(self.batch_max);
    }

    /// A submission was refused, or nobody knows what became of it; may pass by itself. Returns what to tell.
    pub(super) fn on_submit_failed(&mut self, sentence: String, now: Moment) -> Option<String> {
        self.submit_failures = self.submit_failures.saturating_add(1);
        self.back_off(self.submit_failures, now);
        if self.submit_failures < BREAKER_FAILURES {
            self.last_failure = Some(sentence);
            return None;
        }
        let text = format!(
            "{} submissions in a row failed: {sentence}; the next try is in {} minutes, or dcluster scale N",
            self.submit_failures,
            BREAKER_REST / 60 / SECOND
        );
        self.open = Some(Open { sentence: text.clone(), until: Some(now.clock + BREAKER_REST) });
        Some(text)
    }

    /// It will never work as it is.
    pub(super) fn on_permanent(&mut self, sentence: String) {
        self.open = Some(Open { sentence, until: None });
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
        self.probe_pause = (self.probe_pause * 2).min(PROBE_PAUSE_MAX);
        self.batch = 1;
    }

    /// A job ended before its worker had shown anything. Returns what to tell if that was one too many.
    pub(super) fn on_early_end(&mut self, job: JobSeq, reason: EndReason, now: Moment) -> Option<String> {
        self.early_ends = self.early_ends.saturating_add(1);
        self.back_off(self.early_ends, now);
        if self.early_ends < BREAKER_FAILURES || self.open.is_some() {
            return None;
        }
        let what = match reason {
            EndReason::CouldNotStart => "could not start".to_owned(),
            other => format!("ended within a minute (the last one: {})", other.words()),
        };
        let count = self.early_ends;
        let sentence =
            format!("{count} jobs in a row {what}; look at dcluster logs job {}, then dcluster scale N", job.0);
        self.open = Some(Open { sentence: sentence.clone(), until: None });
        Some(sentence)
    }

    /// A worker was up long enough to show that jobs work.
    pub(super) fn on_proven(&mut self) {
        self.early_ends = 0;
    }

    /// Whether only the user may close it.
    pub(super) fn is_open_for_good(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.until.is_none())
    }

    fn back_off(&mut self, failures: u32, now: Moment) {
        self.retry_at = self.retry_at.max(now.clock + (SECOND << failures.min(6)).min(BACKOFF_MAX));
    }
}
