//! Short tasks wait at workers, so that nobody waits for a message between two of them.

use super::*;

/// The tasks that were sent to wait, with their workers and runs.
fn sent_ahead(actions: &[Action]) -> Vec<(u32, TaskId, RunId)> {
    let sent = actions.iter().filter_map(|action| match action {
        Action::Assign { worker, task, run, waits: true, .. } => Some((worker.0, *task, *run)),
        _ => None,
    });
    sent.collect()
}

fn tasks_sent_ahead(actions: &[Action]) -> Vec<(u32, TaskId)> {
    sent_ahead(actions).into_iter().map(|(worker, task, _)| (worker, task)).collect()
}

fn asked_back(actions: &[Action]) -> Vec<(u32, TaskId)> {
    let asked = actions.iter().filter_map(|action| match action {
        Action::TakeBack { worker, task, .. } => Some((worker.0, *task)),
        _ => None,
    });
    asked.collect()
}

/// Workers where single tasks are known to take so long.
fn taught(workers: &[u32], wall: Millis) -> Bench {
    let mut bench = Bench::new(workers);
    bench.teach(1, single(), wall);
    bench
}

#[test]
fn nothing_is_sent_ahead_before_ten_tasks_have_ended() {
    let mut bench = Bench::new(&[1]);
    bench.submit(1, many(40));
    for element in 0..9 {
        assert_eq!(sent_ahead(&bench.end_after(task(1, element), Finished, 10)), []);
    }
    let tenth = bench.end_after(task(1, 9), Finished, 10);
    // Twenty milliseconds' worth, behind the one that starts at once.
    assert_eq!(assigned(&tenth), [(1, task(1, 10)), (1, task(1, 11)), (1, task(1, 12))]);
    assert_eq!(tasks_sent_ahead(&tenth), [(1, task(1, 11)), (1, task(1, 12))]);
}

#[test]
fn as_many_wait_as_the_mean_allows_and_no_more_than_2048_at_a_worker() {
    assert_eq!(sent_ahead(&taught(&[3], 4).submit(2, many(5_000))).len(), 3 * 5);
    assert_eq!(sent_ahead(&taught(&[1], 0).submit(2, many(5_000))).len(), 1_024);
    assert_eq!(sent_ahead(&taught(&[4], 0).submit(2, many(5_000))).len(), 2_048);
}

#[test]
fn the_last_tasks_are_shared_out() {
    let sent = taught(&[1, 1], 0).submit(2, many(5));
    assert_eq!(tasks_sent_ahead(&sent), [(1, task(2, 2)), (2, task(2, 3))]);
}

#[test]
fn long_tasks_are_not_sent_ahead() {
    assert_eq!(sent_ahead(&taught(&[1], 100).submit(2, many(40))).len(), 1);
    assert_eq!(sent_ahead(&taught(&[1], 101).submit(2, many(40))), []);
}

#[test]
fn what_needs_a_counter_or_several_workers_is_not_sent_ahead() {
    let counters = BTreeMap::from([("lic".to_owned(), 1)]);
    let licensed = Needs::from(Request { counters, ..Request::default() });
    for needs in [licensed, Needs { nodes: 2, ..Needs::default() }] {
        let mut bench = Bench::new(&[1, 1]);
        bench.step(Event::Counters(BTreeMap::from([("lic".to_owned(), 10)])));
        bench.teach(1, Shape { needs: needs.clone(), ..single() }, 1);
        let actions = bench.submit(2, Shape { needs, ..many(40) });
        assert!(!assigned(&actions).is_empty());
        assert_eq!(sent_ahead(&actions), []);
    }
}

#[test]
fn a_worker_without_the_time_gets_nothing_ahead() {
    let mut bench = taught(&[1], 10);
    let asks = |count| Shape { time_request: Some(1_000), ..many(count) };
    bench.teach(2, asks(10), 10);
    bench.step(Event::WorkerEndsAt { worker: WorkerId(1), ends_at: Some(1_500) });
    bench.submit(3, asks(40));
    bench.now = 1_000;
    // It started in time; what would wait would not.
    for element in 0..3 {
        assert_eq!(sent_ahead(&bench.end_after(task(3, element), Finished, 10)), []);
    }
    assert_eq!(bench.explain(task(3, 30)), "needs 1 s; the longest worker has 0 s left");
}

