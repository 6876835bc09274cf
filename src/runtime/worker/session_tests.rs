use super::*;
use std::collections::BTreeSet;

fn options(seed: u64) -> SessionOptions {
    SessionOptions {
        version: "1.2.3".into(),
        job: None,
        nonce: "00".into(),
        node: "n1".into(),
        pid: 42,
        capacity: Capacity { cores: 4, memory_bytes: 1 << 30, gpus: 0, numa: Vec::new() },
        walltime_left: None,
        drain_lead: 60_000,
        orphan_grace: 5_000,
        orphan_timeout: 600_000,
        seed,
    }
}

fn task(number: u32) -> TaskId {
    TaskId { array: ArrayId(1), element: number }
}

fn body() -> ServerMessage {
    ServerMessage::Body {
        array: ArrayId(1),
        body: Box::new(Body {
            command: crate::runtime::protocol::Command::Argv(vec!["true".into()]),
            name: String::new(),
            cwd: "/".into(),
            env: BTreeMap::new(),
            stdin: None,
            stdout: Default::default(),
            stderr: Default::default(),
            time_limit_seconds: None,
            needs: Default::default(),
            indexes: crate::runtime::protocol::Indexes::Range { first: 0, count: 1000, step: 1 },
            umask: 0o022,
        }),
    }
}

fn welcome(epoch: u32) -> ServerMessage {
    ServerMessage::Welcome(Welcome {
        id: WorkerId(7),
        epoch,
        heartbeat_seconds: 5,
        orphan_timeout_seconds: 600,
        guests: vec![],
    })
}

fn assign(number: u32) -> ServerMessage {
    assign_after(None, &[number])
}

fn assign_after(after_ends: Option<u64>, numbers: &[u32]) -> ServerMessage {
    let start = |number: &u32| Start { element: *number, run: RunId(u64::from(*number)), input: vec![], place: None };
    let starts = numbers.iter().map(start).collect();
    ServerMessage::Assign { array: ArrayId(1), variant: 0, line: 3, after_ends, starts }
}

fn ended(number: u32, outcome: Outcome) -> EndReport {
    EndReport { task: task(number), run: RunId(u64::from(number)), outcome, usage: Usage::default() }
}

fn recorded(number: u32) -> ServerMessage {
    ServerMessage::Recorded { runs: vec![RunId(u64::from(number))], sequence: 9 }
}

/// A session that was welcomed at time 0 and knows submission 1.
fn welcomed() -> Session {
    let mut session = Session::new(options(1), 0);
    assert_eq!(session.on_tick(0), [WorkerAction::Dial]);
    session.on_connected(0);
    assert_eq!(session.on_message(welcome(1), 0), []);
    session.on_message(body(), 0);
    session
}

fn start(session: &mut Session, number: u32) {
    let actions = session.on_message(assign(number), 0);
    assert!(matches!(actions[..], [WorkerAction::StartTask { .. }]));
    session.on_started(RunId(u64::from(number)), 0);
    let started = session.on_tick(STARTED_AFTER);
    assert!(matches!(started[..], [WorkerAction::Send(WorkerMessage::Started { .. })]));
}

fn hello(actions: &[WorkerAction]) -> &WorkerHello {
    match actions {
        [WorkerAction::Send(WorkerMessage::Hello(hello))] => hello,
        other => panic!("{other:?}"),
    }
}

fn held(hello: &WorkerHello) -> Vec<(TaskId, RunId)> {
    hello.running.iter().map(|held| (held.task, held.run)).collect()
}

fn leave(code: i32, reason: &str) -> WorkerAction {
    WorkerAction::Leave { code, reason: reason.into() }
}

const GOODBYE: WorkerAction = WorkerAction::Send(WorkerMessage::Goodbye);
const DRAINING: WorkerAction = WorkerAction::Send(WorkerMessage::Draining);

#[test]
fn drains_and_says_goodbye_when_all_is_recorded() {
    let mut session = welcomed();
    start(&mut session, 1);
    assert_eq!(session.on_message(ServerMessage::Drain, 5), [DRAINING]);
    assert_eq!(session.on_message(ServerMessage::Drain, 5), []);
    assert_eq!(
        session.on_message(assign(2), 6),
        [WorkerAction::Send(WorkerMessage::Ended(ended(2, Outcome::Interrupted)))]
    );
    let report = ended(1, Outcome::Failed { code: 3 });
    assert_eq!(session.on_ended(report.clone()), [WorkerAction::Send(WorkerMessage::Ended(report))]);
    assert_eq!(session.on_message(recorded(1), 7), [GOODBYE, leave(0, "drained")]);
    assert_eq!(session.next_tick(), None);
    assert_eq!(session.on_signal(SessionSignal::Terminate, 8), []);
}

