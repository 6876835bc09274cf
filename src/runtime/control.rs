//! What a client asks of the server, over the unix socket or TLS, and what it is told.

use super::ids::{ArrayId, TaskId};
use super::protocol::{Submission, Usage};
use super::scheduler::{Counts, Kind};
use crate::adapt;
use crate::config::spec::Adapt;
use crate::ledger::Job;
use crate::selection::Selection;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a client says first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientHello {
    /// [`PROTOCOL_VERSION`](super::protocol::PROTOCOL_VERSION) of the client.
    pub protocol: u32,
    /// Program version, for people.
    pub version: String,
}

/// Client → server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClientMessage {
    /// First message.
    Hello(ClientHello),
    /// A request; the reply carries its number.
    Request {
        /// Number of the request on this connection.
        id: u32,
        /// What is asked.
        request: Box<Request>,
    },
}

/// Server → client.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ClientReply {
    /// Answer to the hello.
    Welcome {
        /// The server's epoch.
        epoch: u32,
        /// Program version of the server.
        version: String,
    },
    /// Answer to a request.
    Reply {
        /// Its number.
        id: u32,
        /// The answer.
        reply: Box<Reply>,
    },
}

/// How a cluster goes down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DownMode {
    /// Interrupt running tasks (TERM, KILL after a grace).
    Stop,
    /// Let running tasks finish first.
    Drain,
    /// Kill at once.
    Now,
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Everything on one screen.
    Status,
    /// Accept these tasks. Sent again after a lost reply with the same key, it is accepted once.
    Submit {
        /// 128 random bits made by the client, hex.
        key: String,
        /// The tasks.
        submission: Box<Submission>,
    },
    /// A page of tasks.
    Tasks {
        /// Which; all when empty.
        tasks: Vec<Selection>,
        /// Only these kinds; all when empty.
        kinds: Vec<Kind>,
        /// Continue after this one.
        after: Option<TaskId>,
        /// At most so many (and at most 1,000).
        limit: u32,
    },
    /// Cancel what has not ended.
    Cancel {
        /// Which; all when empty.
        tasks: Vec<Selection>,
    },
    /// Run failed tasks again.
    Retry {
        /// Which; all when empty.
        tasks: Vec<Selection>,
    },
    /// Answers when these tasks have ended, or after the time with what there is.
    Wait {
        /// Which; all when empty.
        tasks: Vec<Selection>,
        /// Milliseconds, at most 60,000.
        timeout: u64,
    },
    /// Hold so many jobs.
    Scale {
        /// Number.
        jobs: u32,
    },
    /// Let the number of jobs follow the load.
    Adapt {
        /// How.
        adapt: Adapt,
    },
    /// The last decisions of the scaling loop.
    Decisions,
    /// End the cluster; answers when nothing of it is left, or with what is.
    Down {
        /// How.
        mode: DownMode,
    },
    /// Progress of a `Down` under way, or of nothing.
    Jobs,
    /// Part of what a task has written, from its node: for a client that does not see its files.
    Output {
        /// The task.
        task: TaskId,
        /// Standard error instead of standard output.
        stderr: bool,
        /// First byte.
        offset: u64,
    },
}

/// An answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To `Status`.
    Status(Box<Status>),
    /// To `Submit`: the id, durable.
    Submitted {
        /// The submission.
        array: ArrayId,
    },
    /// To `Tasks`.
    Tasks {
        /// The page.
        tasks: Vec<TaskInfo>,
        /// Where the next page begins, when there is one.
        next: Option<TaskId>,
    },
    /// To `Cancel` and `Retry`: how many tasks it concerned.
    Changed {
        /// Number.
        tasks: u64,
    },
    /// To `Wait`.
    Progress(Progress),
    /// To `Scale` and `Adapt`.
    Scaled,
    /// To `Decisions`.
    Decisions(Decisions),
    /// To `Output`: at most [`OUTPUT_BYTES_MAX`](super::protocol::OUTPUT_BYTES_MAX); empty at the end of what there is.
    Output {
        /// What stands there.
        bytes: bstr::BString,
    },
    /// To `Down` and `Jobs`: the jobs that are left.
    Left {
        /// Jobs that may still exist.
        jobs: Vec<Job>,
        /// Whether the cluster is closed: nothing is left and the server ends.
        closed: bool,
    },
    /// It cannot be done.
    Error {
        /// Whose fault it is.
        kind: ErrorKind,
        /// What was wrong.
        what: String,
        /// What to do.
        fix: Option<String>,
    },
}

