//! The server as one pure state machine: messages, evidence and time come in; records, messages and
//! orders go out. Nothing here does I/O or asks for the time.
//!
//! Invariant: whatever leaves the server rests on durable records. Every output names the turn
//! whose records must be durable first; the outbox (`server::outbox`) holds it until then.

mod details;
mod jobs;
mod outputs;
mod requests;
mod restore;
mod scaling;
pub(in crate::server) mod view;
mod workers;

#[cfg(test)]
mod inspect;

pub use jobs::Done;
pub use restore::Snapshot;

use crate::adapt::{self, Learned};
use crate::config::spec::Spec;
use crate::ledger::{Ledger, Moment, Order};
use crate::runtime::control::{ClientReply, DownMode, Reply};
use crate::runtime::ids::{ArrayId, JobSeq, RunId, TaskId, WorkerId};
use crate::runtime::protocol::{Capacity, Indexes, Outcome, Place, ServerMessage, Start, Submission, TaskRef, Usage};
use crate::runtime::scheduler::{Action, End, RequeueCause, Scheduler, TaskState};
use crate::selection::Selection;
use crate::server::record::{Detail, Record};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Number of a connection; never used twice by one server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConnectionId(pub u64);

/// Count of the batches of events handled; records of a turn become durable together.
pub type Turn = u64;

/// Something to send.
#[derive(Clone, PartialEq, Debug)]
pub enum Outgoing {
    /// To a worker.
    Worker(ServerMessage),
    /// To a client.
    Client(ClientReply),
}

/// An event for people and for `dcluster events`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventLine {
    /// Kind, for programs.
    pub kind: &'static str,
    /// The job it is about.
    pub job: Option<JobSeq>,
    /// The task or submission it is about.
    pub task: Option<String>,
    /// The sentence.
    pub text: String,
}

/// What a turn produced.
#[derive(Debug, Default)]
pub struct Output {
    /// To be made durable, in this order.
    pub records: Vec<Record>,
    /// To be sent once the turn named is durable (0 = at once).
    pub sends: Vec<(ConnectionId, Turn, Outgoing)>,
    /// To be carried out once this turn's records are durable.
    pub orders: Vec<Order>,
    /// Requests whose answers must not leave any more: another answer follows in `sends`.
    pub withdrawn: Vec<(ConnectionId, u32)>,
    /// Connections to close, after what was sent on them.
    pub close: Vec<ConnectionId>,
    /// For people.
    pub events: Vec<EventLine>,
    /// Decisions of the scaling loop that do something, for people.
    pub decisions: Vec<adapt::Entry>,
    /// What the scaling loop has learned, to be kept.
    pub learned: Option<Box<Learned>>,
    /// The cluster is down: close the journal, answer these, end.
    pub closed: Option<Vec<(ConnectionId, u32)>>,
}

/// What the core is told once.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// The cluster folder.
    pub folder: PathBuf,
    /// Four letters of the cluster's id.
    pub letters: String,
    /// What `up` asked for.
    pub spec: Spec,
    /// The epoch of this server.
    pub epoch: u32,
    /// Host name of the server.
    pub host: String,
    /// Process id of the server.
    pub pid: u32,
    /// Largest number of jobs in one submit command.
    pub jobs_per_submit: u32,
}

/// One submission.
#[derive(Debug)]
struct Array {
    submission: Arc<Submission>,
    key: Arc<str>,
    submitted_at: u64,
    turn: Turn,
    depends: bool,
    details: details::Details,
}

/// One worker that is here or may come back.
#[derive(Debug)]
struct Worker {
    job: Option<JobSeq>,
    nonce: String,
    node: String,
    capacity: Capacity,
    connection: Option<ConnectionId>,
    /// How often it has said hello.
    hellos: u32,
    draining: bool,
    joined: Turn,
    heard_at: u64,
    silent_since: Option<u64>,
    ends_at: Option<u64>,
    /// Its time was asked for again before it drains.
    asked_again: bool,
    bodies: BTreeSet<ArrayId>,
    /// Ends heard on this connection.
    ends_seen: u64,
}

