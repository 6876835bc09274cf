//! State machines whose peers may say anything.

use crate::config::spec::{BackendKind, PoolSpec, Spec};
use crate::ledger::Moment;
use crate::runtime::control::{ClientMessage, Request};
use crate::runtime::ids::{ArrayId, RunId, TaskId};
use crate::runtime::protocol::{
    Body, Capacity, Command, EndReport, Indexes, Outcome, PROTOCOL_VERSION, ServerMessage, Submission, TaskRef, Usage,
    WorkerHello, WorkerMessage,
};
use crate::runtime::transport::decode;
use crate::runtime::worker::{Session, SessionOptions, TaskStart, WorkerAction};
use crate::server::core::{ConnectionId, Core, CoreOptions, Outgoing, Output};
use crate::server::record::Record;
use std::collections::BTreeMap;

const HONEST: ConnectionId = ConnectionId(2);
const EVIL: ConnectionId = ConnectionId(3);
/// Messages of one input that are looked at.
const MESSAGES_MAX: usize = 200;
/// Elements of an array; the bound itself has its own test.
const ELEMENTS_MAX: u32 = 2_000;

fn at(clock: u64) -> Moment {
    Moment { wall: 1_700_000_000_000 + clock, clock }
}

fn new_core() -> Core {
    let counters = BTreeMap::from([("lic".to_owned(), 2)]);
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
    Core::new(options, at(0))
}

pub(super) fn submission(count: u32, after: Vec<TaskRef>) -> Submission {
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
            indexes: Indexes::Range { first: 1, count, step: 1 },
            umask: 0o022,
        },
        inputs: Vec::new(),
        priority: 0,
        retries: 1,
        time_request_seconds: None,
        after,
        at_most: None,
    }
}

pub(super) fn hello(nonce: &str, cores: u32) -> WorkerHello {
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
        capacity: Capacity { cores, memory_bytes: 1 << 30, gpus: 0, numa: Vec::new() },
        seconds_left: None,
        running: Vec::new(),
        draining: false,
    }
}

/// A core at work, driven turn by turn.
struct World {
    core: Core,
    clock: u64,
    honest_is_out: bool,
}

impl World {
    /// Three submissions, an honest worker that runs the first, and an evil one that got in.
    fn new() -> Self {
        let mut core = new_core();
        core.finish_restore(true, true, at(0), &mut Output::default());
        let mut world = Self { core, clock: 0, honest_is_out: false };
        let submit = |core: &mut Core, out: &mut Output, key: &str, submission| {
            let request = Request::Submit { key: key.to_owned(), submission: Box::new(submission) };
            core.on_request(ConnectionId(1), 1, request, at(0), out);
        };
        world.turn(|core, out| submit(core, out, "a", submission(1, Vec::new())));
        world.turn(|core, out| core.on_worker_hello(HONEST, hello("b2f5c1d0e9a84736", 1), at(0), out));
        world.turn(|core, out| {
            submit(core, out, "b", submission(20, Vec::new()));
            submit(core, out, "c", submission(3, vec![TaskRef::Array(ArrayId(2))]));
        });
        world.turn(|core, out| core.on_worker_hello(EVIL, hello("evil", 4), at(0), out));
        world
    }

    fn turn(&mut self, what: impl FnOnce(&mut Core, &mut Output)) {
        let mut out = Output::default();
        let turn = self.core.begin_turn();
        what(&mut self.core, &mut out);
        self.core.end_turn(at(self.clock), &mut out);
        self.core.on_durable(turn, turn, &mut out);
        self.honest_is_out |= out.close.contains(&HONEST);
        self.honest_is_out |= out.sends.iter().any(|(to, _, message)| {
            *to == HONEST
                && matches!(message, Outgoing::Worker(ServerMessage::Kill { .. } | ServerMessage::Stop { .. }))
        });
        // The honest one is alive all the time.
        self.core.on_worker_message(HONEST, WorkerMessage::Heartbeat, at(self.clock), &mut Output::default());
        self.clock += 700;
    }

