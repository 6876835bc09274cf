//! Identifiers: newtypes, dense where they index something, printed the way users type them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One submission: a single task or an array of them. Printed as a bare number, starting at 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ArrayId(pub u32);

/// One task: an element of a submission. `element` is the dense position, from 0; the index users
/// see (`ID.INDEX`) is what the submission's [`Indexes`](crate::runtime::protocol::Indexes) say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TaskId {
    /// The submission.
    pub array: ArrayId,
    /// Dense position in it, from 0.
    pub element: u32,
}

/// One run of one task on one worker. Never used twice in a cluster: the server's epoch stands in
/// the high bits, so a straggler of an old epoch can never be taken for a run of this one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl RunId {
    /// Returns the first run id of an epoch.
    pub fn first(epoch: u32) -> Self {
        Self(u64::from(epoch) << 40)
    }
    /// Returns the following id.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One worker, as long as it lives; never used twice in a cluster (journalled when it joins).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub u32);

/// Number of a job intent within a cluster, from 1; its name is [`JobName`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobSeq(pub u32);

/// Unique name of a job, `dc<id4>-<seq6>`: four letters of the cluster's id and the intent's number
/// (13 characters; PBS allows 15). Never used again, so a job is findable by it after any crash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobName(String);

impl JobName {
    /// Returns the name of intent `seq` of the cluster whose id begins with the letters `id4`.
    pub fn new(id4: &str, seq: JobSeq) -> Self {
        Self(format!("dc{id4}-{:06}", seq.0))
    }
    /// Parses a name of the cluster `id4`; `None` for anything else (other people's jobs).
    pub fn parse(id4: &str, text: &str) -> Option<(Self, JobSeq)> {
        let digits = text.strip_prefix("dc")?.strip_prefix(id4)?.strip_prefix('-')?;
        if digits.len() < 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some((Self(text.to_owned()), JobSeq(digits.parse().ok()?)))
    }
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the backend calls a job: `1234`, `1234_7`, a pod's uid, `pid.starttime.boot` on `local`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NativeId(pub String);

impl fmt::Display for ArrayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for NativeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
