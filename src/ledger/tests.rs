//! One test per promise of the ledger; the simulation holds all of them together.

mod healing;

use super::*;
use crate::backends::sentinel::Sentinel;
use crate::backends::{BackendError, EndedHow, ErrorClass, JobRef, Observation, Observed, Submit};
use crate::runtime::ids::{JobName, JobSeq, NativeId};

const SECOND: u64 = 1000;

fn at(seconds: u64) -> Moment {
    Moment { wall: seconds * SECOND, clock: seconds * SECOND }
}

fn ledger() -> Ledger {
    Ledger::new("abcd", 2, "default", 10, 300)
}

fn work() -> Situation {
    Situation { work: true, drain_first: Vec::new(), ..Situation::default() }
}

fn name(seq: u32) -> JobName {
    JobName::new("abcd", JobSeq(seq))
}

fn error(class: ErrorClass) -> BackendError {
    BackendError { class, command: "sbatch".to_owned(), says: "no".to_owned(), fix: None }
}

fn seen(seq: u32, state: Observed) -> Observation {
    let id = NativeId(seq.to_string());
    Observation { name: name(seq), id, state, reason: String::new(), node: None, seconds_left: None }
}

fn ended(how: EndedHow, exit_code: i32) -> Observed {
    Observed::Ended { how, exit_code: Some(exit_code) }
}

fn submits(orders: Vec<Order>) -> Vec<Submit> {
    let submits = orders.into_iter().filter_map(|order| match order {
        Order::Submit(submit) => Some(submit),
        _ => None,
    });
    submits.collect()
}

fn asked(ledger: &Ledger) -> Vec<JobRef> {
    ledger.live().map(Job::reference).collect()
}

/// A ledger with `count` submitted jobs at second 0.
fn submitted(count: u32) -> Ledger {
    let mut ledger = ledger();
    ledger.scale(count, at(0));
    let submit = submits(ledger.plan(&work(), at(0))).remove(0);
    let ids = submit.jobs.iter().map(|(seq, _)| NativeId(seq.0.to_string())).collect();
    ledger.on_submitted(&submit, ids, at(0));
    ledger
}

/// The same with a worker each.
fn up(count: u32) -> Ledger {
    let mut ledger = submitted(count);
    for seq in 1..=count {
        ledger.on_worker_up(&name(seq), "n1", at(1)).unwrap();
    }
    ledger
}

fn end_of(ledger: &Ledger, seq: u32) -> Option<EndReason> {
    ledger.job(JobSeq(seq)).unwrap().end
}

#[test]
fn a_connected_worker_outweighs_any_listing() {
    let mut ledger = up(1);
    for second in 2..200 {
        let state = if second % 2 == 0 { Some(ended(EndedHow::NodeFailed, 1)) } else { None };
        let listing: Vec<Observation> = state.into_iter().map(|state| seen(1, state)).collect();
        ledger.on_listed(&asked(&ledger), &listing, at(second));
        ledger.plan(&work(), at(second));
    }
    assert_eq!(ledger.job(JobSeq(1)).unwrap().state, JobState::Up);
    ledger.on_worker_silent(JobSeq(1), at(201));
    ledger.on_listed(&asked(&ledger), &[seen(1, ended(EndedHow::NodeFailed, 1))], at(202));
    assert_eq!(end_of(&ledger, 1), Some(EndReason::NodeFailed));
}

#[test]
fn the_listing_says_why_a_script_ended() {
    let mut ledger = up(1);
    ledger.on_worker_silent(JobSeq(1), at(10));
    let sentinel =
        Sentinel { exit_code: 143, signal: Some(15), time: 0, node: String::new(), id: String::new(), restart: 0 };
    ledger.on_sentinels(vec![(JobSeq(1), sentinel)], at(11));
    ledger.take_notices();
    assert!(ledger.plan(&work(), at(12)).iter().any(|order| matches!(order, Order::List(_))), "asked at once");
    ledger.on_listed(&asked(&ledger), &[seen(1, ended(EndedHow::Walltime, 143))], at(13));
    assert_eq!(end_of(&ledger, 1), Some(EndReason::Walltime));
    let over = |notice: &Notice| matches!(notice, Notice::Over { planned: true, .. });
    assert!(ledger.take_notices().iter().any(over), "the tasks are innocent");
}

