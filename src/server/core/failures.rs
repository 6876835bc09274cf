//! Ends of tasks: what they used, and how many failed of what.

use super::{Core, EventLine, Output, view};
use crate::ledger::Moment;
use crate::runtime::ids::{ArrayId, TaskId};
use crate::runtime::protocol::Usage;
use crate::runtime::scheduler::End;
use crate::server::record::{Detail, push_end};

impl Core {
    pub(super) fn ended(&mut self, task: TaskId, end: End, detail: Option<Detail>, now: Moment, out: &mut Output) {
        self.running_since.remove(&task);
        if let Some(detail) = detail {
            self.count_usage(detail.usage);
        }
        if let Some(array) = self.arrays.get_mut(&task.array) {
            match detail {
                Some(detail) => array.details.insert(task.element, detail),
                None => array.details.remove(task.element),
            }
        }
        self.note_failure(task, &end, now, out);
        push_end(&mut out.records, task, end, detail);
    }

    /// Figures of a worker are never trusted: no sum may overflow.
    pub(super) fn count_usage(&mut self, usage: Usage) {
        self.used.wall_milliseconds = self.used.wall_milliseconds.saturating_add(usage.wall_milliseconds);
        self.used.cpu_milliseconds = self.used.cpu_milliseconds.saturating_add(usage.cpu_milliseconds);
        self.used.memory_bytes = self.used.memory_bytes.max(usage.memory_bytes);
    }

    /// After a retry: counts the failures of a submission anew.
    pub(super) fn recount_failures(&mut self) {
        for id in std::mem::take(&mut self.recount) {
            self.failures.retain(|(array, _), _| *array != id);
            let view = self.scheduler.array_view(id);
            let ends: Vec<(u32, u32, End)> = view.map(|view| view.ends().collect()).unwrap_or_default();
            for (first, last, end) in ends {
                self.count_failures(id, first, last, &end);
            }
        }
    }

    pub(super) fn count_failures(&mut self, array: ArrayId, first: u32, last: u32, end: &End) {
        if matches!(end, End::Failed(_) | End::Poisonous) {
            let words = view::end_words(end, |task| self.task_label(task));
            *self.failures.entry((array, words)).or_default() += u64::from(last - first + 1);
        }
    }

    /// Counts failures by cause; at most 20 a second become events of their own.
    pub(super) fn note_failure(&mut self, task: TaskId, end: &End, now: Moment, out: &mut Output) {
        if !matches!(end, End::Failed(_) | End::Poisonous) {
            return;
        }
        let words = view::end_words(end, |task| self.task_label(task));
        *self.failures.entry((task.array, words.clone())).or_default() += 1;
        let second = now.clock / 1000;
        if self.failure_events.0 != second {
            self.failure_events = (second, 0);
        }
        self.failure_events.1 += 1;
        if self.failure_events.1 <= 20 {
            let id = self.task_label(task);
            let text = format!("task {id} failed: {words}");
            out.events.push(EventLine { kind: "task_failed", job: None, task: Some(id), text });
        } else if self.failure_events.1 == 21 {
            let text = "more tasks fail; dcluster tasks --failed lists them".to_owned();
            out.events.push(EventLine { kind: "tasks_failed", job: None, task: None, text });
        }
    }
}
