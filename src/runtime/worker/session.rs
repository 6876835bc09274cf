//! What a worker says to its server and does at its word: a pure state machine. Called by the worker's loop,
//! which performs the actions in order; time comes in as an argument.
//!
//! Invariants, whatever arrives in whatever order:
//! - an outcome is kept and repeated at each reconnect until the server says that it is recorded;
//! - no run is started twice (run ids only grow, so the highest one seen decides);
//! - a run that waits for room starts when one of its line ends, in order (`line`);
//! - nothing is started once draining has begun;
//! - a server that is silent for three heartbeats is left: its host may be gone without a word;
//! - without a server for the orphan timeout the worker ends its tasks and itself, so that the server
//!   may run them elsewhere.
//!
//! The loop: `Dial` → connect → [`Session::on_connected`], or [`Session::on_disconnected`] if that failed.
//! `Leave` → [`Executor::kill_descendants`](super::Executor::kill_descendants), flush, exit.

use super::Millis;
use super::action::{SessionSignal, TaskStart, WorkerAction};
use super::backoff::Backoff;
use super::line::Lines;
use crate::runtime::ids::{ArrayId, JobName, RunId, TaskId, WorkerId};
use crate::runtime::protocol::{
    Body, Capacity, EndReport, HeldRun, Outcome, PROTOCOL_VERSION, Place, ServerMessage, Start, Usage, Welcome,
    WorkerHello, WorkerMessage,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Running tasks are interrupted this long before the walltime ends …
const WALLTIME_LEAD: Millis = 10_000;
/// … with this grace …
const WALLTIME_GRACE: Millis = 5_000;
/// … and the worker is gone this long before it.
const WALLTIME_MARGIN: Millis = 2_000;
/// After SIGTERM batch systems kill within 5 s or more (Slurm's KillWait may be that low).
const TERM_GRACE: Millis = 3_000;
/// How long a stopped worker waits for its last outcomes to be recorded, beyond the grace.
const RECORD_PATIENCE: Millis = 10_000;
/// The same after SIGTERM, where there is less time.
const TERM_PATIENCE: Millis = 1_500;
/// The server re-runs an orphan's tasks 30 s after the timeout: all must be over by then.
const ORPHAN_GRACE_CAP: Millis = 20_000;

/// A start is told when it is so old and the run is not over.
const STARTED_AFTER: Millis = 20;
/// A server that has not welcomed the worker after this long is left; it waits for its disk before it does.
const WELCOME_PATIENCE: Millis = 60_000;
/// Heartbeats that a server may leave unanswered.
const HEARTBEATS_MISSED_MAX: Millis = 3;
/// Seconds between heartbeats, whatever a server asks for.
const HEARTBEAT_SECONDS: std::ops::RangeInclusive<u64> = 1..=300;

/// Exit code of a worker that lost its server (`EX_TEMPFAIL`).
const EXIT_ORPHAN: i32 = 75;

/// What a session is told once.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Program version.
    pub version: String,
    /// The job it runs in.
    pub job: Option<JobName>,
    /// 128 random bits in hex.
    pub nonce: String,
    /// Host name.
    pub node: String,
    /// Process id.
    pub pid: u32,
    /// What it offers.
    pub capacity: Capacity,
    /// Until the walltime ends, if known.
    pub walltime_left: Option<Millis>,
    /// So long before the end of the walltime no new task is accepted.
    pub drain_lead: Millis,
    /// From TERM to KILL for the tasks of an orphaned worker; at most 20 s.
    pub orphan_grace: Millis,
    /// Orphan timeout until the first server says another.
    pub orphan_timeout: Millis,
    /// Seed of the pauses between attempts to connect.
    pub seed: u64,
}

#[derive(Debug)]
enum Connection {
    /// None; the next attempt is at this time.
    Waiting(Millis),
    /// An attempt is under way.
    Dialing,
    /// Hello was sent; it said whether the worker drains.
    Greeting { said_draining: bool },
    /// Welcomed at this time.
    Welcomed { since: Millis },
    /// By a server that this worker must not obey: waits for the end of the connection.
    Rejected,
}

