//! Single looks of the peers' rules.

use super::*;
use crate::adapt::{Durations, RunningTasks, TaskClass};

fn settings(min: u32, max: u32) -> Settings {
    let pool = PoolShape { walltime: Some(3600.0), ..PoolShape::new(8) };
    Settings { seed: 1, ..Settings::new(min, max, vec![pool]) }
}

fn class(ready: u64, mean: Option<f64>) -> TaskClass {
    let ended = u64::from(mean.is_some());
    let durations = Durations { ended, mean: mean.unwrap_or_default(), ..Durations::default() };
    TaskClass { ready, durations, ..TaskClass::new("a") }
}

fn job(id: u32, phase: JobPhase, idle_since: Option<f64>) -> JobView {
    JobView {
        id,
        pool: "default".to_owned(),
        phase,
        leaving: false,
        submitted_at: Some(0.0),
        started_at: None,
        up_at: None,
        ends_at: None,
        walltime: None,
        tasks: u32::from(phase == JobPhase::Up && idle_since.is_none()),
        idle_since,
        silent: false,
    }
}

fn see(now: f64, class: TaskClass, jobs: Vec<JobView>) -> Observation {
    Observation { now, classes: vec![class], jobs, ..Observation::default() }
}

fn submitted(decision: &Decision) -> u32 {
    decision.submit.iter().map(|some| some.jobs).sum()
}

/// Looks for the first time.
fn first(name: &str, seen: &Observation) -> Decision {
    named(name, &settings(0, 50)).unwrap().decide(seen)
}

#[test]
fn every_name_is_a_policy() {
    for name in NAMES {
        assert_eq!(named(name, &settings(0, 5)).unwrap().name(), name);
    }
    assert!(named("nobody", &settings(0, 5)).is_none());
    assert!(named("ours", &Settings { pools: Vec::new(), ..settings(0, 5) }).is_none());
}

/// The cases that were measured with Dask itself.
#[test]
fn dask_takes_threads_for_workers_until_there_is_one() {
    assert_eq!(submitted(&first("dask", &see(0.0, class(100, None), vec![]))), 10);
    assert_eq!(submitted(&first("dask", &see(0.0, class(10, None), vec![]))), 1);
    let up = || vec![job(1, JobPhase::Up, None)];
    // 100 × 0.5 s / 5 s = 10 threads = 2 workers of 8.
    assert_eq!(submitted(&first("dask", &see(0.0, class(100, None), up()))), 1);
    // 100 × 20 s / 5 s = 400, but there are 100 tasks = 13 workers.
    assert_eq!(submitted(&first("dask", &see(0.0, class(100, Some(20.0)), up()))), 12);
    // Twice what the longest has run.
    let mut running = class(92, None);
    running.running = vec![RunningTasks { job: 1, tasks: 8, elapsed: 1.0 }];
    assert_eq!(submitted(&first("dask", &see(0.0, running, up()))), 4);
}

#[test]
fn dask_closes_at_the_third_look_in_a_row() {
    let mut dask = named("dask", &settings(0, 50)).unwrap();
    let pending = |number: u32| (1..=number).map(|id| job(id, JobPhase::Pending, None)).collect::<Vec<_>>();
    let few = |now| see(now, class(0, None), pending(4));
    assert!(!dask.decide(&few(0.0)).acts() && !dask.decide(&few(1.0)).acts());
    // Between two looks nothing is counted.
    assert!(!dask.decide(&few(1.5)).acts());
    assert_eq!(dask.decide(&few(2.0)).cancel.len(), 4);
    // One look at enough work starts the count again.
    assert!(!dask.decide(&few(3.0)).acts() && !dask.decide(&few(4.0)).acts());
    assert!(!dask.decide(&see(5.0, class(40, None), pending(4))).acts());
    assert!(!dask.decide(&few(6.0)).acts());
    let busy = vec![job(1, JobPhase::Up, None), job(2, JobPhase::Up, Some(0.0))];
    let mut dask = named("dask", &settings(0, 50)).unwrap();
    let looks: Vec<Decision> = [0.0, 1.0, 2.0].map(|now| dask.decide(&see(now, class(0, None), busy.clone()))).into();
    assert_eq!(looks[2].drain, [2], "only idle ones");
}

