//! The workers: what they offer, what is on them, and an index to find a place.
//!
//! Called by the other files of the scheduler. Invariants: `used` is the sum over `runs`; whoever
//! could take more than at the last placement is in `touched`.

use super::Millis;
use super::ready::Class;
use crate::runtime::ids::{RunId, TaskId, WorkerId};
use crate::runtime::protocol::{Capacity, Request};
use std::collections::{BTreeMap, BTreeSet};

/// Order in which workers are filled: those with tasks before empty ones, fewest free cores first,
/// then by age, so that the youngest fall empty.
pub(super) type Fill = (bool, u32, WorkerId);

/// One run that occupies a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) task: TaskId,
    pub(super) class: u32,
    /// It has its process.
    pub(super) started: bool,
    /// It was told to end, and how it ends does not matter any more.
    pub(super) doomed: bool,
}

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) capacity: Capacity,
    pub(super) ends_at: Option<Millis>,
    pub(super) draining: bool,
    pub(super) silent: bool,
    runs: BTreeMap<RunId, Run>,
    used_cores: u64,
    used_memory: u128,
    used_gpus: u64,
    indexed: Option<Fill>,
    touched: bool,
}

impl Worker {
    /// Whether it takes new tasks.
    pub(super) fn accepts(&self) -> bool {
        !self.draining && !self.silent
    }
    /// Returns what is on it.
    pub(super) fn runs(&self) -> &BTreeMap<RunId, Run> {
        &self.runs
    }
    /// Returns what is free on it.
    pub(super) fn free(&self) -> Capacity {
        let cores = u64::from(self.capacity.cores).saturating_sub(self.used_cores);
        let memory = u128::from(self.capacity.memory_bytes).saturating_sub(self.used_memory);
        let gpus = u64::from(self.capacity.gpus).saturating_sub(self.used_gpus);
        // What is left of a capacity fits the capacity's type.
        Capacity { cores: cores as u32, memory_bytes: memory as u64, gpus: gpus as u32 }
    }
    /// Returns the milliseconds left; `None` = no limit.
    pub(super) fn time_left(&self, now: Millis) -> Option<Millis> {
        self.ends_at.map(|end| end.saturating_sub(now))
    }
    /// Whether a class's time request is left; nothing starts on a worker that has ended.
    pub(super) fn has_time(&self, class: &Class, now: Millis) -> bool {
        let needed = class.time_request.unwrap_or(0).max(1);
        self.time_left(now).is_none_or(|left| left >= needed)
    }
    /// Whether a class could run on it if it were empty.
    pub(super) fn could_hold(&self, class: &Class, now: Millis) -> bool {
        self.accepts() && self.has_time(class, now) && copies(&class.request, &self.capacity) > 0
    }
    fn fits(&self, class: &Class, now: Millis) -> bool {
        self.accepts() && self.has_time(class, now) && copies(&class.request, &self.free()) > 0
    }
    /// Returns how many runs of a request fit beside what is on it.
    pub(super) fn room(&self, request: &Request) -> u32 {
        copies(request, &self.free())
    }
    fn fill(&self, id: WorkerId) -> Option<Fill> {
        let free = self.free().cores;
        (self.accepts() && free > 0).then_some((self.runs.is_empty(), free, id))
    }
}

/// Returns how often a request fits into a capacity.
fn copies(request: &Request, capacity: &Capacity) -> u32 {
    let cores = capacity.cores / request.cores.max(1);
    let memory = match request.memory_bytes {
        0 => u32::MAX,
        wanted => u32::try_from(capacity.memory_bytes / wanted).unwrap_or(u32::MAX),
    };
    let gpus = match request.gpus {
        0 => u32::MAX,
        wanted => capacity.gpus / wanted,
    };
    cores.min(memory).min(gpus)
}

/// All workers.
#[derive(Default, Debug)]
pub(super) struct Fleet {
    workers: BTreeMap<WorkerId, Worker>,
    /// Those with a free core that take tasks, in the order they are filled.
    index: BTreeSet<Fill>,
    touched: Vec<WorkerId>,
    /// Changes whenever a class could become feasible.
    pub(super) version: u64,
}