#[test]
fn the_next_hello_lists_what_runs_and_what_is_not_recorded() {
    let mut session = welcomed();
    start(&mut session, 1);
    start(&mut session, 2);
    session.on_disconnected(20_000);
    assert_eq!(session.on_ended(ended(1, Outcome::Finished)), []);
    let actions = session.on_connected(20_100);
    assert_eq!(held(hello(&actions)), [(task(2), RunId(2)), (task(1), RunId(1))]);
    assert_eq!(hello(&actions).id, Some(WorkerId(7)));
    assert_eq!(
        session.on_message(welcome(2), 20_200),
        [WorkerAction::Send(WorkerMessage::Ended(ended(1, Outcome::Finished)))]
    );
}

#[test]
fn an_older_server_is_not_obeyed() {
    let mut session = welcomed();
    session.on_disconnected(20_000);
    session.on_connected(20_000);
    assert_eq!(session.on_message(ServerMessage::Drain, 20_000), []);
    let actions = session.on_message(welcome(0), 20_000);
    assert!(matches!(actions[..], [WorkerAction::Disconnect { .. }]));
    assert_eq!(session.on_message(assign(1), 20_001), []);
}

#[test]
fn sigterm_interrupts_and_leaves_in_time() {
    let mut session = welcomed();
    start(&mut session, 1);
    let interrupt = WorkerAction::InterruptAll { grace: 3_000 };
    assert_eq!(session.on_signal(SessionSignal::Terminate, 100), [DRAINING, interrupt]);
    session.on_ended(ended(1, Outcome::Interrupted));
    assert_eq!(session.next_tick(), Some(4_600));
    assert_eq!(session.on_tick(4_600), [leave(0, "terminated by a signal")]);
}

#[test]
fn an_orphan_ends_its_tasks_and_itself() {
    let mut session = welcomed();
    start(&mut session, 1);
    assert_eq!(session.on_disconnected(20_000), [WorkerAction::Dial]);
    assert_eq!(session.on_disconnected(20_001), []);
    let mut now = 20_001;
    let mut dials = 0;
    while now < 620_000 {
        now = session.next_tick().unwrap();
        match session.on_tick(now).as_slice() {
            [WorkerAction::Dial] => {
                dials += 1;
                session.on_disconnected(now);
            }
            [] => {}
            actions => {
                assert_eq!(actions[0], WorkerAction::InterruptAll { grace: 5_000 });
                assert_eq!(now, 620_000);
            }
        }
    }
    assert!((60..400).contains(&dials), "{dials} attempts in ten minutes");
    assert_eq!(session.on_ended(ended(1, Outcome::Interrupted)), [leave(75, "no server for the orphan timeout")]);
}

#[test]
fn a_walltime_drains_then_interrupts_then_leaves() {
    let mut session = welcomed();
    start(&mut session, 1);
    session.on_message(ServerMessage::TimeLeft { seconds: 1_000 }, 0);
    let mut seen = vec![];
    while let Some(now) = session.next_tick() {
        for action in session.on_tick(now) {
            if action == WorkerAction::Send(WorkerMessage::Heartbeat) {
                session.on_message(ServerMessage::Heartbeat, now);
            } else {
                seen.push((now, action));
            }
        }
    }
    assert_eq!(
        seen,
        [
            (940_000, DRAINING),
            (990_000, WorkerAction::InterruptAll { grace: 5_000 }),
            (998_000, leave(0, "the walltime ends")),
        ]
    );
}

#[test]
fn refused_means_gone() {
    let mut session = Session::new(options(1), 0);
    session.on_tick(0);
    session.on_connected(0);
    let reason = "unknown job".to_owned();
    assert_eq!(
        session.on_message(ServerMessage::Refused { reason }, 0),
        [leave(0, "the server refused this worker: unknown job")]
    );
}

#[test]
fn warned_before_the_welcome_it_says_so_after_it() {
    let mut session = Session::new(options(1), 0);
    session.on_tick(0);
    session.on_connected(0);
    assert_eq!(session.on_signal(SessionSignal::Warning, 1), []);
    assert_eq!(session.on_message(welcome(1), 2), [DRAINING, GOODBYE, leave(0, "drained")]);
}