/// A run that has its room.
#[derive(Debug)]
struct Running {
    task: TaskId,
    variant: u8,
    place: Place,
    /// Who takes over from it; nobody once the connection it came by is gone.
    line: Option<u32>,
}

/// Why the worker will leave once nothing runs, and when at the latest.
#[derive(Debug)]
struct Leaving {
    code: i32,
    reason: &'static str,
    by: Millis,
}

/// The worker's side of the conversation.
#[derive(Debug)]
pub struct Session {
    options: SessionOptions,
    id: Option<WorkerId>,
    hellos: u32,
    epoch: u32,
    recorded: u64,
    connection: Connection,
    backoff: Backoff,
    heartbeat: Millis,
    heartbeat_at: Millis,
    /// When the server was last heard, or the connection made.
    heard_at: Millis,
    orphan_timeout: Millis,
    /// Set while no server has welcomed the worker.
    orphan_at: Option<Millis>,
    walltime_ends_at: Option<Millis>,
    walltime_interrupted: bool,
    bodies: BTreeMap<ArrayId, Arc<Body>>,
    running: BTreeMap<RunId, Running>,
    lines: Lines,
    /// Runs of other workers that use this one, too.
    guests: BTreeSet<RunId>,
    /// Starts that are worth a message once they are due.
    unsaid: VecDeque<(Millis, RunId)>,
    /// Ends on record, of those said on this connection.
    ends_recorded: u64,
    unrecorded: BTreeMap<RunId, EndReport>,
    highest_run: Option<RunId>,
    draining: bool,
    leaving: Option<Leaving>,
    left: bool,
}

impl Session {
    /// Starts without a connection; the first [`Self::on_tick`] dials.
    pub fn new(options: SessionOptions, now: Millis) -> Self {
        Self {
            id: None,
            hellos: 0,
            epoch: 0,
            recorded: 0,
            connection: Connection::Waiting(now),
            backoff: Backoff::new(options.seed),
            heartbeat: 0,
            heartbeat_at: 0,
            heard_at: 0,
            orphan_timeout: options.orphan_timeout,
            orphan_at: Some(now.saturating_add(options.orphan_timeout)),
            walltime_ends_at: options.walltime_left.map(|left| now.saturating_add(left)),
            walltime_interrupted: false,
            bodies: BTreeMap::new(),
            running: BTreeMap::new(),
            lines: Lines::default(),
            guests: BTreeSet::new(),
            unsaid: VecDeque::new(),
            ends_recorded: 0,
            unrecorded: BTreeMap::new(),
            highest_run: None,
            draining: false,
            leaving: None,
            left: false,
            options,
        }
    }

    /// Returns the id the server gave.
    pub fn id(&self) -> Option<WorkerId> {
        self.id
    }

    /// Returns when [`Self::on_tick`] must be called next; `None` only after `Leave`.
    pub fn next_tick(&self) -> Option<Millis> {
        if self.left {
            return None;
        }
        let drain_at =
            self.walltime_ends_at.filter(|_| !self.draining).map(|end| end.saturating_sub(self.options.drain_lead));
        let interrupt_at =
            self.walltime_ends_at.filter(|_| !self.walltime_interrupted).map(|end| end.saturating_sub(WALLTIME_LEAD));
        let connection = match self.connection {
            Connection::Waiting(at) => Some(at),
            Connection::Welcomed { .. } => Some(self.heartbeat_at.min(self.silent_at())),
            Connection::Greeting { .. } => Some(self.silent_at()),
            _ => None,
        };
        let leave_by = self.leaving.as_ref().map(|leaving| leaving.by);
        let unsaid = self.unsaid.front().map(|(at, _)| *at);
        [drain_at, interrupt_at, connection, leave_by, self.orphan_at, unsaid].into_iter().flatten().min()
    }

