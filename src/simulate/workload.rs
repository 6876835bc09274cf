//! What is to be done: tasks with their run times, needs, arrival and dependencies. `file` reads the graph of a
//! real workflow, `made` makes typical loads.

mod file;
mod made;

pub use made::{Made, NAMES};

use super::input::InputError;
use std::path::Path;

/// One task.
#[derive(Clone, PartialEq, Debug)]
pub struct Task {
    /// Its class, an index into [`Workload::classes`].
    pub class: u32,
    /// When it is submitted, in seconds from the beginning.
    pub arrives: f64,
    /// Seconds it runs.
    pub run: f64,
    /// Cores.
    pub cores: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Tasks that must have finished before, by position; all of them smaller than the task's own.
    pub parents: Vec<u32>,
}

/// Tasks, in order of arrival, parents before children.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Workload {
    /// Name.
    pub name: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// The tasks.
    pub tasks: Vec<Task>,
}

impl Workload {
    /// Returns the workload of a name like `burst` or `burst:500`, or else that of a file.
    ///
    /// # Errors
    /// There is neither, or the file is bad.
    pub fn find(text: &str, seed: u64) -> Result<Self, InputError> {
        match text.parse::<Made>() {
            Ok(made) => Ok(made.make(seed)),
            Err(None) if Path::new(text).exists() => Self::read(Path::new(text)),
            Err(None) => {
                let names = NAMES.map(|(name, _)| name).join(", ");
                Err(InputError::new(
                    text,
                    "there is neither such a file nor a load of this name",
                    format!("{names}, or a file"),
                ))
            }
            Err(Some(what)) => Err(InputError::new(text, what, "a number of tasks, like burst:500")),
        }
    }

    /// Reads the graph of a workflow, gzip or not.
    ///
    /// # Errors
    /// The file cannot be read, is no such graph, or its tasks wait for each other.
    pub fn read(path: &Path) -> Result<Self, InputError> {
        file::read(path)
    }

    /// Returns the core-seconds of all tasks.
    pub fn core_seconds(&self) -> f64 {
        self.tasks.iter().map(|task| task.run * f64::from(task.cores)).sum()
    }
}
