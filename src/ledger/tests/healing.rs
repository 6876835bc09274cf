//! While the scaling loop decides: pauses end by themselves, limits are felt out, bad nodes are avoided.

use super::*;

fn adapting(max: u32) -> Ledger {
    let mut ledger = ledger();
    ledger.adapt(max, at(0));
    ledger
}

fn wants(jobs: u32) -> Situation {
    let wish = Wish { pool: "default".to_owned(), walltime_seconds: None, jobs };
    Situation { scaling: Scaling { submit: vec![wish], ..Scaling::default() }, ..work() }
}

fn taken(ledger: &mut Ledger, submit: &Submit, second: u64) {
    let ids = submit.jobs.iter().map(|(seq, _)| NativeId(seq.0.to_string())).collect();
    ledger.on_submitted(submit, ids, at(second));
}

fn on(node: &str, seq: u32, state: Observed) -> Observation {
    Observation { node: Some(node.to_owned()), ..seen(seq, state) }
}

fn fail(ledger: &mut Ledger, node: &str, seq: u32, second: u64) {
    ledger.on_listed(&asked(ledger), &[on(node, seq, ended(EndedHow::Exited, 1))], at(second));
    assert_eq!(end_of(ledger, seq), Some(EndReason::CouldNotStart));
}

fn events(ledger: &mut Ledger, wanted: &str) -> Vec<String> {
    let notices = ledger.take_notices().into_iter();
    let text = notices.filter_map(|notice| match notice {
        Notice::Event { kind, text, .. } if kind == wanted => Some(text),
        _ => None,
    });
    text.collect()
}

#[test]
fn early_ends_pause_for_longer_and_longer_and_one_job_is_tried() {
    let mut ledger = adapting(8);
    let mut asked_for = Vec::new();
    for second in 0..10_000 {
        for submit in submits(ledger.plan(&wants(1), at(second))) {
            asked_for.push((second, submit.jobs.len()));
            taken(&mut ledger, &submit, second);
            fail(&mut ledger, "n1", submit.jobs[0].0.0, second);
        }
    }
    let gaps: Vec<u64> = asked_for.windows(2).map(|pair| (pair[1].0 - pair[0].0).div_ceil(60)).collect();
    assert_eq!(gaps, [1, 1, 1, 2, 4, 8, 16, 32, 60], "{asked_for:?}");
    assert!(!ledger.gave_up());
    assert!(ledger.trouble().unwrap().contains("one more is tried in 60 min"), "{:?}", ledger.trouble());
    // While it is open, one at most; when that one has shown itself, all.
    let second = 20_000;
    let probe = submits(ledger.plan(&wants(5), at(second))).remove(0);
    assert_eq!(probe.jobs.len(), 1);
    taken(&mut ledger, &probe, second);
    assert!(submits(ledger.plan(&wants(5), at(second + 9000))).is_empty(), "it is under way");
    ledger.on_worker_up(&probe.jobs[0].1, "n1", at(second + 9000)).unwrap();
    assert!(submits(ledger.plan(&wants(5), at(second + 9059))).is_empty());
    assert_eq!(submits(ledger.plan(&wants(5), at(second + 9060)))[0].jobs.len(), 5);
    assert_eq!(ledger.trouble(), None);
}

#[test]
fn a_tried_job_that_comes_to_nothing_is_followed_by_another() {
    let mut ledger = adapting(8);
    let mut second = 0;
    while ledger.trouble().is_none() {
        for submit in submits(ledger.plan(&wants(1), at(second))) {
            taken(&mut ledger, &submit, second);
            fail(&mut ledger, "n1", submit.jobs[0].0.0, second);
        }
        second += 1;
    }
    second += 60;
    let probe = submits(ledger.plan(&wants(3), at(second))).remove(0);
    ledger.on_submit_failed(&probe, &error(ErrorClass::Transient), at(second));
    assert_eq!(submits(ledger.plan(&wants(3), at(second + 60)))[0].jobs.len(), 1);
}

#[test]
fn only_what_can_never_work_pauses_for_good() {
    let mut ledger = adapting(8);
    let submit = submits(ledger.plan(&wants(1), at(0))).remove(0);
    ledger.on_submit_failed(&submit, &error(ErrorClass::Permanent), at(0));
    assert!(ledger.gave_up());
    assert!(submits(ledger.plan(&wants(1), at(100_000))).is_empty());
}

