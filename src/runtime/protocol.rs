//! What server, worker and client say to each other, and the types of a submission.
//!
//! A connection carries length-delimited MessagePack frames (named maps, `docs/protocol.md`); each
//! frame is a list of messages. Unknown fields are skipped and new fields have defaults, so a
//! newer peer can be read.

use super::ids::{ArrayId, JobName, RunId, TaskId, WorkerId};
use bstr::BString;
use serde::{Deserialize, Serialize};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::BTreeMap;
use std::fmt;

/// Most bytes of a task's output in one message.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Version of this protocol; peers with another one are refused with both numbers.
pub const PROTOCOL_VERSION: u32 = 2;

/// A number of GPUs in thousandths: tasks may share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gpus(pub u32);

impl Gpus {
    /// Thousandths of one GPU.
    pub const ONE: u32 = 1000;

    /// Returns so many whole ones.
    pub const fn whole(count: u32) -> Self {
        Self(count.saturating_mul(Self::ONE))
    }
}

impl fmt::Display for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / Self::ONE, self.0 % Self::ONE);
        match part {
            0 => whole.fmt(f),
            part => f.write_str(format!("{whole}.{part:03}").trim_end_matches('0')),
        }
    }
}

/// What a task occupies on a worker while it runs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Cores, at least 1.
    pub cores: u32,
    /// Bytes of memory, which is also the limit of the task; 0 = not counted and not limited.
    #[serde(default)]
    pub memory_bytes: u64,
    /// GPUs: whole ones for itself, and a part of one more that others may share.
    #[serde(default)]
    pub gpus: Gpus,
    /// Cluster-wide counters (licences and the like): name → amount.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// Its cores are of as few NUMA nodes as possible.
    #[serde(default)]
    pub compact: bool,
}

impl Default for Request {
    fn default() -> Self {
        Self { cores: 1, memory_bytes: 0, gpus: Gpus(0), counters: BTreeMap::new(), compact: false }
    }
}

/// What a task needs: any one of the variants, on each of so many workers at once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Needs {
    /// At least one, the best first.
    pub variants: Vec<Request>,
    /// Workers that it runs on together; more than one only with a single variant.
    #[serde(default = "one")]
    pub nodes: u32,
}

const fn one() -> u32 {
    1
}

impl Default for Needs {
    fn default() -> Self {
        Request::default().into()
    }
}

impl From<Request> for Needs {
    fn from(request: Request) -> Self {
        Self { variants: vec![request], nodes: 1 }
    }
}

impl Needs {
    /// Returns a variant; the first one for a number that does not exist.
    ///
    /// # Panics
    ///
    /// If there are none, which a server refuses.
    pub fn variant(&self, variant: u8) -> &Request {
        self.variants.get(usize::from(variant)).unwrap_or(&self.variants[0])
    }
}

/// What exactly a run has of its worker, where that can be told apart.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    /// GPUs by their number on the worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuPart>,
    /// Cores by NUMA node; empty on a worker with one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cores: Vec<NumaCores>,
    /// All workers of a task that runs on several, this one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodePart>,
}

impl Place {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.gpus.is_empty() && self.cores.is_empty() && self.nodes.is_empty()
    }
}

/// A GPU, or a part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct GpuPart {
    /// Number on the worker, from 0.
    pub gpu: u32,
    /// How much of it, at most one.
    pub share: Gpus,
}

/// Cores of one NUMA node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct NumaCores {
    /// Number of the NUMA node on the worker, from 0.
    pub numa: u32,
    /// How many.
    pub cores: u32,
}

/// One worker of a task that runs on several.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct NodePart {
    /// The worker.
    pub worker: WorkerId,
    /// Its host name.
    pub node: String,
    /// Cores the task has there.
    pub cores: u32,
}

