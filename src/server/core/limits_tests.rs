//! What clients and workers may say, at each bound and one past it. Large numbers are put into the state, not
//! made one by one.

use super::*;
use crate::config::spec::{BackendKind, PoolSpec, Spec};
use crate::runtime::ids::{JobName, RunId, TaskId, WorkerId};
use crate::runtime::protocol::{
    Body, Capacity, EndReport, HeldRun, Indexes, NodePart, Outcome, PROTOCOL_VERSION, Place, ServerMessage, Usage,
    WorkerHello, WorkerMessage,
};
use crate::runtime::scheduler::CLASSES_MAX;
use crate::server::core::{CoreOptions, Outgoing};
use bstr::BString;
use std::collections::BTreeMap;

fn core() -> Core {
    let counters = (0..REQUEST_KINDS_MAX + 1).map(|n| (format!("c{n}"), 10)).collect();
    let spec = Spec { counters, orphan_timeout_seconds: 60, ..Spec::new(BackendKind::Local, PoolSpec::new(2)) };
    let options = CoreOptions {
        folder: "/c".into(),
        letters: "abcd".to_owned(),
        spec,
        epoch: 1,
        host: "h".to_owned(),
        pid: 1,
        jobs_per_submit: 2,
    };
    let mut core = Core::new(options, at(0));
    core.finish_restore(true, true, at(0), &mut Output::default());
    core
}

fn at(clock: u64) -> Moment {
    Moment { wall: 1_000_000 + clock, clock }
}

fn submission() -> Submission {
    Submission {
        body: Body {
            command: Command::Argv(vec!["true".into()]),
            name: "n".to_owned(),
            cwd: "/".into(),
            env: BTreeMap::new(),
            stdin: None,
            stdout: Default::default(),
            stderr: Default::default(),
            time_limit_seconds: None,
            needs: Default::default(),
            indexes: Indexes::Single,
            umask: 0o022,
        },
        inputs: Vec::new(),
        priority: 0,
        retries: 0,
        time_request_seconds: None,
        after: Vec::new(),
        at_most: None,
    }
}

/// What the server says to a request.
fn ask(core: &mut Core, request: Request) -> Reply {
    core.begin_turn();
    let mut out = Output::default();
    core.on_request(ConnectionId(1), 1, request, at(1), &mut out);
    match out.sends.pop() {
        Some((_, _, Outgoing::Client(crate::runtime::control::ClientReply::Reply { reply, .. }))) => *reply,
        other => panic!("{other:?}"),
    }
}

/// Submits a changed submission; the words of the refusal, if it is one.
fn submit(core: &mut Core, change: impl FnOnce(&mut Submission)) -> Option<String> {
    let mut submission = submission();
    change(&mut submission);
    let key = format!("{:x}", core.arrays.len());
    match ask(core, Request::Submit { key, submission: Box::new(submission) }) {
        Reply::Submitted { .. } => None,
        Reply::Error { kind: ErrorKind::Usage, what, .. } => Some(what),
        other => panic!("{other:?}"),
    }
}

/// At the bound it is accepted, one past it refused with words that name the bound.
#[track_caller]
fn bounded_at(number: &str, bound: usize, change: impl Fn(&mut Submission, usize)) {
    assert_eq!(submit(&mut core(), |it| change(it, bound)), None);
    let refusal = submit(&mut core(), |it| change(it, bound + 1)).expect("one past the bound");
    assert!(refusal.contains(number), "{refusal}");
}

#[test]
fn an_argument_is_bounded() {
    bounded_at("131072", ARGUMENT_BYTES_MAX, |it, bytes| {
        it.body.command = Command::Argv(vec![BString::from(vec![b'x'; bytes])]);
    });
    bounded_at("131072", ARGUMENT_BYTES_MAX, |it, bytes| {
        it.body.env.insert("A".into(), BString::from(vec![b'x'; bytes - 3]));
    });
}

#[test]
fn arguments_and_environment_together_are_bounded() {
    bounded_at("2097152", COMMAND_BYTES_MAX, |it, bytes| {
        // Nineteen words of 100,000 bytes and their ends, the rest in three variables.
        it.body.command = Command::Argv(vec![BString::from(vec![b'x'; 99_999]); 19]);
        let rest = bytes - 1_900_000;
        for (name, value) in [("A", 60_000), ("B", 60_000), ("C", rest - 120_000)] {
            it.body.env.insert(name.into(), BString::from(vec![b'x'; value - 3]));
        }
    });
}

