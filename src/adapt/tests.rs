//! Single decisions, and what holds for every observation. What holds over days is tested in `simulate`.

use super::*;
use proptest::prelude::*;

fn settings(min: u32, max: u32) -> Settings {
    Settings { seed: 7, ..Settings::new(min, max, vec![shape("default", 8)]) }
}

fn shape(name: &str, cores: u32) -> PoolShape {
    let memory_bytes = Some(64 << 30);
    PoolShape { name: name.to_owned(), memory_bytes, walltime: Some(14_400.0), ..PoolShape::new(cores) }
}

fn class(ready: u64) -> TaskClass {
    let durations = Durations { ended: 100, cut: 0, mean: 60.0, p90: 70.0, longest: 80.0 };
    TaskClass { memory_bytes: 1 << 30, ready, durations, ..TaskClass::new("work") }
}

fn job(id: u32, phase: JobPhase) -> JobView {
    JobView {
        id,
        pool: "default".to_owned(),
        phase,
        leaving: false,
        submitted_at: Some(0.0),
        started_at: (phase != JobPhase::Pending).then_some(10.0),
        up_at: (phase == JobPhase::Up).then_some(40.0),
        ends_at: (phase != JobPhase::Pending).then_some(14_410.0),
        walltime: None,
        tasks: 0,
        idle_since: None,
        silent: false,
    }
}

fn at(now: f64, classes: Vec<TaskClass>, jobs: Vec<JobView>) -> Observation {
    Observation { now, classes, jobs, ..Observation::default() }
}

fn decide(settings: Settings, seen: &Observation) -> Decision {
    Controller::new(settings, Learned::default()).decide(seen)
}

fn asked(decision: &Decision) -> u32 {
    decision.submit.iter().map(|some| some.jobs).sum()
}

#[test]
fn more_tasks_than_can_be_counted_are_as_many_as_can() {
    let pools = vec![shape("default", 8), shape("wide", 16)];
    let settings = Settings { pools, ..settings(2, 2_000_000_000) };
    let running = vec![RunningTasks { job: 1, tasks: u32::MAX, elapsed: 5.0 }; 2];
    // The second one fits only the second pool.
    let all = TaskClass { waiting: u64::MAX, running, ..class(u64::MAX) };
    let wide = TaskClass { cores: 16, ..all.clone() };
    let seen = at(50.0, vec![all.clone(), all, wide.clone(), wide], vec![job(1, JobPhase::Up)]);
    let decision = decide(settings, &seen);
    assert_eq!(decision.numbers.ready, u64::MAX - decision.numbers.running);
    assert_eq!(asked(&decision), 1_999_999_999);
}

#[test]
fn work_brings_as_many_jobs_as_it_can_fill_and_pay() {
    // 800 minutes of one core are 100 of a job: enough for the width of 100 jobs at 56 s each.
    let decision = decide(settings(0, 500), &at(50.0, vec![class(800)], vec![]));
    assert_eq!((decision.rule, asked(&decision)), (Rule::FirstJob, 100));
    assert!(decision.reason.starts_with("ask for 100 jobs: 800 tasks are ready"), "{}", decision.reason);
    let few = TaskClass { durations: Durations { mean: 1.0, p90: 1.0, ..class(1).durations }, ..class(800) };
    assert_eq!(asked(&decide(settings(0, 500), &at(50.0, vec![few], vec![]))), 1, "100 s are worth one job");
    let decision = decide(settings(0, 10), &at(50.0, vec![class(800)], vec![]));
    assert_eq!(asked(&decision), 10);
    assert!(decision.reason.ends_with("not more, since the maximum is 10"), "{}", decision.reason);
}

#[test]
fn a_single_short_task_gets_its_job() {
    let tiny = TaskClass { durations: Durations { mean: 0.1, p90: 0.1, ..class(1).durations }, ..class(1) };
    assert_eq!(asked(&decide(settings(0, 10), &at(0.0, vec![tiny], vec![]))), 1);
}

