//! The way to the journal and back: replay at start, and the base written from memory.

use super::details::Details;
use super::{Core, Output, Worker};
use crate::ledger::Moment;
use crate::runtime::ids::{ArrayId, TaskId, WorkerId};
use crate::runtime::protocol::{Capacity, Submission};
use crate::runtime::scheduler::{End, Event, RestoreError};
use crate::server::record::{Detail, ENTRIES_MAX, Record};
use std::ops::Range;
use std::sync::Arc;

impl Core {
    /// Takes one record back.
    ///
    /// # Errors
    ///
    /// If the journal speaks of something it never introduced.
    pub fn replay(&mut self, record: Record) -> Result<(), RestoreError> {
        match record {
            Record::Submitted { array, key, submission, at } => {
                let shape = self.shape_of(&submission);
                self.scheduler.restore_array(array, shape)?;
                self.insert_array(array, key, submission, at, 0);
            }
            Record::Ended { task, end, detail } => {
                self.scheduler.restore_end(task, end.clone())?;
                self.count_failures(task.array, task.element, task.element, &end);
                if let Some(detail) = detail {
                    self.count_usage(detail.usage);
                    self.restore_runs(task.array, vec![(task.element, detail)]);
                }
            }
            Record::Finished { array, runs } => {
                for (element, detail) in &runs {
                    self.scheduler.restore_end(TaskId { array, element: *element }, End::Finished)?;
                    self.count_usage(detail.usage);
                }
                self.restore_runs(array, runs);
            }
            Record::ManyEnded { array, end, ranges } => {
                for (first, last) in ranges {
                    self.scheduler.restore_ends(array, first, last, end.clone())?;
                    self.count_failures(array, first, last, &end);
                }
            }
            Record::Runs { array, runs } => self.restore_runs(array, runs),
            Record::Withdrawn { array } => {
                if let Some(array) = self.arrays.get_mut(&array) {
                    self.keys.remove(&std::mem::take(&mut array.key));
                }
            }
            Record::Revived { task } => {
                self.scheduler.restore_revived(task)?;
                self.recount.insert(task.array);
                if let Some(array) = self.arrays.get_mut(&task.array) {
                    array.details.remove(task.element);
                }
            }
            Record::Retried { task } => self.scheduler.restore_retry(task)?,
            Record::Lost { task } => self.scheduler.restore_loss(task)?,
            Record::Job(job) => self.ledger.restore(*job),
            Record::Joined { worker, job, nonce, node } => self.restore_worker(worker, job, nonce, node),
            Record::Left { worker } => {
                if let Some(gone) = self.workers.remove(&worker) {
                    self.nonces.remove(&gone.nonce);
                }
                self.awaited.remove(&worker);
            }
            Record::Scaled { jobs, reached } => {
                self.opened = true;
                self.ledger.restore_wanted(jobs, reached);
                self.scaling = None;
                self.scheduler.set_cautious(false);
            }
            Record::Adapted(adapt) => {
                self.opened = true;
                self.ledger.restore_adapt(adapt.max);
                self.start_scaling(adapt);
            }
            Record::Stopping => self.stopped = true,
            Record::Opened => self.stopped = false,
            Record::Used(usage) => self.used = usage,
        }
        Ok(())
    }

    fn restore_runs(&mut self, array: ArrayId, runs: Vec<(u32, Detail)>) {
        if let Some(array) = self.arrays.get_mut(&array) {
            for (element, detail) in runs {
                array.details.insert(element, detail);
            }
        }
    }

    fn restore_worker(&mut self, id: WorkerId, job: Option<crate::runtime::ids::JobSeq>, nonce: String, node: String) {
        self.next_worker = WorkerId(self.next_worker.0.max(id.0.saturating_add(1)));
        self.nodes.insert(id, node.clone());
        self.nonces.insert(nonce.clone(), id);
        self.awaited.insert(id);
        let worker = Worker {
            job,
            nonce,
            node,
            capacity: Capacity { cores: 0, memory_bytes: 0, gpus: 0, numa: Vec::new() },
            connection: None,
            hellos: 0,
            draining: false,
            joined: 0,
            heard_at: 0,
            silent_since: None,
            ends_at: None,
            asked_again: false,
            bodies: Default::default(),
            ends_seen: 0,
        };
        self.workers.insert(id, worker);
    }

    /// Ends the replay. `opened`: `up` was called, which ends a former `down`; `proved`: the former server is
    /// known to be dead.
    pub fn finish_restore(&mut self, opened: bool, proved: bool, now: Moment, out: &mut Output) {
        let mut actions = Vec::new();
        self.scheduler.finish_restore(&mut actions);
        self.carry_out(actions, now, out);
        self.recount_failures();
        self.ledger.finish_restore(proved, now);
        for worker in self.workers.values_mut() {
            worker.silent_since = Some(now.clock);
        }
        if opened && self.stopped && self.ledger.live().next().is_none() {
            self.stopped = false;
            out.records.push(Record::Opened);
        }
        if self.stopped {
            // The former server died while it took the cluster down: finish that.
            self.go_down(crate::runtime::control::DownMode::Stop, None, now, out);
        } else {
            self.scheduler.apply(Event::Hold(true), now.clock, &mut Vec::new());
            self.release_hold(now, out);
        }
    }

