//! The way to the journal and back: replay at start, and the base written from memory.

use super::{Core, Output, Worker};
use crate::ledger::Moment;
use crate::runtime::ids::{TaskId, WorkerId};
use crate::runtime::protocol::Capacity;
use crate::runtime::scheduler::{Event, RestoreError};
use crate::server::record::Record;

impl Core {
    /// Takes one record back.
    ///
    /// # Errors
    ///
    /// If the journal speaks of something it never introduced.
    pub fn replay(&mut self, record: Record) -> Result<(), RestoreError> {
        match record {
            Record::Submitted { array, key, submission, at } => {
                self.scheduler.restore_array(array, super::requests::shape_of(&submission))?;
                self.insert_array(array, key, submission, at, 0);
            }
            Record::Ended { task, end, detail } => {
                self.scheduler.restore_end(task, end.clone())?;
                self.count_failures(task.array, task.element, task.element, &end);
                if let Some(detail) = detail {
                    self.count_usage(detail.usage);
                    self.restore_detail(task, detail);
                }
            }
            Record::ManyEnded { array, first, last, end } => {
                self.scheduler.restore_ends(array, first, last, end.clone())?;
                self.count_failures(array, first, last, &end);
            }
            Record::Detail { task, detail } => self.restore_detail(task, detail),
            Record::Withdrawn { array } => {
                if let Some(array) = self.arrays.get_mut(&array) {
                    self.keys.remove(&std::mem::take(&mut array.key));
                }
            }
            Record::Revived { task } => {
                self.scheduler.restore_revived(task)?;
                self.recount.insert(task.array);
                if let Some(array) = self.arrays.get_mut(&task.array) {
                    array.details.remove(&task.element);
                }
            }
            Record::Retried { task } => self.scheduler.restore_retry(task)?,
            Record::Lost { task } => self.scheduler.restore_loss(task)?,
            Record::Job(job) => self.ledger.restore(*job),
            Record::Joined { worker, job, nonce, node } => self.restore_worker(worker, job, nonce, node),
            Record::Left { worker } => {
                self.workers.remove(&worker);
                self.awaited.remove(&worker);
            }
            Record::Scaled { jobs, reached } => {
                self.opened = true;
                self.ledger.restore_wanted(jobs, reached);
            }
            Record::Stopping => self.stopped = true,
            Record::Opened => self.stopped = false,
            Record::Used(usage) => self.used = usage,
        }
        Ok(())
    }

    fn restore_detail(&mut self, task: TaskId, detail: crate::server::record::Detail) {
        if let Some(array) = self.arrays.get_mut(&task.array) {
            array.details.insert(task.element, detail);
        }
    }

    fn restore_worker(&mut self, id: WorkerId, job: Option<crate::runtime::ids::JobSeq>, nonce: String, node: String) {
        self.next_worker = WorkerId(self.next_worker.0.max(id.0 + 1));
        self.nodes.insert(id, node.clone());
        self.awaited.insert(id);
        let worker = Worker {
            job,
            nonce,
            node,
            capacity: Capacity { cores: 0, memory_bytes: 0, gpus: 0 },
            connection: None,
            hellos: 0,
            draining: false,
            joined: 0,
            heard_at: 0,
            silent_since: None,
            ends_at: None,
            asked_again: false,
            bodies: Default::default(),
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
    pub fn open(&mut self, jobs: u32, now: Moment, out: &mut Output) {
        self.ledger.scale(jobs, now);
        out.records.push(Record::Scaled { jobs, reached: false });
    }

    /// Whether the journal says that jobs were ever asked for.
    pub fn was_opened(&self) -> bool {
        self.opened
    }

    /// Whether the cluster goes down.
    pub fn is_stopping(&self) -> bool {
        self.stopped
    }

    /// Returns the whole state as records, for a new part of the journal.
    pub fn base(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for view in self.scheduler.arrays() {
            let Some(array) = self.arrays.get(&view.id()) else { continue };
            records.push(Record::Submitted {
                array: view.id(),
                key: array.key.clone(),
                submission: Box::new((*array.submission).clone()),
                at: array.submitted_at,
            });
            for (element, losses) in view.losses() {
                let task = TaskId { array: view.id(), element };
                records.extend((0..losses).map(|_| Record::Lost { task }));
            }
            for (element, retries) in view.retries() {
                let task = TaskId { array: view.id(), element };
                records.extend((0..retries).map(|_| Record::Retried { task }));
            }
            for (first, last, end) in view.ends() {
                records.push(Record::ManyEnded { array: view.id(), first, last, end });
            }
            for (element, detail) in &array.details {
                let task = TaskId { array: view.id(), element: *element };
                records.push(Record::Detail { task, detail: *detail });
            }
        }
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
        records.push(Record::Scaled { jobs: self.ledger.wanted(), reached: self.ledger.reached() });
        if self.stopped {
            records.push(Record::Stopping);
        }
        records
    }
}