#[test]
fn tasks_of_unknown_length_bring_jobs_by_and_by() {
    let unknown = TaskClass { durations: Durations::default(), ..class(8000) };
    let mut controller = Controller::new(settings(0, 1000), Learned::default());
    let first = controller.decide(&at(0.0, vec![unknown.clone()], vec![]));
    assert_eq!(asked(&first), 16);
    let jobs: Vec<JobView> = (1..=16).map(|id| job(id, JobPhase::Pending)).collect();
    let second = controller.decide(&at(5.0, vec![unknown], jobs));
    assert_eq!(asked(&second), 16);
}

#[test]
fn the_minimum_is_kept_whatever_the_rate_and_the_site_comes_first() {
    let slow = Settings { rate_per_minute: Some(1.0), max_pending: Some(1), ..settings(5, 10) };
    let decision = decide(slow.clone(), &at(0.0, vec![], vec![]));
    assert_eq!((decision.rule, asked(&decision)), (Rule::BelowMin, 5));
    let limited = Observation {
        submit_max: Some(2),
        submit_limited_by: Some("the QOS lets you have 2".to_owned()),
        ..at(0.0, vec![], vec![])
    };
    let decision = decide(slow, &limited);
    assert_eq!(asked(&decision), 2);
    assert!(decision.reason.contains("the QOS lets you have 2"), "{}", decision.reason);
}

#[test]
fn a_rate_and_a_queue_length_hold_back() {
    let slow = Settings { rate_per_minute: Some(6.0), ..settings(0, 100) };
    let mut controller = Controller::new(slow, Learned::default());
    assert_eq!(asked(&controller.decide(&at(0.0, vec![class(800)], vec![]))), 6);
    let jobs: Vec<JobView> = (1..=6).map(|id| job(id, JobPhase::Pending)).collect();
    let held = controller.decide(&at(5.0, vec![class(800)], jobs.clone()));
    assert_eq!((held.rule, asked(&held)), (Rule::Held, 0));
    assert_eq!(asked(&controller.decide(&at(30.0, vec![class(800)], jobs.clone()))), 3);
    let short = Settings { max_pending: Some(8), ..settings(0, 100) };
    assert_eq!(asked(&decide(short, &at(5.0, vec![class(800)], jobs))), 2);
}

#[test]
fn a_dying_job_is_replaced_before_it_ends() {
    let up = |ends_at| JobView { ends_at: Some(ends_at), tasks: 8, ..job(1, JobPhase::Up) };
    let busy = |job| RunningTasks { job, tasks: 8, elapsed: 10.0 };
    let load = TaskClass { running: vec![busy(1)], ..class(8) };
    // 50 s left for the eight that run, 60 for the eight that wait: the job does it all if it lives.
    let lives = decide(settings(0, 10), &at(1000.0, vec![load.clone()], vec![up(5000.0)]));
    assert_eq!((lives.rule, asked(&lives)), (Rule::Steady, 0), "{}", lives.reason);
    let dies = decide(settings(0, 10), &at(1000.0, vec![load], vec![up(1080.0)]));
    assert_eq!(asked(&dies), 1, "{}", dies.reason);
}

#[test]
fn superfluous_pending_jobs_go_after_a_while_the_newest_first() {
    let mut controller = Controller::new(settings(1, 10), Learned::default());
    let jobs: Vec<JobView> = (1..=4).map(|id| job(id, JobPhase::Pending)).collect();
    let first = controller.decide(&at(20.0, vec![], jobs.clone()));
    assert!(first.cancel.is_empty());
    assert_eq!(first.numbers.surplus, 3);
    assert!(controller.decide(&at(30.0, vec![], jobs.clone())).cancel.is_empty());
    let second = controller.decide(&at(120.0, vec![], jobs));
    assert_eq!((second.rule, second.cancel), (Rule::SurplusPending, vec![4, 3, 2]));
}