#[test]
fn the_next_of_the_line_starts_without_a_message_and_lines_are_refilled_when_half_empty() {
    let mut bench = taught(&[1], 2);
    assert_eq!(sent_ahead(&bench.submit(2, many(40))).len(), 10);
    // Waiting at a worker counts as ready.
    assert_eq!(bench.scheduler.state(task(2, 1)), Some(TaskState::Ready));
    assert_eq!((bench.scheduler.totals().running, bench.scheduler.totals().ready), (1, 39));
    assert_eq!(bench.explain(task(2, 1)), "");
    for element in 0..5 {
        let ended = Action::Ended { task: task(2, element), end: End::Finished };
        assert_eq!(bench.end_after(task(2, element), Finished, 2), [ended]);
        assert_eq!(bench.running(2), [element + 1]);
    }
    // Five wait; with four left, six more are sent.
    let refilled = bench.end_after(task(2, 5), Finished, 2);
    let expected: Vec<(u32, TaskId)> = (11..17).map(|element| (1, task(2, element))).collect();
    assert_eq!(assigned(&refilled), expected);
    assert_eq!(tasks_sent_ahead(&refilled), expected);
}

#[test]
fn a_line_is_not_refilled_past_a_class_of_higher_rank() {
    let mut bench = taught(&[1], 2);
    bench.submit(2, many(100));
    let urgent = Needs::from(Request { memory_bytes: 1, ..Request::default() });
    assert_eq!(bench.submit(3, Shape { needs: urgent, priority: 1, ..single() }), []);
    for element in 0..10 {
        assert_eq!(assigned(&bench.end_after(task(2, element), Finished, 2)), []);
    }
    assert_eq!(assigned(&bench.end_after(task(2, 10), Finished, 2)), [(1, task(3, 0))]);
}

#[test]
fn a_big_task_waits_for_what_was_sent_ahead_and_is_then_kept_a_worker() {
    let mut bench = taught(&[2], 2);
    bench.submit(2, many(1_000));
    bench.submit(3, Shape { priority: 1, ..cores(2) });
    for element in 0..100 {
        bench.now += 500;
        assert_eq!(sent_ahead(&bench.end_after(task(2, element), Finished, 2)), []);
        if bench.running(3) == [0] {
            assert!(bench.now >= placement::STARVATION_MILLISECONDS);
            return;
        }
    }
    panic!("the big task never ran");
}

#[test]
fn a_failure_hands_the_room_over_and_is_retried_later() {
    let mut bench = taught(&[1], 10);
    bench.submit(2, Shape { retries: 1, ..many(3) });
    let actions = bench.end(task(2, 0), FAILED);
    assert!(matches!(actions[0], Action::Requeued { cause: RequeueCause::Retry, .. }));
    assert_eq!(bench.running(2), [1]);
}

#[test]
fn a_run_that_waits_is_cancelled_where_it_waits() {
    let mut bench = taught(&[1], 10);
    let sent = sent_ahead(&bench.submit(2, many(3)));
    let (_, _, run) = sent[0];
    let worker = WorkerId(1);
    let actions = bench.step(Event::Cancel { tasks: vec![TaskRef::Task(task(2, 1))] });
    let ended = Action::Ended { task: task(2, 1), end: End::Cancelled };
    assert_eq!(actions, [ended, Action::Kill { worker, task: task(2, 1), run }]);
    bench.step(Event::RunEnded { worker, task: task(2, 1), run, outcome: Killed, wall: 0 });
    bench.end_after(task(2, 0), Finished, 10);
    assert_eq!(bench.running(2), [2]);
    bench.end_after(task(2, 2), Finished, 10);
    assert!(bench.scheduler.is_idle());
}