#[test]
fn parsl_counts_pending_blocks_as_slots_and_cancels_them_first() {
    let mut parsl = named("parsl", &settings(2, 50)).unwrap();
    assert_eq!(submitted(&parsl.decide(&see(0.0, class(17, None), vec![]))), 2);
    let pending = |many: u32| (1..=many).map(|id| job(id, JobPhase::Pending, None)).collect::<Vec<_>>();
    assert_eq!(submitted(&parsl.decide(&see(5.0, class(17, None), pending(2)))), 1);
    assert!(!parsl.decide(&see(7.0, class(170, None), pending(2))).acts(), "between looks");
    // A block that is needed in part is none too many.
    let enough = pending(2).into_iter().chain([job(9, JobPhase::Up, None)]).collect();
    assert!(!parsl.decide(&see(10.0, class(17, None), enough)).acts());
    assert_eq!(parsl.decide(&see(15.0, class(17, None), pending(6))).cancel, [1, 2, 3]);
    let idle = || vec![job(1, JobPhase::Up, None), job(2, JobPhase::Up, Some(0.0)), job(3, JobPhase::Up, Some(90.0))];
    let drained = |parsl: &mut Box<dyn Policy>, now| parsl.decide(&see(now, class(1, None), idle())).drain;
    assert!(drained(&mut parsl, 115.0).is_empty());
    assert_eq!(drained(&mut parsl, 125.0), [2]);
    // Without any task all but the minimum go at once after 120 s.
    let without = |now| see(now, class(0, None), idle());
    assert!(!parsl.decide(&without(200.0)).acts() && !parsl.decide(&without(315.0)).acts());
    assert_eq!(parsl.decide(&without(325.0)).drain, [2]);
}

#[test]
fn hyperqueue_queues_one_at_a_time_and_cancels_none() {
    let mut queue = named("hyperqueue", &settings(0, 50)).unwrap();
    assert_eq!(submitted(&queue.decide(&see(0.0, class(1000, None), vec![]))), 1);
    assert!(!queue.decide(&see(5.0, class(1000, None), vec![job(1, JobPhase::Pending, None)])).acts());
    assert_eq!(submitted(&queue.decide(&see(10.0, class(1000, None), vec![job(1, JobPhase::Started, None)]))), 1);
    // There is room for what is ready.
    assert!(!queue.decide(&see(15.0, class(8, None), vec![job(1, JobPhase::Up, Some(15.0))])).acts());
    let left = queue.decide(&see(
        320.0,
        class(0, None),
        vec![job(1, JobPhase::Up, Some(15.0)), job(2, JobPhase::Pending, None)],
    ));
    assert!(left.drain == [1] && left.cancel.is_empty());
}

#[test]
fn ray_packs_and_launches_no_more_than_are_up() {
    let mut ray = named("ray", &settings(0, 50)).unwrap();
    let up = |many: u32, idle| (1..=many).map(|id| job(id, JobPhase::Up, idle)).collect::<Vec<_>>();
    assert_eq!(submitted(&ray.decide(&see(0.0, class(20, None), vec![]))), 3);
    assert_eq!(submitted(&ray.decide(&see(5.0, class(1000, None), vec![]))), 5);
    let mut full = class(1000, None);
    full.running = (1..=12).map(|job| RunningTasks { job, tasks: 8, elapsed: 1.0 }).collect();
    assert_eq!(submitted(&ray.decide(&see(10.0, full, up(12, None)))), 12);
    // What a ready task would use stays, however long it has been idle.
    assert_eq!(ray.decide(&see(400.0, class(8, None), up(3, Some(0.0)))).drain, [2, 3]);
    let pending = |now, ready| see(now, class(ready, None), vec![job(7, JobPhase::Pending, None)]);
    assert!(!ray.decide(&pending(500.0, 0)).acts() && !ray.decide(&pending(795.0, 0)).acts());
    assert!(!ray.decide(&pending(800.0, 1)).acts(), "needed again");
    assert!(!ray.decide(&pending(805.0, 0)).acts());
    assert_eq!(ray.decide(&pending(1105.0, 0)).cancel, [7]);
}

#[test]
fn tasks_are_packed_by_cores_and_memory_the_largest_first() {
    let pool = PoolShape { memory_bytes: Some(100), ..settings(0, 1).pools[0].clone() };
    let large = TaskClass { cores: 5, ..class(2, None) };
    let heavy = TaskClass { memory_bytes: 60, name: "heavy".to_owned(), ..class(3, None) };
    let never = TaskClass { cores: 9, ..class(7, None) };
    let seen = Observation { classes: vec![heavy, never, large], ..Observation::default() };
    // 5 | 5 cores, with a heavy one each; the third needs its own.
    assert_eq!(fit::fit(&seen, &pool, &[], 50).more, 3);
    assert_eq!(fit::fit(&seen, &pool, &[], 2).more, 2);
    let (first, second) = (job(4, JobPhase::Pending, None), job(5, JobPhase::Up, Some(0.0)));
    let need = fit::fit(&seen, &pool, &[&first, &second], 50);
    assert!(need.more == 1 && need.used == [4, 5].into());
}

#[test]
fn static_asks_for_all_and_gives_up_nothing() {
    let mut fixed = named("static", &settings(0, 50)).unwrap();
    assert_eq!(submitted(&fixed.decide(&see(0.0, class(1, None), vec![]))), 50);
    let up: Vec<JobView> = (0..49).map(|id| job(id, JobPhase::Up, Some(0.0))).collect();
    let seen = fixed.decide(&see(9000.0, class(0, None), up));
    assert!(submitted(&seen) == 1 && seen.drain.is_empty() && seen.cancel.is_empty());
    assert!(fixed.is_taken_down());
}
