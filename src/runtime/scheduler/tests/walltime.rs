//! What was learned of how long tasks run keeps them off workers that end before.

use super::*;

const MINUTE: Millis = 60_000;

fn ends_at(bench: &mut Bench, worker: u32, ends_at: Millis) -> Vec<Action> {
    bench.step(Event::WorkerEndsAt { worker: WorkerId(worker), ends_at: Some(ends_at) })
}

#[test]
fn a_class_that_ran_long_does_not_start_where_little_time_is_left() {
    let mut bench = Bench::new(&[1]);
    bench.teach(1, single(), MINUTE);
    ends_at(&mut bench, 1, MINUTE / 2);
    assert_eq!(bench.submit(2, single()), []);
    let sentence = "needs 1 min (nine of ten tasks like it did); the longest worker has 30 s left";
    assert_eq!(bench.explain(task(2, 0)), sentence);
    // What asks for something else is another class, of which nothing is known.
    let other = Request { memory_bytes: 1, ..Request::default() };
    assert_eq!(assigned(&bench.submit(3, Shape { needs: other.into(), ..single() })), [(1, task(3, 0))]);
    assert_eq!(assigned(&bench.join(2, 1, &[])), [(2, task(2, 0))]);
}

#[test]
fn nine_tasks_teach_nothing_and_the_longest_of_ten_does_not_count() {
    let mut bench = Bench::new(&[1]);
    bench.submit(1, many(12));
    ends_at(&mut bench, 1, MINUTE / 2);
    bench.end_after(task(1, 0), Finished, 10 * MINUTE);
    for element in 1..11 {
        bench.end_after(task(1, element), Finished, 1_000);
        assert_eq!(bench.running(1), [element + 1]);
    }
}

#[test]
fn what_was_asked_for_wins() {
    let mut bench = Bench::new(&[1]);
    let asks = |time| Shape { time_request: Some(time), ..single() };
    bench.teach(1, asks(1_000), MINUTE);
    ends_at(&mut bench, 1, MINUTE / 2);
    assert_eq!(assigned(&bench.submit(2, asks(1_000))), [(1, task(2, 0))]);
    bench.end(task(2, 0), Finished);
    bench.submit(3, asks(MINUTE));
    assert_eq!(bench.explain(task(3, 0)), "needs 1 min; the longest worker has 30 s left");
}

#[test]
fn interrupted_tasks_teach_that_more_is_needed() {
    let mut bench = Bench::new(&[1]);
    bench.submit(1, single());
    ends_at(&mut bench, 1, 50_000);
    for _ in 0..9 {
        assert_eq!(assigned(&bench.end_after(task(1, 0), Interrupted, 40_000)), [(1, task(1, 0))]);
    }
    assert_eq!(assigned(&bench.end_after(task(1, 0), Interrupted, 40_000)), []);
    let sentence = "needs 1 min (nine of ten tasks like it did); the longest worker has 50 s left";
    assert_eq!(bench.explain(task(1, 0)), sentence);
}

#[test]
fn failures_and_kills_teach_nothing() {
    let mut bench = Bench::new(&[1]);
    bench.submit(1, Shape { retries: 20, ..single() });
    ends_at(&mut bench, 1, MINUTE / 2);
    for outcome in [FAILED, Killed].into_iter().cycle().take(30) {
        assert_eq!(assigned(&bench.end_after(task(1, 0), outcome, MINUTE)), [(1, task(1, 0))]);
    }
}

#[test]
fn tasks_longer_than_any_walltime_start_on_fresh_workers() {
    let mut bench = Bench::new(&[]);
    bench.join_with(1, capacity(1, 0), Some(100_000), vec![]);
    bench.teach(1, single(), 100 * MINUTE);
    bench.submit(2, many(2));
    assert_eq!(bench.running(2), [0]);
    bench.now = 20_000;
    assert_eq!(assigned(&bench.end_after(task(2, 0), Interrupted, 20_000)), []);
    let sentence = "needs 1 min (nine of ten tasks like it did); the longest worker has 1 min left";
    assert_eq!(bench.explain(task(2, 0)), sentence);
    assert_eq!(assigned(&bench.join_with(2, capacity(1, 0), Some(120_000), vec![])), [(2, task(2, 0))]);
}