#[test]
fn a_task_of_an_unknown_submission_needs_a_new_connection() {
    let mut session = Session::new(options(1), 0);
    session.on_tick(0);
    session.on_connected(0);
    session.on_message(welcome(1), 0);
    let actions = session.on_message(assign(1), 0);
    assert!(matches!(actions[..], [WorkerAction::Disconnect { .. }]));
    session.on_disconnected(1);
    assert_eq!(hello(&session.on_connected(2)).running, []);
}

/// The server and the processes of one random history, and what must hold in it.
struct Model {
    random: fastrand::Rng,
    session: Session,
    now: Millis,
    connected: bool,
    epoch: u32,
    next_run: RunId,
    /// Processes that run.
    processes: BTreeSet<RunId>,
    /// All ever started.
    started: BTreeSet<RunId>,
    /// Ended, the server has not said `Recorded` yet.
    owed: BTreeSet<RunId>,
    /// Received by the server on this connection.
    received: BTreeSet<RunId>,
    announced: bool,
    left: Option<i32>,
}

impl Model {
    fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            session: Session::new(options(seed), 0),
            now: 0,
            connected: false,
            epoch: 1,
            next_run: RunId::first(1),
            processes: BTreeSet::new(),
            started: BTreeSet::new(),
            owed: BTreeSet::new(),
            received: BTreeSet::new(),
            announced: false,
            left: None,
        }
    }

    fn apply(&mut self, actions: Vec<WorkerAction>) {
        for action in actions {
            assert!(self.left.is_none(), "{action:?} after Leave");
            match action {
                WorkerAction::Dial => {
                    let actions = if self.random.bool() {
                        self.connected = true;
                        self.received.clear();
                        self.session.on_connected(self.now)
                    } else {
                        self.session.on_disconnected(self.now)
                    };
                    self.apply(actions);
                }
                WorkerAction::Send(message) => {
                    assert!(self.connected, "{message:?} without a connection");
                    self.receive(message);
                }
                WorkerAction::Disconnect { .. } => self.disconnect(),
                WorkerAction::StartTask(TaskStart { task, run, .. }) => {
                    assert!(!self.announced, "start after draining was announced");
                    assert!(self.started.insert(run), "second start of {run:?}");
                    let actions = if self.random.u8(..) < 20 {
                        self.owed.insert(run);
                        let error = String::new();
                        self.report(task, run, Outcome::NotStarted { error })
                    } else {
                        self.processes.insert(run);
                        self.session.on_started(run, self.now);
                        Vec::new()
                    };
                    self.apply(actions);
                }
                WorkerAction::KillTask { run } => {
                    assert!(self.processes.contains(&run), "kill of {run:?}");
                }
                WorkerAction::InterruptAll { .. } => {}
                WorkerAction::Leave { code, .. } => self.left = Some(code),
            }
        }
    }

    fn receive(&mut self, message: WorkerMessage) {
        match message {
            WorkerMessage::Hello(hello) => {
                let listed: BTreeSet<RunId> = hello.running.iter().map(|held| held.run).collect();
                let expected: BTreeSet<RunId> = self.processes.union(&self.owed).copied().collect();
                assert_eq!(listed, expected);
                self.announced |= hello.draining;
            }
            WorkerMessage::Ended(report) => {
                self.received.insert(report.run);
            }
            WorkerMessage::Draining => self.announced = true,
            WorkerMessage::Goodbye => {
                assert!(self.processes.is_empty() && self.owed.is_empty());
            }
            WorkerMessage::Heartbeat if self.random.u8(..) < 200 => self.hear(ServerMessage::Heartbeat),
            WorkerMessage::Started { .. } | WorkerMessage::Heartbeat | WorkerMessage::Output { .. } => {}
        }
    }

    fn report(&mut self, task: TaskId, run: RunId, outcome: Outcome) -> Vec<WorkerAction> {
        self.session.on_ended(EndReport { task, run, outcome, usage: Usage::default() })
    }

    fn disconnect(&mut self) {
        if self.connected {
            self.connected = false;
            let actions = self.session.on_disconnected(self.now);
            self.apply(actions);
        }
    }

    fn hear(&mut self, message: ServerMessage) {
        if self.connected {
            let actions = self.session.on_message(message, self.now);
            self.apply(actions);
        }
    }

    fn some(&mut self, set: fn(&Self) -> &BTreeSet<RunId>) -> Option<RunId> {
        let at = self.random.usize(..set(self).len().max(1));
        set(self).iter().nth(at).copied()
    }

    fn step(&mut self, may_end: bool) {
        self.now += self.random.u64(0..3_000);
        match self.random.u32(0..if may_end { 103 } else { 100 }) {
            0..10 => {
                let epoch = self.epoch - u32::from(self.random.u8(..) < 30);
                self.hear(welcome(epoch));
                self.hear(body());
            }
            10..40 => {
                // New, or a repetition of any earlier one.
                let run = if self.random.u8(..) < 200 {
                    self.next_run = self.next_run.next();
                    self.next_run
                } else {
                    self.some(|it| &it.started).unwrap_or(self.next_run)
                };
                // Some wait for room, as a server with an old view of things may say.
                let after_ends = self.random.bool().then(|| self.random.u64(0..4));
                let starts = vec![Start { element: 1, run, input: vec![], place: None }];
                self.hear(ServerMessage::Assign { array: ArrayId(1), variant: 0, line: 0, after_ends, starts });
            }
            40..60 => {
                if let Some(run) = self.some(|it| &it.processes) {
                    self.processes.remove(&run);
                    self.owed.insert(run);
                    let actions = self.report(task(1), run, Outcome::Finished);
                    self.apply(actions);
                }
            }
            60..80 => {
                let was_welcomed = matches!(self.session.connection, Connection::Welcomed { .. });
                if let Some(run) = self.some(|it| &it.received)
                    && was_welcomed
                {
                    self.received.remove(&run);
                    self.owed.remove(&run);
                    let sequence = run.0;
                    let runs = vec![run];
                    self.hear(ServerMessage::Recorded { runs, sequence });
                }
            }
            80..84 => self.disconnect(),
            84..86 => {
                self.epoch += 1;
                self.next_run = RunId::first(self.epoch);
                self.disconnect();
            }
            86..90 => {
                let run = self.some(|it| &it.started).unwrap_or(RunId(0));
                let task = task(1);
                self.hear(ServerMessage::Kill { task, run });
            }
            100 => self.hear(ServerMessage::Drain),
            101 => {
                let actions = self.session.on_signal(SessionSignal::Warning, self.now);
                self.apply(actions);
            }
            102 => self.hear(ServerMessage::TimeLeft { seconds: 500 }),
            _ => {
                let actions = self.session.on_tick(self.now);
                self.apply(actions);
            }
        }
        // Welcomed by a server: it has been told everything that it has not recorded.
        if self.left.is_none() && matches!(self.session.connection, Connection::Welcomed { .. }) {
            assert!(self.owed.is_subset(&self.received), "an outcome was dropped");
        }
        let kept: BTreeSet<RunId> = self.session.unrecorded.keys().copied().collect();
        assert_eq!(kept, self.owed);
    }
}

