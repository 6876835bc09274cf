//! What the journal keeps: one record per fact, as MessagePack named maps. A base is the same
//! records, written from memory.

use crate::ledger::Job;
use crate::runtime::ids::{ArrayId, JobSeq, TaskId, WorkerId};
use crate::runtime::protocol::{Submission, Usage};
use crate::runtime::scheduler::End;
use serde::{Deserialize, Serialize};

/// One fact.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Record {
    /// Tasks were accepted.
    Submitted {
        /// Their id.
        array: ArrayId,
        /// The client's key, so that the same submission sent twice is accepted once.
        key: String,
        /// The tasks.
        submission: Box<Submission>,
        /// Milliseconds since the epoch.
        at: u64,
    },
    /// A submission was given back before it was acknowledged: its key is free again.
    Withdrawn {
        /// The submission.
        array: ArrayId,
    },
    /// A task has its final state.
    Ended {
        /// The task.
        task: TaskId,
        /// How.
        end: End,
        /// What its last run was like, if it ran.
        #[serde(default)]
        detail: Option<Detail>,
    },
    /// Many tasks have the same final state (in a base); details follow on their own.
    ManyEnded {
        /// Their submission.
        array: ArrayId,
        /// First element.
        first: u32,
        /// Last element.
        last: u32,
        /// How.
        end: End,
    },
    /// What the last run of an ended task was like (in a base).
    Detail {
        /// The task.
        task: TaskId,
        /// The run.
        detail: Detail,
    },
    /// A final task was asked to run again.
    Revived {
        /// The task.
        task: TaskId,
    },
    /// A task failed and used up a retry.
    Retried {
        /// The task.
        task: TaskId,
    },
    /// A task lost its worker, and that counts.
    Lost {
        /// The task.
        task: TaskId,
    },
    /// A job's record changed.
    Job(Box<Job>),
    /// A worker joined: it may hold tasks until it has left.
    Joined {
        /// Its id.
        worker: WorkerId,
        /// Its job; `None` = by hand.
        job: Option<JobSeq>,
        /// Its process.
        nonce: String,
        /// Its host.
        node: String,
    },
    /// A worker is gone for good.
    Left {
        /// Its id.
        worker: WorkerId,
    },
    /// So many jobs are asked for.
    Scaled {
        /// Number.
        jobs: u32,
        /// So many were there once: from then on ended ones are replaced only for work.
        #[serde(default)]
        reached: bool,
    },
    /// The cluster goes down.
    Stopping,
    /// A server begins to serve after `up`: whatever `Stopping` said is over.
    Opened,
    /// Time used by ended runs, in all (in a base).
    Used(Usage),
}

/// What one run was like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Detail {
    /// Where.
    pub worker: WorkerId,
    /// Milliseconds since the epoch.
    pub started_at: u64,
    /// What it used.
    pub usage: Usage,
}

impl Record {
    /// Returns the bytes that the journal keeps.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("a record is made of plain data that always serialises")
    }

    /// Reads a record back.
    ///
    /// # Errors
    ///
    /// If it is of a kind this version does not know, or damaged in a way no checksum saw.
    pub fn decode(bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        rmp_serde::from_slice(bytes)
    }
}
