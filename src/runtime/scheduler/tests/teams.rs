//! Tasks on several workers: all of them or none, for as long as the lead runs.

use super::*;
use crate::runtime::protocol::NodePart;

fn team(nodes: u32, cores: u32) -> Shape {
    let needs = Needs { variants: vec![Request { cores, ..Request::default() }], nodes };
    Shape { needs, ..single() }
}

fn guest(worker: u32, run: RunId, here: bool) -> Action {
    Action::Guest { worker: WorkerId(worker), run, here }
}

fn kill(worker: u32, task: TaskId, run: RunId) -> Action {
    Action::Kill { worker: WorkerId(worker), task, run }
}

/// What a lead says of its run after a reconnect.
fn led(task: TaskId, run: RunId, workers: &[u32]) -> Vec<HeldRun> {
    let part = |worker: &u32| NodePart { worker: WorkerId(*worker), node: "host".to_owned(), cores: 1 };
    let place = Place { nodes: workers.iter().map(part).collect(), ..Place::default() };
    vec![HeldRun { task, run, variant: 0, place }]
}

#[test]
fn a_team_starts_on_all_its_workers_or_not_at_all() {
    let mut bench = Bench::new(&[2, 2]);
    assert_eq!(bench.submit(1, team(3, 2)), []);
    assert_eq!(bench.explain(task(1, 0)), "needs 3 workers at once; 2 are up that could hold it");
    // One that is too small is none.
    assert_eq!(bench.join(3, 1, &[]), []);
    let actions = bench.join(4, 3, &[]);
    let (_, run) = bench.place_of(task(1, 0));
    assert_eq!(actions[..2], [guest(2, run, true), guest(4, run, true)]);
    let part = |worker| NodePart { worker: WorkerId(worker), node: String::new(), cores: 2 };
    let place = Place { nodes: vec![part(1), part(2), part(4)], ..Place::default() };
    let assign = Action::Assign {
        worker: WorkerId(1),
        task: task(1, 0),
        run,
        variant: 0,
        line: workers::line(0, 0),
        waits: false,
        place,
    };
    assert_eq!(actions[2..], [assign]);
    assert_eq!([1, 2, 3, 4].map(|worker| bench.free_cores(worker)), [0, 0, 1, 1]);
}

#[test]
fn guests_occupy_their_worker_until_the_lead_reports_the_end() {
    let mut bench = Bench::new(&[1, 1]);
    bench.submit(1, team(2, 1));
    let (lead, run) = bench.place_of(task(1, 0));
    assert_eq!(bench.submit(2, single()), []);
    // The guest's worker cannot end it, nor is it a run of its own there.
    let event = Event::RunEnded { worker: WorkerId(2), task: task(1, 0), run, outcome: Finished, wall: 0 };
    assert_eq!(bench.step(event), []);
    assert_eq!((lead, bench.scheduler.totals().running), (WorkerId(1), 1));
    let actions = bench.end(task(1, 0), Finished);
    assert!(actions.contains(&guest(2, run, false)), "{actions:?}");
    assert_eq!(assigned(&actions).len(), 1);
}

#[test]
fn a_lost_member_ends_the_run_and_the_others_are_free_when_it_has_ended() {
    let mut bench = Bench::new(&[1, 1, 1]);
    bench.submit(1, team(3, 1));
    let (lead, run) = bench.place_of(task(1, 0));
    let actions = bench.lose(3);
    let requeued = Action::Requeued { task: task(1, 0), run, cause: RequeueCause::Lost };
    assert_eq!(actions, [kill(1, task(1, 0), run), requeued]);
    // Enough workers, but two are still occupied.
    assert_eq!(bench.join(4, 1, &[]), []);
    let event = Event::RunEnded { worker: lead, task: task(1, 0), run, outcome: Killed, wall: 5 };
    let actions = bench.step(event);
    assert_eq!(actions[0], guest(2, run, false));
    let (_, again) = bench.place_of(task(1, 0));
    assert_ne!(again, run);
    assert_eq!(bench.scheduler.guests_of(WorkerId(4)), [again]);
}

#[test]
fn a_lost_lead_frees_its_guests_and_counts() {
    let mut bench = Bench::new(&[1, 1]);
    bench.submit(1, team(2, 1));
    let (_, run) = bench.place_of(task(1, 0));
    let actions = bench.lose(1);
    let requeued = Action::Requeued { task: task(1, 0), run, cause: RequeueCause::Lost };
    assert_eq!(actions, [guest(2, run, false), requeued]);
    assert_eq!(bench.free_cores(2), 1);
    assert_eq!(bench.losses(), [(0, 1)]);
    bench.join(3, 1, &[]);
    assert_eq!(bench.place_of(task(1, 0)).0, WorkerId(2));
}

#[test]
fn a_team_whose_members_are_lost_three_times_is_poisonous() {
    let mut bench = Bench::new(&[1, 1]);
    bench.submit(1, team(2, 1));
    for lost in 2..=4 {
        assert_eq!(bench.ended(task(1, 0)), None);
        let (worker, run) = bench.place_of(task(1, 0));
        bench.lose(lost);
        bench.step(Event::RunEnded { worker, task: task(1, 0), run, outcome: Killed, wall: 0 });
        bench.join(lost + 1, 1, &[]);
    }
    assert_eq!(bench.ended(task(1, 0)), Some(End::Poisonous));
    // Nobody has it as a guest, and its workers are free.
    assert_eq!((bench.free_cores(1), bench.free_cores(5)), (1, 1));
}