/// A slow epilogue: the script has failed, the batch system still shows the job, we cancel it.
#[test]
fn a_job_that_hangs_after_its_script_is_cancelled_and_ended_by_its_script() {
    for (code, reason) in [(71, EndReason::CouldNotStart), (0, EndReason::CancelledByUs)] {
        let mut ledger = submitted(1);
        let sentinel =
            Sentinel { exit_code: 71, signal: None, time: 0, node: String::new(), id: String::new(), restart: 0 };
        ledger.on_listed(&asked(&ledger), &[seen(1, Observed::Running)], at(10));
        ledger.on_sentinels(vec![(JobSeq(1), sentinel)], at(11));
        let mut cancelled = false;
        for second in 12..60 {
            ledger.on_listed(&asked(&ledger), &[seen(1, Observed::Running)], at(second));
            cancelled |= ledger.plan(&work(), at(second)).iter().any(|order| matches!(order, Order::Cancel(_)));
        }
        assert!(cancelled && ledger.job(JobSeq(1)).unwrap().live());
        ledger.on_listed(&asked(&ledger), &[seen(1, ended(EndedHow::Exited, code))], at(61));
        assert_eq!(end_of(&ledger, 1), Some(reason), "{code}");
    }
}

#[test]
fn absence_needs_time_a_look_by_name_and_accounting() {
    let mut ledger = submitted(1);
    for second in 1..200 {
        ledger.on_listed(&asked(&ledger), &[], at(second));
        ledger.plan(&work(), at(second));
    }
    assert_eq!(end_of(&ledger, 1), None, "nobody answered by name");
    ledger.on_found(&[], at(200));
    let refs = asked(&ledger);
    ledger.on_accounted(&refs, &[], at(200));
    ledger.plan(&work(), at(201));
    assert_eq!(end_of(&ledger, 1), Some(EndReason::Vanished));
    // It lives after all: cancelled at sight.
    ledger.on_found(&[seen(1, Observed::Running)], at(230));
    assert!(ledger.plan(&work(), at(231)).iter().any(|order| matches!(order, Order::Cancel(_))));
}

#[test]
fn a_requeued_job_is_the_same_job_and_an_old_sentinel_says_nothing() {
    let mut ledger = up(1);
    ledger.on_worker_silent(JobSeq(1), at(10));
    ledger.on_listed(&asked(&ledger), &[seen(1, Observed::Pending)], at(11));
    assert_eq!(ledger.job(JobSeq(1)).unwrap().state, JobState::Up, "one listing may be old");
    ledger.take_notices();
    ledger.on_listed(&asked(&ledger), &[seen(1, Observed::Pending)], at(22));
    let job = ledger.job(JobSeq(1)).unwrap();
    assert_eq!((job.state, job.requeues, job.was_up), (JobState::Pending, 1, false));
    assert!(ledger.take_notices().iter().any(|notice| matches!(notice, Notice::Over { .. })));
    let old = Sentinel { exit_code: 1, signal: None, time: 0, node: String::new(), id: String::new(), restart: 0 };
    ledger.on_listed(&asked(&ledger), &[seen(1, Observed::Running)], at(30));
    ledger.on_sentinels(vec![(JobSeq(1), old)], at(31));
    for second in 32..90 {
        ledger.on_listed(&asked(&ledger), &[seen(1, Observed::Running)], at(second));
        ledger.plan(&work(), at(second));
    }
    assert!(ledger.job(JobSeq(1)).unwrap().live());
}

/// What ended a job's former run does not say why the next one ended.
#[test]
fn a_job_that_is_requeued_while_it_is_cancelled_is_cancelled_by_us() {
    let sentinel =
        |restart| Sentinel { exit_code: 143, signal: None, time: 0, node: String::new(), id: String::new(), restart };
    let mut ledger = submitted(1);
    ledger.on_listed(&asked(&ledger), &[seen(1, Observed::Running)], at(10));
    ledger.on_sentinels(vec![(JobSeq(1), sentinel(0))], at(11));
    for second in 12..60 {
        ledger.on_listed(&asked(&ledger), &[seen(1, Observed::Running)], at(second));
        ledger.plan(&work(), at(second));
    }
    for second in 60..75 {
        ledger.on_listed(&asked(&ledger), &[seen(1, Observed::Pending)], at(second));
    }
    assert_eq!(ledger.job(JobSeq(1)).unwrap().requeues, 1);
    ledger.on_listed(&asked(&ledger), &[seen(1, Observed::Running)], at(76));
    ledger.on_sentinels(vec![(JobSeq(1), sentinel(1))], at(77));
    ledger.on_listed(&asked(&ledger), &[seen(1, ended(EndedHow::Exited, 143))], at(78));
    assert_eq!(end_of(&ledger, 1), Some(EndReason::CancelledByUs));
}

