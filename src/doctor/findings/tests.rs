use super::super::Verdict;
use super::super::host::{Limits, Place};
use super::*;
use crate::backends::{BackendError, EndedHow, Observation};
use crate::runtime::ids::{JobName, JobSeq, NativeId};

fn reached(address: &str, milliseconds: u64, refused: Option<&str>) -> Note {
    Note::Address(Reached {
        address: address.parse().unwrap(),
        refused: refused.map(str::to_owned),
        milliseconds,
        skew_milliseconds: refused.is_none().then_some(-120),
    })
}

fn interfaces() -> Vec<(String, IpAddr)> {
    let one = |(name, ip): (&str, &str)| (name.to_owned(), ip.parse().unwrap());
    [("eth0", "10.0.0.1"), ("ib0", "10.1.0.1"), ("lo", "127.0.0.1")].map(one).to_vec()
}

fn started() -> Started {
    let temporary = Place {
        path: "/tmp".into(),
        kind: "xfs".into(),
        shared: Some(false),
        free_bytes: None,
        free_files: None,
        refused: None,
    };
    Started {
        host: "n01".into(),
        cores: 1,
        memory_bytes: Some(1_000_000_000),
        limits: Limits::default(),
        home: Some(Place { path: "/home/ann".into(), ..temporary.clone() }),
        temporary,
        wall_milliseconds: 0,
    }
}

/// A probe on another machine, all of whose addresses but the loopback work.
fn outcome() -> Outcome {
    Outcome {
        job: "dcabcd-000001".into(),
        submitted: Ok(NativeId("12".into())),
        addresses: ["10.0.0.1:5", "10.1.0.1:5", "127.0.0.1:5"].map(|a| a.parse().unwrap()).to_vec(),
        waited: Duration::from_secs(3),
        notes: vec![
            Note::Started(Box::new(started())),
            reached("10.0.0.1:5", 9, None),
            reached("10.1.0.1:5", 4, None),
            reached("127.0.0.1:5", 0, Some("connection refused")),
            Note::Ready,
            Note::Signal { name: "TERM".into() },
            Note::Signal { name: "CONT".into() },
            Note::Signal { name: "TERM".into() },
        ],
        seen: None,
        ended_early: false,
        log: String::new(),
        end_took: Duration::from_secs(2),
        left: None,
    }
}

fn spec() -> Spec {
    serde_json::from_value(serde_json::json!({
        "backend": "slurm", "pool": {"cores": 1, "drain_lead_seconds": 30}, "jobs": 1, "orphan_timeout_seconds": 300
    }))
    .unwrap()
}

fn judged(outcome: &Outcome) -> Vec<(&'static str, Verdict)> {
    checks(outcome, &spec(), &interfaces()).iter().map(|check| (check.name, check.verdict)).collect()
}

fn check(outcome: &Outcome, spec: &Spec, name: &str) -> Check {
    checks(outcome, spec, &interfaces()).into_iter().find(|check| check.name == name).unwrap()
}

fn error(class: ErrorClass) -> BackendError {
    BackendError { class, command: "sbatch x".into(), says: "Invalid account".into(), fix: None }
}

#[test]
fn a_good_probe() {
    use Verdict::Ok;
    let names = ["permission", "start", "shared folder", "network", "clock", "in a job", "signals", "clean-up"];
    assert_eq!(judged(&outcome()), names.map(|name| (name, Ok)));
    assert_eq!(check(&outcome(), &spec(), "signals").says, "a cancelled job gets TERM, CONT, and was over after 2.0 s");
    let network = check(&outcome(), &spec(), "network");
    assert_eq!(network.says, "a job reaches 10.0.0.1 (eth0), 10.1.0.1 (ib0)");
    assert_eq!(network.details[2], "127.0.0.1 (lo)  does not: connection refused");
    assert_eq!(check(&outcome(), &spec(), "clock").says, "node and this host differ by 120 ms");
    assert_eq!(interface(&outcome(), &interfaces()), None, "nothing to keep: all work");
}

#[test]
fn a_refusal_is_told_by_its_kind() {
    for (class, kind) in [
        (ErrorClass::Permanent, Kind::Config),
        (ErrorClass::Limit, Kind::TryAgain),
        (ErrorClass::Transient, Kind::Unreachable),
        (ErrorClass::Ambiguous, Kind::Unreachable),
    ] {
        let refused = Outcome { submitted: Err(error(class)), notes: Vec::new(), ..outcome() };
        assert_eq!(judged(&refused), [("permission", Verdict::Fail), ("clean-up", Verdict::Ok)]);
        let check = check(&refused, &spec(), "permission");
        assert_eq!((check.kind, check.says.as_str()), (kind, "sbatch x: Invalid account"));
    }
}

fn seen(state: Observed, reason: &str) -> Observation {
    Observation {
        name: JobName::new("abcd", JobSeq(1)),
        id: NativeId("12".into()),
        state,
        reason: reason.into(),
        node: None,
        seconds_left: None,
    }
}

