//! The record of one job: where it stands and why it ended. The journal keeps it as it is.

use crate::adapt::JobPhase;
use crate::backends::JobRef;
use crate::runtime::ids::{JobName, JobSeq, NativeId};
use serde::{Deserialize, Serialize};

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// We mean to submit it; the command may or may not have run.
    Intended,
    /// The backend gave it an id.
    Submitted,
    /// The backend lists it as waiting.
    Pending,
    /// The backend lists it as running; its worker has not called yet.
    Started,
    /// Its worker is (or was, see `silent`) connected.
    Up,
    /// Its worker takes no new task.
    Draining,
    /// Over.
    Ended,
}

impl JobState {
    /// Returns the word used in `status` and `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Submitted => "submitted",
            Self::Pending => "pending",
            Self::Started => "started",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Ended => "ended",
        }
    }
}

impl From<JobState> for JobPhase {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Intended | JobState::Submitted | JobState::Pending => Self::Pending,
            JobState::Started => Self::Started,
            JobState::Up | JobState::Draining | JobState::Ended => Self::Up,
        }
    }
}

/// Why a job ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its worker left in order.
    Finished,
    /// We asked its worker to leave.
    Drained,
    /// Its time was over.
    Walltime,
    /// We cancelled it.
    CancelledByUs,
    /// Somebody else cancelled it.
    CancelledByOthers,
    /// The scheduler needed the node.
    Preempted,
    /// The node failed.
    NodeFailed,
    /// It used too much memory.
    OutOfMemory,
    /// Its worker never came up.
    CouldNotStart,
    /// Its worker was up and then died.
    Crashed,
    /// The backend forgot it and nothing says how it ended.
    Vanished,
    /// The submit command failed: there is no job.
    NotSubmitted,
    /// Nobody knows whether the submit command did anything, and no job has its name.
    Abandoned,
}

impl EndReason {
    /// Returns the reason in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Drained => "drained",
            Self::Walltime => "walltime",
            Self::CancelledByUs => "cancelled by us",
            Self::CancelledByOthers => "cancelled by others",
            Self::Preempted => "preempted",
            Self::NodeFailed => "node failed",
            Self::OutOfMemory => "out of memory",
            Self::CouldNotStart => "could not start",
            Self::Crashed => "crashed",
            Self::Vanished => "vanished",
            Self::NotSubmitted => "not submitted",
            Self::Abandoned => "never appeared",
        }
    }
    /// Whether it rests on so little that the job may live after all.
    pub(super) fn is_weak(self) -> bool {
        // A failed node or a preemption may put the job back into the queue.
        matches!(self, Self::Vanished | Self::Abandoned | Self::NodeFailed | Self::Preempted)
    }
    /// Whether we wanted it to end, or it never was.
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::CancelledByUs | Self::Drained | Self::NotSubmitted | Self::Abandoned)
    }
    /// Whether, when it comes early, the node may be the cause.
    pub(super) fn blames_node(self) -> bool {
        matches!(self, Self::CouldNotStart | Self::Crashed | Self::NodeFailed)
    }
    /// Whether tasks that ran there are innocent: planned ends do not make a task suspicious.
    pub fn planned(self) -> bool {
        matches!(
            self,
            Self::Finished
                | Self::Drained
                | Self::Walltime
                | Self::CancelledByUs
                | Self::CancelledByOthers
                | Self::Preempted
        )
    }
}

/// One job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Number.
    pub seq: JobSeq,
    /// Name.
    pub name: JobName,
    /// Pool.
    pub pool: String,
    /// Walltime it was asked for with, where that is not its pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walltime_seconds: Option<u64>,
    /// Number of the first job of the submit command it belongs to.
    pub submit: JobSeq,
    /// Epoch of the server that intended it.
    pub epoch: u32,
    /// Where it stands.
    pub state: JobState,
    /// The last query about it gave no usable answer; the state is the last one known.
    #[serde(default)]
    pub unknown: bool,
    /// Its worker is not connected although the job is [`JobState::Up`] or draining.
    #[serde(default)]
    pub silent: bool,
    /// We asked the backend to cancel it.
    #[serde(default)]
    pub cancelling: bool,
    /// We asked its worker to leave.
    #[serde(default)]
    pub draining: bool,
    /// The backend's id.
    #[serde(default)]
    pub id: Option<NativeId>,
    /// The backend's words about it.
    #[serde(default)]
    pub reason: String,
    /// Where it runs.
    #[serde(default)]
    pub node: Option<String>,
    /// Exit code of its script.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Why it ended.
    #[serde(default)]
    pub end: Option<EndReason>,
    /// Milliseconds since the epoch.
    pub intended_at: u64,
    /// When it started, as far as we know.
    #[serde(default)]
    pub started_at: Option<u64>,
    /// When we knew that it had ended.
    #[serde(default)]
    pub ended_at: Option<u64>,
    /// Whether its worker ever connected (in this attempt).
    #[serde(default)]
    pub was_up: bool,
    /// How often the batch system took it back into the queue.
    #[serde(default)]
    pub requeues: u32,
}

impl Job {
    /// Whether the job may still hold or get resources.
    pub fn live(&self) -> bool {
        self.state != JobState::Ended
    }
    /// Whether it takes no new task: it is cancelled or leaves, by our will or its own.
    pub fn leaves(&self) -> bool {
        self.cancelling || self.draining || self.state == JobState::Draining
    }
    /// Returns how the ledger and the backend refer to it.
    pub fn reference(&self) -> JobRef {
        JobRef { name: self.name.clone(), id: self.id.clone() }
    }
}