#[test]
fn a_cancelled_team_occupies_all_until_the_lead_reports_the_end() {
    let mut bench = Bench::new(&[1, 1]);
    bench.submit(1, team(2, 1));
    let (worker, run) = bench.place_of(task(1, 0));
    let actions = bench.step(Event::Cancel { tasks: vec![TaskRef::Array(ArrayId(1))] });
    let ended = Action::Ended { task: task(1, 0), end: End::Cancelled };
    assert_eq!(actions, [ended, kill(1, task(1, 0), run)]);
    assert_eq!(bench.submit(2, many(2)), []);
    let freed = bench.step(Event::RunEnded { worker, task: task(1, 0), run, outcome: Killed, wall: 0 });
    assert_eq!(freed[0], guest(2, run, false));
    assert_eq!(assigned(&freed).len(), 2);
    assert_eq!(bench.ended(task(1, 0)), Some(End::Cancelled));
}

#[test]
fn a_big_team_is_not_overtaken_for_ever() {
    let mut bench = Bench::new(&[2, 2, 2]);
    bench.submit(1, many(6));
    bench.submit(2, team(3, 2));
    for array in 3..100 {
        bench.submit(array, single());
        bench.now += 500;
        if bench.running(2) == [0] {
            assert!(bench.now >= placement::STARVATION_MILLISECONDS);
            return;
        }
        let busy: Vec<TaskId> = (1..=3)
            .flat_map(|worker| bench.scheduler.running_on(WorkerId(worker)).collect::<Vec<_>>())
            .map(|(task, _)| task)
            .collect();
        bench.end(busy[array as usize % busy.len()], Finished);
    }
    panic!("the team never ran");
}

#[test]
fn teams_survive_the_reconnects_of_their_workers() {
    let mut bench = Bench::new(&[1, 1]);
    bench.submit(1, team(2, 1));
    let (lead, run) = bench.place_of(task(1, 0));
    for worker in [1, 2] {
        bench.step(Event::WorkerSilent { worker: WorkerId(worker) });
    }
    assert_eq!(bench.join(2, 1, &[]), []);
    assert_eq!(bench.join_with(1, capacity(1, 0), None, led(task(1, 0), run, &[1, 2])), []);
    assert_eq!(bench.place_of(task(1, 0)), (lead, run));
    assert_eq!((bench.free_cores(1), bench.free_cores(2)), (0, 0));
    // Back without it: the task is not there any more, and its guest neither.
    let actions = bench.join(1, 1, &[]);
    assert_eq!(actions[0], guest(2, run, false));
}

#[test]
fn a_restarted_server_knows_a_team_again_whoever_comes_first() {
    let mut old = Bench::new(&[1, 1]);
    old.submit(1, team(2, 1));
    let (_, run) = old.place_of(task(1, 0));
    for lead_first in [true, false] {
        let mut new = Bench { scheduler: restored(&old.scheduler, 1), now: 0 };
        new.step(Event::Hold(true));
        for lead in [lead_first, !lead_first] {
            let actions = match lead {
                true => new.join_with(1, capacity(1, 0), None, led(task(1, 0), run, &[1, 2])),
                false => new.join(2, 1, &[]),
            };
            assert_eq!(actions, []);
        }
        new.step(Event::Hold(false));
        assert_eq!(new.place_of(task(1, 0)), (WorkerId(1), run));
        assert_eq!(new.scheduler.guests_of(WorkerId(2)), [run]);
        assert_eq!((new.free_cores(1), new.free_cores(2)), (0, 0));
        assert_eq!(new.end(task(1, 0), Finished)[0], guest(2, run, false));
        assert_eq!((new.free_cores(1), new.free_cores(2)), (1, 1));
    }
}

#[test]
fn a_member_that_never_comes_back_ends_the_run() {
    let mut old = Bench::new(&[1, 1]);
    old.submit(1, team(2, 1));
    let (_, run) = old.place_of(task(1, 0));
    let mut new = Bench { scheduler: restored(&old.scheduler, 1), now: 0 };
    new.join_with(1, capacity(1, 0), None, led(task(1, 0), run, &[1, 2]));
    let actions = new.lose(2);
    let requeued = Action::Requeued { task: task(1, 0), run, cause: RequeueCause::Lost };
    assert_eq!(actions, [kill(1, task(1, 0), run), requeued]);
}

#[test]
fn a_member_that_drains_keeps_its_guest_and_gets_no_other() {
    let mut bench = Bench::new(&[1, 1]);
    bench.submit(1, team(2, 1));
    let (_, run) = bench.place_of(task(1, 0));
    assert_eq!(bench.step(Event::WorkerDrains { worker: WorkerId(2) }), []);
    assert_eq!(bench.scheduler.guests_of(WorkerId(2)), [run]);
    bench.submit(2, team(2, 1));
    let actions = bench.end(task(1, 0), Finished);
    assert_eq!(assigned(&actions), []);
    assert_eq!(bench.explain(task(2, 0)), "needs 2 workers at once; 1 is up that could hold it");
}