    /// The connection stands: says hello.
    pub fn on_connected(&mut self, now: Millis) -> Vec<WorkerAction> {
        if self.left {
            return Vec::new();
        }
        self.connection = Connection::Greeting { said_draining: self.draining };
        self.heard_at = now;
        self.hellos = self.hellos.saturating_add(1);
        // A run whose end is not recorded is one the server still expects here; if it were missing
        // the server would run the task again before it reads the outcome.
        let unrecorded = self.unrecorded.values().map(|report| HeldRun {
            task: report.task,
            run: report.run,
            variant: 0,
            place: Place::default(),
        });
        let running = self.running.iter().map(|(run, held)| HeldRun {
            task: held.task,
            run: *run,
            variant: held.variant,
            place: held.place.clone(),
        });
        vec![WorkerAction::Send(WorkerMessage::Hello(WorkerHello {
            protocol: PROTOCOL_VERSION,
            version: self.options.version.clone(),
            job: self.options.job.clone(),
            nonce: self.options.nonce.clone(),
            hellos: self.hellos,
            id: self.id,
            epoch: self.epoch,
            recorded: self.recorded,
            node: self.options.node.clone(),
            pid: self.options.pid,
            capacity: self.options.capacity.clone(),
            seconds_left: self.walltime_ends_at.map(|end| end.saturating_sub(now) / 1000),
            running: running.chain(unrecorded).collect(),
            draining: self.draining,
        }))]
    }

    /// The connection is gone, or could not be made.
    pub fn on_disconnected(&mut self, now: Millis) -> Vec<WorkerAction> {
        if self.left {
            return Vec::new();
        }
        if let Connection::Welcomed { since } = self.connection {
            self.backoff.on_connection_of(now.saturating_sub(since));
        }
        self.orphan_at.get_or_insert(now.saturating_add(self.orphan_timeout));
        // What waits for room is not in the next hello, so the server gives it away again.
        self.lines.clear();
        self.unsaid.clear();
        self.ends_recorded = 0;
        for running in self.running.values_mut() {
            running.line = None;
        }
        self.connection = Connection::Waiting(now.saturating_add(self.backoff.pause()));
        self.on_tick(now)
    }

    /// The server said something.
    pub fn on_message(&mut self, message: ServerMessage, now: Millis) -> Vec<WorkerAction> {
        if self.left {
            return Vec::new();
        }
        self.heard_at = now;
        match (&self.connection, message) {
            (Connection::Greeting { said_draining }, ServerMessage::Welcome(welcome)) => {
                let said_draining = *said_draining;
                self.on_welcome(welcome, said_draining, now)
            }
            (Connection::Greeting { .. }, ServerMessage::Refused { reason }) => {
                self.leave(0, format!("the server refused this worker: {reason}"))
            }
            (Connection::Welcomed { .. }, message) => self.on_order(message, now),
            // Before a welcome nobody gives orders, and a server of an older epoch never does.
            _ => Vec::new(),
        }
    }

    /// The run has its process. The server hears of it if it is not over at once.
    pub fn on_started(&mut self, run: RunId, now: Millis) {
        if self.is_welcomed() {
            self.unsaid.push_back((now.saturating_add(STARTED_AFTER), run));
        }
    }

    /// A run ended, or could not be started.
    pub fn on_ended(&mut self, report: EndReport) -> Vec<WorkerAction> {
        if self.left {
            return Vec::new();
        }
        let Some(ended) = self.running.remove(&report.run) else { return Vec::new() };
        self.unrecorded.insert(report.run, report.clone());
        let mut actions = self.say_end(report, ended.line.map(|line| (line, ended.place)));
        actions.extend(self.leave_if_done());
        actions
    }

