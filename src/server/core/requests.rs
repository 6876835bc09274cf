//! What clients ask for.

use super::{Array, ConnectionId, Core, Output, Wait, reply};
use crate::config::values::JOBS_MAX;
use crate::ledger::Moment;
use crate::runtime::control::{ErrorKind, Progress, Reply, Request};
use crate::runtime::ids::ArrayId;
use crate::runtime::protocol::{Command, Submission, TaskRef};
use crate::runtime::scheduler::{Counts, Event, Shape};
use crate::selection::{ARRAY_MAX, Selection};
use crate::server::record::Record;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The kernel's limit on one argument (`MAX_ARG_STRLEN`).
const ARGUMENT_BYTES_MAX: usize = 128 << 10;
/// Arguments and environment of one task together.
const COMMAND_BYTES_MAX: usize = 2 << 20;
/// A template with its input values: far more than the system runs, and little enough to be shown.
const RENDERED_BYTES_MAX: usize = 16 << 20;
const NAME_BYTES_MAX: usize = 255;
const DEPENDENCIES_MAX: usize = 100_000;
const TASKS_MAX: u64 = 100_000_000;
const REQUEST_KINDS_MAX: usize = 64;
/// What a client makes up to send a submission twice: 128 bits in hex, with room.
const KEY_BYTES_MAX: usize = 64;
/// Bytes that may wait to be written before no new work is accepted.
const JOURNAL_QUEUE_BYTES_MAX: usize = 64 << 20;
const WAIT_MAX: u64 = 60_000;
/// Names of submissions that are told apart when durations are learned.
const FAMILIES_MAX: usize = 64;

fn usage(what: impl Into<String>) -> Reply {
    Reply::Error { kind: ErrorKind::Usage, what: what.into(), fix: None }
}

impl Core {
    /// Handles a request; its reply leaves when what it tells is durable.
    pub fn on_request(&mut self, connection: ConnectionId, id: u32, request: Request, now: Moment, out: &mut Output) {
        if request.changes() {
            if let Some(trouble) = &self.journal_trouble
                && !matches!(request, Request::Down { .. })
            {
                let refusal = self.refusal(trouble);
                out.sends.push((connection, 0, reply(id, refusal)));
                return;
            }
            if self.journal_queue > JOURNAL_QUEUE_BYTES_MAX
                && !matches!(request, Request::Down { .. } | Request::Cancel { .. })
            {
                let answer = Reply::Error {
                    kind: ErrorKind::TryAgain,
                    what: format!(
                        "the disk of {} is slow: {} MiB wait to be written, and no new work is accepted at more than {}",
                        self.options.folder.display(),
                        self.journal_queue >> 20,
                        JOURNAL_QUEUE_BYTES_MAX >> 20
                    ),
                    fix: Some("try again in a moment".to_owned()),
                };
                out.sends.push((connection, 0, reply(id, answer)));
                return;
            }
            if self.stopped && !matches!(request, Request::Down { .. } | Request::Cancel { .. }) {
                let answer = Reply::Error {
                    kind: ErrorKind::TryAgain,
                    what: "the cluster is going down".to_owned(),
                    fix: Some("dcluster up, when it is down".to_owned()),
                };
                out.sends.push((connection, 0, reply(id, answer)));
                return;
            }
        }
        // Shown states must not change any more: they are told once they are durable. While the disk
        // refuses, numbers are better than nothing, but no final state is told that may be lost.
        let after = if self.journal_trouble.is_some() { 0 } else { self.turn };
        if let Some(trouble) = &self.journal_trouble
            && matches!(request, Request::Tasks { .. })
            && self.settled > self.durable
        {
            let refusal = self.refusal(trouble);
            out.sends.push((connection, 0, reply(id, refusal)));
            return;
        }
        if matches!(
            request,
            Request::Cancel { .. } | Request::Retry { .. } | Request::Scale { .. } | Request::Adapt { .. }
        ) {
            self.in_flight.push((self.turn, None, connection, id));
        }
        let answer = match request {
            Request::Status => {
                let status = self.status(now);
                self.longest_turn = Duration::ZERO;
                Reply::Status(Box::new(status))
            }
            Request::Submit { key, submission } => match self.submit(&key, *submission, now, out) {
                Ok(array) => {
                    // Sent again: what is durable is not given back.
                    let turn = self.arrays.get(&array).map_or(0, |array| array.turn);
                    if turn > self.durable {
                        self.in_flight.push((turn, Some(array), connection, id));
                    }
                    Reply::Submitted { array }
                }
                Err(refused) => refused,
            },
            Request::Tasks { tasks, kinds, after, limit } => match self.task_page(&tasks, &kinds, after, limit, now) {
                Ok((tasks, next)) => Reply::Tasks { tasks, next },
                Err(what) => usage(what),
            },
            Request::Cancel { tasks } => self.change(&tasks, |tasks| Event::Cancel { tasks }, now, out),
            Request::Retry { tasks } => self.change(&tasks, |tasks| Event::Retry { tasks }, now, out),
            Request::Wait { tasks, timeout } => match self.resolve(&tasks) {
                Err(what) => usage(what),
                Ok(_) => {
                    let deadline = now.clock + timeout.min(WAIT_MAX);
                    self.waits.push(Wait { connection, request: id, tasks, deadline });
                    return;
                }
            },
            Request::Scale { jobs } if jobs > JOBS_MAX => {
                usage(format!("a cluster has at most {JOBS_MAX} jobs, not {jobs}"))
            }
            Request::Scale { jobs } => {
                self.scale(jobs, now, out);
                Reply::Scaled
            }
            Request::Adapt { adapt } => match adapt.check() {
                Err(what) => usage(what),
                Ok(()) => {
                    self.adapt(adapt, now, out);
                    Reply::Scaled
                }
            },
            Request::Decisions => Reply::Decisions(self.decisions()),
            Request::Down { mode } => {
                self.go_down(mode, Some((connection, id)), now, out);
                return;
            }
            Request::Output { task, stderr, offset } => {
                match self.read_output((connection, id), task, stderr, offset, now, out) {
                    Some(answer) => answer,
                    None => return,
                }
            }
            Request::Jobs => Reply::Left { jobs: self.jobs_left(), closed: false },
        };
        out.sends.push((connection, after, reply(id, answer)));
    }

