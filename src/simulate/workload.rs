//! What is to be done: tasks with their run times, needs, arrival and dependencies.

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
