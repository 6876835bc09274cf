//! Reconnects, restarts, the journal's base, and what is refused.

use super::*;

#[test]
fn a_restarted_server_gets_its_runs_back() {
    let mut old = Bench::new(&[4]);
    old.submit(1, many(3));
    old.submit(2, after(1));
    let runs: Vec<(TaskId, RunId)> = old.scheduler.running_on(WorkerId(1)).collect();
    old.end(task(1, 0), Finished);
    let mut new = Bench { scheduler: restored(&old.scheduler, 1), now: 0 };
    new.step(Event::Hold(true));
    assert_eq!(new.scheduler.totals().ready, 2);
    // Element 0 is final, 2.0 waits, and run 9.9 is of an unknown task: these are told to end.
    let foreign = [(task(2, 0), RunId(7)), (task(9, 9), RunId(8)), (task(1, 1), RunId(1 << 50))];
    let listed = [&runs[..], &foreign].concat();
    let killed: Vec<TaskId> = new
        .join(1, 4, &listed)
        .iter()
        .map(|action| match action {
            Action::Kill { task, .. } => *task,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(killed, [task(2, 0), task(9, 9), task(1, 0), task(1, 1)]);
    assert_eq!((new.running(1), new.running(2)), (vec![1, 2], vec![]));
    assert_eq!(new.place_of(task(1, 1)), (WorkerId(1), runs[1].1));
}

#[test]
fn a_worker_that_comes_back_without_a_run_gives_it_back() {
    let mut bench = Bench::new(&[1]);
    bench.submit(1, single());
    let (worker, run) = bench.place_of(task(1, 0));
    bench.step(Event::WorkerSilent { worker });
    let actions = bench.join(1, 1, &[]);
    let cause = RequeueCause::Interrupted;
    assert_eq!(actions[0], Action::Requeued { task: task(1, 0), run, cause });
    let (_, again) = bench.place_of(task(1, 0));
    // The straggler's words no longer count.
    let late = Event::RunEnded { worker, task: task(1, 0), run, outcome: Finished, wall: 0 };
    assert_eq!(bench.step(late), []);
    bench.step(Event::RunStarted { task: task(1, 0), run: again });
    bench.step(Event::RunStarted { task: task(8, 0), run: again });
    let state = TaskState::Running { worker, run: again, started: true };
    assert_eq!(bench.scheduler.state(task(1, 0)), Some(state));
}

#[test]
fn a_task_runs_in_one_place() {
    let mut bench = Bench::new(&[1]);
    bench.submit(1, single());
    let (_, run) = bench.place_of(task(1, 0));
    let actions = bench.join(2, 1, &[(task(1, 0), RunId(50))]);
    assert_eq!(actions, [Action::Kill { worker: WorkerId(2), task: task(1, 0), run: RunId(50) }]);
    assert_eq!(bench.place_of(task(1, 0)), (WorkerId(1), run));
    // What is told to end occupies its worker until it has.
    assert_eq!(bench.scheduler.worker_load(WorkerId(2)).map(|l| l.free.cores), Some(0));
}

#[test]
fn refuses_what_cannot_be() {
    let mut bench = Bench::new(&[]);
    bench.submit(1, many(2));
    let refusal = |shape| bench.scheduler.validate(&shape).err();
    assert_eq!(refusal(many(0)), Some(SubmitError::Empty));
    assert_eq!(refusal(cores(0)), Some(SubmitError::NoCores));
    assert_eq!(refusal(Shape { at_most: Some(0), ..single() }), Some(SubmitError::NoneAtOnce));
    assert_eq!(refusal(after(2)), Some(SubmitError::UnknownArray(ArrayId(2))));
    let beyond = Shape { after: vec![TaskRef::Task(task(1, 2))], ..single() };
    let unknown = SubmitError::UnknownElement { array: ArrayId(1), element: 2, count: 2 };
    assert_eq!(refusal(beyond), Some(unknown));
}

#[test]
fn the_base_is_ranges() {
    let mut bench = Bench::new(&[8]);
    bench.submit(1, many(1_000_000));
    let view = bench.scheduler.arrays().next().expect("one");
    assert_eq!(view.ends().count(), 0);
    for element in [0, 1, 2, 5] {
        let (worker, run) = bench.place_of(task(1, element));
        let outcome = if element == 2 { FAILED } else { Finished };
        bench.scheduler.step(Event::RunEnded { worker, task: task(1, element), run, outcome, wall: 0 }, 0);
    }
    let view = bench.scheduler.arrays().next().expect("one");
    let ends: Vec<(u32, u32, End)> = view.ends().collect();
    let failed = (2, 2, End::Failed(FAILED));
    assert_eq!(ends, [(0, 1, End::Finished), failed, (5, 5, End::Finished)]);
    restored(&bench.scheduler, 2).check_invariants();
}

#[test]
fn many_kinds_of_failure_are_told_apart() {
    let mut bench = Bench::new(&[300]);
    bench.submit(1, many(300));
    let outcome = |n: u32| Outcome::NotStarted { error: n.to_string() };
    for element in 0..300 {
        let (worker, run) = bench.place_of(task(1, element));
        let event = Event::RunEnded { worker, task: task(1, element), run, outcome: outcome(element), wall: 0 };
        bench.scheduler.step(event, 0);
    }
    let ends: Vec<_> = bench.scheduler.arrays().next().expect("one").ends().collect();
    assert_eq!(ends.len(), 300);
    assert_eq!(ends[299], (299, 299, End::Failed(outcome(299))));
    bench.step(Event::Retry { tasks: vec![TaskRef::Array(ArrayId(1))] });
    assert_eq!(bench.running(1).len(), 100);
    assert_eq!(bench.scheduler.totals().running, 300);
}

#[test]
fn a_torn_journal_is_completed() {
    let mut torn = Scheduler::new(RunId(1));
    for (array, shape) in [(1, single()), (2, Shape { count: 2, ..after(1) }), (3, after(2))] {
        torn.restore_array(ArrayId(array), shape).expect("in order");
    }
    torn.restore_end(task(1, 0), End::Failed(FAILED)).expect("known");
    torn.restore_end(task(2, 0), End::DependencyFailed(task(1, 0))).expect("known");
    torn.restore_loss(task(2, 1)).expect("known");
    let unknown = torn.restore_end(task(4, 0), End::Finished);
    assert_eq!(unknown, Err(RestoreError::UnknownTask(task(4, 0))));
    assert_eq!(torn.restore_array(ArrayId(3), single()), Err(RestoreError::OutOfOrder(ArrayId(3))));
    let mut actions = Vec::new();
    torn.finish_restore(&mut actions);
    torn.check_invariants();
    let end = |task, cause| Action::Ended { task, end: End::DependencyFailed(cause) };
    assert_eq!(actions, [end(task(2, 1), task(1, 0)), end(task(3, 0), task(2, 0))]);
}