#[test]
fn a_rendered_command_is_bounded() {
    // Each placeholder stands for the value and a space.
    let template = "{} ".repeat(129) + "{}";
    let fits = (RENDERED_BYTES_MAX - 129) / 130 - 1;
    assert!(fits < ARGUMENT_BYTES_MAX);
    for (bytes, fine) in [(fits, true), (fits + 1, false)] {
        let refusal = submit(&mut core(), |it| {
            it.body.command = Command::Template(template.clone().into());
            it.body.indexes = Indexes::Range { first: 1, count: 1, step: 1 };
            it.inputs = vec![vec![BString::from(vec![b'x'; bytes])]];
        });
        assert_eq!(refusal.is_none(), fine, "{refusal:?}");
    }
}

#[test]
fn a_name_is_bounded_and_has_no_control_characters() {
    bounded_at("255", NAME_BYTES_MAX, |it, bytes| it.body.name = "x".repeat(bytes));
    for name in ["a\nb", "\u{1b}[2J", "\u{7f}", "\u{9b}1m"] {
        assert!(submit(&mut core(), |it| it.body.name = name.to_owned()).is_some(), "{name:?}");
    }
}

#[test]
fn an_array_is_bounded() {
    let most = usize::try_from(ARRAY_MAX).unwrap();
    bounded_at("10000000", most, |it, count| {
        it.body.indexes = Indexes::Range { first: 0, count: u32::try_from(count).unwrap(), step: 1 };
    });
    let zero = Indexes::Range { first: 0, count: 0, step: 1 };
    assert!(submit(&mut core(), |it| it.body.indexes = zero).is_some());
}

#[test]
fn indexes_that_are_none_are_refused() {
    let range = |first, count, step| Indexes::Range { first, count, step };
    let good = [range(u32::MAX, 1, 1), range(u32::MAX - 9, 10, 1), range(0, 2, u32::MAX), Indexes::List(vec![1, 9])];
    for indexes in good {
        assert_eq!(submit(&mut core(), |it| it.body.indexes = indexes.clone()), None, "{indexes:?}");
    }
    let bad = [
        range(u32::MAX, 2, 1),
        range(0, 3, u32::MAX),
        range(1, 3, 0),
        Indexes::List(vec![]),
        Indexes::List(vec![2, 1]),
        Indexes::List(vec![1, 1]),
    ];
    for indexes in bad {
        assert!(submit(&mut core(), |it| it.body.indexes = indexes.clone()).is_some(), "{indexes:?}");
    }
}

#[test]
fn tasks_in_all_are_bounded() {
    assert_eq!(check_room(TASKS_MAX - 5, 5), Ok(()));
    let refusal = check_room(TASKS_MAX - 5, 6).expect_err("one past the bound");
    assert!(refusal.contains("100000000"), "{refusal}");
    // Ten full arrays are the bound.
    let mut core = core();
    let full = Indexes::Range { first: 0, count: 10_000_000, step: 1 };
    assert_eq!(submit(&mut core, |it| it.body.indexes = full.clone()), None);
    let there = core.scheduler.totals();
    assert_eq!(there.unfinished(), 10_000_000, "all kinds are counted");
}

#[test]
fn dependencies_are_bounded() {
    let after = |core: &mut Core, count| submit(core, |it| it.after = vec![TaskRef::Array(ArrayId(1)); count]);
    let mut core = core();
    assert_eq!(submit(&mut core, |_| {}), None);
    assert_eq!(after(&mut core, DEPENDENCIES_MAX), None);
    let refusal = after(&mut core, DEPENDENCIES_MAX + 1).expect("one past the bound");
    assert!(refusal.contains("100000"), "{refusal}");
}

#[test]
fn kinds_of_resources_are_bounded() {
    bounded_at("64", REQUEST_KINDS_MAX, |it, kinds| {
        it.body.needs.variants[0].counters = (0..kinds).map(|n| (format!("c{n}"), 1)).collect();
    });
}

#[test]
fn distinct_requests_are_bounded() {
    let mut core = core();
    let ask = |core: &mut Core, number: usize| {
        submit(core, |it| it.time_request_seconds = Some(u64::try_from(number).unwrap()))
    };
    for number in 0..CLASSES_MAX {
        assert_eq!(ask(&mut core, number), None, "{number}");
    }
    let refusal = ask(&mut core, CLASSES_MAX).expect("one past the bound");
    assert!(refusal.contains("4096"), "{refusal}");
    assert_eq!(ask(&mut core, 7), None, "known ones go on");
}

