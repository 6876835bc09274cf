//! What came of a submit command.

use super::{EndReason, JobState, Ledger, Moment};
use crate::backends::{BackendError, ErrorClass, Submit};
use crate::runtime::ids::NativeId;

impl Ledger {
    /// The submit command said yes.
    pub fn on_submitted(&mut self, submit: &Submit, ids: Vec<NativeId>, now: Moment) {
        for (seq, _) in &submit.jobs {
            self.in_flight.remove(seq);
        }
        self.advice = None;
        self.breaker.on_submitted(self.count_possible(now), now);
        // A job without an id (a command that says less than it should) is looked up by name.
        for ((seq, _), id) in submit.jobs.iter().zip(ids) {
            if let Some(job) = self.jobs.get_mut(seq).filter(|job| job.live()) {
                job.id.get_or_insert(id);
                if job.state == JobState::Intended {
                    job.state = JobState::Submitted;
                }
                self.changed.insert(*seq);
            }
        }
        if let Some((seq, _)) = submit.jobs.first() {
            let what = match submit.jobs.len() {
                1 => format!("job {} submitted", seq.0),
                count => format!("{count} jobs submitted, {} and following", seq.0),
            };
            self.note("job_submitted", Some(*seq), what);
        }
        self.find_soon(now);
        self.poll_soon(now);
    }

    /// The submit command failed.
    pub fn on_submit_failed(&mut self, submit: &Submit, error: &BackendError, now: Moment) {
        for (seq, _) in &submit.jobs {
            self.in_flight.remove(seq);
        }
        if error.class == ErrorClass::Ambiguous {
            let text = format!("{error}; looking the job up by name before anything is tried again");
            self.note("submit_ambiguous", None, text);
            self.find_soon(now);
            return;
        }
        for (seq, _) in &submit.jobs {
            // One that was seen meanwhile exists, whatever the command says.
            if let Some(job) = self.jobs.get_mut(seq)
                && job.state == JobState::Intended
            {
                job.reason = error.says.clone();
                self.end(*seq, EndReason::NotSubmitted, now);
            }
        }
        let sentence = error.says.clone();
        self.advice.clone_from(&error.fix);
        let advice = error.fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
        self.note("submit_failed", None, format!("{} refused: {sentence}{advice}", error.command));
        match error.class {
            // Perhaps only because of the nodes that we avoid: once more without that.
            ErrorClass::Permanent if !submit.exclude.is_empty() => {
                self.nodes.forget();
                self.count_submit_failure(sentence, now);
            }
            ErrorClass::Permanent => self.breaker.on_permanent(sentence),
            ErrorClass::Limit => {
                let asked = u32::try_from(submit.jobs.len()).unwrap_or(u32::MAX);
                self.breaker.on_limit(asked, self.count_possible(now), sentence, now);
            }
            ErrorClass::Transient | ErrorClass::Ambiguous => self.count_submit_failure(sentence, now),
        }
    }

    pub(super) fn count_submit_failure(&mut self, sentence: String, now: Moment) {
        if let Some(text) = self.breaker.on_submit_failed(sentence, now) {
            self.note("breaker_open", None, text);
        }
    }
}