#[test]
fn a_job_without_a_word() {
    let silent = Outcome { notes: Vec::new(), ..outcome() };
    let pending = Outcome { seen: Some(seen(Observed::Pending, "PENDING Resources")), ..silent.clone() };
    let start = check(&pending, &spec(), "start");
    assert_eq!(
        (start.verdict, start.says.as_str()),
        (Verdict::Warn, "the job has not started within 3.0 s: PENDING Resources")
    );
    let running = Outcome { seen: Some(seen(Observed::Running, "RUNNING")), ..silent.clone() };
    assert_eq!(check(&running, &spec(), "shared folder").verdict, Verdict::Fail);
    let ended = Observed::Ended { how: EndedHow::Exited, exit_code: Some(72) };
    let ended = Outcome { seen: Some(seen(ended, "exit code 72")), ended_early: true, ..silent.clone() };
    let folder = check(&ended, &spec(), "shared folder");
    assert_eq!((folder.verdict, folder.kind), (Verdict::Fail, Kind::Unreachable));
    assert_eq!(folder.says, "the job ended without a word from inside (exit code 72; no log)");
    let logged = Outcome { log: "cannot use the cluster folder\nx".into(), ..ended };
    assert!(
        check(&logged, &spec(), "shared folder").says.contains("its log ends with: cannot use the cluster folder\\nx")
    );
}

#[test]
fn an_address_that_does_not_work_is_told_and_the_interface_that_does_is_kept() {
    let mut some = outcome();
    some.notes[1] = reached("10.0.0.1:5", 5000, Some("timed out"));
    let network = check(&some, &spec(), "network");
    assert_eq!(network.verdict, Verdict::Warn);
    assert_eq!(network.fix.as_deref(), Some("--interface ib0; `dcluster doctor --save` keeps that"));
    assert_eq!(interface(&some, &interfaces()).as_deref(), Some("ib0"));
    // As it is configured already it is well.
    let configured = Spec { interface: Some("ib0".into()), ..spec() };
    assert_eq!(check(&some, &configured, "network").verdict, Verdict::Ok);
    // What is configured and does not work is not.
    for wrong in [
        Spec { interface: Some("eth0".into()), ..spec() },
        Spec { address: Some("10.0.0.1".parse().unwrap()), ..spec() },
    ] {
        let network = check(&some, &wrong, "network");
        assert_eq!((network.verdict, network.kind), (Verdict::Fail, Kind::Config));
    }
}

#[test]
fn no_address_at_all_fails() {
    let mut none = outcome();
    none.notes[1] = reached("10.0.0.1:5", 5000, Some("timed out"));
    none.notes[2] = reached("10.1.0.1:5", 5000, Some("no route to host"));
    let network = check(&none, &spec(), "network");
    assert_eq!((network.verdict, network.kind), (Verdict::Fail, Kind::Unreachable));
    assert_eq!(check(&none, &spec(), "clock").verdict, Verdict::Warn);
    assert_eq!(interface(&none, &interfaces()), None);
}

#[test]
fn clocks_far_apart_are_told() {
    let mut far = outcome();
    let Note::Address(quickest) = &mut far.notes[2] else { panic!() };
    quickest.skew_milliseconds = Some(90_000);
    let clock = check(&far, &spec(), "clock");
    assert_eq!(
        (clock.verdict, clock.says.as_str()),
        (Verdict::Warn, "the node's clock is 1 min 30 s behind this host's")
    );
    quickest_is(&mut far, -2000);
    assert_eq!(check(&far, &spec(), "clock").verdict, Verdict::Ok, "at the bound");
    quickest_is(&mut far, -2001);
    assert_eq!(check(&far, &spec(), "clock").verdict, Verdict::Warn);
}

fn quickest_is(outcome: &mut Outcome, skew: i64) {
    if let Note::Address(quickest) = &mut outcome.notes[2] {
        quickest.skew_milliseconds = Some(skew);
    }
}

#[test]
fn killed_without_a_warning() {
    let mut killed = outcome();
    killed.notes.truncate(5);
    assert_eq!(check(&killed, &spec(), "signals").verdict, Verdict::Warn);
    let sge = Spec { backend: BackendKind::Sge, ..spec() };
    assert!(check(&killed, &sge, "signals").fix.unwrap().contains("-notify"));
    killed.notes.truncate(4);
    assert!(check(&killed, &spec(), "signals").says.starts_with("not seen"));
}

#[test]
fn what_is_missing_in_a_job() {
    let mut poor = outcome();
    let limits = Limits { cpu_seconds: Some(60), descriptors: Some(64), ..Limits::default() };
    poor.notes[0] = Note::Started(Box::new(Started { home: None, limits, ..started() }));
    let inside = check(&poor, &spec(), "in a job");
    assert_eq!(inside.verdict, Verdict::Warn);
    assert_eq!(inside.says, "a worker is killed after 1 min of processor time; there is no home folder on the node");
}

#[test]
fn what_is_left_fails() {
    let left = Outcome { left: Some("job dcabcd-000001 (id 12) is not seen to be over".into()), ..outcome() };
    let check = check(&left, &spec(), "clean-up");
    assert_eq!((check.verdict, check.kind), (Verdict::Fail, Kind::Unreachable));
}
