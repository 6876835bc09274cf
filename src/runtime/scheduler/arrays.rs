//! One record per submission: what its elements are doing, a byte each once they have started.
//!
//! Called by the other files of the scheduler; knows nothing of workers, queues or other arrays.
//! Invariants: `tally` always equals a recount of the cells; `requeued` holds exactly the idle
//! elements the cursor has passed; a final element has no losses and no retries used.

use super::{Counts, End, Shape};
use crate::runtime::ids::{ArrayId, TaskId};
use crate::runtime::protocol::{Needs, TaskRef};
use std::collections::{BTreeMap, BTreeSet};

/// Lost workers after which a task is poisonous.
pub(super) const LOSSES_TO_POISON: u8 = 3;

/// What one element is doing, in a byte. Ends with a cause are an index into the array's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cell(u8);

impl Cell {
    /// Waiting or ready, depending on whether the array's dependencies are met.
    pub(super) const IDLE: Self = Self(0);
    /// On a worker.
    pub(super) const RUNNING: Self = Self(1);
    const FINISHED: Self = Self(2);
    const CANCELLED: Self = Self(3);
    const POISONOUS: Self = Self(4);
    /// The end stands in [`Sparse::other_ends`] because the table is full.
    const OTHER: Self = Self(5);
    const FIRST_IN_TABLE: u8 = 6;

    /// Whether the element has ended.
    pub(super) fn is_final(self) -> bool {
        self.0 >= Self::FINISHED.0
    }
}

/// Who waits for (elements of) an array, by slot.
#[derive(Default, Debug)]
pub(super) struct Dependents {
    /// Wait for all elements.
    pub(super) whole: Vec<u32>,
    /// Wait for one.
    pub(super) elements: BTreeMap<u32, Vec<u32>>,
}

/// What most arrays never need.
#[derive(Default, Debug)]
struct Sparse {
    /// Idle elements the cursor has passed: they go first.
    requeued: BTreeSet<u32>,
    /// Distinct ends with a cause.
    end_table: Vec<End>,
    /// Ends that found the table full.
    other_ends: BTreeMap<u32, End>,
    /// Lost workers per element.
    losses: BTreeMap<u32, u8>,
    /// Retries used per element.
    retries: BTreeMap<u32, u32>,
    dependents: Dependents,
}

/// Elements by what they are doing.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Tally {
    pub(super) idle: u32,
    pub(super) running: u32,
    pub(super) finished: u32,
    pub(super) failed: u32,
    pub(super) cancelled: u32,
}

/// One submission.
#[derive(Debug)]
pub(super) struct Array {
    pub(super) id: ArrayId,
    /// Index of its interned request.
    pub(super) class: u32,
    pub(super) count: u32,
    pub(super) priority: i32,
    pub(super) retries: u32,
    at_most: Option<u32>,
    pub(super) after: Box<[TaskRef]>,
    /// Entries of `after` that have not finished with success; the elements are ready at 0.
    pub(super) unmet: u32,
    /// Whether it stands in the ready queue of its class.
    pub(super) queued: bool,
    /// What elements are doing, as far as any was touched; those behind are in `rest`.
    cells: Vec<Cell>,
    rest: Cell,
    /// Cursor: no element before it is idle, but for those in `requeued`.
    next: u32,
    tally: Tally,
    /// Elements on workers that wait for room there; they count as running in the tally, and as ready for people.
    pub(super) waiting: u32,
    sparse: Option<Box<Sparse>>,
}

impl Array {
    /// Makes the record; `unmet` dependencies are counted later.
    pub(super) fn new(id: ArrayId, class: u32, shape: &Shape) -> Self {
        Self {
            id,
            class,
            count: shape.count,
            priority: shape.priority,
            retries: shape.retries,
            at_most: shape.at_most,
            after: shape.after.as_slice().into(),
            unmet: u32::MAX,
            queued: false,
            cells: Vec::new(),
            rest: Cell::IDLE,
            next: 0,
            tally: Tally { idle: shape.count, ..Tally::default() },
            waiting: 0,
            sparse: None,
        }
    }

    /// Returns the shape it was made from, given what its class stands for.
    pub(super) fn shape(&self, needs: &Needs, time_request: Option<u64>, family: u32) -> Shape {
        Shape {
            count: self.count,
            needs: needs.clone(),
            priority: self.priority,
            retries: self.retries,
            time_request,
            after: self.after.to_vec(),
            at_most: self.at_most,
            family,
        }
    }

    /// Returns the id of an element.
    pub(super) fn task(&self, element: u32) -> TaskId {
        TaskId { array: self.id, element }
    }

    /// Returns what an element is doing.
    pub(super) fn cell(&self, element: u32) -> Cell {
        let touched = self.cells.get(element as usize);
        touched.copied().unwrap_or(self.rest)
    }

