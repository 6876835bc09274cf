//! What holds for whole days, whoever decides; and what our own controller owes besides.

use super::policy::{NAMES, Policy, named};
use super::queue::LogNormal;
use super::workload::{Task, Workload};
use super::*;
use crate::adapt::{Decision, Observation, PoolShape, Settings};

/// Seconds from start to worker in most tests.
const STARTUP: f64 = 25.0;

fn settings(min: u32, max: u32, walltime: f64) -> Settings {
    let pool = PoolShape { walltime: Some(walltime), ..PoolShape::new(8) };
    Settings { seed: 1, ..Settings::new(min, max, vec![pool]) }
}

fn scenario(workload: Workload, settings: Settings, seed: u64) -> Scenario {
    let settings = Settings { seed, ..settings };
    Scenario { workload, settings, startup: STARTUP, faults: Faults::default(), seed }
}

fn load(text: &str, seed: u64) -> Workload {
    Workload::find(text, seed).unwrap()
}

fn task(class: u32, arrives: f64, run: f64, cores: u32) -> Task {
    Task { class, arrives, run, cores, memory_bytes: 0, parents: Vec::new() }
}

fn workload(classes: &[&str], tasks: Vec<Task>) -> Workload {
    let classes = classes.iter().map(|name| (*name).to_owned()).collect();
    Workload { name: "test".to_owned(), classes, tasks }
}

/// Plays with waits around a minute.
fn play(policy: &str, scenario: &Scenario) -> Run {
    let queue = Box::new(LogNormal::new(60.0, 1.0, scenario.seed));
    run(scenario, queue, named(policy, &scenario.settings).unwrap().as_mut())
}

/// Returns the area under a series.
fn area(series: &[(f64, f64)], until: f64) -> f64 {
    let ends = series.iter().skip(1).map(|(at, _)| *at).chain([until]);
    series.iter().zip(ends).map(|((from, value), to)| value * (to - from)).sum()
}

/// Checks what holds for every run in which every task can be run.
fn check(run: &Run, scenario: &Scenario, what: &str) {
    let (summary, tasks) = (&run.summary, &scenario.workload.tasks);
    let near = |a: f64, b: f64| (a - b).abs() <= 0.01 * tasks.len() as f64;
    assert_eq!((summary.tasks_finished, summary.tasks_parked), (tasks.len() as u64, 0), "{what}: {summary:?}");
    assert!(near(summary.core_seconds_useful, scenario.workload.core_seconds()), "{what}: {summary:?}");
    assert!(near(area(&run.held, run.seconds), summary.core_seconds_billed), "{what}: {summary:?}");
    let worked = summary.core_seconds_useful + run.lost_core_seconds;
    assert!(near(area(&run.busy, run.seconds), worked), "{what}: {worked} {summary:?}");
    assert!(worked <= summary.core_seconds_billed + 1.0, "{what}: {summary:?}");
    assert_eq!(summary.above_max_seconds, 0.0, "{what}");
}

#[test]
fn every_task_finishes_once_and_what_is_billed_was_held() {
    for policy in NAMES {
        for text in ["burst:100", "bursts:100", "phases:100", "tail:60", "trickle:60", "short:500"] {
            let scenario = scenario(load(text, 1), settings(0, 12, 14_400.0), 1);
            check(&play(policy, &scenario), &scenario, &format!("{policy} {text}"));
        }
    }
}

#[test]
fn a_small_case_is_as_computed_by_hand() {
    // One job of 8 cores, twice 8 tasks of 100 s, 50 s in the queue, no start-up.
    let scenario = Scenario {
        startup: 0.0,
        ..scenario(workload(&["a"], vec![task(0, 0.0, 100.0, 1); 16]), settings(0, 1, 14_400.0), 1)
    };
    let played =
        run(&scenario, Box::new(LogNormal::constant(50.0)), named("static", &scenario.settings).unwrap().as_mut());
    let expected = Summary {
        policy: "static".to_owned(),
        seed: 1,
        makespan_seconds: 250.0,
        response_p50_seconds: 250.0,
        response_p95_seconds: 250.0,
        core_seconds_billed: 1600.0,
        core_seconds_useful: 1600.0,
        jobs_submitted: 1,
        tasks_finished: 16,
        ..Summary::default()
    };
    assert_eq!(played.summary, expected);
    assert_eq!((played.mean_response, played.seconds, played.lost_core_seconds), (200.0, 250.0, 0.0));
    assert_eq!(played.held, [(0.0, 0.0), (50.0, 8.0)]);
    assert_eq!(played.busy, [(0.0, 0.0), (50.0, 8.0)]);
    assert_eq!(played.demand, [(0.0, 8.0)]);
    assert_eq!(played.pending, [(0.0, 1.0), (50.0, 0.0)]);
    // Nothing of 8 wanted cores in 50 of 250 s; of 8 looks that after 60 s finds a change of supply alone.
    let elasticity = Elasticity { under_accuracy: 20.0, under_time: 20.0, instability: 12.5, ..Elasticity::default() };
    assert_eq!(played.elasticity, elasticity);
}

