//! One test per behaviour, each small enough to read.

mod ahead;
mod recovery;
mod teams;
mod variants;
mod walltime;

use super::simulation::{restored, single};
use super::*;
use crate::runtime::protocol::Outcome::{Finished, Interrupted, Killed};
use crate::runtime::protocol::{Gpus, Request};

const FAILED: Outcome = Outcome::Failed { code: 7 };

/// A scheduler with a clock.
struct Bench {
    scheduler: Scheduler,
    now: Millis,
}

impl Bench {
    fn new(workers: &[u32]) -> Self {
        let scheduler = Scheduler::new(RunId(100));
        let mut bench = Self { scheduler, now: 0 };
        for (at, cores) in workers.iter().enumerate() {
            bench.join(at as u32 + 1, *cores, &[]);
        }
        bench
    }
    fn step(&mut self, event: Event) -> Vec<Action> {
        let actions = self.scheduler.step(event, self.now);
        self.scheduler.check_invariants();
        actions
    }
    fn join(&mut self, worker: u32, cores: u32, running: &[(TaskId, RunId)]) -> Vec<Action> {
        self.join_with(worker, capacity(cores, 0), None, held(running))
    }
    fn join_with(
        &mut self,
        worker: u32,
        capacity: Capacity,
        ends_at: Option<Millis>,
        running: Vec<HeldRun>,
    ) -> Vec<Action> {
        self.step(Event::WorkerJoined { worker: WorkerId(worker), capacity, ends_at, running })
    }
    fn lose(&mut self, worker: u32) -> Vec<Action> {
        self.step(Event::WorkerLost { worker: WorkerId(worker), counts: true })
    }
    fn submit(&mut self, array: u32, shape: Shape) -> Vec<Action> {
        self.scheduler.validate(&shape).expect("a sound shape");
        self.step(Event::Submit { array: ArrayId(array), shape })
    }
    fn place_of(&self, task: TaskId) -> (WorkerId, RunId) {
        match self.scheduler.state(task) {
            Some(TaskState::Running { worker, run, .. }) => (worker, run),
            other => panic!("{task:?} is {other:?}"),
        }
    }
    fn end(&mut self, task: TaskId, outcome: Outcome) -> Vec<Action> {
        self.end_after(task, outcome, 0)
    }
    fn end_after(&mut self, task: TaskId, outcome: Outcome, wall: Millis) -> Vec<Action> {
        let (worker, run) = self.place_of(task);
        self.step(Event::RunEnded { worker, task, run, outcome, wall })
    }
    /// Ten tasks like these end with success, one behind the other on each core.
    fn teach(&mut self, array: u32, shape: Shape, wall: Millis) {
        self.submit(array, Shape { count: 10, ..shape });
        for element in 0..10 {
            self.end_after(task(array, element), Finished, wall);
        }
    }
    fn losses(&self) -> Vec<(u32, u8)> {
        let mut losses = Vec::new();
        self.scheduler.arrays().for_each(|array| losses.extend(array.losses()));
        losses
    }
    fn free_cores(&self, worker: u32) -> u32 {
        self.scheduler.worker_load(WorkerId(worker)).map_or(0, |load| load.free.cores)
    }
    fn ended(&self, task: TaskId) -> Option<End> {
        match self.scheduler.state(task)? {
            TaskState::Ended(end) => Some(end),
            _ => None,
        }
    }
    fn running(&self, array: u32) -> Vec<u32> {
        let tasks = self.scheduler.tasks(ArrayId(array), 0, 100, Some(Kind::Running));
        tasks.map(|(task, _)| task.element).collect()
    }
    fn explain(&self, task: TaskId) -> String {
        self.scheduler.explain_ready(task, self.now).unwrap_or_default()
    }
}