/// Kinds of errors a server answers with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The request makes no sense.
    Usage,
    /// Not now (exit code 75).
    TryAgain,
}

/// State of some tasks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Numbers.
    pub counts: Counts,
    /// Whether the cluster can make progress: live jobs, or why there is none.
    pub jobs_live: u32,
    /// Workers up.
    pub workers: u32,
    /// Why nothing runs, when nothing runs.
    pub waiting_for: Option<String>,
}

/// One task, for `tasks`, `logs` and `submit --wait`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskInfo {
    /// The task.
    pub task: TaskId,
    /// Its index, when its submission is an array.
    pub index: Option<u32>,
    /// Name of its submission.
    pub name: String,
    /// What it is doing.
    pub kind: Kind,
    /// In words: why it waits, how it ended.
    pub reason: Option<String>,
    /// Where it runs or ran.
    pub node: Option<String>,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Signal that killed it.
    pub signal: Option<i32>,
    /// Milliseconds since the epoch at which its last run started.
    pub started_at: Option<u64>,
    /// What its last run used.
    pub usage: Option<Usage>,
    /// Path of its standard output.
    pub stdout: bstr::BString,
    /// Path of its standard error.
    pub stderr: bstr::BString,
    /// What runs, for people.
    pub command: bstr::BString,
}

/// One worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its number.
    pub id: u32,
    /// Number of its job; `None` = joined by hand.
    pub job: Option<u32>,
    /// Host.
    pub node: String,
    /// Cores.
    pub cores: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Tasks running on it.
    pub running: u32,
    /// `up`, `draining` or `silent`.
    pub state: String,
}

/// One screen about a cluster.
#[derive(Clone, PartialEq, Debug, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Server's host.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Seconds since this server started.
    pub uptime_seconds: u64,
    /// Jobs asked for.
    pub wanted: u32,
    /// Their number follows the load.
    #[serde(default)]
    pub adapt: Option<Adapt>,
    /// What the scaling loop decided last, in a sentence.
    #[serde(default)]
    pub scaling: Option<String>,
    /// Live jobs, and the last 20 that ended.
    pub jobs: Vec<Job>,
    /// Jobs that ended, in all.
    pub jobs_ended: u32,
    /// Jobs ever submitted.
    pub jobs_submitted: u32,
    /// Workers that are here.
    pub workers: Vec<WorkerInfo>,
    /// Tasks.
    pub tasks: Counts,
    /// Wall and CPU time of all ended runs, in milliseconds.
    pub used: Usage,
    /// Milliseconds since the epoch.
    pub now: u64,
    /// Failures by cause, most frequent first, at most 5: number, submission, name, words.
    pub failures: Vec<Failure>,
    /// Why tasks wait although nothing runs them.
    pub waiting_for: Option<String>,
    /// Why no job is asked for, or what the backend last complained of.
    pub trouble: Option<String>,
    /// What to do about it.
    pub advice: Option<String>,
    /// No job is asked for until the user does something about the trouble.
    pub gave_up: bool,
    /// Why the journal cannot be written.
    pub journal_trouble: Option<String>,
    /// The longest time the server was busy with one turn, and answered nobody, since `Status` was last asked.
    #[serde(default)]
    pub longest_turn_microseconds: u64,
}

/// What the scaling loop has decided.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Decisions {
    /// The last ones, oldest first.
    pub entries: Vec<adapt::Entry>,
    /// Of live jobs, and of those that ended last: numbers of the decisions that concern them.
    pub jobs: BTreeMap<u32, JobDecisions>,
}

/// Which decisions concern a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct JobDecisions {
    /// It was asked for by this one.
    pub asked: Option<u64>,
    /// It was cancelled or drained by this one.
    pub given_up: Option<u64>,
}

/// Failures that look alike.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// How many tasks.
    pub tasks: u64,
    /// Of which submission.
    pub array: ArrayId,
    /// Its name.
    pub name: String,
    /// How they ended.
    pub words: String,
}

impl TaskInfo {
    /// Returns its id as users know it: `3.7`, or `3` for a single task.
    pub fn id(&self) -> String {
        match self.index {
            Some(index) => format!("{}.{index}", self.task.array),
            None => self.task.array.to_string(),
        }
    }
}

impl Request {
    /// Whether the request changes anything (and so needs the journal).
    pub fn changes(&self) -> bool {
        matches!(
            self,
            Self::Submit { .. }
                | Self::Cancel { .. }
                | Self::Retry { .. }
                | Self::Scale { .. }
                | Self::Adapt { .. }
                | Self::Down { .. }
        )
    }
}