#[test]
fn random_histories_keep_the_invariants() {
    let (mut runs, mut ends) = (0, 0);
    for seed in 0..300 {
        let mut model = Model::new(seed);
        for step in 0..1_000 {
            model.step(step > 500);
            if model.left.is_some() {
                ends += 1;
                break;
            }
        }
        runs += model.started.len();
    }
    assert!(runs > 5_000 && ends > 100, "{runs} runs, {ends} ends");
}

#[test]
fn every_history_ends_after_a_drain() {
    for seed in 0..200 {
        let mut model = Model::new(seed);
        for _ in 0..200 {
            model.step(false);
        }
        let actions = model.session.on_signal(SessionSignal::Warning, model.now);
        model.apply(actions);
        for _ in 0..5_000 {
            if model.left.is_some() {
                break;
            }
            model.step(false);
        }
        assert_eq!(model.left, Some(0), "seed {seed}");
        assert!(model.owed.is_empty() && model.processes.is_empty());
    }
}

fn numbers(actions: &[WorkerAction]) -> Vec<(u32, &'static str)> {
    let name = |action: &WorkerAction| match action {
        WorkerAction::StartTask(start) => (start.task.element, "starts"),
        WorkerAction::Send(WorkerMessage::Ended(report)) if report.outcome == Outcome::Interrupted => {
            (report.task.element, "given back")
        }
        WorkerAction::Send(WorkerMessage::Ended(report)) => (report.task.element, "ended"),
        other => panic!("{other:?}"),
    };
    actions.iter().map(name).collect()
}

#[test]
fn a_run_that_ends_makes_room_for_the_next_of_its_line() {
    let mut session = welcomed();
    start(&mut session, 1);
    assert_eq!(session.on_message(assign_after(Some(0), &[2, 3]), 0), []);
    // Said twice: it waits still.
    assert_eq!(session.on_message(assign_after(Some(0), &[3]), 0), []);
    assert_eq!(numbers(&session.on_ended(ended(1, Outcome::Finished))), [(1, "ended"), (2, "starts")]);
    let next = session.on_ended(ended(2, Outcome::NotStarted { error: String::new() }));
    assert_eq!(numbers(&next), [(2, "ended"), (3, "starts")]);
}

