//! What workers and job scripts say themselves: the strongest evidence.

use super::{EndReason, JobState, Ledger, Moment, Notice};
use crate::backends::sentinel::Sentinel;
use crate::runtime::ids::{JobName, JobSeq};

impl Ledger {
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
            job.draining = true;
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
}