/// Decides nothing; looks whether the future is shown.
struct Spy<'a> {
    inner: Box<dyn Policy>,
    scenario: &'a Scenario,
}

impl Policy for Spy<'_> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn decide(&mut self, seen: &Observation) -> Decision {
        let arrived = self.scenario.workload.tasks.iter().filter(|task| task.arrives <= seen.now + 0.001).count();
        let of = |class: &crate::adapt::TaskClass| {
            class.ready + class.waiting + class.running.iter().map(|some| u64::from(some.tasks)).sum::<u64>()
        };
        let shown: u64 = seen.classes.iter().map(of).sum();
        assert!(shown <= arrived as u64, "{shown} are shown, {arrived} have arrived by {}", seen.now);
        self.inner.decide(seen)
    }
}

#[test]
fn nobody_sees_tasks_before_they_arrive() {
    for text in ["trickle:80", "bursts:80", "phases:80"] {
        let scenario = scenario(load(text, 1), settings(0, 12, 14_400.0), 1);
        let mut spy = Spy { inner: named("ours", &scenario.settings).unwrap(), scenario: &scenario };
        let played = run(&scenario, Box::new(LogNormal::constant(20.0)), &mut spy);
        check(&played, &scenario, text);
    }
}

#[test]
fn bounds_hold_and_every_task_ends_whatever_fails() {
    let faults = [
        Faults::default(),
        Faults { vanish: 0.2, ..Faults::default() },
        Faults { listings_fail: 0.7, ..Faults::default() },
        Faults { blind_seconds: 3600.0, ..Faults::default() },
        Faults { reject: 0.3, ..Faults::default() },
        Faults { node_fails: 0.1, ..Faults::default() },
        Faults { vanish: 0.2, listings_fail: 0.7, blind_seconds: 600.0, reject: 0.3, node_fails: 0.1 },
    ];
    for (at, faults) in faults.into_iter().enumerate() {
        for seed in 1..=3 {
            for text in ["burst:150", "trickle:60", "phases:100"] {
                let scenario = Scenario { faults, ..scenario(load(text, seed), settings(2, 10, 7200.0), seed) };
                let played = play("ours", &scenario);
                let what = format!("{text} {at} {seed}");
                check(&played, &scenario, &what);
                assert_eq!(played.summary.below_min_seconds, 0.0, "{what}: {:?}", played.summary);
            }
        }
    }
}

#[test]
fn vanished_jobs_and_failed_nodes_lose_no_tasks_whoever_decides() {
    let faults = Faults { vanish: 0.3, node_fails: 0.2, ..Faults::default() };
    for policy in NAMES {
        let mut useless = 0;
        for seed in 1..=4 {
            let scenario = Scenario { faults, ..scenario(load("tail:120", seed), settings(0, 10, 7200.0), seed) };
            let played = play(policy, &scenario);
            check(&played, &scenario, policy);
            useless += played.summary.jobs_useless;
        }
        assert!(useless > 0, "{policy}: nothing went wrong");
    }
}

#[test]
fn what_no_walltime_is_long_enough_for_is_parked_and_not_submitted_for() {
    // 5 h in 4 h, beside tasks that can be run.
    let mut tasks = vec![task(0, 0.0, 18_000.0, 1); 20];
    tasks.extend(vec![task(1, 0.0, 60.0, 1); 40]);
    let load = workload(&["long", "fine"], tasks);
    for policy in NAMES {
        let played = play(policy, &scenario(load.clone(), settings(0, 10, 14_400.0), 1));
        let summary = &played.summary;
        assert_eq!((summary.tasks_finished, summary.tasks_parked), (40, 20), "{summary:?}");
        assert!(summary.jobs_submitted <= 60, "{summary:?}");
        if policy == "ours" {
            // The first wave, and the job that the others ran in.
            assert!(summary.jobs_submitted <= 12 && summary.tasks_killed_by_walltime <= 20, "{summary:?}");
            assert!(summary.settle_seconds < 700.0, "{summary:?}");
        }
    }
}

#[test]
fn a_single_endless_task_of_a_class_is_given_up_and_those_after_it_never_run() {
    let mut tasks = vec![task(0, 0.0, 600.0, 1); 60];
    tasks.push(task(0, 0.0, 9000.0, 1));
    tasks.push(Task { parents: vec![60], ..task(0, 0.0, 10.0, 1) });
    for policy in NAMES {
        let played = play(policy, &scenario(workload(&["a"], tasks.clone()), settings(0, 4, 3600.0), 3));
        let summary = &played.summary;
        assert_eq!((summary.tasks_finished, summary.tasks_parked), (60, 2), "{summary:?}");
        assert!((3..=8).contains(&summary.tasks_killed_by_walltime), "{summary:?}");
    }
}