#[test]
fn idle_jobs_go_the_longest_idle_first_and_never_below_the_minimum() {
    let idle = |id, since| JobView { idle_since: Some(since), ..job(id, JobPhase::Up) };
    let jobs = vec![idle(1, 500.0), idle(2, 400.0), idle(3, 950.0)];
    let fixed = Settings { idle_timeout: Some(60.0), ..settings(2, 10) };
    let decision = decide(fixed.clone(), &at(1000.0, vec![], jobs.clone()));
    assert_eq!((decision.rule, decision.drain), (Rule::Idle, vec![2]));
    let decision = decide(Settings { min: 0, ..fixed }, &at(1000.0, vec![], jobs));
    assert_eq!((decision.drain, decision.next), (vec![2, 1], 1010.0));
}

#[test]
fn a_job_with_too_little_time_goes_when_it_is_idle() {
    let short = JobView { ends_at: Some(1100.0), idle_since: Some(995.0), ..job(1, JobPhase::Up) };
    let decision = decide(settings(0, 10), &at(1000.0, vec![class(3)], vec![short]));
    assert_eq!(decision.drain, [1]);
    assert_eq!(asked(&decision), 1);
}

#[test]
fn what_no_job_can_run_is_parked_and_no_job_is_asked_for() {
    let long = TaskClass { time_request: Some(18_000.0), ..class(5) };
    let wide = TaskClass { name: "wide".to_owned(), cores: 9, ..class(2) };
    let hungry = TaskClass { name: "hungry".to_owned(), memory_bytes: 65 << 30, ..class(2) };
    let cut = Durations { ended: 0, cut: 5, mean: 21_000.0, p90: 21_000.0, longest: 21_000.0 };
    let endless = TaskClass { name: "endless".to_owned(), durations: cut, ..class(9) };
    let decision = decide(settings(0, 10), &at(0.0, vec![long, wide, hungry, endless], vec![]));
    assert_eq!(asked(&decision), 0);
    let reasons: Vec<&str> = decision.parked.iter().map(|parked| parked.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "a task asks for 5 h, and a job has 3 h 59 min for tasks (walltime 4 h): ask for a longer walltime, or \
             less with --time-request",
            "a task needs 9 cores, and a job has 8: ask for jobs with --cores 9",
            "a task needs 70 GB of memory, and a job has 69 GB: ask for jobs with --memory 70GB",
            "5 tasks ran until the end of the walltime of 4 h, and none has finished: ask for a longer walltime",
        ]
    );
}

#[test]
fn jobs_that_are_over_before_they_take_a_task_are_not_asked_for() {
    let mut settings = settings(0, 10);
    settings.pools[0].walltime = Some(60.0);
    let decision = decide(settings, &at(0.0, vec![class(5)], vec![]));
    assert_eq!((asked(&decision), decision.parked.len()), (0, 1));
    assert_eq!(
        decision.parked[0].reason,
        "a job of 1 min is over before it could take a task (it starts no task in its last 1 min): ask for a longer \
         walltime"
    );
}

#[test]
fn a_lowered_maximum_is_reached_from_the_cheap_end() {
    let busy = |id, tasks| JobView { tasks, ..job(id, JobPhase::Up) };
    let jobs = vec![busy(1, 8), busy(2, 1), busy(3, 8), job(4, JobPhase::Pending), job(5, JobPhase::Pending)];
    let decision = decide(settings(0, 2), &at(100.0, vec![class(99)], jobs));
    assert_eq!((decision.rule, decision.cancel, decision.drain), (Rule::AboveMax, vec![5, 4], vec![2]));
    assert!(decision.submit.is_empty());
}

