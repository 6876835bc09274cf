//! Signals that reach a whole job: LSF and PBS send theirs to every process of it, the worker and its tasks alike, in
//! any order. A task that such a signal has ended has not failed. Pure.
//!
//! An end that a signal may have caused is kept back for a moment: until the worker has got the same signal, or has
//! lived on without it. SIGKILL cannot be got, but who gets it reports nothing.

use super::Millis;
use crate::runtime::ids::RunId;
use crate::runtime::protocol::{EndReport, Outcome};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, VecDeque};

/// How long an end is kept back: batch systems walk through the processes of a job within this time.
const HELD_FOR: Millis = 250;
/// How long after a signal an end by the same signal is taken for its doing: programs tidy up.
const REACHES_FOR: Millis = 5000;
/// What batch systems send to warn and to end.
const SIGNALS: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGKILL];

/// Ends on their way to the session.
#[derive(Debug, Default)]
pub(super) struct SharedSignals {
    ready: Vec<EndReport>,
    held: VecDeque<(Millis, i32, EndReport)>,
    got: BTreeMap<i32, Millis>,
}

impl SharedSignals {
    /// The worker got a signal.
    pub(super) fn on_signal(&mut self, signal: i32, now: Millis) {
        self.got.insert(signal, now);
        self.release(|_, by| by == signal, Outcome::Interrupted);
    }

    /// All runs are interrupted.
    pub(super) fn interrupt_all(&mut self) {
        self.release(|_, _| true, Outcome::Interrupted);
    }

    /// The server does not want this run.
    pub(super) fn kill(&mut self, run: RunId) {
        self.release(|report, _| report.run == run, Outcome::Killed);
    }

    /// A run has ended.
    pub(super) fn put(&mut self, mut report: EndReport, now: Millis) {
        match signal_of(&report.outcome) {
            None => self.ready.push(report),
            Some(signal) if self.got.get(&signal).is_some_and(|at| now <= at.saturating_add(REACHES_FOR)) => {
                report.outcome = Outcome::Interrupted;
                self.ready.push(report);
            }
            Some(signal) => self.held.push_back((now.saturating_add(HELD_FOR), signal, report)),
        }
    }

    /// Returns when [`Self::take`] has more.
    pub(super) fn next(&self) -> Option<Millis> {
        self.held.front().map(|(until, ..)| *until)
    }

    /// Returns the ends that are certain.
    pub(super) fn take(&mut self, now: Millis) -> Vec<EndReport> {
        while let Some((.., report)) = self.held.pop_front_if(|(until, ..)| *until <= now) {
            self.ready.push(report);
        }
        std::mem::take(&mut self.ready)
    }

    fn release(&mut self, which: impl Fn(&EndReport, i32) -> bool, outcome: Outcome) {
        for (until, signal, mut report) in std::mem::take(&mut self.held) {
            if which(&report, signal) {
                report.outcome = outcome.clone();
                self.ready.push(report);
            } else {
                self.held.push_back((until, signal, report));
            }
        }
    }
}

/// The signal that may have reached the whole job; a shell says 128 + its number of a program that it waited for.
fn signal_of(outcome: &Outcome) -> Option<i32> {
    let signal = match outcome {
        Outcome::Signalled { signal } => *signal,
        Outcome::Failed { code } => code - 128,
        _ => return None,
    };
    SIGNALS.iter().any(|known| *known as i32 == signal).then_some(signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ids::{ArrayId, TaskId};
    use crate::runtime::protocol::Usage;

    fn report(run: u64, outcome: Outcome) -> EndReport {
        let task = TaskId { array: ArrayId(1), element: 0 };
        EndReport { task, run: RunId(run), outcome, usage: Usage::default() }
    }

    fn outcomes(shared: &mut SharedSignals, now: Millis) -> Vec<(u64, Outcome)> {
        shared.take(now).into_iter().map(|report| (report.run.0, report.outcome)).collect()
    }

    const USR2: Outcome = Outcome::Signalled { signal: 12 };

    #[test]
    fn a_signal_to_all_is_no_failure_in_any_order() {
        let mut shared = SharedSignals::default();
        shared.put(report(1, USR2), 100);
        shared.put(report(2, Outcome::Failed { code: 140 }), 110);
        shared.put(report(3, Outcome::Failed { code: 143 }), 120);
        assert_eq!(outcomes(&mut shared, 120), []);
        shared.on_signal(12, 130);
        shared.put(report(4, USR2), 5130);
        shared.put(report(5, USR2), 5131);
        let interrupted = |run| (run, Outcome::Interrupted);
        assert_eq!(outcomes(&mut shared, 130), [interrupted(1), interrupted(2), interrupted(4)]);
        assert_eq!(shared.next(), Some(370));
        assert_eq!(outcomes(&mut shared, 370), [(3, Outcome::Failed { code: 143 })], "by another signal");
        assert_eq!(outcomes(&mut shared, 5381), [(5, USR2)], "long after");
    }

    #[test]
    fn a_task_that_was_signalled_alone_has_failed() {
        let mut shared = SharedSignals::default();
        for (run, outcome) in [(1, USR2), (2, Outcome::Signalled { signal: 9 }), (3, Outcome::Failed { code: 130 })] {
            shared.put(report(run, outcome.clone()), 0);
            assert_eq!(outcomes(&mut shared, 249), []);
            assert_eq!(outcomes(&mut shared, 250), [(run, outcome)]);
        }
        for outcome in [Outcome::Finished, Outcome::Failed { code: 1 }, Outcome::Signalled { signal: 11 }] {
            shared.put(report(4, outcome.clone()), 0);
            assert_eq!(outcomes(&mut shared, 0), [(4, outcome)], "no signal of a batch system");
        }
    }

    #[test]
    fn who_is_held_is_still_killed_or_interrupted() {
        let mut shared = SharedSignals::default();
        shared.put(report(1, USR2), 0);
        shared.put(report(2, USR2), 0);
        shared.kill(RunId(1));
        assert_eq!(outcomes(&mut shared, 0), [(1, Outcome::Killed)]);
        shared.interrupt_all();
        assert_eq!(outcomes(&mut shared, 0), [(2, Outcome::Interrupted)]);
    }
}
