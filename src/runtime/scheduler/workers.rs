//! The workers: what they offer, what is on them, what waits there, and an index to find a place.
//!
//! Called by the other files of the scheduler. Invariants: the room is that of all `runs`; a line's holders are
//! the runs that hand their room over to it; whoever could take more than at the last placement, or has more to
//! hand over, is in `touched`.

use super::Millis;
use super::room::Room;
use crate::runtime::ids::{RunId, TaskId, WorkerId};
use crate::runtime::protocol::{Capacity, Place, Request};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Order in which workers are filled: those with tasks before empty ones, fewest free cores first,
/// then by age, so that the youngest fall empty.
pub(super) type Fill = (bool, u32, WorkerId);

/// One run that has room on a worker, or waits for it there.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) task: TaskId,
    pub(super) class: u32,
    pub(super) variant: u8,
    /// It has its process.
    pub(super) started: bool,
    /// It was told to end, and how it ends does not matter any more.
    pub(super) doomed: bool,
    /// It was asked back while it waited.
    pub(super) asked: bool,
    /// It hands its room over to the next of its line.
    pub(super) hands_over: bool,
    /// It is a guest: the task runs on this other worker.
    pub(super) lead: Option<WorkerId>,
    /// What exactly it has.
    pub(super) place: Place,
}

impl Run {
    /// Makes one that was not started.
    pub(super) fn new(task: TaskId, class: u32, variant: u8) -> Self {
        Self {
            task,
            class,
            variant,
            started: false,
            doomed: false,
            asked: false,
            hands_over: true,
            lead: None,
            place: Place::default(),
        }
    }
    /// Number of its line.
    pub(super) fn line(&self) -> u32 {
        line(self.class, self.variant)
    }
}

/// Returns the number of the line of a class and variant.
pub(super) fn line(class: u32, variant: u8) -> u32 {
    class * u32::from(super::VARIANTS_MAX) + u32::from(variant)
}

/// Runs on one worker that ask for the same.
#[derive(Default, Debug)]
pub(super) struct Line {
    number: u32,
    /// Runs with room that hand it over.
    pub(super) holders: u32,
    pub(super) waiting: VecDeque<RunId>,
}

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) room: Room,
    pub(super) ends_at: Option<Millis>,
    pub(super) draining: bool,
    pub(super) silent: bool,
    runs: BTreeMap<RunId, Run>,
    waiting: BTreeMap<RunId, Run>,
    lines: Vec<Line>,
    indexed: Option<Fill>,
    touched: bool,
}

impl Line {
    /// Returns its class.
    pub(super) fn class(&self) -> u32 {
        self.number / u32::from(super::VARIANTS_MAX)
    }
    /// Returns its variant.
    pub(super) fn variant(&self) -> u8 {
        (self.number % u32::from(super::VARIANTS_MAX)) as u8
    }
}

impl Worker {
    /// Whether it takes new tasks.
    pub(super) fn accepts(&self) -> bool {
        !self.draining && !self.silent
    }
    /// Returns what has room on it.
    pub(super) fn runs(&self) -> &BTreeMap<RunId, Run> {
        &self.runs
    }
    /// Returns what waits for room on it.
    pub(super) fn waiting(&self) -> &BTreeMap<RunId, Run> {
        &self.waiting
    }
    /// Returns its lines.
    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }
    /// Returns the line of a class and variant.
    pub(super) fn line(&self, class: u32, variant: u8) -> Option<&Line> {
        let number = line(class, variant);
        self.lines.iter().find(|line| line.number == number)
    }
    fn line_mut(&mut self, number: u32) -> &mut Line {
        let at = match self.lines.iter().position(|line| line.number == number) {
            Some(at) => at,
            None => {
                self.lines.retain(|line| line.holders > 0 || !line.waiting.is_empty());
                self.lines.push(Line { number, ..Line::default() });
                self.lines.len() - 1
            }
        };
        &mut self.lines[at]
    }
    /// Returns the milliseconds left; `None` = no limit.
    pub(super) fn time_left(&self, now: Millis) -> Option<Millis> {
        self.ends_at.map(|end| end.saturating_sub(now))
    }
    /// Whether so many milliseconds are left; nothing starts on a worker that has ended.
    pub(super) fn has_time(&self, needed: Millis, now: Millis) -> bool {
        self.time_left(now).is_none_or(|left| left >= needed.max(1))
    }
    /// Whether one of these could run on it if it were empty.
    pub(super) fn could_hold(&self, requests: &[&Request], needed: Millis, now: Millis) -> bool {
        self.accepts() && self.has_time(needed, now) && requests.iter().any(|request| self.room.could_hold(request))
    }
    fn fill(&self, id: WorkerId) -> Option<Fill> {
        let free = self.room.free_cores();
        (self.accepts() && free > 0).then_some((self.runs.is_empty(), free, id))
    }
}