#[test]
fn a_lost_worker_counts_against_what_ran_there_and_not_against_what_waited() {
    let mut bench = taught(&[1], 10);
    bench.submit(2, many(3));
    let causes = |actions: Vec<Action>| -> Vec<(u32, RequeueCause)> {
        let mut causes: Vec<_> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Requeued { task, cause, .. } => Some((task.element, *cause)),
                _ => None,
            })
            .collect();
        causes.sort_by_key(|(element, _)| *element);
        causes
    };
    let innocent = RequeueCause::Interrupted;
    assert_eq!(causes(bench.lose(1)), [(0, RequeueCause::Lost), (1, innocent), (2, innocent)]);
    assert_eq!(bench.losses(), [(0, 1)]);
    assert_eq!(bench.scheduler.totals().ready, 3);
}

#[test]
fn a_worker_that_drains_gives_back_what_waits() {
    let mut bench = taught(&[1, 1], 10);
    let sent = sent_ahead(&bench.submit(2, many(6)));
    let (_, waiting, run) = sent[0];
    // The worker knows by itself: nothing is asked, and nothing follows.
    assert_eq!(bench.step(Event::WorkerDrains { worker: WorkerId(1) }), []);
    let event = Event::RunEnded { worker: WorkerId(1), task: waiting, run, outcome: Interrupted, wall: 0 };
    let cause = RequeueCause::Interrupted;
    let actions = bench.step(event);
    assert_eq!(actions[0], Action::Requeued { task: waiting, run, cause });
    assert!(assigned(&actions).iter().all(|(worker, _)| *worker == 2), "{actions:?}");
}

#[test]
fn what_waits_is_asked_back_once_when_another_worker_has_room() {
    let mut bench = taught(&[1], 10);
    let sent = sent_ahead(&bench.submit(2, many(3)));
    let (_, last, run) = sent[1];
    assert_eq!(asked_back(&bench.join(2, 1, &[])), [(1, task(2, 2))]);
    assert_eq!(bench.step(Event::Tick), []);
    let back = Event::RunEnded { worker: WorkerId(1), task: last, run, outcome: Interrupted, wall: 0 };
    let actions = bench.step(back);
    assert_eq!(assigned(&actions), [(2, last)]);
    assert_eq!(bench.running(2), [0, 2]);
    // It may have started before it heard: then it runs where it is.
    bench.end_after(task(2, 2), Finished, 10);
    bench.end_after(task(2, 0), Finished, 10);
    let ended = bench.end_after(task(2, 1), Finished, 10);
    assert_eq!(ended, [Action::Ended { task: task(2, 1), end: End::Finished }]);
}

#[test]
fn a_worker_that_comes_back_with_one_that_waited_keeps_it() {
    let mut bench = taught(&[1], 10);
    let sent = sent_ahead(&bench.submit(2, many(3)));
    let (worker, first) = bench.place_of(task(2, 0));
    let (_, second, run) = sent[0];
    bench.step(Event::WorkerSilent { worker });
    // The first ended meanwhile, the second has its room, the third was forgotten with the connection.
    let actions = bench.join(1, 1, &[(task(2, 0), first), (second, run)]);
    let cause = RequeueCause::Interrupted;
    assert_eq!(actions, [Action::Requeued { task: task(2, 2), run: sent[1].2, cause }]);
    assert_eq!(bench.place_of(second), (worker, run));
    bench.end_after(task(2, 0), Finished, 10);
    assert_eq!(bench.running(2), [1]);
    let next = bench.end_after(second, Finished, 10);
    assert_eq!(assigned(&next), [(1, task(2, 2))]);
}

#[test]
fn a_scheduler_that_may_not_sends_nothing_ahead() {
    let mut bench = taught(&[1], 2);
    bench.scheduler.allow_ahead(false);
    assert_eq!(assigned(&bench.submit(2, many(40))), [(1, task(2, 0))]);
}