/// Which indexes the elements of a submission have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Indexes {
    /// One task, printed `ID`.
    Single,
    /// `first, first+step, …`: `count` elements, printed `ID.INDEX`.
    Range {
        /// Index of element 0.
        first: u32,
        /// Number of elements, at least 1.
        count: u32,
        /// Distance between indexes, at least 1.
        step: u32,
    },
    /// These indexes, sorted, each once, at least one; printed `ID.INDEX`.
    List(Vec<u32>),
}

impl Indexes {
    /// Returns the number of elements.
    pub fn count(&self) -> u32 {
        match self {
            Self::Single => 1,
            Self::Range { count, .. } => *count,
            Self::List(list) => u32::try_from(list.len()).unwrap_or(u32::MAX),
        }
    }
    /// Whether these are indexes at all: a peer may say anything.
    pub fn is_valid(&self) -> bool {
        match self {
            Self::Single => true,
            Self::Range { first, count, step } => {
                let last = count.checked_sub(1).and_then(|n| n.checked_mul(*step)).and_then(|n| first.checked_add(n));
                *step > 0 && last.is_some()
            }
            Self::List(list) => !list.is_empty() && list.is_sorted_by(|one, next| one < next),
        }
    }
    /// Returns the index of a dense element; `None` for a single task.
    pub fn index(&self, element: u32) -> Option<u32> {
        match self {
            Self::Single => None,
            Self::Range { first, step, .. } => Some(first + element * step),
            Self::List(list) => list.get(usize::try_from(element).ok()?).copied(),
        }
    }
    /// Returns the dense element of an index.
    pub fn element(&self, index: u32) -> Option<u32> {
        match self {
            Self::Single => None,
            Self::Range { first, count, step } => {
                let distance = index.checked_sub(*first)?;
                (distance % step == 0 && distance / step < *count).then(|| distance / step)
            }
            Self::List(list) => u32::try_from(list.binary_search(&index).ok()?).ok(),
        }
    }
}

/// How a task's command line is made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// These words, run as they stand, without a shell.
    Argv(Vec<BString>),
    /// The words of a `map` template, joined by spaces, with GNU parallel's placeholders (`crate::template`);
    /// each element's input values come with its assignment.
    Template(BString),
}

/// Where a standard stream of a task goes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Output {
    /// `tasks/<array>/<index>.out|err` under the cluster folder; removed when empty at the end.
    #[default]
    Default,
    /// A path template with `{id} {index} {name}`; relative to the task's working directory.
    File(BString),
    /// Same place as stdout (stderr only).
    SameAsStdout,
}

/// The part of a submission that a worker needs; sent once per submission and worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Body {
    /// What runs.
    pub command: Command,
    /// Name for people and `{name}`; at most 255 bytes, no control characters.
    #[serde(default)]
    pub name: String,
    /// Absolute working directory.
    pub cwd: BString,
    /// Environment on top of the cluster's.
    #[serde(default)]
    pub env: BTreeMap<BString, BString>,
    /// File read as standard input; `/dev/null` when absent.
    #[serde(default)]
    pub stdin: Option<BString>,
    /// Standard output.
    #[serde(default)]
    pub stdout: Output,
    /// Standard error.
    #[serde(default)]
    pub stderr: Output,
    /// Seconds of wall time after which the task is killed and has failed.
    #[serde(default)]
    pub time_limit_seconds: Option<u64>,
    /// What the task occupies, for `DCLUSTER_TASK_CORES` and the like.
    #[serde(default)]
    pub needs: Needs,
    /// Indexes, for `{index}` and `DCLUSTER_TASK_INDEX`.
    pub indexes: Indexes,
    /// umask of the submitter.
    pub umask: u32,
}

/// Another task, or a whole submission.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum TaskRef {
    /// All elements of a submission.
    Array(ArrayId),
    /// One element.
    Task(TaskId),
}