/// What a class asks of a worker now.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) request: &'a Request,
    /// Milliseconds that must be left.
    pub(super) time: Millis,
    pub(super) now: Millis,
    /// Workers that are kept for somebody else, or chosen already.
    pub(super) except: &'a [WorkerId],
}

/// All workers.
#[derive(Default, Debug)]
pub(super) struct Fleet {
    workers: BTreeMap<WorkerId, Worker>,
    /// Those with a free core that take tasks, in the order they are filled.
    index: BTreeSet<Fill>,
    touched: Vec<WorkerId>,
    /// Workers where runs wait for room.
    hosts: BTreeSet<WorkerId>,
    /// Changes whenever a class could become feasible.
    pub(super) version: u64,
    /// Longest walltime that any worker ever had left; `Some(MAX)` = one had no limit.
    longest: Option<Millis>,
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

    /// Number of workers.
    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    /// Returns the workers where runs wait for room.
    pub(super) fn hosts(&self) -> &BTreeSet<WorkerId> {
        &self.hosts
    }

    /// Returns the longest walltime that can be hoped for.
    pub(super) fn longest(&self) -> Millis {
        self.longest.unwrap_or(Millis::MAX)
    }

    /// Returns whether a run that was interrupted after `wall` had most of the longest walltime there is.
    pub(super) fn is_cut(&self, wall: Millis) -> bool {
        let longest = self.longest();
        wall > 0 && longest < Millis::MAX && wall >= longest - longest / 10
    }