/// A run to be sent to its worker.
#[derive(Debug)]
struct Assignment {
    worker: WorkerId,
    task: TaskId,
    run: RunId,
    variant: u8,
    line: u32,
    waits: bool,
    place: Place,
}

/// A client that waits for tasks to end.
#[derive(Debug)]
struct Wait {
    connection: ConnectionId,
    request: u32,
    tasks: Vec<Selection>,
    deadline: u64,
}

#[derive(Debug)]
struct Down {
    mode: DownMode,
    clients: Vec<(ConnectionId, u32)>,
}

/// Milliseconds between heartbeats, and how many may be missed.
const HEARTBEAT_SECONDS: u64 = 5;
const HEARTBEATS_MISSED_MAX: u64 = 3;
/// Tasks must end this long before the walltime, or the worker interrupts them.
const WALLTIME_MARGIN: u64 = 10_000;
/// So long before a worker drains the batch system is asked whether its time still ends then.
const LOOK_AHEAD: u64 = 60_000;

/// Runs that were told to end, above which nobody looks whether their tasks may start again.
const DYING_LOOKED_AT_MAX: usize = 64;

/// The server's state.
#[derive(Debug)]
pub struct Core {
    options: CoreOptions,
    scheduler: Scheduler,
    ledger: Ledger,
    arrays: BTreeMap<ArrayId, Array>,
    keys: BTreeMap<Arc<str>, ArrayId>,
    workers: BTreeMap<WorkerId, Worker>,
    nodes: BTreeMap<WorkerId, String>,
    /// Workers by the nonce of their process.
    nonces: FxHashMap<String, WorkerId>,
    /// Nothing becomes due for any worker before this.
    workers_due: u64,
    connections: BTreeMap<ConnectionId, WorkerId>,
    next_worker: WorkerId,
    /// Nonces of workers that said goodbye: their processes have ended.
    departed: BTreeSet<String>,
    running_since: FxHashMap<TaskId, (WorkerId, Moment)>,
    unrecorded: VecDeque<(Turn, ConnectionId, RunId)>,
    waits: Vec<Wait>,
    output_reads: outputs::OutputReads,
    down: Option<Down>,
    stopped: bool,
    opened: bool,
    closing: bool,
    turn: Turn,
    durable: Turn,
    sequence: u64,
    journal_trouble: Option<String>,
    longest_turn: Duration,
    /// Bytes that wait to be written.
    journal_queue: usize,
    awaited: BTreeSet<WorkerId>,
    used: Usage,
    failures: BTreeMap<(ArrayId, String), u64>,
    started: Moment,
    failure_events: (u64, u32),
    /// Changes that were not acknowledged yet; with the submission, if it is one.
    in_flight: Vec<(Turn, Option<ArrayId>, ConnectionId, u32)>,
    /// Last turn with records, and the last that changed a final state.
    written: Turn,
    settled: Turn,
    /// Tasks that run again by a record which may not be durable yet.
    again: BTreeMap<TaskId, Turn>,
    /// Runs that were told to end, and starts of the same tasks that wait for that.
    dying: BTreeSet<(TaskId, WorkerId, RunId)>,
    delayed: Vec<Assignment>,
    /// Submissions whose failures must be counted anew.
    recount: BTreeSet<ArrayId>,
    /// Names of submissions, by family; see [`Core::shape_of`].
    families: Vec<String>,
    /// While the number of jobs follows the load.
    scaling: Option<scaling::Loop>,
    /// What was learned of the queue, for the next [`scaling::Loop`].
    learned: Learned,
}