    fn submit(&mut self, key: &str, submission: Submission, now: Moment, out: &mut Output) -> Result<ArrayId, Reply> {
        if let Some(array) = self.keys.get(key) {
            return Ok(*array);
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(usage(format!("a key has at most {KEY_BYTES_MAX} bytes, not {}", key.len())));
        }
        self.check_submission(&submission).map_err(usage)?;
        let shape = self.shape_of(&submission);
        self.scheduler.validate(&shape).map_err(|error| usage(error.to_string()))?;
        let last = self.arrays.last_key_value().map_or(0, |(last, _)| last.0);
        let array = ArrayId(last.checked_add(1).ok_or_else(|| usage("the ids of this cluster are used up"))?);
        let (key, submission) = (Arc::from(key), Arc::new(submission));
        let record =
            Record::Submitted { array, key: Arc::clone(&key), submission: Arc::clone(&submission), at: now.wall };
        out.records.push(record);
        self.insert_array(array, key, submission, now.wall, self.turn);
        let mut actions = Vec::new();
        self.scheduler.apply(Event::Submit { array, shape }, now.clock, &mut actions);
        self.carry_out(actions, now, out);
        Ok(array)
    }

    pub(super) fn insert_array(
        &mut self,
        array: ArrayId,
        key: Arc<str>,
        submission: Arc<Submission>,
        at: u64,
        turn: super::Turn,
    ) {
        if !key.is_empty() {
            self.keys.insert(Arc::clone(&key), array);
        }
        let record = Array {
            depends: !submission.after.is_empty(),
            submission,
            key,
            submitted_at: at,
            turn,
            details: Default::default(),
        };
        self.arrays.insert(array, record);
    }

    fn check_submission(&self, submission: &Submission) -> Result<(), String> {
        let body = &submission.body;
        let count = u64::from(body.indexes.count());
        if count == 0 {
            return Err("an array needs at least one element".to_owned());
        }
        if count > ARRAY_MAX {
            return Err(format!("an array has at most {ARRAY_MAX} elements, not {count}"));
        }
        if !body.indexes.is_valid() {
            return Err("the indexes of an array are 0 to 4294967295, in order and each once".to_owned());
        }
        let totals = self.scheduler.totals();
        check_room(totals.unfinished() + totals.finished + totals.failed + totals.cancelled, count)?;
        if body.name.len() > NAME_BYTES_MAX || body.name.chars().any(char::is_control) {
            return Err(format!("a name has at most {NAME_BYTES_MAX} bytes and no control characters"));
        }
        if submission.after.len() > DEPENDENCIES_MAX {
            return Err(format!("a task waits for at most {DEPENDENCIES_MAX} others"));
        }
        let counters: BTreeSet<&String> =
            body.needs.variants.iter().flat_map(|request| request.counters.keys()).collect();
        if counters.len() > REQUEST_KINDS_MAX {
            return Err(format!("a task asks for at most {REQUEST_KINDS_MAX} kinds of resources"));
        }
        if let Some(unknown) = counters.into_iter().find(|name| !self.options.spec.counters.contains_key(*name)) {
            let known: Vec<&str> = self.options.spec.counters.keys().map(String::as_str).collect();
            let known =
                if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
            return Err(format!(
                "the cluster has no counter `{unknown}` ({known}); counters are made at up: --counter {unknown}=N"
            ));
        }
        let (words, count_inputs) = match &body.command {
            Command::Argv(words) if words.is_empty() => return Err("there is no command to run".to_owned()),
            Command::Argv(words) => (words.as_slice(), 0),
            Command::Template(template) => {
                let parsed = crate::template::Template::parse(template.as_ref()).map_err(|error| error.to_string())?;
                let sizes = submission.inputs.iter().map(|values| parsed.rendered_bytes_max(values));
                if let Some(long) = sizes.max().filter(|bytes| *bytes > RENDERED_BYTES_MAX) {
                    return Err(format!(
                        "a command would have {} MiB with its input values; at most {}",
                        long >> 20,
                        RENDERED_BYTES_MAX >> 20
                    ));
                }
                (std::slice::from_ref(template), body.indexes.count() as usize)
            }
        };
        if submission.inputs.len() != count_inputs {
            return Err(format!("{} input values for {count_inputs} elements", submission.inputs.len()));
        }
        if let Some(long) =
            words.iter().chain(submission.inputs.iter().flatten()).find(|word| word.len() > ARGUMENT_BYTES_MAX)
        {
            return Err(format!("an argument has {} bytes; the system allows {ARGUMENT_BYTES_MAX}", long.len()));
        }
        let variables = || body.env.iter().map(|(name, value)| name.len() + value.len() + 2);
        if let Some(long) = variables().find(|bytes| *bytes > ARGUMENT_BYTES_MAX) {
            return Err(format!("an environment variable has {long} bytes; the system allows {ARGUMENT_BYTES_MAX}"));
        }
        let total = variables().sum::<usize>() + words.iter().map(|word| word.len() + 1).sum::<usize>();
        if total > COMMAND_BYTES_MAX {
            return Err(format!("arguments and environment have {total} bytes together; at most {COMMAND_BYTES_MAX}"));
        }
        Ok(())
    }