/// It was back in the queue for a moment in which nobody looked.
#[test]
fn a_job_that_begins_anew_is_up_again_unless_it_was_to_leave() {
    for asked_to_leave in [false, true] {
        let mut ledger = up(1);
        if asked_to_leave {
            ledger.scale(0, at(5));
            ledger.plan(&Situation { drain_first: vec![JobSeq(1)], ..Situation::default() }, at(5));
        }
        ledger.on_worker_goodbye(JobSeq(1), at(10));
        let sentinel =
            Sentinel { exit_code: 0, signal: None, time: 0, node: String::new(), id: String::new(), restart: 0 };
        ledger.on_sentinels(vec![(JobSeq(1), sentinel)], at(11));
        let again = ledger.on_worker_up(&name(1), "n2", at(12));
        let job = ledger.job(JobSeq(1)).unwrap();
        assert_eq!((again.is_err(), job.cancelling), (asked_to_leave, asked_to_leave));
        assert!(asked_to_leave || job.state == JobState::Up && job.requeues == 1, "{job:?}");
    }
}

#[test]
fn an_intent_of_a_former_server_is_looked_up_and_never_submitted_again() {
    let mut first = ledger();
    first.scale(1, at(0));
    first.plan(&work(), at(0));
    let records = first.take_changed();
    for proved in [true, false] {
        let mut ledger = Ledger::new("abcd", 3, "default", 10, 300);
        records.iter().for_each(|job| ledger.restore(job.clone()));
        ledger.restore_wanted(1, false);
        ledger.finish_restore(proved, at(100));
        for second in 100..130 {
            if end_of(&ledger, 1).is_some() {
                break;
            }
            let orders = ledger.plan(&work(), at(second));
            let find = orders.contains(&Order::Find);
            assert!(submits(orders).is_empty());
            if find {
                ledger.on_found(&[], at(second));
            }
        }
        assert_eq!(end_of(&ledger, 1), Some(EndReason::Abandoned));
        assert_eq!(
            submits(ledger.plan(&work(), at(140))).len(),
            usize::from(proved),
            "a frozen server may still submit"
        );
        if !proved {
            assert_eq!(submits(ledger.plan(&work(), at(710)))[0].jobs[0].0, JobSeq(2));
        }
    }
}

#[test]
fn failures_back_off_and_open_the_breaker() {
    let mut ledger = ledger();
    ledger.scale(1, at(0));
    let mut count = 0;
    for second in 0..600 {
        for submit in submits(ledger.plan(&work(), at(second))) {
            count += 1;
            ledger.on_submit_failed(&submit, &error(ErrorClass::Transient), at(second));
        }
    }
    assert_eq!(count, 5);
    assert!(ledger.trouble().unwrap().contains("5 submissions in a row"));
    // What may pass by itself is tried again, in a while; a user is faster.
    assert_eq!(submits(ledger.plan(&work(), at(700))).len(), 1);
    let mut ledger = self::ledger();
    ledger.scale(1, at(0));
    let submit = submits(ledger.plan(&work(), at(0))).remove(0);
    ledger.on_submit_failed(&submit, &error(ErrorClass::Permanent), at(0));
    assert!(submits(ledger.plan(&work(), at(90_000))).is_empty());
    ledger.scale(1, at(90_001));
    assert_eq!(submits(ledger.plan(&work(), at(90_001))).len(), 1);
}

#[test]
fn a_crash_loop_opens_the_breaker_though_workers_come_up() {
    let mut ledger = ledger();
    ledger.scale(1, at(0));
    let mut count = 0;
    for second in 0..2000 {
        for submit in submits(ledger.plan(&work(), at(second))) {
            count += 1;
            let seq = submit.jobs[0].0;
            ledger.on_submitted(&submit, vec![NativeId(seq.0.to_string())], at(second));
            ledger.on_worker_up(&name(seq.0), "n1", at(second)).unwrap();
            ledger.on_worker_silent(seq, at(second));
            ledger.on_listed(&asked(&ledger), &[seen(seq.0, ended(EndedHow::Exited, 1))], at(second));
        }
    }
    assert_eq!(count, 5);
    assert!(ledger.trouble().unwrap().contains("dcluster logs job 5"), "{:?}", ledger.trouble());
}

#[test]
fn a_limit_is_found_by_halving_and_tried_again_later() {
    let mut ledger = ledger();
    ledger.scale(10, at(0));
    let mut sizes = Vec::new();
    let mut there = 0;
    for second in 0..75 {
        for submit in submits(ledger.plan(&work(), at(second))) {
            sizes.push(submit.jobs.len());
            if there + submit.jobs.len() > 3 {
                ledger.on_submit_failed(&submit, &error(ErrorClass::Limit), at(second));
            } else {
                there += submit.jobs.len();
                let ids = submit.jobs.iter().map(|(seq, _)| NativeId(seq.0.to_string())).collect();
                ledger.on_submitted(&submit, ids, at(second));
            }
        }
    }
    assert_eq!(there, 3);
    assert_eq!(sizes, [10, 5, 2, 4, 2, 1, 2, 1, 1]);
}

