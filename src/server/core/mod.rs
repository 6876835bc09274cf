//! The server as one pure state machine: messages, evidence and time come in; records, messages and
//! orders go out. Nothing here does I/O or asks for the time.
//!
//! Invariant: whatever leaves the server rests on durable records. Every output names the turn
//! whose records must be durable first; the outbox (`server::outbox`) holds it until then.

mod details;
mod dispatch;
mod durable;
mod failures;
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
use crate::runtime::protocol::{Capacity, Indexes, ServerMessage, Submission, TaskRef, Usage};
use crate::runtime::scheduler::Scheduler;
use crate::selection::Selection;
use crate::server::record::Record;
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
    delayed: Vec<dispatch::Assignment>,
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