fn task(array: u32, element: u32) -> TaskId {
    TaskId { array: ArrayId(array), element }
}
fn capacity(cores: u32, gpus: u32) -> Capacity {
    Capacity { cores, memory_bytes: 64_000_000_000, gpus, numa: Vec::new() }
}
fn held(runs: &[(TaskId, RunId)]) -> Vec<HeldRun> {
    let held = |(task, run): &(TaskId, RunId)| HeldRun { task: *task, run: *run, variant: 0, place: Place::default() };
    runs.iter().map(held).collect()
}
fn cores(cores: u32) -> Shape {
    Shape { needs: Request { cores, ..Request::default() }.into(), ..single() }
}
fn many(count: u32) -> Shape {
    Shape { count, ..single() }
}
fn after(array: u32) -> Shape {
    Shape { after: vec![TaskRef::Array(ArrayId(array))], ..single() }
}
fn assigned(actions: &[Action]) -> Vec<(u32, TaskId)> {
    let assigns = actions.iter().filter_map(|action| match action {
        Action::Assign { worker, task, .. } => Some((worker.0, *task)),
        _ => None,
    });
    assigns.collect()
}

#[test]
fn elements_go_in_order_and_requeued_ones_first() {
    let mut bench = Bench::new(&[2]);
    let first = bench.submit(1, Shape { retries: 1, ..many(4) });
    assert_eq!(assigned(&first), [(1, task(1, 0)), (1, task(1, 1))]);
    let retried = bench.end(task(1, 0), FAILED);
    assert_eq!(assigned(&retried), [(1, task(1, 0))]);
    assert_eq!(assigned(&bench.end(task(1, 1), Finished)), [(1, task(1, 2))]);
    bench.end(task(1, 0), FAILED);
    assert_eq!(bench.ended(task(1, 0)), Some(End::Failed(FAILED)));
}

#[test]
fn larger_priority_first_then_earlier_submission() {
    let mut bench = Bench::new(&[]);
    bench.submit(1, single());
    bench.submit(2, cores(2));
    bench.submit(3, Shape { priority: 1, ..single() });
    let order: Vec<TaskId> = assigned(&bench.join(1, 4, &[])).iter().map(|(_, t)| *t).collect();
    assert_eq!(order, [task(3, 0), task(1, 0), task(2, 0)]);
}

#[test]
fn fills_workers_with_tasks_before_empty_ones() {
    let mut bench = Bench::new(&[4, 4, 2]);
    assert_eq!(assigned(&bench.submit(1, cores(3))), [(1, task(1, 0))]);
    // One core is left beside the first; then the smallest empty worker that fits.
    let placed = assigned(&bench.submit(2, many(2)));
    assert_eq!(placed, [(1, task(2, 0)), (3, task(2, 1))]);
}

#[test]
fn an_array_bound_holds_and_lets_others_pass() {
    let mut bench = Bench::new(&[8]);
    bench.submit(1, Shape { at_most: Some(2), ..many(5) });
    bench.submit(2, single());
    assert_eq!((bench.running(1), bench.running(2)), (vec![0, 1], vec![0]));
    assert_eq!(bench.explain(task(1, 4)), "at most 2 of these run at once");
    bench.end(task(1, 0), Finished);
    assert_eq!(bench.running(1), [1, 2]);
}

#[test]
fn waits_for_dependencies_and_ends_with_them() {
    let mut bench = Bench::new(&[1]);
    bench.submit(1, many(2));
    bench.submit(2, after(1));
    bench.submit(3, Shape { after: vec![TaskRef::Task(task(1, 0)), TaskRef::Task(task(2, 0))], ..single() });
    let waiting = TaskState::Waiting { on: TaskRef::Array(ArrayId(1)) };
    assert_eq!(bench.scheduler.state(task(2, 0)), Some(waiting));
    bench.end(task(1, 0), Finished);
    let actions = bench.end(task(1, 1), FAILED);
    let end = |task, end| Action::Ended { task, end };
    let expected = [
        end(task(1, 1), End::Failed(FAILED)),
        end(task(2, 0), End::DependencyFailed(task(1, 1))),
        end(task(3, 0), End::DependencyFailed(task(2, 0))),
    ];
    assert_eq!(actions, expected);
    // Settled at once: what is submitted later ends the same way, or runs.
    bench.submit(4, after(2));
    assert_eq!(bench.ended(task(4, 0)), Some(End::DependencyFailed(task(2, 0))));
    let shape = Shape { after: vec![TaskRef::Task(task(1, 0))], ..single() };
    assert_eq!(assigned(&bench.submit(5, shape)), [(1, task(5, 0))]);
}

