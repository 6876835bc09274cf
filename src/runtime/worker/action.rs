//! What goes in and out of a [`Session`](super::Session) besides the messages of the protocol.

use super::Millis;
use crate::runtime::ids::{RunId, TaskId};
use crate::runtime::protocol::{Body, Place, WorkerMessage};
use bstr::BString;
use std::sync::Arc;

/// A run to be started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskStart {
    /// The task.
    pub task: TaskId,
    /// Its run.
    pub run: RunId,
    /// Which variant of what it needs it gets.
    pub variant: u8,
    /// What exactly it gets.
    pub place: Place,
    /// Its submission.
    pub body: Arc<Body>,
    /// Input values of a `map` element.
    pub input: Vec<BString>,
}

/// What the worker's loop has to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WorkerAction {
    /// Connect to the server.
    Dial,
    /// Send this on the current connection.
    Send(WorkerMessage),
    /// Close the current connection, then call [`Session::on_disconnected`](super::Session::on_disconnected).
    Disconnect {
        /// For the log.
        reason: &'static str,
    },
    /// Start this run; then call [`Session::on_started`](super::Session::on_started), or
    /// [`Session::on_ended`](super::Session::on_ended) with
    /// [`Outcome::NotStarted`](crate::runtime::protocol::Outcome::NotStarted).
    StartTask(TaskStart),
    /// End this run.
    KillTask {
        /// Its run.
        run: RunId,
    },
    /// Interrupt all runs.
    InterruptAll {
        /// From TERM to KILL.
        grace: Millis,
    },
    /// Flush the connection, kill whatever still runs, exit. Always the last action.
    Leave {
        /// Exit code.
        code: i32,
        /// For the log and the sentinel.
        reason: String,
    },
}

/// A signal to the worker process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionSignal {
    /// TERM or INT: the end is seconds away.
    Terminate,
    /// USR1 or USR2: the batch system's early warning.
    Warning,
}
