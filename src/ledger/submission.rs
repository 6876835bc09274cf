//! What came of a submit command.

use super::book::Breaker;
use super::limits::{BACKOFF_MAX, SECOND};
use super::{EndReason, JobState, Ledger, Moment};
use crate::backends::{BackendError, ErrorClass, Submit};
use crate::runtime::ids::NativeId;

impl Ledger {
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
        let sentence = match &error.fix {
            Some(fix) => format!("{}; {fix}", error.says),
            None => error.says.clone(),
        };
        self.note("submit_failed", None, format!("{} refused: {sentence}", error.command));
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

    pub(super) fn back_off(&mut self, now: Moment) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now.clock + (SECOND << self.failures.min(6)).min(BACKOFF_MAX);
    }
}