    /// What is in memory can be written down and read back.
    fn check_base(&self) {
        let base: Vec<Record> = self.core.snapshot().records().collect();
        let mut again = new_core();
        for record in &base {
            let record = Record::decode(&record.encode()).expect("our own record");
            again.replay(record).expect("our own base");
        }
        let _ = again.status(at(self.clock));
    }
}

/// Messages of a worker with a good certificate, its further hellos included.
pub fn worker_against_core(data: &[u8]) {
    let Ok(messages) = decode::<WorkerMessage>(data) else { return };
    let mut world = World::new();
    let mut connection = EVIL;
    for (number, message) in (100..).zip(messages.into_iter().take(MESSAGES_MAX)) {
        let now = at(world.clock);
        world.turn(|core, out| match message {
            WorkerMessage::Hello(hello) => {
                connection = ConnectionId(number);
                core.on_worker_hello(connection, hello, now, out);
            }
            message => core.on_worker_message(connection, message, now, out),
        });
    }
    assert!(!world.honest_is_out, "an evil worker harms no other");
    world.check_base();
}

fn is_small(request: &Request) -> bool {
    match request {
        Request::Submit { submission, .. } => submission.body.indexes.count() <= ELEMENTS_MAX,
        _ => true,
    }
}

/// Requests of a client.
pub fn client_against_core(data: &[u8]) {
    let Ok(messages) = decode::<ClientMessage>(data) else { return };
    let mut world = World::new();
    for message in messages.into_iter().take(MESSAGES_MAX) {
        let ClientMessage::Request { id, request } = message else { continue };
        if is_small(&request) {
            let now = at(world.clock);
            world.turn(|core, out| core.on_request(ConnectionId(1), id, *request, now, out));
        }
    }
    world.check_base();
}

/// Records of a journal whose checksums fit.
pub fn records_against_core(data: &[u8]) {
    let Ok(records) = decode::<Record>(data) else { return };
    let mut core = new_core();
    for record in records.into_iter().take(MESSAGES_MAX) {
        let small = match &record {
            Record::Submitted { submission, .. } => submission.body.indexes.count() <= ELEMENTS_MAX,
            _ => true,
        };
        if small && core.replay(record).is_err() {
            return;
        }
    }
    core.finish_restore(false, false, at(0), &mut Output::default());
    let mut world = World { core, clock: 0, honest_is_out: false };
    for _ in 0..3 {
        world.turn(|_, _| {});
    }
    let _ = world.core.status(at(world.clock));
    let _ = world.core.task_page(&[], &[], None, 1000, at(world.clock));
}

/// Messages of a server that proved itself, and a worker that does as it is told.
pub fn server_against_session(data: &[u8]) {
    let Ok(messages) = decode::<ServerMessage>(data) else { return };
    let mut session = Session::new(
        SessionOptions {
            version: String::new(),
            job: None,
            nonce: "00".to_owned(),
            node: "n1".to_owned(),
            pid: 1,
            capacity: Capacity { cores: 4, memory_bytes: 1, gpus: 0, numa: Vec::new() },
            walltime_left: None,
            drain_lead: 60_000,
            orphan_grace: 5_000,
            orphan_timeout: 60_000,
            seed: 1,
        },
        0,
    );
    let mut now = 0;
    let mut started: Vec<(TaskId, RunId)> = Vec::new();
    session.on_tick(now);
    session.on_connected(now);
    for message in messages.into_iter().take(MESSAGES_MAX) {
        let mut actions = session.on_message(message, now);
        now += 600;
        actions.extend(session.on_tick(now));
        let mut left = false;
        for action in actions {
            match action {
                WorkerAction::StartTask(TaskStart { task, run, .. }) => {
                    assert!(started.iter().all(|(_, other)| *other != run), "no run is started twice");
                    started.push((task, run));
                    session.on_started(run, now);
                    if started.len().is_multiple_of(2) {
                        let usage = Usage::default();
                        session.on_ended(EndReport { task, run, outcome: Outcome::Finished, usage });
                    }
                }
                WorkerAction::Disconnect { .. } => {
                    session.on_disconnected(now);
                }
                WorkerAction::Dial => {
                    session.on_connected(now);
                }
                WorkerAction::Leave { .. } => left = true,
                _ => {}
            }
        }
        if left {
            assert_eq!(session.next_tick(), None);
            return;
        }
    }
}
