//! What tasks have written, for clients that do not see the files: the worker that has them is asked. A client asks
//! again for the next part, so nothing is held here but who asked.

use super::{ConnectionId, Core, Outgoing, Output, reply};
use crate::ledger::Moment;
use crate::runtime::control::{ErrorKind, Reply};
use crate::runtime::ids::{TaskId, WorkerId};
use crate::runtime::protocol::{OUTPUT_BYTES_MAX, ServerMessage};
use crate::runtime::scheduler::TaskState;
use crate::runtime::worker::output_paths;
use bstr::BString;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;

/// A worker answers within this time, in milliseconds.
const PATIENCE: u64 = 10_000;
/// Questions without an answer.
const OPEN_MAX: usize = 1_000;

#[derive(Debug)]
struct Asked {
    client: ConnectionId,
    request: u32,
    worker: WorkerId,
    deadline: u64,
}

/// Questions on their way.
#[derive(Debug, Default)]
pub(super) struct OutputReads {
    last: u64,
    open: BTreeMap<u64, Asked>,
}

fn not_now(what: String) -> Reply {
    Reply::Error { kind: ErrorKind::TryAgain, what, fix: None }
}

impl Core {
    /// Asks the worker that runs a task, or ran it last; returns a reply if nobody can be asked.
    pub(super) fn read_output(
        &mut self,
        asking: (ConnectionId, u32),
        task: TaskId,
        stderr: bool,
        offset: u64,
        now: Moment,
        out: &mut Output,
    ) -> Option<Reply> {
        let (client, request) = asking;
        let Some((array, state)) = self.arrays.get(&task.array).zip(self.scheduler.state(task)) else {
            let what = format!("there is no task {}", self.task_label(task));
            return Some(Reply::Error { kind: ErrorKind::Usage, what, fix: None });
        };
        let last = array.details.get(task.element).map(|detail| detail.worker);
        let worker = match state {
            TaskState::Running { worker, .. } => Some(worker),
            _ => last,
        };
        let Some(worker) = worker else {
            return Some(Reply::Output { bytes: BString::default() });
        };
        let Ok((stdout, error)) = output_paths(&array.submission.body, task, &self.options.folder) else {
            return Some(Reply::Output { bytes: BString::default() });
        };
        let path = if stderr { error } else { stdout };
        let Some(connection) = self.workers.get(&worker).and_then(|worker| worker.connection) else {
            let label = self.task_label(task);
            return Some(not_now(format!(
                "the worker of task {label} is not here, and only it can read {}",
                path.display()
            )));
        };
        if self.output_reads.open.len() >= OPEN_MAX {
            return Some(not_now(format!("{OPEN_MAX} parts of outputs are being read already")));
        }
        self.output_reads.last += 1;
        let number = self.output_reads.last;
        let deadline = now.clock.saturating_add(PATIENCE);
        self.output_reads.open.insert(number, Asked { client, request, worker, deadline });
        let path = BString::from(path.into_os_string().into_vec());
        let message = ServerMessage::ReadOutput { request: number, path, offset };
        out.sends.push((connection, 0, Outgoing::Worker(message)));
        None
    }

    /// A worker has read; what nobody asked it is dropped.
    pub(super) fn on_output(&mut self, worker: WorkerId, request: u64, mut bytes: BString, out: &mut Output) {
        if self.output_reads.open.get(&request).is_none_or(|asked| asked.worker != worker) {
            return;
        }
        let Some(asked) = self.output_reads.open.remove(&request) else { return };
        bytes.truncate(OUTPUT_BYTES_MAX);
        out.sends.push((asked.client, 0, reply(asked.request, Reply::Output { bytes })));
    }

    /// Answers for workers that have gone, or that are too slow; forgets clients that have.
    pub(super) fn answer_output_reads(&mut self, now: Moment, out: &mut Output) {
        if self.output_reads.open.is_empty() {
            return;
        }
        let here = |worker: &WorkerId| self.workers.get(worker).is_some_and(|worker| worker.connection.is_some());
        let over = |asked: &Asked| asked.deadline <= now.clock || !here(&asked.worker);
        let over: Vec<u64> =
            self.output_reads.open.iter().filter(|(_, asked)| over(asked)).map(|(number, _)| *number).collect();
        for number in over {
            if let Some(asked) = self.output_reads.open.remove(&number) {
                let reason = "the worker that has the output does not answer".to_owned();
                out.sends.push((asked.client, 0, reply(asked.request, not_now(reason))));
            }
        }
    }

    /// A client has gone.
    pub(super) fn forget_output_reads(&mut self, client: ConnectionId) {
        self.output_reads.open.retain(|_, asked| asked.client != client);
    }
}