#[test]
fn retry_revives_what_failed_and_what_ended_because_of_it() {
    let mut bench = Bench::new(&[2]);
    bench.submit(1, many(2));
    bench.submit(2, after(1));
    bench.submit(3, after(2));
    bench.end(task(1, 0), FAILED);
    bench.end(task(1, 1), FAILED);
    // One dependency is failed still: no one else is revived.
    let one = bench.step(Event::Retry { tasks: vec![TaskRef::Task(task(1, 0))] });
    assert_eq!(one[0], Action::Revived { task: task(1, 0) });
    assert!(bench.ended(task(2, 0)).is_some());
    bench.step(Event::Retry { tasks: vec![TaskRef::Array(ArrayId(1))] });
    assert_eq!(bench.scheduler.totals().waiting, 2);
    for done in [task(1, 0), task(1, 1), task(2, 0), task(3, 0)] {
        bench.end(done, Finished);
    }
    assert!(bench.scheduler.is_idle());
    assert_eq!(bench.scheduler.totals().finished, 4);
}

#[test]
fn a_cancelled_run_keeps_its_place_until_it_ends_and_stays_cancelled() {
    let mut bench = Bench::new(&[1]);
    bench.submit(1, single());
    bench.submit(2, single());
    let (worker, run) = bench.place_of(task(1, 0));
    let actions = bench.step(Event::Cancel { tasks: vec![TaskRef::Array(ArrayId(1))] });
    let ended = Action::Ended { task: task(1, 0), end: End::Cancelled };
    assert_eq!(actions, [ended, Action::Kill { worker, task: task(1, 0), run }]);
    assert!(!bench.scheduler.is_idle());
    let freed = bench.step(Event::RunEnded { worker, task: task(1, 0), run, outcome: Finished, wall: 0 });
    assert_eq!(assigned(&freed), [(1, task(2, 0))]);
    assert_eq!(bench.ended(task(1, 0)), Some(End::Cancelled));
    // Nobody remembers having asked for this kill.
    bench.end(task(2, 0), Killed);
    assert_eq!(bench.running(2), [0]);
}

#[test]
fn cancelling_dependents_together_names_no_dependency() {
    let mut bench = Bench::new(&[]);
    bench.submit(1, single());
    bench.submit(2, after(1));
    let tasks = vec![TaskRef::Array(ArrayId(1)), TaskRef::Array(ArrayId(2))];
    bench.step(Event::Cancel { tasks });
    assert_eq!(bench.ended(task(2, 0)), Some(End::Cancelled));
}

#[test]
fn the_third_lost_worker_that_counts_is_poison() {
    let mut bench = Bench::new(&[1]);
    bench.submit(1, single());
    for (worker, counts) in [(1, true), (2, false), (3, true)] {
        let lost = bench.step(Event::WorkerLost { worker: WorkerId(worker), counts });
        let expected = if counts { RequeueCause::Lost } else { RequeueCause::Interrupted };
        assert!(matches!(lost[0], Action::Requeued { cause, .. } if cause == expected));
        bench.join(worker + 1, 1, &[]);
    }
    bench.step(Event::WorkerLost { worker: WorkerId(4), counts: true });
    assert_eq!(bench.ended(task(1, 0)), Some(End::Poisonous));
    bench.step(Event::Retry { tasks: vec![TaskRef::Task(task(1, 0))] });
    bench.join(5, 1, &[]);
    bench.end(task(1, 0), Interrupted);
    bench.end(task(1, 0), Finished);
    assert_eq!(bench.ended(task(1, 0)), Some(End::Finished));
}

#[test]
fn draining_and_silent_workers_and_a_hold_get_nothing() {
    let mut bench = Bench::new(&[1, 1]);
    bench.step(Event::WorkerDrains { worker: WorkerId(1) });
    bench.step(Event::WorkerSilent { worker: WorkerId(2) });
    bench.submit(1, many(2));
    assert_eq!(bench.explain(task(1, 0)), "no worker is up");
    bench.step(Event::Hold(true));
    bench.join(2, 1, &[]);
    assert!(bench.running(1).is_empty());
    assert_eq!(bench.explain(task(1, 0)), "nothing starts until the workers are back");
    bench.step(Event::Hold(false));
    assert_eq!(bench.running(1), [0]);
    // A worker that drains does so for good.
    bench.join(1, 1, &[]);
    assert_eq!(bench.running(1), [0]);
}

