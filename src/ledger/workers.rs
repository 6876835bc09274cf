//! What workers and job scripts say themselves: the strongest evidence.

use super::limits::{POLL_MIN, SCRIPT_SPAN};
use super::{EndReason, JobState, Ledger, Moment, Notice};
use crate::backends::sentinel::Sentinel;
use crate::runtime::ids::{JobName, JobSeq};

impl Ledger {
    /// Sentinels were looked for; those that exist.
    pub fn on_sentinels(&mut self, found: Vec<(JobSeq, Sentinel)>, now: Moment) {
        self.reading = false;
        for (seq, sentinel) in found {
            let Some(job) = self.jobs.get_mut(&seq).filter(|job| job.live()) else { continue };
            let watch = self.watches.entry(seq).or_default();
            // One of a former attempt says nothing about this one, and who is connected has not ended.
            if watch.connected || watch.sentinel.is_some() || sentinel.restart < job.requeues {
                continue;
            }
            job.exit_code = Some(sentinel.exit_code);
            let planned = job.cancelling || job.draining || sentinel.exit_code == 0;
            watch.sentinel_at = now.clock;
            watch.sentinel = Some(sentinel);
            self.changed.insert(seq);
            // Whether an unplanned end is the tasks' fault only the backend can say (walltime, preemption): it
            // is asked at once, and the record closes within seconds.
            if planned {
                self.notices.push(Notice::Over { job: seq, planned });
            }
            self.poll_soon(now);
            self.list_by = now.clock;
        }
    }

    /// The worker of a job knows when its walltime ends.
    pub fn on_limited(&mut self, seq: JobSeq) {
        if let Some(watch) = self.watches.get_mut(&seq) {
            watch.limited = true;
        }
    }

    /// The worker of a job connected. Returns whether it may stay, and a reason if not.
    pub fn on_worker_up(&mut self, name: &JobName, node: &str, now: Moment) -> Result<JobSeq, String> {
        let Some(seq) = self.by_name(name).map(|job| job.seq) else {
            return Err(format!("job {name} is not a job of this cluster"));
        };
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
        let watch = self.watches.entry(seq).or_default();
        if let Some(sentinel) = watch.sentinel.take() {
            // Its script has ended and begun anew.
            job.requeues = job.requeues.max(sentinel.restart.saturating_add(1));
            job.exit_code = None;
            self.changed.insert(seq);
            if job.draining {
                // The former worker was asked to leave, and has.
                job.cancelling = true;
                return Err(format!("job {name} is being cancelled"));
            }
            job.state = JobState::Started;
        }
        watch.connected = true;
        watch.started.get_or_insert(now.clock);
        watch.up_since = Some(now.clock);
        watch.silent_since = None;
        watch.pending_since = None;
        watch.clear_absence();
        job.silent = false;
        job.unknown = false;
        job.node = Some(node.to_owned());
        job.started_at.get_or_insert(now.wall);
        if self.stopping {
            job.draining = true;
        }
        if !job.was_up || !matches!(job.state, JobState::Up | JobState::Draining) {
            job.was_up = true;
            job.state = JobState::Up;
            job.reason = String::new();
            // The batch system knows how much time it has left.
            self.list_by = self.list_by.min(now.clock + POLL_MIN / 4);
            self.note("job_up", Some(seq), format!("job {} is up on {node}", seq.0));
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

    /// The worker said goodbye: it left in order, asked to or not.
    pub fn on_worker_goodbye(&mut self, seq: JobSeq, now: Moment) {
        self.on_worker_draining(seq);
        self.on_worker_silent(seq, now);
    }

    /// The worker's connection is gone.
    pub fn on_worker_silent(&mut self, seq: JobSeq, now: Moment) {
        let Some(job) = self.jobs.get_mut(&seq).filter(|job| job.live()) else { return };
        let watch = self.watches.entry(seq).or_default();
        watch.connected = false;
        watch.silent_since.get_or_insert(now.clock);
        job.silent = true;
        self.changed.insert(seq);
        self.poll_soon(now);
        self.next_sentinels = now.clock;
        // Its script needs a moment to end: a listing before that would have to be repeated.
        self.list_not_before = self.list_not_before.max(now.clock + SCRIPT_SPAN);
    }
}