#[test]
fn each_class_gets_the_pool_that_can_run_it() {
    let mut two = settings(0, 100);
    two.pools = vec![shape("small", 4), PoolShape { gpus: 2, ..shape("gpu", 16) }];
    // What is left of the two GPU jobs takes 28.
    let plain = class(40);
    let gpu = TaskClass { name: "train".to_owned(), gpu_thousandths: 1000, ..class(4) };
    let decision = decide(two, &at(0.0, vec![plain, gpu], vec![]));
    let mut by_pool: Vec<(&str, u32)> = decision.submit.iter().map(|some| (some.pool.as_str(), some.jobs)).collect();
    by_pool.sort_unstable();
    assert_eq!(by_pool, [("gpu", 2), ("small", 3)]);
}

#[test]
fn a_team_gets_all_its_jobs() {
    let team = TaskClass { nodes: 4, cores: 8, ..class(1) };
    assert_eq!(asked(&decide(settings(0, 10), &at(0.0, vec![team.clone()], vec![]))), 4);
    let decision = decide(settings(0, 3), &at(0.0, vec![team], vec![]));
    assert_eq!(decision.parked.len(), 1);
}

#[test]
fn what_was_learned_is_kept() {
    let mut controller = Controller::new(settings(0, 10), Learned::default());
    let up: Vec<JobView> =
        (1..=6).map(|id| JobView { started_at: Some(600.0), up_at: Some(605.0), ..job(id, JobPhase::Up) }).collect();
    controller.decide(&at(700.0, vec![class(1)], up));
    let learned = controller.learned();
    let text = serde_json::to_string(&learned).expect("it is plain data");
    let again: Learned = serde_json::from_str(&text).expect("as written");
    assert_eq!(again, learned);
    let decision = Controller::new(settings(0, 10), again).decide(&at(0.0, vec![], vec![]));
    assert_eq!((decision.numbers.wait_p50, decision.numbers.startup), (600.0, 5.0));
    let unknown = TaskClass { durations: Durations::default(), ..class(1000) };
    let decision = Controller::new(settings(0, 1000), learned).decide(&at(0.0, vec![unknown], vec![]));
    assert_eq!(asked(&decision), 125, "60 s a task are known: no slow start");
}

#[test]
fn observations_are_read_as_documented() {
    let line = r#"{"now": 12.5,
        "classes": [{"name": "regrid", "ready": 3, "running": [{"job": 1, "elapsed": 4.5}]}],
        "jobs": [{"id": 1, "phase": "up", "submitted_at": 0, "started_at": 2, "up_at": 3, "tasks": 1}]}"#;
    let seen: Observation = serde_json::from_str(line).expect("it is as documented");
    assert_eq!(
        (seen.classes[0].cores, seen.classes[0].running[0].tasks, seen.jobs[0].pool.as_str()),
        (1, 1, "default")
    );
    let wrong = serde_json::from_str::<Observation>(r#"{"now": 1, "job": []}"#).expect_err("it is misspelt");
    assert!(wrong.to_string().contains("unknown field `job`"), "{wrong}");
}

fn any_class() -> impl Strategy<Value = TaskClass> {
    let sizes = (0..12u32, 0..80u64, prop_oneof![0..3u64, 0..5000u64], prop_oneof![Just(0u64), 1..50u64]);
    (sizes, 0.01..5000.0f64, prop::option::of(1.0..20_000.0f64), prop::collection::vec((1..12u32, 1..9u32), 0..4))
        .prop_map(|((cores, gib, ready, ended), mean, time_request, running)| TaskClass {
            name: format!("class {cores} {gib}"),
            cores,
            memory_bytes: gib << 30,
            ready,
            running: running
                .into_iter()
                .map(|(job, tasks)| RunningTasks { job, tasks, elapsed: mean * f64::from(tasks) / 4.0 })
                .collect(),
            time_request,
            durations: Durations { ended, cut: 0, mean, p90: mean * 1.5, longest: mean * 2.0 },
            ..class(0)
        })
}