    /// Says that a run is over, to a server that listens; whoever takes over its room is started.
    fn say_end(&mut self, report: EndReport, room: Option<(u32, Place)>) -> Vec<WorkerAction> {
        if !self.is_welcomed() {
            return Vec::new();
        }
        let mut actions = vec![WorkerAction::Send(WorkerMessage::Ended(report))];
        match room {
            Some((line, place)) => {
                if let Some(next) = self.lines.on_end(line, place) {
                    actions.push(self.start(next, Some(line)));
                }
            }
            None => self.lines.on_other_end(),
        }
        actions
    }

    fn start(&mut self, start: TaskStart, line: Option<u32>) -> WorkerAction {
        let running = Running { task: start.task, variant: start.variant, place: start.place.clone(), line };
        self.running.insert(start.run, running);
        WorkerAction::StartTask(start)
    }

    /// Gives a run back that has not started. Not kept until recorded: if it gets lost, the run is missing in the
    /// next hello.
    fn give_back(&mut self, task: TaskId, run: RunId, outcome: Outcome) -> Vec<WorkerAction> {
        self.say_end(EndReport { task, run, outcome, usage: Usage::default() }, None)
    }

    /// The worker process got a signal.
    pub fn on_signal(&mut self, signal: SessionSignal, now: Millis) -> Vec<WorkerAction> {
        match signal {
            SessionSignal::Warning => self.drain(),
            SessionSignal::Terminate => {
                let by = now.saturating_add(TERM_GRACE + TERM_PATIENCE);
                self.stop(0, "terminated by a signal", TERM_GRACE, by)
            }
        }
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Millis) -> Vec<WorkerAction> {
        let mut actions = Vec::new();
        if self.left {
            return actions;
        }
        if let Some(leaving) = self.leaving.as_ref().filter(|leaving| leaving.by <= now) {
            let (code, reason) = (leaving.code, leaving.reason);
            return self.leave(code, reason.to_owned());
        }
        if self.orphan_at.is_some_and(|at| at <= now) {
            self.orphan_at = None;
            let grace = self.options.orphan_grace.min(ORPHAN_GRACE_CAP);
            let by = now.saturating_add(grace + TERM_PATIENCE);
            actions.extend(self.stop(EXIT_ORPHAN, "no server for the orphan timeout", grace, by));
        }
        if let Some(end) = self.walltime_ends_at {
            if end.saturating_sub(WALLTIME_LEAD) <= now && !self.walltime_interrupted {
                self.walltime_interrupted = true;
                let by = end.saturating_sub(WALLTIME_MARGIN).max(now);
                let reason = "the walltime ends";
                actions.extend(self.stop(0, reason, WALLTIME_GRACE.min(by - now), by));
            } else if end.saturating_sub(self.options.drain_lead) <= now {
                actions.extend(self.drain());
            }
        }
        if self.left {
            return actions;
        }
        while let Some((_, run)) = self.unsaid.pop_front_if(|(at, _)| *at <= now) {
            if let Some(running) = self.running.get(&run) {
                actions.extend(self.send(WorkerMessage::Started { task: running.task, run }));
            }
        }
        match self.connection {
            Connection::Waiting(at) if at <= now => {
                self.connection = Connection::Dialing;
                actions.push(WorkerAction::Dial);
            }
            Connection::Greeting { .. } | Connection::Welcomed { .. } if self.silent_at() <= now => {
                self.connection = Connection::Rejected;
                // The server counts from when it last heard us, not from when we noticed.
                self.orphan_at.get_or_insert(self.heard_at.saturating_add(self.orphan_timeout));
                let reason = "the server is silent";
                actions.push(WorkerAction::Disconnect { reason });
            }
            Connection::Welcomed { .. } if self.heartbeat_at <= now => {
                self.heartbeat_at = now.saturating_add(self.heartbeat);
                actions.push(WorkerAction::Send(WorkerMessage::Heartbeat));
            }
            _ => {}
        }
        actions
    }

    /// When the server counts as gone, unless it says something.
    fn silent_at(&self) -> Millis {
        let patience = match self.connection {
            Connection::Welcomed { .. } => HEARTBEATS_MISSED_MAX * self.heartbeat,
            _ => WELCOME_PATIENCE,
        };
        self.heard_at.saturating_add(patience)
    }