#[test]
fn any_time_request_is_taken_in() {
    assert_eq!(submit(&mut core(), |it| it.time_request_seconds = Some(u64::MAX)), None);
}

#[test]
fn a_key_is_bounded() {
    for (bytes, fine) in [(KEY_BYTES_MAX, true), (KEY_BYTES_MAX + 1, false)] {
        let request = Request::Submit { key: "x".repeat(bytes), submission: Box::new(submission()) };
        assert_eq!(matches!(ask(&mut core(), request), Reply::Submitted { .. }), fine);
    }
}

#[test]
fn jobs_are_bounded() {
    assert_eq!(ask(&mut core(), Request::Scale { jobs: JOBS_MAX }), Reply::Scaled);
    let mut core = core();
    let refusal = ask(&mut core, Request::Scale { jobs: JOBS_MAX + 1 });
    assert!(matches!(&refusal, Reply::Error { kind: ErrorKind::Usage, what, .. } if what.contains("100000")));
    assert_eq!(core.ledger.wanted(), 0);
}

#[test]
fn a_full_journal_queue_takes_no_new_work() {
    let mut core = core();
    core.on_journal_queue(JOURNAL_QUEUE_BYTES_MAX);
    assert_eq!(submit(&mut core, |_| {}), None);
    core.on_journal_queue(JOURNAL_QUEUE_BYTES_MAX + 1);
    let submit = Request::Submit { key: "k".to_owned(), submission: Box::new(submission()) };
    for request in [submit.clone(), Request::Retry { tasks: Vec::new() }, Request::Scale { jobs: 1 }] {
        let reply = ask(&mut core, request);
        assert!(
            matches!(&reply, Reply::Error { kind: ErrorKind::TryAgain, what, .. } if what.contains("64")),
            "{reply:?}"
        );
    }
    // What ends work is taken in, and questions are answered.
    assert_eq!(ask(&mut core, Request::Cancel { tasks: Vec::new() }), Reply::Changed { tasks: 1 });
    assert!(matches!(ask(&mut core, Request::Status), Reply::Status(_)));
    core.on_journal_queue(0);
    assert!(matches!(ask(&mut core, submit), Reply::Submitted { .. }));
}