    /// Cancels or retries, and says how many tasks that concerned.
    fn change(
        &mut self,
        selections: &[Selection],
        event: impl FnOnce(Vec<TaskRef>) -> Event,
        now: Moment,
        out: &mut Output,
    ) -> Reply {
        let tasks = match self.resolve(selections) {
            Ok(tasks) => tasks,
            Err(what) => return usage(what),
        };
        let before = out.records.len();
        let mut actions = Vec::new();
        self.scheduler.apply(event(tasks), now.clock, &mut actions);
        self.carry_out(actions, now, out);
        let changed = out.records[before..]
            .iter()
            .filter(|record| matches!(record, Record::Ended { .. } | Record::Revived { .. }));
        Reply::Changed { tasks: changed.count() as u64 }
    }

    /// Answers clients whose tasks have ended, or whose time is over.
    pub(super) fn answer_waits(&mut self, now: Moment, out: &mut Output) {
        // While the disk refuses, an answer that rests on nothing new may leave.
        let after = if self.journal_trouble.is_some() { self.settled } else { self.turn };
        for wait in std::mem::take(&mut self.waits) {
            let counts = self.count(&wait.tasks);
            if counts.unfinished() > 0 && now.clock < wait.deadline {
                self.waits.push(wait);
                continue;
            }
            let progress = Progress {
                counts,
                jobs_live: self.jobs_live(),
                workers: u32::try_from(self.connections.len()).unwrap_or(u32::MAX),
                waiting_for: if counts.running == 0 { self.waiting_for(now) } else { None },
            };
            out.sends.push((wait.connection, after, reply(wait.request, Reply::Progress(progress))));
        }
    }

    fn count(&self, selections: &[Selection]) -> Counts {
        if selections.is_empty() {
            return self.scheduler.totals();
        }
        let mut sum = Counts::default();
        for task in self.resolve(selections).unwrap_or_default() {
            let Some(part) = self.scheduler.counts(task) else { continue };
            sum.waiting += part.waiting;
            sum.ready += part.ready;
            sum.running += part.running;
            sum.finished += part.finished;
            sum.failed += part.failed;
            sum.cancelled += part.cancelled;
        }
        sum
    }
}

fn check_room(there: u64, count: u64) -> Result<(), String> {
    if there + count > TASKS_MAX {
        return Err(format!("a cluster holds at most {TASKS_MAX} tasks; it has {there}"));
    }
    Ok(())
}

impl Core {
    /// Returns what the scheduler needs to know of a submission.
    pub(super) fn shape_of(&mut self, submission: &Submission) -> Shape {
        Shape {
            count: submission.body.indexes.count(),
            needs: submission.body.needs.clone(),
            priority: submission.priority,
            retries: submission.retries,
            time_request: submission.time_request_seconds.map(|seconds| seconds.saturating_mul(1000)),
            after: submission.after.clone(),
            at_most: submission.at_most,
            family: self.family_of(&submission.body.name),
        }
    }

    /// Returns the family of tasks of a name: what is learned of one is held to be true of the others. The first
    /// names have families of their own, all later ones share the last.
    fn family_of(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let known = self.families.iter().position(|family| family == name);
        let at = known.unwrap_or_else(|| {
            if self.families.len() < FAMILIES_MAX {
                self.families.push(name.to_owned());
            }
            self.families.len() - 1
        });
        at as u32 + 1
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