impl Core {
    /// Makes the core of an empty cluster.
    pub fn new(options: CoreOptions, now: Moment) -> Self {
        let mut scheduler = Scheduler::new(RunId::first(options.epoch));
        let mut actions = Vec::new();
        let counters = crate::runtime::scheduler::Event::Counters(options.spec.counters.clone());
        scheduler.apply(counters, now.clock, &mut actions);
        let ledger = Ledger::new(
            &options.letters,
            options.epoch,
            Spec::DEFAULT_POOL,
            options.jobs_per_submit,
            options.spec.orphan_timeout_seconds,
        );
        Self {
            options,
            scheduler,
            ledger,
            arrays: BTreeMap::new(),
            keys: BTreeMap::new(),
            workers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            nonces: FxHashMap::default(),
            workers_due: 0,
            connections: BTreeMap::new(),
            next_worker: WorkerId(1),
            departed: BTreeSet::new(),
            running_since: FxHashMap::default(),
            unrecorded: VecDeque::new(),
            waits: Vec::new(),
            output_reads: outputs::OutputReads::default(),
            down: None,
            stopped: false,
            opened: false,
            closing: false,
            turn: 0,
            durable: 0,
            sequence: 0,
            journal_trouble: None,
            longest_turn: Duration::ZERO,
            journal_queue: 0,
            awaited: BTreeSet::new(),
            used: Usage::default(),
            failures: BTreeMap::new(),
            started: now,
            failure_events: (0, 0),
            in_flight: Vec::new(),
            written: 0,
            settled: 0,
            again: BTreeMap::new(),
            dying: BTreeSet::new(),
            delayed: Vec::new(),
            recount: BTreeSet::new(),
            families: Vec::new(),
            scaling: None,
            learned: Learned::default(),
        }
    }

    /// Begins a turn: everything until [`Core::end_turn`] becomes durable together.
    pub fn begin_turn(&mut self) -> Turn {
        self.turn += 1;
        self.turn
    }

    /// Ends a turn: places tasks, plans jobs, answers who waits.
    pub fn end_turn(&mut self, now: Moment, out: &mut Output) {
        let mut actions = Vec::new();
        self.scheduler.allow_ahead(!self.may_delay());
        self.scheduler.schedule(now.clock, &mut actions);
        self.carry_out(actions, now, out);
        self.plan_jobs(now, out);
        self.send_delayed(now, out);
        self.recount_failures();
        self.answer_waits(now, out);
        self.answer_output_reads(now, out);
        self.look_whether_down(out);
        fold_events(&mut out.events);
        self.note_written(out);
        if self.durable >= self.written {
            // Nothing of this turn waits for the disk.
            self.tell_recorded(self.turn, out);
        }
    }

    /// The server was busy for so long, from waking up until all was handed on; `Status` tells the longest.
    pub fn turn_took(&mut self, time: Duration) {
        self.longest_turn = self.longest_turn.max(time);
    }

    fn note_written(&mut self, out: &Output) {
        if !out.records.is_empty() {
            self.written = self.turn;
        }
        let settles =
            |record: &Record| matches!(record, Record::Ended { .. } | Record::Finished { .. } | Record::Revived { .. });
        if out.records.iter().any(settles) {
            self.settled = self.turn;
        }
    }

    /// The turn and all before it are on disk, in the journal frame `sequence`.
    pub fn on_durable(&mut self, turn: Turn, sequence: u64, out: &mut Output) {
        self.durable = self.durable.max(turn);
        self.sequence = self.sequence.max(sequence);
        self.in_flight.retain(|(submitted, ..)| *submitted > turn);
        // Turns without records are as durable as the last one with.
        let turn = if turn >= self.written { self.turn } else { turn };
        self.again.retain(|_, at| *at > turn);
        self.tell_recorded(turn, out);
    }

    /// Tells workers which outcomes they may forget.
    fn tell_recorded(&mut self, durable: Turn, out: &mut Output) {
        let mut recorded: BTreeMap<ConnectionId, Vec<RunId>> = BTreeMap::new();
        while let Some((at, connection, run)) = self.unrecorded.front().copied()
            && at <= durable
        {
            self.unrecorded.pop_front();
            recorded.entry(connection).or_default().push(run);
        }
        for (connection, runs) in recorded {
            let message = ServerMessage::Recorded { runs, sequence: self.sequence };
            out.sends.push((connection, 0, Outgoing::Worker(message)));
        }
    }

    /// So many bytes wait to be written.
    pub fn on_journal_queue(&mut self, bytes: usize) {
        self.journal_queue = bytes;
    }