    fn set(&mut self, element: u32, cell: Cell) {
        let at = element as usize;
        if self.count == 1 {
            self.rest = cell;
            return;
        }
        if self.cells.len() <= at {
            self.cells.resize(at + 1, self.rest);
        }
        self.cells[at] = cell;
    }

    /// Returns the final state of an element.
    pub(super) fn end(&self, element: u32) -> Option<End> {
        match self.cell(element) {
            Cell::IDLE | Cell::RUNNING => None,
            Cell::FINISHED => Some(End::Finished),
            Cell::CANCELLED => Some(End::Cancelled),
            Cell::POISONOUS => Some(End::Poisonous),
            Cell::OTHER => self.sparse.as_ref()?.other_ends.get(&element).cloned(),
            Cell(code) => {
                let index = usize::from(code - Cell::FIRST_IN_TABLE);
                self.sparse.as_ref()?.end_table.get(index).cloned()
            }
        }
    }

    /// Whether an element has finished with success.
    pub(super) fn is_finished(&self, element: u32) -> bool {
        self.cell(element) == Cell::FINISHED
    }

    /// Whether an element has ended otherwise.
    pub(super) fn is_bad(&self, element: u32) -> bool {
        self.cell(element).is_final() && !self.is_finished(element)
    }

    /// Number of elements that ended otherwise than with success.
    pub(super) fn bad(&self) -> u32 {
        self.tally.failed + self.tally.cancelled
    }

    /// Whether all elements have finished with success.
    pub(super) fn is_all_finished(&self) -> bool {
        self.tally.finished == self.count
    }

    /// Whether all elements have ended.
    pub(super) fn is_all_final(&self) -> bool {
        self.tally.idle == 0 && self.tally.running == 0
    }

    /// Returns the tally.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Returns the numbers people see.
    pub(super) fn counts(&self) -> Counts {
        let Tally { idle, running, finished, failed, cancelled } = self.tally;
        let (waiting, ready) = if self.unmet == 0 { (0, idle + self.waiting) } else { (idle, self.waiting) };
        Counts {
            waiting: waiting.into(),
            ready: ready.into(),
            running: (running - self.waiting).into(),
            finished: finished.into(),
            failed: failed.into(),
            cancelled: cancelled.into(),
        }
    }

    /// Returns how many more elements may be started now.
    pub(super) fn startable(&self) -> u32 {
        if self.unmet > 0 {
            return 0;
        }
        let allowed = self.at_most.unwrap_or(u32::MAX);
        self.tally.idle.min(allowed.saturating_sub(self.tally.running))
    }

    /// Returns the bound on elements that run at once.
    pub(super) fn at_most(&self) -> Option<u32> {
        self.at_most
    }

    fn sparse_mut(&mut self) -> &mut Sparse {
        self.sparse.get_or_insert_default()
    }

    /// Returns who waits for it.
    pub(super) fn dependents(&self) -> Option<&Dependents> {
        Some(&self.sparse.as_ref()?.dependents)
    }

    /// Returns who waits for it, to change that.
    pub(super) fn dependents_mut(&mut self) -> &mut Dependents {
        &mut self.sparse_mut().dependents
    }

    fn tally_mut(&mut self, element: u32) -> &mut u32 {
        match self.cell(element) {
            Cell::IDLE => &mut self.tally.idle,
            Cell::RUNNING => &mut self.tally.running,
            Cell::FINISHED => &mut self.tally.finished,
            Cell::POISONOUS => &mut self.tally.failed,
            Cell::CANCELLED => &mut self.tally.cancelled,
            _ => match self.end(element) {
                Some(End::Failed(_)) => &mut self.tally.failed,
                _ => &mut self.tally.cancelled,
            },
        }
    }

    /// Puts an element into another state and keeps the tally.
    fn change(&mut self, element: u32, cell: Cell) {
        *self.tally_mut(element) -= 1;
        if element < self.next && self.cell(element) == Cell::IDLE {
            self.sparse_mut().requeued.remove(&element);
        }
        self.set(element, cell);
        *self.tally_mut(element) += 1;
        if element < self.next && cell == Cell::IDLE {
            self.sparse_mut().requeued.insert(element);
        }
    }

    /// Returns the idle element that starts next: requeued ones first, then in order.
    pub(super) fn next_idle(&mut self) -> Option<u32> {
        if let Some(first) = self.sparse.as_ref().and_then(|s| s.requeued.first()) {
            return Some(*first);
        }
        while self.next < self.count && self.cell(self.next) != Cell::IDLE {
            self.next += 1;
        }
        (self.next < self.count).then_some(self.next)
    }

    /// Puts an idle element on a worker.
    pub(super) fn start(&mut self, element: u32) {
        self.change(element, Cell::RUNNING);
        if element == self.next {
            self.next += 1;
        }
    }

    /// Takes a running element off its worker, to run again.
    pub(super) fn requeue(&mut self, element: u32) {
        self.change(element, Cell::IDLE);
    }

