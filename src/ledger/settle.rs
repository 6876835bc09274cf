//! What follows from time: jobs whose end nobody adds anything to, workers silent too long, workers that
//! have shown themselves.

use super::evidence::judge;
use super::limits::{
    ABSENCE_SPAN, ABSENCE_SPAN_CANCELLED, ABSENCE_SPAN_ENDED, ABSENCES_MIN, ACCOUNT_PATIENCE, ORPHAN_MARGIN,
    PROVEN_SPAN, SETTLE, SETTLE_BLIND,
};
use super::{EndReason, JobState, Ledger, Moment, Notice};
use crate::backends::EndedHow;
use crate::runtime::ids::JobSeq;

impl Ledger {
    /// Draws the conclusions that are due.
    pub(super) fn settle(&mut self, now: Moment) {
        self.suspects.retain(|_, until| now.clock < *until);
        self.ended_clock.retain(|_, at| now.clock < *at + super::limits::SUSPECT_SPAN);
        for seq in self.live.clone() {
            let Some(watch) = self.watches.get_mut(&seq) else { continue };
            if let Some(since) = watch.up_since
                && watch.connected
                && !watch.proven
                && now.clock >= since + PROVEN_SPAN
            {
                watch.proven = true;
                let node = watch.node.clone();
                self.breaker.on_proven(Some(since));
                self.nodes.on_fine(seq, node, now);
            }
            self.settle_sentinel(seq, now);
            self.settle_silent(seq, now);
        }
    }

    /// The script has ended: the record closes once the backend agrees, or is not heard of for long.
    fn settle_sentinel(&mut self, seq: JobSeq, now: Moment) {
        let (Some(job), Some(watch)) = (self.jobs.get_mut(&seq), self.watches.get_mut(&seq)) else { return };
        if watch.sentinel.is_none() || now.clock < watch.sentinel_at + SETTLE {
            return;
        }
        let blind = self.listing_failures > 0 || job.id.is_none();
        // One listing may have left it out, and its reason would be lost.
        let absent_for = watch.absent_since.map_or(0, |since| now.clock.saturating_sub(since));
        let absent = watch.absences >= ABSENCES_MIN && absent_for >= ABSENCE_SPAN_ENDED;
        let gone = absent || blind && now.clock >= watch.sentinel_at + SETTLE_BLIND;
        if gone {
            let reason = judge(job, EndedHow::Exited, None, watch);
            self.end(seq, reason, now);
        } else if watch.alive_at.is_some_and(|at| at >= watch.sentinel_at + SETTLE) && !job.cancelling {
            // It hangs in its epilogue, or somebody wrote the file: the job must not stay.
            job.cancelling = true;
            watch.evicted = true;
            self.changed.insert(seq);
            self.notices.push(Notice::Over { job: seq, planned: false });
        }
    }

    /// A job that no query shows any more, or whose worker must have ended itself by now.
    fn settle_silent(&mut self, seq: JobSeq, now: Moment) {
        let (Some(job), Some(watch)) = (self.jobs.get_mut(&seq), self.watches.get(&seq)) else { return };
        if watch.connected || !job.live() {
            return;
        }
        let up = matches!(job.state, JobState::Up | JobState::Draining);
        let orphaned = watch.silent_since.is_none_or(|since| now.clock >= since + self.orphan_timeout + ORPHAN_MARGIN);
        let span = if job.cancelling { ABSENCE_SPAN_CANCELLED } else { ABSENCE_SPAN };
        let absent_for = watch.absent_since.map_or(0, |since| now.clock.saturating_sub(since));
        let vanished = watch.absences >= ABSENCES_MIN
            && absent_for >= span
            && watch.looked
            && (watch.accounted || absent_for >= ACCOUNT_PATIENCE);
        // Absence proves no death: a worker that is cut off may run tasks until it gives up.
        if vanished && (!up || orphaned) {
            let reason = if job.cancelling { EndReason::CancelledByUs } else { EndReason::Vanished };
            self.end(seq, reason, now);
        } else if up && orphaned && watch.sentinel.is_none() && watch.absences == 0 {
            job.state = JobState::Started;
            job.cancelling = true;
            self.changed.insert(seq);
            self.notices.push(Notice::Over { job: seq, planned: false });
            let text = format!("the worker of job {} has been silent too long; cancelling the job", seq.0);
            self.note("worker_lost", Some(seq), text);
        }
    }
}