fn any_job() -> impl Strategy<Value = JobView> {
    let phase = prop_oneof![Just(JobPhase::Pending), Just(JobPhase::Started), Just(JobPhase::Up)];
    (phase, any::<bool>(), prop::option::of(0.0..1000.0f64), 900.0..20_000.0f64, 0..5u8).prop_map(
        |(phase, leaving, idle, ends, odd)| JobView {
            leaving: leaving && odd == 0,
            idle_since: idle.filter(|_| phase == JobPhase::Up),
            tasks: if idle.is_some() { 0 } else { 3 },
            ends_at: (odd != 1).then_some(ends),
            submitted_at: (odd != 2).then_some(0.0),
            silent: odd == 3,
            ..job(0, phase)
        },
    )
}

fn any_observation() -> impl Strategy<Value = Observation> {
    let jobs = prop::collection::vec(any_job(), 0..12);
    (1000.0..2000.0f64, prop::collection::vec(any_class(), 0..4), jobs, prop::option::of(0..9u32)).prop_map(
        |(now, classes, mut jobs, submit_max)| {
            jobs.iter_mut().zip(1..).for_each(|(job, id)| job.id = id);
            Observation { submit_max, ..at(now, classes, jobs) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn bounds_hold_for_every_observation(
        seen in any_observation(), min in 0..8u32, more in 0..20u32, efficiency in 0.05..0.95f64,
    ) {
        let max = min + more;
        let decision = decide(Settings { efficiency, ..settings(min, max) }, &seen);
        let total = seen.jobs.len() as u32;
        let staying = seen.jobs.iter().filter(|job| !job.leaving).count() as u32;
        prop_assert!(total + asked(&decision) <= max.max(total), "above max");
        prop_assert!(asked(&decision) <= seen.submit_max.unwrap_or(u32::MAX));
        let find = |id: &u32| seen.jobs.iter().find(|job| job.id == *id).expect("it is a job there is");
        prop_assert!(decision.cancel.iter().all(|id| find(id).phase == JobPhase::Pending && !find(id).leaving));
        prop_assert!(decision.drain.iter().all(|id| find(id).phase != JobPhase::Pending && !find(id).leaving));
        if total <= max {
            prop_assert!(decision.drain.iter().all(|id| find(id).idle_since.is_some() && find(id).tasks == 0));
            let gone = (decision.cancel.len() + decision.drain.len()) as u32;
            let ready: u64 = decision.numbers.ready;
            prop_assert!(staying + asked(&decision) >= min + gone || ready > 0 || gone == 0, "below min");
            if seen.submit_max.is_none() && min <= max {
                let missing = min.saturating_sub(staying).min(max - total);
                prop_assert!(asked(&decision) >= missing, "the minimum is not asked for");
            }
        }
        let mut all: Vec<u32> = decision.cancel.iter().chain(&decision.drain).copied().collect();
        all.sort_unstable();
        all.dedup();
        prop_assert_eq!(all.len(), decision.cancel.len() + decision.drain.len(), "nothing goes twice");
        prop_assert!(decision.next > seen.now && decision.next <= seen.now + 15.0);
        prop_assert!(!decision.reason.is_empty());
        let text = serde_json::to_string(&decision).expect("it is plain data");
        prop_assert!(!text.contains("null"), "{}", text);
        if decision.numbers.ready == 0 {
            prop_assert!(asked(&decision) <= min.saturating_sub(staying), "jobs for nothing");
        }
    }

    #[test]
    fn same_seed_same_decisions(seen in prop::collection::vec(any_observation(), 1..5), seed in any::<u64>()) {
        let run = || {
            let mut controller = Controller::new(Settings { seed, ..settings(1, 20) }, Learned::default());
            seen.iter().map(|seen| controller.decide(seen)).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn a_higher_efficiency_never_asks_for_more(seen in any_observation(), low in 0.05..0.9f64, more in 0.0..0.9f64) {
        let high = low + (0.95 - low) * more;
        let asked = |efficiency| asked(&decide(Settings { efficiency, ..settings(0, 100) }, &seen));
        prop_assert!(asked(high) <= asked(low));
    }
}