    /// The journal cannot be written (`Some`), or can again. What was being accepted is given back: nothing
    /// of it has run, since what leaves the server waits for the disk.
    pub fn on_journal(&mut self, trouble: Option<String>, now: Moment, out: &mut Output) {
        if let Some(what) = &trouble
            && self.journal_trouble.is_none()
        {
            out.events.push(EventLine {
                kind: "journal_failed",
                job: None,
                task: None,
                text: format!("the journal cannot be written: {what}; no new work is accepted, accepted work goes on"),
            });
            for (_, array, connection, request) in std::mem::take(&mut self.in_flight) {
                if let Some(array) = array {
                    self.give_back(array, now, out);
                }
                out.withdrawn.push((connection, request));
                out.sends.push((connection, 0, reply(request, self.refusal(what))));
            }
        }
        if trouble.is_none() && self.journal_trouble.is_some() {
            out.events.push(EventLine {
                kind: "journal_recovered",
                job: None,
                task: None,
                text: "the journal can be written again".to_owned(),
            });
        }
        self.journal_trouble = trouble;
        self.note_written(out);
    }

    fn give_back(&mut self, array: ArrayId, now: Moment, out: &mut Output) {
        if let Some(record) = self.arrays.get_mut(&array)
            && !record.key.is_empty()
        {
            // The client may send it again, to this server or the next: it is a new one then.
            self.keys.remove(&std::mem::take(&mut record.key));
            out.records.push(Record::Withdrawn { array });
        }
        let cancel = crate::runtime::scheduler::Event::Cancel { tasks: vec![TaskRef::Array(array)] };
        let mut actions = Vec::new();
        self.scheduler.apply(cancel, now.clock, &mut actions);
        self.carry_out(actions, now, out);
    }

    fn refusal(&self, what: &str) -> Reply {
        Reply::Error {
            kind: crate::runtime::control::ErrorKind::TryAgain,
            what: format!("the server cannot write its journal in {}: {what}", self.options.folder.display()),
            fix: Some("make room there (quota, full disk); it goes on by itself within seconds".to_owned()),
        }
    }

    /// Turns what the scheduler wants into records and messages.
    fn carry_out(&mut self, actions: Vec<Action>, now: Moment, out: &mut Output) {
        for action in actions {
            match action {
                Action::Assign { worker, task, run, variant, line, waits, place } => {
                    let start = Assignment { worker, task, run, variant, line, waits, place };
                    self.assign(start, now, out);
                }
                Action::TakeBack { worker, run, .. } => {
                    self.tell_worker(worker, 0, ServerMessage::TakeBack { runs: vec![run] }, out);
                }
                Action::Guest { worker, run, here } => {
                    self.tell_worker(worker, 0, ServerMessage::Guest { run, here }, out);
                }
                Action::Kill { worker, task, run } if self.forget_delayed(worker, run) => {
                    // It was never sent, so nobody else will say that it is over.
                    let over = crate::runtime::scheduler::Event::RunEnded {
                        worker,
                        task,
                        run,
                        outcome: Outcome::Killed,
                        wall: 0,
                    };
                    let mut more = Vec::new();
                    self.scheduler.apply(over, now.clock, &mut more);
                    self.carry_out(more, now, out);
                }
                Action::Kill { worker, task, run } => {
                    self.dying.insert((task, worker, run));
                    self.tell_worker(worker, self.turn, ServerMessage::Kill { task, run }, out);
                }
                Action::Ended { task, end } => self.ended(task, end, None, now, out),
                Action::Revived { task } => {
                    if let Some(array) = self.arrays.get_mut(&task.array) {
                        array.details.remove(task.element);
                    }
                    self.recount.insert(task.array);
                    self.again.insert(task, self.turn);
                    out.records.push(Record::Revived { task });
                }
                Action::Requeued { task, cause, .. } => {
                    self.running_since.remove(&task);
                    self.again.insert(task, self.turn);
                    match cause {
                        RequeueCause::Retry => out.records.push(Record::Retried { task }),
                        RequeueCause::Lost => out.records.push(Record::Lost { task }),
                        RequeueCause::Interrupted => {}
                    }
                }
            }
        }
    }

    fn tell_worker(&self, worker: WorkerId, after: Turn, message: ServerMessage, out: &mut Output) {
        if let Some(connection) = self.workers.get(&worker).and_then(|worker| worker.connection) {
            out.sends.push((connection, after, Outgoing::Worker(message)));
        }
    }