/// One submission, as a client makes it and the journal keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Submission {
    /// What the workers need.
    pub body: Body,
    /// Per element: the input values of a `map` template (one inner list per element); empty for
    /// anything else.
    #[serde(default)]
    pub inputs: Vec<Vec<BString>>,
    /// Larger runs first.
    #[serde(default)]
    pub priority: i32,
    /// How often a task that failed by itself is run again.
    #[serde(default)]
    pub retries: u32,
    /// Seconds of wall time the task is expected to need: it starts only where they are left.
    #[serde(default)]
    pub time_request_seconds: Option<u64>,
    /// Runs after these have finished with success.
    #[serde(default)]
    pub after: Vec<TaskRef>,
    /// Elements of this submission that may run at once; `None` = no bound (`map -j`).
    #[serde(default)]
    pub at_most: Option<u32>,
}

/// How one run of a task ended, as its worker saw it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Exit code 0.
    Finished,
    /// Another exit code.
    Failed {
        /// The code, 1–255.
        code: i32,
    },
    /// Killed by a signal that was not ours.
    Signalled {
        /// Its number.
        signal: i32,
    },
    /// Killed at its time limit.
    TimeLimit,
    /// Killed because it used more memory than it asked for.
    MemoryLimit {
        /// Bytes it was seen to use.
        used_bytes: u64,
        /// Bytes it asked for.
        limit_bytes: u64,
    },
    /// Could not be started; the sentence says why (missing program, directory, file).
    NotStarted {
        /// What the system said.
        error: String,
    },
    /// Killed because the server asked for it.
    Killed,
    /// Ended by drain, walltime or the end of the job: not the task's fault, it runs again for free.
    Interrupted,
}

/// What one run used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize_tuple, Deserialize_tuple)]
pub struct Usage {
    /// Wall time in milliseconds.
    pub wall_milliseconds: u64,
    /// User plus system CPU time in milliseconds.
    pub cpu_milliseconds: u64,
    /// Largest resident set in bytes.
    pub memory_bytes: u64,
}

/// A report of one ended run; the worker keeps it until the server says it is recorded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct EndReport {
    /// The task.
    pub task: TaskId,
    /// Which run of it.
    pub run: RunId,
    /// How it ended.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
}

/// What a worker offers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Capacity {
    /// Cores.
    pub cores: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// GPUs.
    pub gpus: u32,
    /// Cores of each NUMA node; empty when there is one, or nobody looked.
    #[serde(default)]
    pub numa: Vec<u32>,
}

/// Worker → server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WorkerMessage {
    /// First message.
    Hello(WorkerHello),
    /// The run has its process.
    Started {
        /// The task.
        task: TaskId,
        /// Its run.
        run: RunId,
    },
    /// A run ended; repeated after a reconnect until [`ServerMessage::Recorded`].
    Ended(EndReport),
    /// Answer to [`ServerMessage::ReadOutput`].
    Output {
        /// Its number.
        request: u64,
        /// At most [`OUTPUT_BYTES_MAX`]; none at the end of the file, or when there is none.
        bytes: BString,
    },
    /// Alive. Sent every [`Welcome::heartbeat_seconds`].
    Heartbeat,
    /// Takes no new task from now on (asked to, or warned by the batch system).
    Draining,
    /// Nothing runs here any more and all is recorded: the worker leaves.
    Goodbye,
}

/// What a worker says first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkerHello {
    /// [`PROTOCOL_VERSION`] of the worker.
    pub protocol: u32,
    /// Program version, for people.
    pub version: String,
    /// The job it runs in; `None` for `worker join`.
    pub job: Option<JobName>,
    /// 128 random bits of this process, hex: the same after a reconnect.
    pub nonce: String,
    /// How often it has said hello, this time included: one that was said before is not accepted again.
    pub hellos: u32,
    /// The id an earlier server of this cluster gave it.
    pub id: Option<WorkerId>,
    /// Highest epoch it has obeyed; a server of an older one must step back.
    pub epoch: u32,
    /// Highest journal sequence it was told.
    pub recorded: u64,
    /// Host name.
    pub node: String,
    /// Process id.
    pub pid: u32,
    /// What it offers.
    pub capacity: Capacity,
    /// Seconds until the walltime ends, as far as the worker knows.
    pub seconds_left: Option<u64>,
    /// Runs in progress, and those that ended without being on record.
    pub running: Vec<HeldRun>,
    /// Whether it drains already.
    pub draining: bool,
}

