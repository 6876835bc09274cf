//! What carries out a worker's runs: real processes, or pretended ones.

use super::action::TaskStart;
use super::launch::StartError;
use super::simulated::Simulated;
use super::{Executor, Millis};
use crate::runtime::ids::RunId;
use crate::runtime::protocol::EndReport;
use nix::sys::signal::Signal;
use std::time::Duration;

/// The service loop's view of both.
#[derive(Debug)]
pub(super) enum Runner {
    /// Starts processes.
    Real(Box<Executor>),
    /// Starts nothing.
    Simulated(Simulated),
}

impl Runner {
    /// Whether the end of a child process means anything to it.
    pub(super) fn has_children(&self) -> bool {
        matches!(self, Self::Real(_))
    }

    /// Starts a run; an error is its end, without a report.
    pub(super) fn start(&mut self, start: &TaskStart, now: Millis) -> Result<(), StartError> {
        match self {
            Self::Real(executor) => executor.start(start, now).map(drop),
            Self::Simulated(simulated) => simulated.start(start, now),
        }
    }

    /// Ends a run that the server does not want.
    pub(super) fn kill(&mut self, run: RunId, now: Millis) {
        match self {
            Self::Real(executor) => executor.kill(run, now),
            Self::Simulated(simulated) => simulated.kill(run, now),
        }
    }

    /// Ends all runs without fault of theirs.
    pub(super) fn interrupt_all(&mut self, grace: Duration, now: Millis) {
        match self {
            Self::Real(executor) => executor.interrupt_all(grace, now),
            Self::Simulated(simulated) => simulated.interrupt_all(now),
        }
    }

    /// This process got a signal, and with it perhaps its tasks.
    pub(super) fn on_signal(&mut self, signal: Signal, now: Millis) {
        if let Self::Real(executor) = self {
            executor.on_signal(signal, now);
        }
    }

    /// Returns when [`Self::ended`] must be called next, child or no child.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        match self {
            Self::Real(executor) => executor.next_deadline(),
            Self::Simulated(simulated) => simulated.next_end(),
        }
    }

    /// Enforces limits and returns the runs that have ended.
    pub(super) fn ended(&mut self, now: Millis) -> Vec<EndReport> {
        match self {
            Self::Real(executor) => {
                executor.on_deadline(now);
                executor.on_child_signal(now)
            }
            Self::Simulated(simulated) => simulated.ended(now),
        }
    }

    /// Leaves no process behind; for the end of a worker.
    pub(super) fn kill_descendants(&mut self, patience: Duration, now: Millis) {
        if let Self::Real(executor) = self {
            executor.kill_descendants(patience, now);
        }
    }
}
