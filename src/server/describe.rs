//! Records of the journal in words, with the ids that users know. Called by `dcluster journal show` and by
//! `repair` for what it has to leave out.

use super::core::view::end_words;
use super::record::Record;
use crate::runtime::ids::{ArrayId, TaskId};
use crate::runtime::protocol::{Command, Indexes};
use crate::runtime::scheduler::End;
use crate::selection::task_id;
use crate::ui::words::{count, escape};
use std::collections::BTreeMap;

/// Ids of one record that are named; the rest is counted.
const NAMED_MAX: usize = 5;

/// Says what records are about. It must see submissions to know the ids of their elements.
#[derive(Debug, Default)]
pub struct Describer {
    indexes: BTreeMap<ArrayId, Indexes>,
}

/// One record in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    /// What kind it is: `submitted`, `finished`, … for programs.
    pub kind: &'static str,
    /// The submission it is about.
    pub submission: Option<u32>,
    /// The sentence.
    pub text: String,
}

impl Describer {
    fn label(&self, task: TaskId) -> String {
        match self.indexes.get(&task.array) {
            Some(indexes) => task_id(task, indexes),
            // Its submission is lost: the position is all that is known.
            None => format!("{} (position {})", task.array, task.element),
        }
    }

    fn list(&self, array: ArrayId, elements: impl ExactSizeIterator<Item = u32>) -> String {
        let all = elements.len();
        let mut named: Vec<String> =
            elements.take(NAMED_MAX).map(|element| self.label(TaskId { array, element })).collect();
        if all > NAMED_MAX {
            named.push(format!("and {} more", all - NAMED_MAX));
        }
        named.join(", ")
    }

    fn end(&self, end: &End) -> String {
        end_words(end, |task| self.label(task))
    }

    /// Describes a record.
    pub fn describe(&mut self, record: &Record) -> Described {
        let about = |kind, array: ArrayId, text| Described { kind, submission: Some(array.0), text };
        let plain = |kind, text: String| Described { kind, submission: None, text };
        match record {
            Record::Submitted { array, submission, .. } => {
                let body = &submission.body;
                self.indexes.insert(*array, body.indexes.clone());
                let what = match &body.command {
                    Command::Argv(words) => crate::template::Rendered::Argv(words.clone()).display().to_string(),
                    Command::Template(template) => template.to_string(),
                };
                let elements = match body.indexes {
                    Indexes::Single => String::new(),
                    _ => format!(", {}", count(body.indexes.count().into(), "element")),
                };
                about("submitted", *array, format!("task {array} submitted{elements}: {}", escape(&what)))
            }
            Record::Withdrawn { array } => about("withdrawn", *array, format!("task {array} was given back")),
            Record::Finished { array, runs } => {
                let list = self.list(*array, runs.iter().map(|(element, _)| *element));
                about("finished", *array, format!("finished: {list}"))
            }
            Record::Ended { task, end, .. } => {
                let text = format!("task {} ended: {}", self.label(*task), escape(&self.end(end)));
                about("ended", task.array, text)
            }
            Record::ManyEnded { array, end, ranges } => {
                let tasks: u64 = ranges.iter().map(|(first, last)| u64::from(last.saturating_sub(*first)) + 1).sum();
                let text = format!("{} of {array} ended: {}", count(tasks, "task"), escape(&self.end(end)));
                about("many_ended", *array, text)
            }
            Record::Runs { array, runs } => {
                about("runs", *array, format!("times and memory of {} of {array}", count(runs.len() as u64, "task")))
            }
            Record::Revived { task } => {
                about("revived", task.array, format!("task {} was asked to run again", self.label(*task)))
            }
            Record::Retried { task } => {
                about("retried", task.array, format!("task {} failed and used up a retry", self.label(*task)))
            }
            Record::Lost { task } => about("lost", task.array, format!("task {} lost its worker", self.label(*task))),
            Record::Job(job) => {
                let id = job.id.as_ref().map_or(String::new(), |id| format!(" (id {id})"));
                plain("job", format!("job {}{}: {}", job.name, escape(&id), job.state.as_str()))
            }
            Record::Joined { worker, node, .. } => {
                plain("joined", format!("worker {worker} joined on {}", escape(node)))
            }
            Record::Left { worker } => plain("left", format!("worker {worker} is gone")),
            Record::Adapted(adapt) => {
                plain("adapted", format!("{} to {} by load", adapt.min, count(u64::from(adapt.max), "job")))
            }
            Record::Scaled { jobs, .. } => plain("scaled", format!("{} asked for", count(u64::from(*jobs), "job"))),
            Record::Stopping => plain("stopping", "the cluster goes down".to_owned()),
            Record::Opened => plain("opened", "the cluster is up again".to_owned()),
            Record::Used(_) => plain("used", "time used so far".to_owned()),
        }
    }
}