    fn assign(&mut self, start: Assignment, now: Moment, out: &mut Output) {
        let task = start.task;
        if self.is_dying(task) {
            // After a restart two runs of a task may turn up; one was told to end, and until it has, no
            // third may start.
            self.delayed.push(start);
            return;
        }
        let (Some(target), Some(array)) = (self.workers.get_mut(&start.worker), self.arrays.get(&task.array)) else {
            return;
        };
        let Some(connection) = target.connection else { return };
        // A run that another one preceded starts once it is on record that this one is over.
        let again = self.again.get(&task).copied().unwrap_or(0);
        let basis = if array.depends { self.turn } else { array.turn.max(target.joined).max(again) };
        if target.bodies.insert(task.array) {
            let message = ServerMessage::Body { array: task.array, body: Box::new(array.submission.body.clone()) };
            out.sends.push((connection, basis, Outgoing::Worker(message)));
        }
        let after_ends = start.waits.then_some(target.ends_seen);
        let input = array.submission.inputs.get(task.element as usize).cloned().unwrap_or_default();
        let mut place = start.place;
        for part in &mut place.nodes {
            part.node = self.nodes.get(&part.worker).cloned().unwrap_or_default();
        }
        self.running_since.insert(task, (start.worker, now));
        let place = (!place.is_empty()).then(|| Box::new(place));
        let next = Start { element: task.element, run: start.run, input, place };
        // Runs of one submission that follow each other share a message.
        if let Some((
            to,
            after,
            Outgoing::Worker(ServerMessage::Assign { array, variant, line, after_ends: ends, starts }),
        )) = out.sends.last_mut()
            && (*to, *after, *array, *variant, *line, *ends)
                == (connection, basis, task.array, start.variant, start.line, after_ends)
        {
            starts.push(next);
            return;
        }
        let message = ServerMessage::Assign {
            array: task.array,
            variant: start.variant,
            line: start.line,
            after_ends,
            starts: vec![next],
        };
        out.sends.push((connection, basis, Outgoing::Worker(message)));
    }

    /// Whether the start of a task may have to wait for the end of an earlier run of it.
    fn may_delay(&self) -> bool {
        self.dying.len() > DYING_LOOKED_AT_MAX
            || self.dying.iter().any(|(task, ..)| !matches!(self.scheduler.state(*task), Some(TaskState::Ended(_))))
    }

    fn is_dying(&self, task: TaskId) -> bool {
        let all = (task, WorkerId(0), RunId(0))..=(task, WorkerId(u32::MAX), RunId(u64::MAX));
        self.dying.range(all).next().is_some()
    }

    /// Drops a start that was not sent yet; returns whether there was one.
    fn forget_delayed(&mut self, worker: WorkerId, run: RunId) -> bool {
        let before = self.delayed.len();
        self.delayed.retain(|start| (start.worker, start.run) != (worker, run));
        self.delayed.len() < before
    }

    /// Sends the starts that waited for the end of runs of the same tasks.
    fn send_delayed(&mut self, now: Moment, out: &mut Output) {
        for start in std::mem::take(&mut self.delayed) {
            self.assign(start, now, out);
        }
    }

    fn ended(&mut self, task: TaskId, end: End, detail: Option<Detail>, now: Moment, out: &mut Output) {
        self.running_since.remove(&task);
        if let Some(detail) = detail {
            self.count_usage(detail.usage);
        }
        if let Some(array) = self.arrays.get_mut(&task.array) {
            match detail {
                Some(detail) => array.details.insert(task.element, detail),
                None => array.details.remove(task.element),
            }
        }
        self.note_failure(task, &end, now, out);
        crate::server::record::push_end(&mut out.records, task, end, detail);
    }

    /// Figures of a worker are never trusted: no sum may overflow.
    fn count_usage(&mut self, usage: Usage) {
        self.used.wall_milliseconds = self.used.wall_milliseconds.saturating_add(usage.wall_milliseconds);
        self.used.cpu_milliseconds = self.used.cpu_milliseconds.saturating_add(usage.cpu_milliseconds);
        self.used.memory_bytes = self.used.memory_bytes.max(usage.memory_bytes);
    }