/// What waits for a task that cannot run cannot run either; nothing is left out of the count.
#[test]
fn every_task_has_finished_or_is_parked() {
    let parents = [vec![], vec![0], vec![1], vec![]];
    let tasks =
        [9, 1, 1, 1].into_iter().zip(parents).map(|(cores, parents)| Task { parents, ..task(0, 0.0, 60.0, cores) });
    let tasks: Vec<_> = (0..).zip(tasks).map(|(class, task)| Task { class, ..task }).collect();
    let load = workload(&["large", "child", "grandchild", "fine"], tasks);
    for policy in NAMES {
        let run = play(policy, &scenario(load.clone(), settings(0, 4, 3600.0), 1));
        assert_eq!((run.summary.tasks_finished, run.summary.tasks_parked, run.unfinished), (1, 3, 0), "{policy}");
    }
}

/// A queue that lets nothing start: it is given up, and does not look like the fastest of all.
#[test]
fn a_run_without_an_end_is_told_from_one_that_was_quick() {
    let scenario = scenario(load("burst:2", 1), settings(1, 1, 3600.0), 1);
    let queue = Box::new(LogNormal::constant(1e8));
    let run = run(&scenario, queue, named("static", &scenario.settings).unwrap().as_mut());
    let summary = &run.summary;
    assert_eq!((summary.tasks_finished, summary.tasks_parked, run.unfinished), (0, 2, 2));
    assert!(summary.makespan_seconds > 1.7e6 && summary.response_p50_seconds == summary.makespan_seconds);
}

#[test]
fn tasks_that_fit_into_no_job_are_parked_at_once() {
    let load = workload(&["large", "fine"], vec![task(0, 0.0, 60.0, 9), task(1, 0.0, 60.0, 8)]);
    for policy in NAMES {
        let summary = play(policy, &scenario(load.clone(), settings(0, 4, 3600.0), 1)).summary;
        assert_eq!((summary.tasks_finished, summary.tasks_parked), (1, 1), "{summary:?}");
        assert!(policy != "ours" || summary.jobs_submitted == 1, "{summary:?}");
    }
}

#[test]
fn ours_settles_after_the_last_task() {
    for seed in 1..=4 {
        for text in ["burst:150", "bursts:100", "phases:100", "tail:80"] {
            let scenario = scenario(load(text, seed), settings(1, 20, 14_400.0), seed);
            let settle = play("ours", &scenario).summary.settle_seconds;
            // Without any work left pending ones go after a minute, idle ones after a quarter of the price of a
            // new one, 10 min at most; then a look of the ledger, a drain and the goodbye.
            assert!(settle <= 150.0 + 15.0, "{text} {seed}: {settle}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run_and_another_one_is_not() {
    for policy in NAMES {
        let faults = Faults { vanish: 0.1, listings_fail: 0.2, reject: 0.1, node_fails: 0.1, ..Faults::default() };
        let played = |seed| {
            let load = load("bursts:80", 1);
            play(policy, &Scenario { faults, ..scenario(load, settings(0, 8, 7200.0), seed) })
        };
        let (one, same, other) = (played(1), played(1), played(2));
        assert_eq!(one.summary, same.summary, "{policy}");
        assert!(one.decisions == same.decisions && !one.decisions.is_empty(), "{policy}");
        assert_ne!(Summary { seed: 0, ..one.summary }, Summary { seed: 0, ..other.summary }, "{policy}");
    }
}

#[test]
fn walltimes_kill_where_nobody_knows_them_and_not_once_a_class_is_known_to_ours() {
    // Some tell how long the others take; two of them do not fit into one walltime.
    let mut tasks = vec![task(0, 0.0, 2400.0, 1); 16];
    tasks.extend((0..160).map(|at| task(0, 7200.0 + f64::from(at) * 20.0, 2400.0, 1)));
    let load = workload(&["a"], tasks);
    for policy in NAMES {
        let scenario = scenario(load.clone(), settings(0, 12, 3600.0), 1);
        let played = play(policy, &scenario);
        check(&played, &scenario, policy);
        let kills = played.summary.tasks_killed_by_walltime;
        assert!(if policy == "ours" { kills == 0 } else { kills > 20 }, "{policy}: {kills}");
        assert!((played.lost_core_seconds > 0.0) == (kills > 0));
    }
}

#[test]
fn core_hours_fall_with_the_efficiency_asked_for() {
    for text in ["burst:200", "bursts:120", "tail:100", "phases:120"] {
        let billed = |efficiency: f64| {
            let of = |seed| {
                let settings = Settings { efficiency, ..settings(0, 20, 14_400.0) };
                play("ours", &scenario(load(text, seed), settings, seed)).summary.core_seconds_billed
            };
            (1..=3).map(of).sum::<f64>()
        };
        let costs: Vec<f64> = [0.3, 0.5, 0.7, 0.9].map(billed).into();
        assert!(costs.windows(2).all(|pair| pair[1] <= pair[0] * 1.02), "{text}: {costs:?}");
        assert!(costs[3] < costs[0], "{text}: {costs:?}");
    }
}
