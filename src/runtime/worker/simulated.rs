//! Runs that only pretend: no process, no file, an end after a given time. Takes the place of the
//! [`Executor`](super::Executor) under `worker join --simulate`, so that scheduler, server and connections can be
//! measured with workers and cores that this machine does not have. Pure: time comes in as an argument.

use super::Millis;
use super::action::TaskStart;
use super::launch::StartError;
use super::limits::Deadlines;
use super::prepared::{Argv, ParseTemplate};
use crate::runtime::ids::{RunId, TaskId};
use crate::runtime::protocol::{EndReport, Outcome, Usage};
use bstr::{BString, ByteSlice};
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// What a pretended task is said to have used.
const MEMORY_BYTES: u64 = 4 << 20;

/// How long pretended tasks take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Simulation {
    /// Each this long.
    Each(Duration),
    /// `sleep SECONDS` takes that long, anything else no time.
    Sleep,
}

impl FromStr for Simulation {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "sleep" {
            return Ok(Self::Sleep);
        }
        humantime::parse_duration(text).map(Self::Each)
    }
}

/// Returns how long `sleep SECONDS` would take; no time for anything else.
fn sleeps(argv: &[BString]) -> Duration {
    let [program, seconds] = argv else { return Duration::ZERO };
    if program.rsplit_str(b"/").next() != Some(b"sleep") {
        return Duration::ZERO;
    }
    let seconds: Option<f64> = seconds.to_str().ok().and_then(|text| text.parse().ok());
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default()
}

#[derive(Debug)]
struct Pretended {
    task: TaskId,
    cores: u32,
    started_at: Millis,
    outcome: Outcome,
}

/// Pretended runs.
#[derive(Debug)]
pub(super) struct Simulated {
    simulation: Simulation,
    parse: ParseTemplate,
    running: BTreeMap<RunId, Pretended>,
    ends: Deadlines,
}

impl Simulated {
    pub(super) fn new(simulation: Simulation, parse: ParseTemplate) -> Self {
        Self { simulation, parse, running: BTreeMap::new(), ends: Deadlines::default() }
    }