#[test]
fn ended_jobs_are_replaced_only_for_work() {
    let mut ledger = up(1);
    ledger.plan(&work(), at(100));
    ledger.on_worker_goodbye(JobSeq(1), at(101));
    ledger.on_listed(&asked(&ledger), &[seen(1, ended(EndedHow::Exited, 0))], at(102));
    assert_eq!(end_of(&ledger, 1), Some(EndReason::Finished));
    assert!(submits(ledger.plan(&Situation::default(), at(103))).is_empty());
    assert_eq!(submits(ledger.plan(&work(), at(104))).len(), 1);
}

#[test]
fn nothing_is_submitted_in_the_place_of_what_still_leaves() {
    let mut ledger = up(2);
    ledger.scale(1, at(5));
    let situation = Situation { work: true, drain_first: vec![JobSeq(1), JobSeq(2)], ..Situation::default() };
    assert!(ledger.plan(&situation, at(6)).contains(&Order::Drain(JobSeq(1))));
    ledger.scale(2, at(7));
    assert!(submits(ledger.plan(&situation, at(8))).is_empty(), "two jobs exist");
}

#[test]
fn polls_grow_and_rest_while_all_workers_are_here() {
    let listings = |ledger: &mut Ledger, seconds: std::ops::Range<u64>, state: Observed| {
        let mut times = Vec::new();
        for second in seconds {
            if ledger.plan(&work(), at(second)).iter().any(|order| matches!(order, Order::List(_))) {
                times.push(second);
                ledger.on_listed(&asked(ledger), &[seen(1, state.clone())], at(second));
            }
        }
        times
    };
    let times = listings(&mut submitted(1), 1..1000, Observed::Pending);
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[0] <= 3 && gaps.iter().any(|gap| (30..60).contains(gap)), "{gaps:?}");
    assert_eq!(gaps.last(), Some(&180));
    let mut ledger = up(1);
    let times = listings(&mut ledger, 2..700, Observed::Running);
    assert!(times.len() <= 5, "{times:?}");
    ledger.on_worker_silent(JobSeq(1), at(700));
    assert!(listings(&mut ledger, 700..710, Observed::Running).len() >= 2);
}

#[test]
fn down_is_not_over_while_an_intent_is_unresolved() {
    let mut ledger = ledger();
    ledger.scale(1, at(0));
    let submit = submits(ledger.plan(&work(), at(0))).remove(0);
    ledger.stop(Some(0), at(1));
    ledger.on_submit_failed(&submit, &error(ErrorClass::Ambiguous), at(2));
    ledger.plan(&work(), at(3));
    assert!(!ledger.is_clear());
    ledger.on_found(&[seen(1, Observed::Pending)], at(4));
    assert!(ledger.plan(&work(), at(4)).iter().any(|order| matches!(order, Order::Cancel(_))));
    ledger.on_listed(&asked(&ledger), &[seen(1, ended(EndedHow::Cancelled, 0))], at(6));
    assert_eq!(end_of(&ledger, 1), Some(EndReason::CancelledByUs));
    assert!(!ledger.is_clear(), "one last look by name");
    assert!(ledger.plan(&work(), at(10)).contains(&Order::Find));
    ledger.on_found(&[seen(1, ended(EndedHow::Cancelled, 0))], at(11));
    assert!(ledger.is_clear());
}

#[test]
fn a_failed_listing_marks_and_changes_nothing() {
    let mut ledger = submitted(1);
    ledger.on_listed(&asked(&ledger), &[seen(1, Observed::Running)], at(1));
    let order = Order::List(asked(&ledger));
    ledger.on_query_failed(&order, &error(ErrorClass::Transient), at(2));
    let job = ledger.job(JobSeq(1)).unwrap();
    assert_eq!((job.state, job.unknown), (JobState::Started, true));
    ledger.on_listed(&asked(&ledger), &[seen(1, Observed::Unknown("QUX".to_owned()))], at(3));
    let job = ledger.job(JobSeq(1)).unwrap();
    assert_eq!((job.state, job.unknown), (JobState::Started, true));
    ledger.on_worker_up(&name(1), "n1", at(4)).unwrap();
    assert!(!ledger.job(JobSeq(1)).unwrap().unknown);
}

#[test]
fn a_blip_while_draining_down_cancels_nothing() {
    let mut ledger = up(1);
    ledger.stop(None, at(10));
    ledger.on_worker_silent(JobSeq(1), at(11));
    for second in 12..60 {
        let orders = ledger.plan(&work(), at(second));
        assert!(!orders.iter().any(|order| matches!(order, Order::Cancel(_))), "its tasks may still run");
    }
    ledger.on_worker_up(&name(1), "n1", at(60)).unwrap();
}