/// A run that a worker has when it says hello.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldRun {
    /// The task.
    pub task: TaskId,
    /// Its run.
    pub run: RunId,
    /// Which variant of what it needs.
    pub variant: u8,
    /// What exactly it has; empty when it has ended.
    #[serde(default)]
    pub place: Place,
}

/// One run of an [`ServerMessage::Assign`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Start {
    /// The element of the submission.
    pub element: u32,
    /// The run.
    pub run: RunId,
    /// Input values of a `map` element.
    pub input: Vec<BString>,
    /// What exactly it gets; `None` when it takes over from another run, or nothing can be told apart.
    pub place: Option<Box<Place>>,
}

/// Server → worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ServerMessage {
    /// The worker is in.
    Welcome(Welcome),
    /// The worker is not wanted (unknown job, ended job, foreign cluster): it ends itself.
    Refused {
        /// Why.
        reason: String,
    },
    /// Definition of a submission; precedes its first assignment to this worker.
    Body {
        /// The submission.
        array: ArrayId,
        /// Its definition.
        body: Box<Body>,
    },
    /// Run these, in this order.
    Assign {
        /// The submission.
        array: ArrayId,
        /// Which variant of what it needs.
        variant: u8,
        /// Runs of one line ask for the same: one that ends makes room for the next.
        line: u32,
        /// `None`: there is room, they start at once. Otherwise each waits until a run of its line ends; an end
        /// that the server has not seen yet (of this connection it has seen so many) counts as such.
        after_ends: Option<u64>,
        /// The runs.
        starts: Vec<Start>,
    },
    /// A run of another worker uses this one, too, or does so no longer: a worker that drains waits for it.
    Guest {
        /// The run.
        run: RunId,
        /// Whether it is here.
        here: bool,
    },
    /// Give these back if they still wait for room; nothing to those that run.
    TakeBack {
        /// The runs.
        runs: Vec<RunId>,
    },
    /// End this run: TERM, then KILL after the grace; or give it up if it waits for room.
    Kill {
        /// The task.
        task: TaskId,
        /// Its run.
        run: RunId,
    },
    /// These ended runs are on disk: forget them.
    Recorded {
        /// The runs.
        runs: Vec<RunId>,
        /// Journal sequence that holds them.
        sequence: u64,
    },
    /// Take no new task; leave when nothing runs.
    Drain,
    /// Interrupt what runs (TERM, KILL after the grace), then leave.
    Stop {
        /// Seconds from TERM to KILL.
        grace_seconds: u64,
    },
    /// Alive: the answer to each [`WorkerMessage::Heartbeat`], whatever the journal does.
    Heartbeat,
    /// Read a part of a task's output file, for a client that does not see it.
    ReadOutput {
        /// Number of the request; the answer has the same.
        request: u64,
        /// The file.
        path: BString,
        /// First byte.
        offset: u64,
    },
    /// The walltime was changed or learned.
    TimeLeft {
        /// Seconds left.
        seconds: u64,
    },
}

/// Answer to a hello.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The worker's id.
    pub id: WorkerId,
    /// The server's epoch; messages of a lower one are dropped.
    pub epoch: u32,
    /// Seconds between heartbeats, 1–300.
    pub heartbeat_seconds: u64,
    /// Seconds without a server after which the worker ends its tasks and itself.
    pub orphan_timeout_seconds: u64,
    /// Runs of other workers that use this one, too: it stays while it has any.
    #[serde(default)]
    pub guests: Vec<RunId>,
}