    /// Adds a worker, or takes back one that was silent. What it offers may have changed meanwhile.
    pub(super) fn join(
        &mut self,
        id: WorkerId,
        capacity: Capacity,
        ends_at: Option<Millis>,
        now: Millis,
        request: impl Fn(&Run) -> Request,
    ) {
        let worker = self.workers.entry(id).or_insert_with(|| Worker {
            room: Room::new(capacity.clone()),
            ends_at,
            draining: false,
            silent: false,
            runs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            lines: Vec::new(),
            indexed: None,
            touched: false,
        });
        worker.room = Room::new(capacity);
        for run in worker.runs.values_mut() {
            worker.room.take_place(&request(run), &run.place);
            // The worker forgot who follows whom when the connection ended.
            run.hands_over = false;
        }
        for line in &mut worker.lines {
            line.holders = 0;
        }
        worker.ends_at = ends_at;
        worker.silent = false;
        let left = ends_at.map_or(Millis::MAX, |end| end.saturating_sub(now));
        self.longest = Some(self.longest.unwrap_or(0).max(left));
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

    /// Removes a worker; returns what had room on it, and what waited for it.
    pub(super) fn remove(&mut self, id: WorkerId) -> (BTreeMap<RunId, Run>, BTreeMap<RunId, Run>) {
        let Some(worker) = self.workers.remove(&id) else {
            return Default::default();
        };
        if let Some(fill) = worker.indexed {
            self.index.remove(&fill);
        }
        self.hosts.remove(&id);
        (worker.runs, worker.waiting)
    }

    /// Gives a new run room on a worker, and returns what exactly it got. The index follows at [`Fleet::reindex`].
    pub(super) fn occupy(&mut self, id: WorkerId, run: RunId, mut entry: Run, request: &Request) -> Place {
        let Some(worker) = self.workers.get_mut(&id) else { return Place::default() };
        let place = worker.room.take(request);
        entry.place = place.clone();
        worker.put(run, entry);
        place
    }

    /// Notes a run that has its room already.
    pub(super) fn adopt(&mut self, id: WorkerId, run: RunId, entry: Run, request: &Request) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.room.take_place(request, &entry.place);
            worker.put(run, entry);
        }
    }

    /// Lets a run wait for room on a worker.
    pub(super) fn enqueue(&mut self, id: WorkerId, run: RunId, entry: Run) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.line_mut(entry.line()).waiting.push_back(run);
            worker.waiting.insert(run, entry);
            self.hosts.insert(id);
        }
    }

    /// Takes a run that waits off a worker.
    pub(super) fn dequeue(&mut self, id: WorkerId, run: RunId) -> Option<Run> {
        let worker = self.workers.get_mut(&id)?;
        let entry = worker.waiting.remove(&run)?;
        let line = worker.line_mut(entry.line());
        // The last are asked back first.
        if let Some(at) = line.waiting.iter().rposition(|waiting| *waiting == run) {
            line.waiting.remove(at);
        }
        if worker.waiting.is_empty() {
            self.hosts.remove(&id);
        }
        self.touch(id);
        Some(entry)
    }

    /// A run is over. Its room goes to the next of its line, which is returned, or is free again.
    pub(super) fn release(&mut self, id: WorkerId, run: RunId, request: &Request) -> Option<TaskId> {
        let worker = self.workers.get_mut(&id)?;
        let ended = worker.runs.remove(&run)?;
        let mut promoted = None;
        let next = if ended.hands_over {
            let line = worker.line_mut(ended.line());
            line.holders -= 1;
            line.waiting.pop_front()
        } else {
            None
        };
        match next.and_then(|next| Some((next, worker.waiting.remove(&next)?))) {
            Some((next, entry)) => {
                promoted = Some(entry.task);
                worker.put(next, Run { place: ended.place, ..entry });
                if worker.waiting.is_empty() {
                    self.hosts.remove(&id);
                }
            }
            None => worker.room.give(request, &ended.place),
        }
        self.touch(id);
        promoted
    }

    /// Returns a run on a worker, to change it.
    pub(super) fn run_mut(&mut self, id: WorkerId, run: RunId) -> Option<&mut Run> {
        let worker = self.workers.get_mut(&id)?;
        match worker.runs.get_mut(&run) {
            Some(entry) => Some(entry),
            None => worker.waiting.get_mut(&run),
        }
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

    /// Returns the first worker in filling order that fits.
    pub(super) fn find(&self, wanted: Wanted<'_>) -> Option<WorkerId> {
        let from = |empty| (empty, wanted.request.cores, WorkerId(0));
        let to = |empty| (empty, u32::MAX, WorkerId(u32::MAX));
        let busy = self.index.range(from(false)..=to(false));
        let empty = self.index.range(from(true)..=to(true));
        let mut ids = busy.chain(empty).map(|(_, _, id)| *id);
        ids.find(|id| self.fits(*id, wanted))
    }

    /// The same, looking at `candidates` only.
    pub(super) fn find_among(&self, candidates: &[WorkerId], wanted: Wanted<'_>) -> Option<WorkerId> {
        let fitting = candidates.iter().filter(|id| self.fits(**id, wanted));
        let fills = fitting.filter_map(|id| self.workers.get(id)?.indexed);
        fills.min().map(|(_, _, id)| id)
    }

    fn fits(&self, id: WorkerId, wanted: Wanted<'_>) -> bool {
        let Some(worker) = self.workers.get(&id) else { return false };
        !wanted.except.contains(&id)
            && worker.accepts()
            && worker.has_time(wanted.time, wanted.now)
            && worker.room.copies(wanted.request) > 0
    }

    /// Returns the workers that are accepting and have a free core, those with the most free cores first.
    pub(super) fn emptiest(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.index.iter().rev().map(|(_, _, id)| *id)
    }
}

impl Worker {
    fn put(&mut self, run: RunId, entry: Run) {
        if entry.hands_over {
            self.line_mut(entry.line()).holders += 1;
        }
        self.runs.insert(run, entry);
    }
}

#[cfg(test)]
impl Fleet {
    /// Panics unless room, lines and the index agree with the runs.
    pub(super) fn check(&self, request: impl Fn(&Run) -> Request) {
        for (id, worker) in &self.workers {
            let mut room = Room::new(worker.room.capacity().clone());
            for run in worker.runs.values() {
                room.take_place(&request(run), &run.place);
            }
            assert_eq!(room, worker.room);
            for line in &worker.lines {
                let ours = |run: &&Run| run.line() == line.number;
                let holders = worker.runs.values().filter(ours).filter(|run| run.hands_over).count();
                assert_eq!(holders as u32, line.holders);
                let waiting = worker.waiting.iter().filter(|(_, run)| run.line() == line.number);
                assert_eq!(waiting.map(|(run, _)| *run).collect::<VecDeque<_>>(), line.waiting);
            }
            let lines = |run: &Run| worker.lines.iter().any(|line| line.number == run.line());
            assert!(worker.waiting.values().all(lines));
            assert_eq!(self.hosts.contains(id), !worker.waiting.is_empty());
            assert_eq!(worker.touched, self.touched.contains(id));
            if !worker.touched {
                assert_eq!(worker.indexed, worker.fill(*id));
            }
        }
        let indexed = self.workers.values().filter_map(|w| w.indexed);
        assert_eq!(indexed.collect::<BTreeSet<Fill>>(), self.index);
    }
}