#[test]
fn the_limit_of_a_site_is_felt_out() {
    // It takes four jobs, and ten from the second hour on; none of them ends.
    let mut ledger = adapting(100);
    let (mut there, mut refusals, mut at_hour) = (0, Vec::new(), 0);
    for second in 0..4 * 3600 {
        let limit = if second < 3600 { 4 } else { 10 };
        for submit in submits(ledger.plan(&wants(100), at(second))) {
            if there + submit.jobs.len() > limit {
                refusals.push(second);
                ledger.on_submit_failed(&submit, &error(ErrorClass::Limit), at(second));
            } else {
                there += submit.jobs.len();
                taken(&mut ledger, &submit, second);
            }
        }
        if second == 3599 {
            at_hour = there;
        }
    }
    assert_eq!((at_hour, there), (4, 10));
    let late = refusals.iter().filter(|second| (100..3600).contains(*second)).count();
    assert!(late <= 8, "the site is asked too often: {refusals:?}");
}

/// Three jobs that are fine on n1, n2 and n3.
fn fine_on_three() -> Ledger {
    let mut ledger = adapting(20);
    let submit = submits(ledger.plan(&wants(3), at(0))).remove(0);
    assert!(submit.exclude.is_empty());
    taken(&mut ledger, &submit, 0);
    for seq in 1..=3 {
        let node = format!("n{seq}");
        ledger.on_listed(&asked(&ledger), &[on(&node, seq, Observed::Running)], at(1));
        ledger.on_worker_up(&name(seq), "host.example.org", at(1)).unwrap();
    }
    ledger.plan(&wants(0), at(100));
    ledger
}

/// Asks for a job and lets it fail on a node; returns the nodes that were avoided.
fn fail_another(ledger: &mut Ledger, node: &str, second: u64) -> Vec<String> {
    let submit = submits(ledger.plan(&wants(1), at(second))).remove(0);
    taken(ledger, &submit, second);
    fail(ledger, node, submit.jobs[0].0.0, second);
    submit.exclude
}

#[test]
fn a_node_where_jobs_fail_is_avoided_while_they_do_well_elsewhere() {
    let mut ledger = fine_on_three();
    assert!(fail_another(&mut ledger, "n9", 100).is_empty());
    assert!(fail_another(&mut ledger, "n9", 170).is_empty());
    let told = events(&mut ledger, "node_avoided");
    assert!(told.len() == 1 && told[0].starts_with("node n9 is avoided for 30 min: 2 jobs failed"), "{told:?}");
    assert_eq!(ledger.trouble(), None);
    assert_eq!(submits(ledger.plan(&wants(1), at(240)))[0].exclude, ["n9"]);
    let mut ledger = fine_on_three();
    fail_another(&mut ledger, "n9", 100);
    fail_another(&mut ledger, "n9", 170);
    assert!(submits(ledger.plan(&wants(1), at(170 + 1800)))[0].exclude.is_empty(), "it may be well again");
}

#[test]
fn where_jobs_fail_everywhere_no_node_is_to_blame() {
    // Fine only on two others.
    let mut ledger = fine_on_three();
    fail_another(&mut ledger, "n1", 100);
    fail_another(&mut ledger, "n1", 170);
    assert!(events(&mut ledger, "node_avoided").is_empty());
    // Once on each.
    let mut ledger = fine_on_three();
    fail_another(&mut ledger, "n8", 100);
    fail_another(&mut ledger, "n9", 170);
    assert!(events(&mut ledger, "node_avoided").is_empty());
}

#[test]
fn a_backend_that_does_not_know_a_node_is_not_told_of_it_again() {
    let mut ledger = fine_on_three();
    fail_another(&mut ledger, "n9", 100);
    fail_another(&mut ledger, "n9", 170);
    let submit = submits(ledger.plan(&wants(1), at(240))).remove(0);
    ledger.on_submit_failed(&submit, &error(ErrorClass::Permanent), at(240));
    assert!(!ledger.gave_up());
    assert!(submits(ledger.plan(&wants(1), at(310)))[0].exclude.is_empty());
}

#[test]
fn a_node_that_takes_its_jobs_with_it_is_one_failure() {
    let mut ledger = adapting(8);
    let submit = submits(ledger.plan(&wants(6), at(0))).remove(0);
    taken(&mut ledger, &submit, 1);
    for seq in 1..=6 {
        let name = JobName::new("abcd", JobSeq(seq));
        ledger.on_worker_up(&name, "n16", at(2)).expect("it is a job of ours");
    }
    for seq in 1..=6 {
        ledger.on_worker_silent(JobSeq(seq), at(5));
    }
    let gone: Vec<Observation> = (1..=6).map(|seq| on("n16", seq, ended(EndedHow::NodeFailed, 1))).collect();
    ledger.on_listed(&asked(&ledger), &gone, at(8));
    assert!(events(&mut ledger, "breaker_open").is_empty());
    assert_eq!(submits(ledger.plan(&wants(3), at(20))).len(), 1, "others are asked for in their place");
}