    /// Begins a run, as [`Executor::start`](super::Executor::start) does.
    pub(super) fn start(&mut self, start: &TaskStart, now: Millis) -> Result<(), StartError> {
        let TaskStart { task, run, variant, place: _, body, input } = start;
        let (task, run) = (*task, *run);
        let duration = match self.simulation {
            Simulation::Each(duration) => duration,
            Simulation::Sleep => match Argv::of_body(body, self.parse)? {
                Argv::Fixed(words) => sleeps(&words),
                Argv::Template(render) => sleeps(&render(input, task.element)),
            },
        };
        let duration = Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX);
        let limit = super::launch::time_limit(body);
        let (duration, outcome) = match limit {
            Some(limit) if limit < duration => (limit, Outcome::TimeLimit),
            _ => (duration, Outcome::Finished),
        };
        self.ends.set(run, now.saturating_add(duration));
        self.running
            .insert(run, Pretended { task, cores: body.needs.variant(*variant).cores, started_at: now, outcome });
        Ok(())
    }

    /// Ends a run at once.
    pub(super) fn kill(&mut self, run: RunId, now: Millis) {
        if let Some(pretended) = self.running.get_mut(&run) {
            pretended.outcome = Outcome::Killed;
            self.ends.set(run, now);
        }
    }

    /// Ends all runs at once.
    pub(super) fn interrupt_all(&mut self, now: Millis) {
        for (run, pretended) in &mut self.running {
            pretended.outcome = Outcome::Interrupted;
            self.ends.set(*run, now);
        }
    }

    /// Returns when the next run ends.
    pub(super) fn next_end(&self) -> Option<Millis> {
        self.ends.next()
    }

    /// Returns the runs that have ended.
    pub(super) fn ended(&mut self, now: Millis) -> Vec<EndReport> {
        let mut reports = Vec::new();
        while let Some(run) = self.ends.take_due(now) {
            let Some(pretended) = self.running.remove(&run) else { continue };
            let wall_milliseconds = now.saturating_sub(pretended.started_at);
            reports.push(EndReport {
                task: pretended.task,
                run,
                outcome: pretended.outcome,
                usage: Usage {
                    wall_milliseconds,
                    cpu_milliseconds: wall_milliseconds.saturating_mul(u64::from(pretended.cores)),
                    memory_bytes: MEMORY_BYTES,
                },
            });
        }
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ids::ArrayId;
    use crate::runtime::protocol::{Body, Command, Indexes, Output, Place, Request};
    use std::sync::Arc;

    const TASK: TaskId = TaskId { array: ArrayId(1), element: 0 };

    fn body(words: &[&str]) -> Body {
        Body {
            command: Command::Argv(words.iter().map(|&word| word.into()).collect()),
            name: String::new(),
            cwd: "/nowhere".into(),
            env: BTreeMap::new(),
            stdin: None,
            stdout: Output::Default,
            stderr: Output::Default,
            time_limit_seconds: None,
            needs: Request { cores: 2, ..Request::default() }.into(),
            indexes: Indexes::Single,
            umask: 0o022,
        }
    }

    fn simulated(how: &str) -> Simulated {
        Simulated::new(how.parse().unwrap(), |template| {
            let template = template.clone();
            Ok(Box::new(move |_, _| vec!["sleep".into(), template.clone()]))
        })
    }

    fn start(runs: &mut Simulated, run: RunId, body: Body, now: Millis) {
        let body = Arc::new(body);
        let start = TaskStart { task: TASK, run, variant: 0, place: Place::default(), body, input: Vec::new() };
        runs.start(&start, now).unwrap();
    }

    fn outcomes(reports: Vec<EndReport>) -> Vec<(u64, Outcome)> {
        reports.into_iter().map(|report| (report.run.0, report.outcome)).collect()
    }

    #[test]
    fn ends_come_when_they_are_due() {
        let mut runs = simulated("20ms");
        start(&mut runs, RunId(1), body(&["sleep", "9"]), 100);
        start(&mut runs, RunId(2), body(&["true"]), 90);
        assert_eq!(runs.next_end(), Some(110));
        assert_eq!(outcomes(runs.ended(109)), []);
        assert_eq!(outcomes(runs.ended(110)), [(2, Outcome::Finished)]);
        let last = runs.ended(125).remove(0);
        assert_eq!((last.run, last.usage.wall_milliseconds, last.usage.cpu_milliseconds), (RunId(1), 25, 50));
        assert_eq!(runs.next_end(), None);
    }

    #[test]
    fn a_sleep_takes_its_time_and_nothing_else_does() {
        let mut runs = simulated("sleep");
        start(&mut runs, RunId(1), body(&["/bin/sleep", "1.5"]), 0);
        start(&mut runs, RunId(2), body(&["sleepy", "1.5"]), 0);
        start(&mut runs, RunId(3), body(&["sleep", "-1"]), 0);
        start(&mut runs, RunId(4), Body { command: Command::Template("2".into()), ..body(&[]) }, 0);
        assert_eq!(outcomes(runs.ended(0)), [(2, Outcome::Finished), (3, Outcome::Finished)]);
        assert_eq!(outcomes(runs.ended(1_500)), [(1, Outcome::Finished)]);
        assert_eq!(outcomes(runs.ended(2_000)), [(4, Outcome::Finished)]);
    }

    #[test]
    fn limits_kills_and_interruptions_count() {
        let mut runs = simulated("1h");
        start(&mut runs, RunId(1), Body { time_limit_seconds: Some(2), ..body(&["x"]) }, 0);
        start(&mut runs, RunId(2), body(&["x"]), 0);
        start(&mut runs, RunId(3), body(&["x"]), 0);
        assert_eq!(outcomes(runs.ended(2_000)), [(1, Outcome::TimeLimit)]);
        runs.kill(RunId(2), 2_001);
        runs.kill(RunId(9), 2_001);
        assert_eq!(outcomes(runs.ended(2_001)), [(2, Outcome::Killed)]);
        runs.interrupt_all(2_002);
        assert_eq!(outcomes(runs.ended(2_002)), [(3, Outcome::Interrupted)]);
    }
}