/// A worker that drains with ninety of a class that ran long, and one with half a minute left.
fn short_after_long(shape: Shape) -> Bench {
    let mut bench = Bench::new(&[200]);
    bench.submit(1, Shape { count: 100, ..shape });
    for element in 0..10 {
        bench.end_after(task(1, element), Finished, MINUTE);
    }
    bench.step(Event::WorkerDrains { worker: WorkerId(1) });
    bench.join_with(2, capacity(2, 0), Some(MINUTE / 2), vec![]);
    bench
}

#[test]
fn a_class_that_got_shorter_is_looked_at_again_everywhere() {
    let mut bench = short_after_long(single());
    assert_eq!(bench.submit(2, single()), []);
    for element in 10..99 {
        assert_eq!(assigned(&bench.end_after(task(1, element), Finished, 10)), []);
    }
    // Nothing has changed on the worker that it fits now.
    assert_eq!(assigned(&bench.end_after(task(1, 99), Finished, 10)), [(2, task(2, 0))]);
}

#[test]
fn a_worker_is_kept_for_a_class_that_got_shorter() {
    let mut bench = short_after_long(cores(2));
    let other = || Shape { time_request: Some(1), ..single() };
    bench.submit(2, other());
    bench.submit(3, cores(2));
    bench.now = placement::STARVATION_MILLISECONDS;
    // It could not run there: nothing is kept.
    assert_eq!(assigned(&bench.submit(4, other())), [(2, task(4, 0))]);
    for element in 10..100 {
        bench.end_after(task(1, element), Finished, 10);
    }
    bench.submit(5, other());
    assert_eq!(assigned(&bench.end(task(4, 0), Finished)), []);
    assert_eq!(assigned(&bench.end(task(2, 0), Finished)), [(2, task(3, 0))]);
}

/// A task has run on a fresh worker of an hour until a minute before its end.
fn cut(bench: &mut Bench, worker: u32) -> Vec<Action> {
    bench.join_with(worker, capacity(1, 0), Some(bench.now + 3_600_000), Vec::new());
    bench.now += 3_540_000;
    bench.step(Event::WorkerDrains { worker: WorkerId(worker) });
    let actions = bench.end_after(task(1, 0), Outcome::Interrupted, 3_540_000);
    bench.lose(worker);
    actions
}

#[test]
fn the_third_time_that_the_longest_walltime_cuts_a_task_ends_it() {
    let mut bench = Bench::new(&[]);
    bench.submit(1, single());
    for worker in 1..3 {
        assert!(matches!(cut(&mut bench, worker)[0], Action::Requeued { cause: RequeueCause::Lost, .. }));
    }
    cut(&mut bench, 3);
    assert_eq!(bench.ended(task(1, 0)), Some(End::Failed(Outcome::Interrupted)));
    bench.step(Event::Retry { tasks: vec![TaskRef::Task(task(1, 0))] });
    cut(&mut bench, 4);
    assert_eq!(bench.ended(task(1, 0)), None, "the user wants it so");
}

#[test]
fn a_task_that_says_its_time_may_go_on_from_job_to_job() {
    let mut bench = Bench::new(&[]);
    bench.submit(1, Shape { time_request: Some(3_000_000), ..single() });
    for worker in 1..6 {
        assert!(matches!(cut(&mut bench, worker)[0], Action::Requeued { cause: RequeueCause::Interrupted, .. }));
    }
}

#[test]
fn an_interruption_before_the_end_of_the_walltime_is_no_cut() {
    let mut bench = Bench::new(&[]);
    bench.submit(1, single());
    for worker in 1..6 {
        bench.join_with(worker, capacity(1, 0), Some(bench.now + 3_600_000), Vec::new());
        bench.step(Event::WorkerDrains { worker: WorkerId(worker) });
        let actions = bench.end_after(task(1, 0), Outcome::Interrupted, 3_000_000);
        assert!(matches!(actions[0], Action::Requeued { cause: RequeueCause::Interrupted, .. }));
        bench.step(Event::WorkerLost { worker: WorkerId(worker), counts: false });
    }
}