#[test]
fn a_big_task_is_not_overtaken_for_ever() {
    let mut bench = Bench::new(&[4, 4]);
    bench.submit(1, many(8));
    bench.submit(2, cores(4));
    for array in 3..60 {
        bench.submit(array, single());
        bench.now += 500;
        let busy: Vec<TaskId> = (1..=2)
            .flat_map(|w| bench.scheduler.running_on(WorkerId(w)).collect::<Vec<_>>())
            .map(|(task, _)| task)
            .collect();
        if busy.contains(&task(2, 0)) {
            assert!(bench.now >= placement::STARVATION_MILLISECONDS);
            return;
        }
        bench.end(busy[array as usize % busy.len()], Finished);
    }
    panic!("the big task never ran");
}

#[test]
fn a_counter_is_kept_for_who_waits_for_it() {
    let mut bench = Bench::new(&[16]);
    let wants = |n| {
        let counters = BTreeMap::from([("lic".to_owned(), n)]);
        Shape { needs: Request { counters, ..Request::default() }.into(), ..single() }
    };
    bench.step(Event::Counters(BTreeMap::from([("lic".to_owned(), 2)])));
    bench.submit(1, wants(1));
    bench.submit(2, wants(2));
    for array in 3..60 {
        bench.submit(array, wants(1));
        bench.now += 1_000;
        let running = bench.scheduler.running_on(WorkerId(1)).collect::<Vec<_>>();
        if running.iter().any(|(t, _)| *t == task(2, 0)) {
            return;
        }
        bench.end(running[0].0, Finished);
    }
    panic!("never had both");
}

#[test]
fn walltime_must_suffice() {
    let mut bench = Bench::new(&[1]);
    let hours = 3_600_000;
    let ends_at = |bench: &mut Bench, ends_at| bench.step(Event::WorkerEndsAt { worker: WorkerId(1), ends_at });
    ends_at(&mut bench, Some(40 * 60_000));
    bench.submit(1, Shape { time_request: Some(2 * hours), ..single() });
    assert_eq!(bench.explain(task(1, 0)), "needs 2 h; the longest worker has 40 min left");
    assert_eq!(assigned(&ends_at(&mut bench, Some(2 * hours))), [(1, task(1, 0))]);
    bench.end(task(1, 0), Finished);
    bench.now = 2 * hours;
    bench.submit(2, single());
    assert_eq!(bench.explain(task(2, 0)), "no worker has walltime left");
}

#[test]
fn says_why_a_task_can_never_run() {
    let mut bench = Bench::new(&[24]);
    let counters = BTreeMap::from([("lic".to_owned(), 5)]);
    let request =
        |cores, memory_bytes, gpus| Request { cores, memory_bytes, gpus: Gpus::whole(gpus), ..Request::default() };
    let requests = [
        (request(64, 0, 0), "needs 64 cores; the largest worker has 24"),
        (request(1, 99_500_000_000, 0), "needs 99.5 GB of memory; the largest worker has 64 GB"),
        (request(1, 0, 2), "needs 2 GPUs; the largest worker has 0"),
        (Request { counters, ..request(1, 0, 0) }, "counter lic: 5 wanted, the cluster has 2"),
    ];
    bench.step(Event::Counters(BTreeMap::from([("lic".to_owned(), 2)])));
    for (array, (request, sentence)) in (1..).zip(requests) {
        bench.submit(array, Shape { needs: request.into(), ..single() });
        assert_eq!(bench.explain(task(array, 0)), sentence);
    }
    bench.submit(9, many(30));
    assert_eq!(bench.explain(task(9, 29)), "");
    let cores = |d: Demand<'_>| d.tasks * u64::from(d.needs.variant(0).cores);
    let wanted: Vec<u64> = bench.scheduler.classes().map(cores).filter(|cores| *cores > 0).collect();
    assert_eq!(wanted, [64, 1, 1, 1, 6]);
}