#[test]
fn an_end_that_the_server_had_not_seen_makes_room_at_once() {
    let mut session = welcomed();
    start(&mut session, 1);
    session.on_ended(ended(1, Outcome::Finished));
    assert_eq!(numbers(&session.on_message(assign_after(Some(0), &[2, 3]), 0)), [(2, "starts")]);
    session.on_ended(ended(2, Outcome::Finished));
    session.on_ended(ended(3, Outcome::Finished));
    // It has seen all three: their room was given to others.
    assert_eq!(session.on_message(assign_after(Some(3), &[4]), 0), []);
}

#[test]
fn what_waits_is_given_back_when_asked_for_killed_or_drained() {
    let mut session = welcomed();
    start(&mut session, 1);
    session.on_message(assign_after(Some(0), &[2, 3, 4, 5]), 0);
    let runs = vec![RunId(5), RunId(1)];
    assert_eq!(numbers(&session.on_message(ServerMessage::TakeBack { runs }, 0)), [(5, "given back")]);
    let killed = session.on_message(ServerMessage::Kill { task: task(3), run: RunId(3) }, 0);
    assert_eq!(killed, [WorkerAction::Send(WorkerMessage::Ended(ended(3, Outcome::Killed)))]);
    let drained = session.on_message(ServerMessage::Drain, 0);
    assert_eq!((&drained[0], numbers(&drained[1..])), (&DRAINING, vec![(2, "given back"), (4, "given back")]));
}

#[test]
fn what_waits_is_forgotten_with_the_connection() {
    let mut session = welcomed();
    start(&mut session, 1);
    session.on_message(assign_after(Some(0), &[2]), 0);
    session.on_disconnected(100);
    assert_eq!(held(hello(&session.on_connected(200))), [(task(1), RunId(1))]);
    session.on_message(welcome(1), 200);
    assert_eq!(numbers(&session.on_ended(ended(1, Outcome::Finished))), [(1, "ended")]);
}

#[test]
fn a_worker_with_guests_stays_while_it_drains() {
    let mut session = welcomed();
    session.on_message(ServerMessage::Guest { run: RunId(9), here: true }, 0);
    assert_eq!(session.on_message(ServerMessage::Drain, 1), [DRAINING]);
    let left = session.on_message(ServerMessage::Guest { run: RunId(9), here: false }, 2);
    assert_eq!(left, [GOODBYE, leave(0, "drained")]);
}

#[test]
fn a_silent_server_is_left_after_three_heartbeats() {
    let mut session = welcomed();
    let at = |at: u64| at * 1000;
    for second in [5, 10] {
        assert_eq!(session.on_tick(at(second)), [WorkerAction::Send(WorkerMessage::Heartbeat)]);
        assert_eq!(session.on_message(ServerMessage::Heartbeat, at(second)), []);
    }
    assert_eq!(session.next_tick(), Some(at(15)));
    for second in [15, 20] {
        assert_eq!(session.on_tick(at(second)), [WorkerAction::Send(WorkerMessage::Heartbeat)]);
    }
    // Last heard at 10 s.
    assert_eq!(session.on_tick(at(25) - 1), []);
    assert_eq!(session.next_tick(), Some(at(25)));
    assert_eq!(session.on_tick(at(25)), [WorkerAction::Disconnect { reason: "the server is silent" }]);
    session.on_disconnected(at(25));
    // It is an orphan since it heard nothing, not since it noticed: the server counts from there, too.
    assert_eq!(session.orphan_at, Some(at(610)));
}

#[test]
fn a_server_that_does_not_welcome_is_left() {
    let mut session = Session::new(options(1), 0);
    session.on_tick(0);
    session.on_connected(100);
    assert_eq!(session.on_tick(60_099), []);
    assert_eq!(session.on_tick(60_100), [WorkerAction::Disconnect { reason: "the server is silent" }]);
}

#[test]
fn the_heartbeat_that_a_server_asks_for_is_clamped() {
    for (asked, seconds) in [(0, 1), (1, 1), (2, 2), (300, 300), (301, 300), (u64::MAX, 300)] {
        let mut session = Session::new(options(1), 0);
        session.on_tick(0);
        session.on_connected(0);
        let ServerMessage::Welcome(welcome) = welcome(1) else { panic!("a welcome") };
        session.on_message(ServerMessage::Welcome(Welcome { heartbeat_seconds: asked, ..welcome }), 0);
        assert_eq!(session.next_tick(), Some(seconds * 1000), "{asked}");
    }
}