    /// After a retry: counts the failures of a submission anew.
    fn recount_failures(&mut self) {
        for id in std::mem::take(&mut self.recount) {
            self.failures.retain(|(array, _), _| *array != id);
            let view = self.scheduler.array_view(id);
            let ends: Vec<(u32, u32, End)> = view.map(|view| view.ends().collect()).unwrap_or_default();
            for (first, last, end) in ends {
                self.count_failures(id, first, last, &end);
            }
        }
    }

    fn count_failures(&mut self, array: ArrayId, first: u32, last: u32, end: &End) {
        if matches!(end, End::Failed(_) | End::Poisonous) {
            let words = view::end_words(end, |task| self.task_label(task));
            *self.failures.entry((array, words)).or_default() += u64::from(last - first + 1);
        }
    }

    /// Counts failures by cause; at most 20 a second become events of their own.
    fn note_failure(&mut self, task: TaskId, end: &End, now: Moment, out: &mut Output) {
        if !matches!(end, End::Failed(_) | End::Poisonous) {
            return;
        }
        let words = view::end_words(end, |task| self.task_label(task));
        *self.failures.entry((task.array, words.clone())).or_default() += 1;
        let second = now.clock / 1000;
        if self.failure_events.0 != second {
            self.failure_events = (second, 0);
        }
        self.failure_events.1 += 1;
        if self.failure_events.1 <= 20 {
            let id = self.task_label(task);
            let text = format!("task {id} failed: {words}");
            out.events.push(EventLine { kind: "task_failed", job: None, task: Some(id), text });
        } else if self.failure_events.1 == 21 {
            let text = "more tasks fail; dcluster tasks --failed lists them".to_owned();
            out.events.push(EventLine { kind: "tasks_failed", job: None, task: None, text });
        }
    }

    /// Returns `ID` or `ID.INDEX`.
    fn task_label(&self, task: TaskId) -> String {
        let single = Indexes::Single;
        let indexes = self.arrays.get(&task.array).map_or(&single, |array| &array.submission.body.indexes);
        crate::selection::task_id(task, indexes)
    }

    /// Turns what a user named into what the scheduler knows; `None` if something does not exist.
    fn resolve(&self, selections: &[Selection]) -> Result<Vec<TaskRef>, String> {
        if selections.is_empty() {
            return Ok(self.arrays.keys().map(|array| TaskRef::Array(*array)).collect());
        }
        let mut tasks = Vec::new();
        for selection in selections {
            let Some(array) = self.arrays.get(&selection.array) else {
                return Err(format!("there is no task {}", selection.array));
            };
            match selection.indexes {
                None => tasks.push(TaskRef::Array(selection.array)),
                Some((first, last)) => {
                    let before = tasks.len();
                    let elements = selection.elements(&array.submission.body.indexes);
                    tasks.extend(elements.map(|element| TaskRef::Task(TaskId { array: selection.array, element })));
                    if tasks.len() == before {
                        let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
                        return Err(format!("task {} has no element {range}", selection.array));
                    }
                }
            }
        }
        Ok(tasks)
    }
}

/// Events of one kind in one turn that are told one by one; a thousand jobs that start together are one line more.
const EVENTS_OF_A_KIND_MAX: usize = 20;

fn fold_events(events: &mut Vec<EventLine>) {
    let mut kinds: BTreeMap<&'static str, usize> = BTreeMap::new();
    events.retain(|event| {
        let seen = kinds.entry(event.kind).or_default();
        *seen += 1;
        *seen <= EVENTS_OF_A_KIND_MAX
    });
    for (kind, seen) in kinds.into_iter().filter(|(_, seen)| *seen > EVENTS_OF_A_KIND_MAX) {
        let text = format!("and {} more like that", seen - EVENTS_OF_A_KIND_MAX);
        events.push(EventLine { kind, job: None, task: None, text });
    }
}

/// Wraps an answer.
fn reply(request: u32, reply: Reply) -> Outgoing {
    Outgoing::Client(ClientReply::Reply { id: request, reply: Box::new(reply) })
}
