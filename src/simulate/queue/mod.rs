//! How long jobs wait: models of a batch system's queue. `lognormal` (without spread: constant) needs nothing, `nearest` and
//! `easy` a log of a real one.

mod choice;
mod easy;
mod lognormal;
mod machine;
mod nearest;
#[cfg(test)]
mod reference;
mod starts;
#[cfg(test)]
mod tests;

pub use choice::{Choice, ChoiceError};
pub use easy::Easy;
pub use lognormal::LogNormal;
pub(super) use lognormal::normal;
pub use nearest::Nearest;

/// What a job asks for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Asked {
    /// Processors.
    pub processors: u32,
    /// Seconds; `None` = no limit.
    pub walltime: Option<f64>,
}

/// A queue: jobs go in, and start some time. Times in seconds since the beginning of the simulation.
pub trait Queue {
    /// A job is submitted.
    fn submit(&mut self, job: u32, asked: Asked, now: f64);

    /// A job leaves: it was cancelled, or has ended before its walltime.
    fn leave(&mut self, job: u32, now: f64);

    /// Returns when something may happen next.
    fn next(&self) -> Option<f64>;

    /// Returns the jobs that start until `now`, each with its time, in order.
    fn advance(&mut self, now: f64) -> Vec<(f64, u32)>;
}
