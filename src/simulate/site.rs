//! The simulated batch system: what really becomes of jobs, and what its commands say about it.

use super::Faults;
use super::queue::{Asked, Queue};
use crate::backends::{BackendError, EndedHow, ErrorClass, JobRef, Observation, Observed, Submit};
use crate::runtime::ids::{JobName, JobSeq, NativeId};
use fastrand::Rng;
use std::collections::BTreeMap;

/// Milliseconds an ended job stays in listings.
const REMEMBERED: u64 = 300_000;

/// What a job really does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Real {
    Pending,
    Running,
    Ended(EndedHow),
}

/// A job as it really is. Times in milliseconds.
#[derive(Clone, Debug)]
pub(super) struct SiteJob {
    pub(super) real: Real,
    pub(super) submitted: u64,
    pub(super) started: Option<u64>,
    pub(super) ended: Option<u64>,
    pub(super) walltime: Option<f64>,
    /// Gone without a trace.
    pub(super) vanished: bool,
    pub(super) tasks_ended: u64,
    pub(super) cancelled_pending: bool,
}

impl SiteJob {
    pub(super) fn live(&self) -> bool {
        !matches!(self.real, Real::Ended(_))
    }
}

/// The batch system.
pub(super) struct Site {
    pub(super) jobs: BTreeMap<JobSeq, SiteJob>,
    pub(super) queue: Box<dyn Queue>,
    pub(super) faults: Faults,
    pub(super) random: Rng,
    pub(super) live: u32,
    processors: u32,
}

impl Site {
    pub(super) fn new(queue: Box<dyn Queue>, faults: Faults, processors: u32, seed: u64) -> Self {
        let random = Rng::with_seed(seed ^ 0x5eed_51fe);
        Self { jobs: BTreeMap::new(), queue, faults, random, live: 0, processors }
    }

    /// The submit command; it fails as a whole or not at all.
    pub(super) fn submit(
        &mut self,
        submit: &Submit,
        walltime: Option<f64>,
        now: u64,
    ) -> Result<Vec<NativeId>, BackendError> {
        if self.random.f64() < self.faults.reject {
            return Err(error("submit", "the controller is busy"));
        }
        for (seq, _) in &submit.jobs {
            let job = SiteJob {
                real: Real::Pending,
                submitted: now,
                started: None,
                ended: None,
                walltime,
                vanished: false,
                tasks_ended: 0,
                cancelled_pending: false,
            };
            self.jobs.insert(*seq, job);
            self.live += 1;
            self.queue.submit(seq.0, Asked { processors: self.processors, walltime }, seconds(now));
        }
        Ok(submit.jobs.iter().map(|(seq, _)| native(*seq)).collect())
    }

    /// A job ends; returns whether it was live.
    pub(super) fn end(&mut self, seq: JobSeq, how: EndedHow, now: u64) -> bool {
        let Some(job) = self.jobs.get_mut(&seq).filter(|job| job.live()) else { return false };
        job.real = Real::Ended(how);
        job.ended = Some(now);
        self.live -= 1;
        self.queue.leave(seq.0, seconds(now));
        true
    }

    /// Whether a query gets no answer now.
    fn deaf(&mut self, now: u64) -> bool {
        seconds(now) < self.faults.blind_seconds || self.random.f64() < self.faults.listings_fail
    }

    pub(super) fn list(&mut self, jobs: &[JobRef], now: u64) -> Result<Vec<Observation>, BackendError> {
        if self.deaf(now) {
            return Err(error("list", "no answer"));
        }
        let seqs = jobs.iter().filter_map(|job| JobName::parse("simu", job.name.as_str()).map(|(_, seq)| seq));
        Ok(seqs.filter_map(|seq| self.observe(seq, now)).collect())
    }

    pub(super) fn find(&mut self, now: u64) -> Result<Vec<Observation>, BackendError> {
        if self.deaf(now) {
            return Err(error("find", "no answer"));
        }
        let live: Vec<JobSeq> = self.jobs.iter().filter(|(_, job)| job.live()).map(|(seq, _)| *seq).collect();
        Ok(live.into_iter().filter_map(|seq| self.observe(seq, now)).collect())
    }

    pub(super) fn account(&mut self, jobs: &[JobRef], now: u64) -> Result<Vec<Observation>, BackendError> {
        self.list(jobs, now)
    }

    fn observe(&self, seq: JobSeq, now: u64) -> Option<Observation> {
        let job = self.jobs.get(&seq).filter(|job| !job.vanished)?;
        if job.ended.is_some_and(|at| now > at + REMEMBERED) {
            return None;
        }
        let state = match job.real {
            Real::Pending => Observed::Pending,
            Real::Running => Observed::Running,
            Real::Ended(how) => Observed::Ended { how, exit_code: Some(i32::from(how != EndedHow::Exited)) },
        };
        Some(Observation {
            name: JobName::new("simu", seq),
            id: native(seq),
            state,
            reason: String::new(),
            node: None,
            seconds_left: None,
        })
    }
}

fn native(seq: JobSeq) -> NativeId {
    NativeId(seq.0.to_string())
}

fn error(command: &str, says: &str) -> BackendError {
    BackendError { class: ErrorClass::Transient, command: command.to_owned(), says: says.to_owned(), fix: None }
}

/// Returns milliseconds in seconds.
pub(super) fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}