impl Fleet {
    /// Returns a worker.
    pub(super) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    /// Returns all workers by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.workers.iter().map(|(id, worker)| (*id, worker))
    }

    /// Adds a worker, or takes back one that was silent.
    pub(super) fn join(&mut self, id: WorkerId, capacity: Capacity, ends_at: Option<Millis>) {
        let worker = self.workers.entry(id).or_insert_with(|| Worker {
            capacity: capacity.clone(),
            ends_at,
            draining: false,
            silent: false,
            runs: BTreeMap::new(),
            used_cores: 0,
            used_memory: 0,
            used_gpus: 0,
            indexed: None,
            touched: false,
        });
        worker.capacity = capacity;
        worker.ends_at = ends_at;
        worker.silent = false;
        self.version += 1;
        self.touch(id);
    }

    /// Changes what placement asks of a worker.
    pub(super) fn update(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker)) {
        if let Some(worker) = self.workers.get_mut(&id) {
            change(worker);
            self.version += 1;
            self.touch(id);
        }
    }

    /// Removes a worker; returns what was on it.
    pub(super) fn remove(&mut self, id: WorkerId) -> BTreeMap<RunId, Run> {
        let Some(worker) = self.workers.remove(&id) else {
            return BTreeMap::new();
        };
        if let Some(fill) = worker.indexed {
            self.index.remove(&fill);
        }
        worker.runs
    }

    /// Puts a run on a worker. The index follows at [`Fleet::reindex`].
    pub(super) fn occupy(&mut self, id: WorkerId, run: RunId, entry: Run, request: &Request) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.used_cores += u64::from(request.cores);
            worker.used_memory += u128::from(request.memory_bytes);
            worker.used_gpus += u64::from(request.gpus);
            worker.runs.insert(run, entry);
        }
    }

    /// Takes a run off a worker.
    pub(super) fn release(&mut self, id: WorkerId, run: RunId, request: &Request) {
        if let Some(worker) = self.workers.get_mut(&id)
            && worker.runs.remove(&run).is_some()
        {
            worker.used_cores -= u64::from(request.cores);
            worker.used_memory -= u128::from(request.memory_bytes);
            worker.used_gpus -= u64::from(request.gpus);
            self.touch(id);
        }
    }

    /// Returns a run on a worker, to change it.
    pub(super) fn run_mut(&mut self, id: WorkerId, run: RunId) -> Option<&mut Run> {
        self.workers.get_mut(&id)?.runs.get_mut(&run)
    }

    /// Notes that a worker may be able to take more than before.
    pub(super) fn touch(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id)
            && !worker.touched
        {
            worker.touched = true;
            self.touched.push(id);
        }
    }

    /// Brings the index up to date; returns the workers that were touched.
    pub(super) fn settle(&mut self) -> Vec<WorkerId> {
        let touched = std::mem::take(&mut self.touched);
        for id in &touched {
            if let Some(worker) = self.workers.get_mut(id) {
                worker.touched = false;
            }
            self.reindex(*id);
        }
        touched
    }

    /// Brings the index up to date for one worker.
    pub(super) fn reindex(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let fill = worker.fill(id);
        if fill != worker.indexed {
            if let Some(old) = std::mem::replace(&mut worker.indexed, fill) {
                self.index.remove(&old);
            }
            self.index.extend(fill);
        }
    }

    /// Whether no worker has a free core to give.
    pub(super) fn is_full(&self) -> bool {
        self.index.is_empty()
    }

    /// Returns the first worker in filling order that fits a class, but for `except`.
    pub(super) fn find(&self, class: &Class, except: Option<WorkerId>, now: Millis) -> Option<WorkerId> {
        let from = |empty| (empty, class.request.cores, WorkerId(0));
        let to = |empty| (empty, u32::MAX, WorkerId(u32::MAX));
        let busy = self.index.range(from(false)..=to(false));
        let empty = self.index.range(from(true)..=to(true));
        let mut ids = busy.chain(empty).map(|(_, _, id)| *id);
        ids.find(|id| self.fits(*id, class, except, now))
    }

    /// The same, looking at `candidates` only.
    pub(super) fn find_among(
        &self,
        candidates: &[WorkerId],
        class: &Class,
        except: Option<WorkerId>,
        now: Millis,
    ) -> Option<WorkerId> {
        let fitting = candidates.iter().filter(|id| self.fits(**id, class, except, now));
        let fills = fitting.filter_map(|id| self.workers.get(id)?.indexed);
        fills.min().map(|(_, _, id)| id)
    }

    fn fits(&self, id: WorkerId, class: &Class, except: Option<WorkerId>, now: Millis) -> bool {
        let worker = self.workers.get(&id);
        except != Some(id) && worker.is_some_and(|worker| worker.fits(class, now))
    }
}

#[cfg(test)]
impl Fleet {
    /// Panics unless `used` and the index agree with the runs.
    pub(super) fn check(&self, request: impl Fn(u32) -> Request) {
        for (id, worker) in &self.workers {
            let requests: Vec<Request> = worker.runs.values().map(|r| request(r.class)).collect();
            let cores: u64 = requests.iter().map(|r| u64::from(r.cores)).sum();
            let memory: u128 = requests.iter().map(|r| u128::from(r.memory_bytes)).sum();
            let gpus: u64 = requests.iter().map(|r| u64::from(r.gpus)).sum();
            assert_eq!((cores, memory, gpus), (worker.used_cores, worker.used_memory, worker.used_gpus));
            assert_eq!(worker.touched, self.touched.contains(id));
            if !worker.touched {
                assert_eq!(worker.indexed, worker.fill(*id));
            }
        }
        let indexed = self.workers.values().filter_map(|w| w.indexed);
        assert_eq!(indexed.collect::<BTreeSet<Fill>>(), self.index);
    }
}