    /// Asks for jobs, at the first start and at every `up` after a `down`.
    pub fn open(&mut self, now: Moment, out: &mut Output) {
        match self.options.spec.adapt {
            Some(adapt) => self.adapt(adapt, now, out),
            None => self.scale(self.options.spec.jobs, now, out),
        }
    }

    /// Whether the journal says that jobs were ever asked for.
    pub fn was_opened(&self) -> bool {
        self.opened
    }

    /// Whether the cluster goes down.
    pub fn is_stopping(&self) -> bool {
        self.stopped
    }

    /// Returns the whole state of this moment, for a new part of the journal.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot =
            Snapshot { arrays: Vec::with_capacity(self.arrays.len()), ends: Vec::new(), rest: Vec::new() };
        for view in self.scheduler.arrays() {
            let Some(array) = self.arrays.get(&view.id()) else { continue };
            let task = |element| TaskId { array: view.id(), element };
            let mut marks = Vec::new();
            for (element, losses) in view.losses() {
                marks.extend((0..losses).map(|_| Record::Lost { task: task(element) }));
            }
            for (element, retries) in view.retries() {
                marks.extend((0..retries).map(|_| Record::Retried { task: task(element) }));
            }
            let first = snapshot.ends.len();
            snapshot.ends.extend(view.ends());
            snapshot.arrays.push(ArraySnapshot {
                array: view.id(),
                key: Arc::clone(&array.key),
                submission: Arc::clone(&array.submission),
                at: array.submitted_at,
                marks,
                ends: first..snapshot.ends.len(),
                runs: array.details.clone(),
            });
        }
        let records = &mut snapshot.rest;
        records.extend(self.ledger.jobs().map(|job| Record::Job(Box::new(job.clone()))));
        for (id, node) in &self.nodes {
            let (job, nonce) = match self.workers.get(id) {
                Some(worker) => (worker.job, worker.nonce.clone()),
                None => (None, String::new()),
            };
            records.push(Record::Joined { worker: *id, job, nonce, node: node.clone() });
            if !self.workers.contains_key(id) {
                records.push(Record::Left { worker: *id });
            }
        }
        records.push(Record::Used(self.used));
        records.push(match &self.scaling {
            Some(scaling) => Record::Adapted(scaling.adapt()),
            None => Record::Scaled { jobs: self.ledger.wanted(), reached: self.ledger.reached() },
        });
        if self.stopped {
            records.push(Record::Stopping);
        }
        snapshot
    }
}

/// The whole state at one moment. It is taken at once, as what is large is shared with the core; the records
/// are made of it later, on the journal's thread.
#[derive(Debug)]
pub struct Snapshot {
    arrays: Vec<ArraySnapshot>,
    /// First element, last element, end; of all submissions.
    ends: Vec<(u32, u32, End)>,
    /// Everything else.
    rest: Vec<Record>,
}

#[derive(Debug)]
struct ArraySnapshot {
    array: ArrayId,
    key: Arc<str>,
    submission: Arc<Submission>,
    at: u64,
    /// Lost workers and retries.
    marks: Vec<Record>,
    /// Where its ends stand in the list of all.
    ends: Range<usize>,
    runs: Details,
}

impl Snapshot {
    /// Returns the state as records, in the order in which they are to be replayed.
    pub fn records(&self) -> impl Iterator<Item = Record> + Clone + '_ {
        self.arrays.iter().flat_map(|array| array.records(&self.ends)).chain(self.rest.iter().cloned())
    }

    /// Returns the records as the journal keeps them.
    pub fn encoded(&self) -> impl Iterator<Item = Vec<u8>> + Clone + '_ {
        self.records().map(|record| record.encode())
    }
}

impl ArraySnapshot {
    fn records<'a>(&'a self, ends: &[(u32, u32, End)]) -> impl Iterator<Item = Record> + Clone + use<'a> {
        let array = self.array;
        let mut records = vec![Record::Submitted {
            array,
            key: Arc::clone(&self.key),
            submission: Arc::clone(&self.submission),
            at: self.at,
        }];
        records.extend(self.marks.iter().cloned());
        for (end, ranges) in by_end(&ends[self.ends.clone()]) {
            records.extend(ranges.chunks(ENTRIES_MAX).map(|ranges| Record::ManyEnded {
                array,
                end: end.clone(),
                ranges: ranges.to_vec(),
            }));
        }
        let mut runs = self.runs.iter();
        let chunks = std::iter::from_fn(move || {
            let runs: Vec<(u32, Detail)> = runs.by_ref().take(ENTRIES_MAX).collect();
            (!runs.is_empty()).then_some(Record::Runs { array, runs })
        });
        records.into_iter().chain(chunks)
    }
}

/// Groups stretches by their end, as far as it costs no time: elements that fail and finish by turns are
/// common, thousands of different ends are not.
fn by_end(ends: &[(u32, u32, End)]) -> Vec<(&End, Vec<(u32, u32)>)> {
    const LOOK_BACK: usize = 8;
    let mut groups: Vec<(&End, Vec<(u32, u32)>)> = Vec::new();
    for (first, last, end) in ends {
        match groups.iter_mut().rev().take(LOOK_BACK).find(|(known, _)| *known == end) {
            Some((_, ranges)) => ranges.push((*first, *last)),
            None => groups.push((end, vec![(*first, *last)])),
        }
    }
    groups
}
