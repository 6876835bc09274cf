//! What the journal keeps: one record per fact, as MessagePack named maps. A base is the same
//! records, written from memory.
//!
//! Made by the core, replayed by `core::restore`. What there are millions of (ends with success, runs) is
//! packed: many in one record, and a run is a tuple. The bytes are fixed by `tests/golden/journal`.

use crate::config::spec::Adapt;
use crate::ledger::Job;
use crate::runtime::ids::{ArrayId, JobSeq, TaskId, WorkerId};
use crate::runtime::protocol::{Submission, Usage};
use crate::runtime::scheduler::End;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One fact.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Record {
    /// Tasks were accepted.
    Submitted {
        /// Their id.
        array: ArrayId,
        /// The client's key, so that the same submission sent twice is accepted once.
        key: Arc<str>,
        /// The tasks.
        submission: Arc<Submission>,
        /// Milliseconds since the epoch.
        at: u64,
    },
    /// A submission was given back before it was acknowledged: its key is free again.
    Withdrawn {
        /// The submission.
        array: ArrayId,
    },
    /// Tasks of one submission finished with success, in this order.
    Finished {
        /// Their submission.
        array: ArrayId,
        /// Elements, and what their last runs were like.
        runs: Vec<(u32, Detail)>,
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
    /// Many tasks have the same final state (in a base); their runs follow.
    ManyEnded {
        /// Their submission.
        array: ArrayId,
        /// How.
        end: End,
        /// First and last elements of the stretches, in order.
        ranges: Vec<(u32, u32)>,
    },
    /// What the last runs of ended tasks were like (in a base).
    Runs {
        /// Their submission.
        array: ArrayId,
        /// Elements and their runs.
        runs: Vec<(u32, Detail)>,
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
    /// A task lost its worker, or ran until the end of the longest walltime there is, and that counts.
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
    /// Their number follows the load from now on.
    Adapted(Adapt),
    /// The cluster goes down.
    Stopping,
    /// A server begins to serve after `up`: whatever `Stopping` said is over.
    Opened,
    /// Time used by ended runs, in all (in a base).
    Used(Usage),
}

/// What one run was like. In the journal a list: worker, start, wall time, CPU time, memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "PackedDetail", into = "PackedDetail")]
pub struct Detail {
    /// Where.
    pub worker: WorkerId,
    /// Milliseconds since the epoch.
    pub started_at: u64,
    /// What it used.
    pub usage: Usage,
}

type PackedDetail = (WorkerId, u64, u64, u64, u64);

impl From<PackedDetail> for Detail {
    fn from((worker, started_at, wall_milliseconds, cpu_milliseconds, memory_bytes): PackedDetail) -> Self {
        Self { worker, started_at, usage: Usage { wall_milliseconds, cpu_milliseconds, memory_bytes } }
    }
}

impl From<Detail> for PackedDetail {
    fn from(Detail { worker, started_at, usage }: Detail) -> Self {
        (worker, started_at, usage.wall_milliseconds, usage.cpu_milliseconds, usage.memory_bytes)
    }
}

/// Entries of one record at most: some 100 KiB, so that no record comes near the limit of a frame.
pub(crate) const ENTRIES_MAX: usize = 4096;

/// Adds the end of a task to a turn's records: to the very last one if that is about ends like it, since the
/// order of records means something.
pub(crate) fn push_end(records: &mut Vec<Record>, task: TaskId, end: End, detail: Option<Detail>) {
    match (end, detail) {
        (End::Finished, Some(detail)) => match records.last_mut() {
            Some(Record::Finished { array, runs }) if *array == task.array && runs.len() < ENTRIES_MAX => {
                runs.push((task.element, detail));
            }
            _ => records.push(Record::Finished { array: task.array, runs: vec![(task.element, detail)] }),
        },
        (end, detail) => records.push(Record::Ended { task, end, detail }),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ends_that_follow_each_other_share_a_record() {
        let detail = Detail { worker: WorkerId(3), started_at: 5, usage: Usage::default() };
        let task = |array, element| TaskId { array: ArrayId(array), element };
        let mut records = Vec::new();
        let finish = |records: &mut Vec<Record>, array, element| {
            push_end(records, task(array, element), End::Finished, Some(detail));
        };
        finish(&mut records, 1, 7);
        finish(&mut records, 1, 2);
        finish(&mut records, 2, 0);
        finish(&mut records, 1, 3);
        push_end(&mut records, task(1, 4), End::Cancelled, None);
        finish(&mut records, 1, 5);
        let finished = |array, elements: &[u32]| Record::Finished {
            array: ArrayId(array),
            runs: elements.iter().map(|element| (*element, detail)).collect(),
        };
        let expected = [
            finished(1, &[7, 2]),
            finished(2, &[0]),
            finished(1, &[3]),
            Record::Ended { task: task(1, 4), end: End::Cancelled, detail: None },
            finished(1, &[5]),
        ];
        assert_eq!(records, expected);
        (0..=ENTRIES_MAX as u32).for_each(|element| finish(&mut records, 3, element));
        assert!(matches!(&records[5..], [_, Record::Finished { runs, .. }] if runs.len() == 1));
    }
}