    fn on_welcome(&mut self, welcome: Welcome, said_draining: bool, now: Millis) -> Vec<WorkerAction> {
        if welcome.epoch < self.epoch {
            self.connection = Connection::Rejected;
            let reason = "the server is of an older epoch";
            return vec![WorkerAction::Disconnect { reason }];
        }
        self.id = Some(welcome.id);
        self.epoch = welcome.epoch;
        self.heartbeat = welcome.heartbeat_seconds.clamp(*HEARTBEAT_SECONDS.start(), *HEARTBEAT_SECONDS.end()) * 1000;
        self.heartbeat_at = now.saturating_add(self.heartbeat);
        self.orphan_timeout = welcome.orphan_timeout_seconds.max(1).saturating_mul(1000);
        self.orphan_at = None;
        self.guests = welcome.guests.into_iter().collect();
        self.connection = Connection::Welcomed { since: now };
        let mut actions = Vec::new();
        if self.draining && !said_draining {
            actions.extend(self.send(WorkerMessage::Draining));
        }
        for report in self.unrecorded.values().cloned().collect::<Vec<_>>() {
            actions.extend(self.say_end(report, None));
        }
        actions.extend(self.leave_if_done());
        actions
    }

    fn on_order(&mut self, message: ServerMessage, now: Millis) -> Vec<WorkerAction> {
        match message {
            ServerMessage::Body { array, body } => {
                self.bodies.insert(array, Arc::from(body));
                Vec::new()
            }
            ServerMessage::Assign { array, variant, line, after_ends, starts } => {
                self.on_assign(array, variant, line, after_ends, starts)
            }
            ServerMessage::Guest { run, here } => {
                if here {
                    self.guests.insert(run);
                } else {
                    self.guests.remove(&run);
                }
                self.leave_if_done()
            }
            ServerMessage::TakeBack { runs } => runs
                .into_iter()
                .filter_map(|run| self.lines.take(run))
                .collect::<Vec<_>>()
                .into_iter()
                .flat_map(|start| self.give_back(start.task, start.run, Outcome::Interrupted))
                .collect(),
            ServerMessage::Kill { run, .. } => {
                if self.running.contains_key(&run) {
                    return vec![WorkerAction::KillTask { run }];
                }
                match self.lines.take(run) {
                    Some(start) => self.give_back(start.task, run, Outcome::Killed),
                    None => Vec::new(),
                }
            }
            ServerMessage::Recorded { runs, sequence } => {
                self.ends_recorded += runs.len() as u64;
                self.lines.on_seen(self.ends_recorded);
                for run in runs {
                    self.unrecorded.remove(&run);
                }
                self.recorded = self.recorded.max(sequence);
                self.leave_if_done()
            }
            ServerMessage::Drain => self.drain(),
            ServerMessage::Stop { grace_seconds } => {
                let grace = grace_seconds.saturating_mul(1000);
                let by = now.saturating_add(grace).saturating_add(RECORD_PATIENCE);
                self.stop(0, "stopped by the server", grace, by)
            }
            ServerMessage::TimeLeft { seconds } => {
                self.walltime_ends_at = Some(now.saturating_add(seconds.saturating_mul(1000)));
                self.on_tick(now)
            }
            ServerMessage::Refused { reason } => self.leave(0, format!("the server dismissed this worker: {reason}")),
            // The loop reads files.
            ServerMessage::ReadOutput { .. } => Vec::new(),
            ServerMessage::Welcome(_) | ServerMessage::Heartbeat => Vec::new(),
        }
    }