#[test]
fn a_page_of_tasks_is_bounded() {
    let mut core = core();
    for _ in 0..40 {
        let words = vec![BString::from(vec![b'x'; 100_000]); 2];
        assert_eq!(submit(&mut core, |it| it.body.command = Command::Argv(words)), None);
    }
    let (mut seen, mut after, mut pages) = (0, None, 0);
    loop {
        let (page, next) = core.task_page(&[], &[], after, 1000, at(2)).unwrap();
        let bytes = crate::runtime::transport::encoded_size(&page);
        assert!(bytes < (4 << 20) + 300_000, "{bytes}");
        seen += page.len();
        pages += 1;
        after = next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!((seen, pages), (40, 2));
    // A list of indexes is not repeated with each of its tasks.
    let list = (0..50_000).map(|n| 2 * n).collect();
    assert_eq!(submit(&mut core, |it| it.body.indexes = Indexes::List(list)), None);
    let (page, _) = core.task_page(&Selection::parse("41").unwrap(), &[], None, 1000, at(2)).unwrap();
    assert_eq!((page.len(), page[3].id()), (1000, "41.6".to_owned()));
    assert!(crate::runtime::transport::encoded_size(&page) < 1 << 20);
}

fn hello(nonce: &str) -> WorkerHello {
    WorkerHello {
        protocol: PROTOCOL_VERSION,
        version: String::new(),
        job: None,
        nonce: nonce.to_owned(),
        hellos: 1,
        id: None,
        epoch: 0,
        recorded: 0,
        node: "n1".to_owned(),
        pid: 1,
        capacity: Capacity { cores: 2, memory_bytes: 1 << 30, gpus: 0, numa: Vec::new() },
        seconds_left: None,
        running: Vec::new(),
        draining: false,
    }
}

/// A worker says hello on a connection; the refusal, if it is one.
fn greet(core: &mut Core, connection: u64, hello: WorkerHello, now: Moment) -> Result<WorkerId, String> {
    core.begin_turn();
    let mut out = Output::default();
    core.on_worker_hello(ConnectionId(connection), hello, now, &mut out);
    let refused = out.close.contains(&ConnectionId(connection));
    for (to, _, message) in out.sends {
        match message {
            Outgoing::Worker(ServerMessage::Welcome(welcome)) if to == ConnectionId(connection) => {
                return Ok(welcome.id);
            }
            Outgoing::Worker(ServerMessage::Refused { reason }) => {
                assert!(refused, "who is refused is disconnected");
                return Err(reason);
            }
            _ => {}
        }
    }
    panic!("no answer")
}

#[test]
fn workers_are_bounded() {
    let mut core = core();
    assert_eq!(greet(&mut core, 1, hello("first"), at(0)), Ok(WorkerId(1)));
    for number in 2..u32::try_from(super::super::workers::WORKERS_MAX).unwrap() {
        let worker = super::super::Worker {
            job: None,
            nonce: number.to_string(),
            node: String::new(),
            capacity: Capacity { cores: 1, memory_bytes: 0, gpus: 0, numa: Vec::new() },
            connection: None,
            hellos: 1,
            draining: false,
            joined: 0,
            heard_at: 0,
            silent_since: None,
            ends_at: None,
            asked_again: false,
            bodies: Default::default(),
            ends_seen: 0,
        };
        core.workers.insert(WorkerId(number), worker);
    }
    core.next_worker = WorkerId(70_000);
    assert!(greet(&mut core, 2, hello("last"), at(0)).is_ok(), "at the bound");
    let refusal = greet(&mut core, 3, hello("one more"), at(0)).expect_err("one past the bound");
    assert!(refusal.contains("65000"), "{refusal}");
    let again = WorkerHello { hellos: 2, ..hello("first") };
    assert_eq!(greet(&mut core, 4, again, at(0)), Ok(WorkerId(1)), "who is in comes back");
}

#[test]
fn what_a_worker_says_of_itself_is_bounded() {
    let mut core = core();
    assert!(greet(&mut core, 1, hello(&"0".repeat(64)), at(0)).is_ok());
    assert!(greet(&mut core, 2, hello(&"0".repeat(65)), at(0)).is_err());
    for (bytes, kept) in [(255, "x".repeat(255)), (256, format!("{}…", "x".repeat(252)))] {
        let id = greet(&mut core, 3, WorkerHello { node: "x".repeat(bytes), ..hello(&bytes.to_string()) }, at(0));
        assert_eq!(core.nodes[&id.unwrap()], kept);
    }
    let odd = WorkerHello { node: "a\u{1b}[2Jb".to_owned(), ..hello("odd") };
    let id = greet(&mut core, 4, odd, at(0)).unwrap();
    assert_eq!(core.nodes[&id], "a\\u{1b}[2Jb");
}

#[test]
fn what_a_worker_offers_is_bounded() {
    let offer = |cores, gpus, numa: usize| {
        let capacity = Capacity { cores, memory_bytes: u64::MAX, gpus, numa: vec![1; numa] };
        greet(&mut core(), 2, WorkerHello { capacity, ..hello("w") }, at(0))
    };
    assert!(offer(65_000, 1_024, 1_024).is_ok(), "at the bounds");
    for (cores, gpus, numa) in [(65_001, 0, 0), (1, 1_025, 0), (1, 0, 1_025), (u32::MAX, u32::MAX, 0)] {
        let refusal = offer(cores, gpus, numa).expect_err("one past a bound");
        assert!(refusal.contains("65000 cores, 1024 GPUs"), "{refusal}");
    }
}

/// The reason that is shown for a task whose worker says that it could not start it.
fn reason_of(error: String) -> String {
    let mut core = core();
    assert_eq!(submit(&mut core, |_| {}), None);
    greet(&mut core, 2, hello("w"), at(0)).unwrap();
    core.begin_turn();
    let mut out = Output::default();
    core.end_turn(at(1), &mut out);
    let run = out.sends.iter().find_map(|(_, _, message)| match message {
        Outgoing::Worker(ServerMessage::Assign { starts, .. }) => Some(starts[0].run),
        _ => None,
    });
    let task = TaskId { array: ArrayId(1), element: 0 };
    let outcome = Outcome::NotStarted { error };
    let report = EndReport { task, run: run.expect("assigned"), outcome, usage: Usage::default() };
    core.on_worker_message(ConnectionId(2), WorkerMessage::Ended(report), at(2), &mut out);
    let (page, _) = core.task_page(&[], &[], None, 10, at(3)).unwrap();
    page[0].reason.clone().expect("a failed task has a reason")
}

#[test]
fn the_reason_that_a_worker_gives_is_cut() {
    let long = reason_of("x".repeat(2048));
    assert_eq!(long.matches('x').count(), 2048, "at the bound");
    assert!(!long.contains('…'));
    let cut = reason_of("x".repeat(2049));
    assert!(cut.matches('x').count() == 2045 && cut.contains('…'), "one past it");
    assert!(reason_of("a\u{1b}b".to_owned()).contains("a\\u{1b}b"));
}

#[test]
fn a_worker_is_silent_after_three_heartbeats() {
    let mut core = core();
    greet(&mut core, 2, hello("w"), at(100)).unwrap();
    let connected = |core: &mut Core, clock| {
        core.begin_turn();
        let mut out = Output::default();
        core.end_turn(at(clock), &mut out);
        assert_eq!(out.close.contains(&ConnectionId(2)), core.connections.is_empty());
        !core.connections.is_empty()
    };
    assert!(connected(&mut core, 15_100), "at the bound");
    core.on_worker_message(ConnectionId(2), WorkerMessage::Heartbeat, at(15_100), &mut Output::default());
    assert!(connected(&mut core, 30_100), "what it says counts");
    assert!(!connected(&mut core, 30_101), "one past it");
    // It is not lost for that: it comes back with what it runs.
    assert_eq!(greet(&mut core, 3, WorkerHello { hellos: 2, ..hello("w") }, at(40_000)), Ok(WorkerId(1)));
}

#[test]
fn a_replayed_hello_is_refused() {
    let mut core = core();
    assert_eq!(submit(&mut core, |_| {}), None);
    greet(&mut core, 2, hello("w"), at(0)).unwrap();
    core.begin_turn();
    let mut out = Output::default();
    core.end_turn(at(1), &mut out);
    assert_eq!(core.scheduler.totals().running, 1);
    // While the worker is there: it stays, with what it runs.
    assert!(greet(&mut core, 3, hello("w"), at(2)).is_err());
    assert_eq!(core.connections.get(&ConnectionId(2)), Some(&WorkerId(1)));
    assert_eq!(core.scheduler.totals().running, 1);
    // While it is cut off.
    core.on_disconnected(ConnectionId(2), at(3));
    assert!(greet(&mut core, 4, hello("w"), at(4)).is_err());
    let task = TaskId { array: ArrayId(1), element: 0 };
    let running = vec![HeldRun { task, run: RunId::first(1), variant: 0, place: Default::default() }];
    let again = WorkerHello { hellos: 2, running, ..hello("w") };
    assert_eq!(greet(&mut core, 5, again.clone(), at(5)), Ok(WorkerId(1)));
    assert_eq!(core.scheduler.totals().running, 1, "the run goes on");
    assert!(greet(&mut core, 6, again.clone(), at(6)).is_err());
    // After it has left.
    core.on_worker_message(ConnectionId(5), WorkerMessage::Goodbye, at(7), &mut Output::default());
    for old in [hello("w"), again, WorkerHello { hellos: 3, ..hello("w") }] {
        assert!(greet(&mut core, 7, old, at(8)).is_err());
    }
    assert!(core.workers.is_empty());
}

#[test]
fn a_worker_of_another_protocol_is_refused_with_both_numbers() {
    for protocol in [0, PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1, u32::MAX] {
        let refusal = greet(&mut core(), 2, WorkerHello { protocol, ..hello("w") }, at(0)).expect_err("refused");
        assert!(refusal.contains(&format!("speaks protocol {protocol}, this server {PROTOCOL_VERSION}")), "{refusal}");
    }
}

#[test]
fn a_worker_of_no_job_of_ours_is_refused() {
    let stranger = WorkerHello { job: Some(JobName::new("abcd", crate::runtime::ids::JobSeq(7))), ..hello("w") };
    assert!(greet(&mut core(), 2, stranger, at(0)).is_err());
}

#[test]
fn a_run_that_shares_workers_with_one_that_is_gone_is_ended() {
    let mut core = core();
    assert_eq!(submit(&mut core, |it| it.body.needs.nodes = 2), None);
    let task = TaskId { array: crate::runtime::ids::ArrayId(1), element: 0 };
    let part = |worker| NodePart { worker: WorkerId(worker), node: String::new(), cores: 1 };
    let place = Place { nodes: vec![part(1), part(9)], ..Place::default() };
    let running = vec![HeldRun { task, run: RunId(7), variant: 0, place }];
    core.begin_turn();
    let mut out = Output::default();
    core.on_worker_hello(ConnectionId(1), WorkerHello { running, ..hello("w") }, at(1), &mut out);
    let kill = ServerMessage::Kill { task, run: RunId(7) };
    assert!(out.sends.iter().any(|(_, _, sent)| matches!(sent, Outgoing::Worker(message) if *message == kill)));
}