    /// Gives an element its final state.
    pub(super) fn finish(&mut self, element: u32, end: End) {
        let cell = match end {
            End::Finished => Cell::FINISHED,
            End::Cancelled => Cell::CANCELLED,
            End::Poisonous => Cell::POISONOUS,
            end => self.intern(element, end),
        };
        self.change(element, cell);
        self.forget(element);
        if self.is_all_finished() {
            self.cells = Vec::new();
            self.rest = Cell::FINISHED;
        }
    }

    fn intern(&mut self, element: u32, end: End) -> Cell {
        let sparse = self.sparse_mut();
        let known = sparse.end_table.iter().position(|e| *e == end);
        let index = known.unwrap_or(sparse.end_table.len());
        let Some(code) = u8::try_from(index).ok().and_then(|index| index.checked_add(Cell::FIRST_IN_TABLE)) else {
            sparse.other_ends.insert(element, end);
            return Cell::OTHER;
        };
        if known.is_none() {
            sparse.end_table.push(end);
        }
        Cell(code)
    }

    /// Makes an ended element idle again, with a clean record.
    pub(super) fn revive(&mut self, element: u32) {
        let was_other = self.cell(element) == Cell::OTHER;
        self.change(element, Cell::IDLE);
        if was_other {
            self.sparse_mut().other_ends.remove(&element);
        }
        self.forget(element);
    }

    fn forget(&mut self, element: u32) {
        if let Some(sparse) = &mut self.sparse {
            sparse.losses.remove(&element);
            sparse.retries.remove(&element);
        }
    }

    /// Counts a lost worker against an element.
    pub(super) fn add_loss(&mut self, element: u32) {
        let losses = self.sparse_mut().losses.entry(element).or_default();
        *losses = losses.saturating_add(1);
    }

    /// Uses up a retry of an element.
    pub(super) fn add_retry(&mut self, element: u32) {
        let used = self.sparse_mut().retries.entry(element).or_default();
        *used = used.saturating_add(1);
    }

    /// Returns the lost workers that count against an element.
    pub(super) fn losses_of(&self, element: u32) -> u8 {
        let sparse = self.sparse.as_ref();
        sparse.and_then(|s| s.losses.get(&element)).copied().unwrap_or(0)
    }

    /// Returns the retries an element has used.
    pub(super) fn retries_used(&self, element: u32) -> u32 {
        let sparse = self.sparse.as_ref();
        sparse.and_then(|s| s.retries.get(&element)).copied().unwrap_or(0)
    }

    /// Returns lost workers by element, where there are any.
    pub(super) fn losses(&self) -> impl Iterator<Item = (u32, u8)> + '_ {
        let sparse = self.sparse.iter();
        sparse.flat_map(|s| s.losses.iter().map(|(e, n)| (*e, *n)))
    }

    /// Returns retries used by element, where there are any.
    pub(super) fn retries(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let sparse = self.sparse.iter();
        sparse.flat_map(|s| s.retries.iter().map(|(e, n)| (*e, *n)))
    }

    /// Returns the last element in the same final state as `first`, the elements between included.
    pub(super) fn end_of_stretch(&self, first: u32) -> u32 {
        let cell = self.cell(first);
        if cell == Cell::OTHER {
            return first;
        }
        let from = first as usize;
        let Some(cells) = self.cells.get(from..).filter(|cells| !cells.is_empty()) else {
            return self.count - 1;
        };
        match cells.iter().position(|c| *c != cell) {
            Some(length) => first + length as u32 - 1,
            None if self.rest == cell => self.count - 1,
            None => self.cells.len() as u32 - 1,
        }
    }
}

#[cfg(test)]
impl Array {
    /// Panics unless the record agrees with itself.
    pub(super) fn check(&self) {
        let mut tally = Tally::default();
        let mut requeued = BTreeSet::new();
        for element in 0..self.count {
            match self.cell(element) {
                Cell::IDLE => {
                    tally.idle += 1;
                    if element < self.next {
                        requeued.insert(element);
                    }
                }
                Cell::RUNNING => tally.running += 1,
                _ => match self.end(element).expect("a final cell has an end") {
                    End::Finished => tally.finished += 1,
                    End::Failed(_) | End::Poisonous => tally.failed += 1,
                    End::Cancelled | End::DependencyFailed(_) => tally.cancelled += 1,
                },
            }
        }
        assert_eq!(tally, self.tally);
        assert!(self.cells.len() <= self.count as usize);
        assert_eq!(self.queued, self.startable() > 0);
        let Some(sparse) = &self.sparse else {
            assert!(requeued.is_empty());
            return;
        };
        assert_eq!(requeued, sparse.requeued);
        let unusual = sparse.losses.keys().chain(sparse.retries.keys());
        for element in unusual {
            assert!(!self.cell(*element).is_final());
        }
        assert!(sparse.losses.values().all(|n| *n < LOSSES_TO_POISON));
    }
}