    fn on_assign(
        &mut self,
        array: ArrayId,
        variant: u8,
        line: u32,
        after_ends: Option<u64>,
        starts: Vec<Start>,
    ) -> Vec<WorkerAction> {
        let mut actions = Vec::new();
        for start in starts {
            let (task, run) = (TaskId { array, element: start.element }, start.run);
            if self.running.contains_key(&run) || self.lines.contains(run) {
                continue;
            }
            if let Some(report) = self.unrecorded.get(&run).cloned() {
                actions.extend(self.say_end(report, None));
                continue;
            }
            if self.draining || self.highest_run.is_some_and(|highest| run <= highest) {
                actions.extend(self.give_back(task, run, Outcome::Interrupted));
                continue;
            }
            let Some(body) = self.bodies.get(&array) else {
                // The next hello does not list the run, so the server gives it away again.
                self.connection = Connection::Rejected;
                let reason = "the server assigned a task of a submission it had not sent";
                actions.push(WorkerAction::Disconnect { reason });
                return actions;
            };
            self.highest_run = Some(run);
            let place = start.place.map(|place| *place).unwrap_or_default();
            let start = TaskStart { task, run, variant, place, body: Arc::clone(body), input: start.input };
            let ready = match after_ends {
                None => Some(start),
                Some(seen) => self.lines.join(line, seen, start),
            };
            if let Some(start) = ready {
                actions.push(self.start(start, Some(line)));
            }
        }
        actions
    }

    fn drain(&mut self) -> Vec<WorkerAction> {
        if self.left || self.draining {
            return Vec::new();
        }
        self.draining = true;
        let mut actions = self.send(WorkerMessage::Draining);
        for start in self.lines.take_all() {
            actions.extend(self.give_back(start.task, start.run, Outcome::Interrupted));
        }
        actions.extend(self.leave_if_done());
        actions
    }

    /// Interrupts everything and leaves, at the latest `by`. Of several stops the earliest end counts, with
    /// the first one's reason.
    fn stop(&mut self, code: i32, reason: &'static str, grace: Millis, by: Millis) -> Vec<WorkerAction> {
        if self.left {
            return Vec::new();
        }
        match &mut self.leaving {
            Some(leaving) => leaving.by = leaving.by.min(by),
            None => self.leaving = Some(Leaving { code, reason, by }),
        }
        let mut actions = self.drain();
        if !self.left && !self.running.is_empty() {
            actions.push(WorkerAction::InterruptAll { grace });
        }
        if !self.left {
            actions.extend(self.leave_if_done());
        }
        actions
    }

    /// Leaves when nothing runs and the server knows all. Who only drains waits for the server, to say
    /// goodbye; who must go does not wait for it, and an orphan not even with outcomes to tell.
    fn leave_if_done(&mut self) -> Vec<WorkerAction> {
        let welcomed = matches!(self.connection, Connection::Welcomed { .. });
        let must_go = !welcomed && self.leaving.is_some();
        let orphan = !welcomed && self.leaving.as_ref().is_some_and(|leaving| leaving.code == EXIT_ORPHAN);
        let needed = !self.guests.is_empty() && self.leaving.is_none();
        let told = self.unrecorded.is_empty() && (welcomed || must_go);
        if self.left || needed || !self.draining || !self.running.is_empty() || !(told || orphan) {
            return Vec::new();
        }
        let (code, reason) = self.leaving.as_ref().map_or((0, "drained"), |leaving| (leaving.code, leaving.reason));
        let mut actions = self.send(WorkerMessage::Goodbye);
        actions.extend(self.leave(code, reason.to_owned()));
        actions
    }

    fn leave(&mut self, code: i32, reason: String) -> Vec<WorkerAction> {
        self.left = true;
        vec![WorkerAction::Leave { code, reason }]
    }

    /// Says it to a server that has welcomed us; any other learns it from the next hello.
    fn send(&self, message: WorkerMessage) -> Vec<WorkerAction> {
        if self.is_welcomed() { vec![WorkerAction::Send(message)] } else { Vec::new() }
    }

    fn is_welcomed(&self) -> bool {
        matches!(self.connection, Connection::Welcomed { .. }) && !self.left
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
