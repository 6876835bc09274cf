//! What is known of a class of tasks.

use crate::adapt::Durations;

/// Run times that the quantile is taken from, and ended tasks from which on it is not taken anew each time.
const KEPT: usize = 200;
const SELDOM: u64 = 20;
/// A run that was cut counts for as much more.
const CUT: f64 = 1.5;

/// What is known of a class.
#[derive(Clone, Debug, Default)]
pub(super) struct Class {
    pub(super) cores: u32,
    pub(super) memory_bytes: u64,
    /// Tasks that were submitted and wait for others.
    pub(super) waiting: u64,
    /// Tasks that could run.
    pub(super) ready: u64,
    /// Whether no job can run it: by its size, or as the policy says.
    pub(super) parked: bool,
    /// Whether no job has room for one task of it.
    pub(super) too_large: bool,
    pub(super) durations: Durations,
    sum: f64,
    last: Vec<f64>,
}

impl Class {
    /// A task ran so many seconds, to its end.
    pub(super) fn learn(&mut self, run: f64) {
        let at = self.durations.ended as usize % KEPT;
        self.durations.ended += 1;
        self.add(run);
        if at < self.last.len() {
            self.last[at] = run;
        } else {
            self.last.push(run);
        }
        if self.durations.ended < SELDOM || self.durations.ended.is_multiple_of(SELDOM) {
            let mut sorted = self.last.clone();
            sorted.sort_by(f64::total_cmp);
            self.durations.p90 = sorted[(sorted.len() * 9 / 10).min(sorted.len() - 1)];
        }
    }

    /// A run was cut after so many seconds: it would have taken longer.
    pub(super) fn learn_cut(&mut self, run: f64) {
        self.durations.cut += 1;
        self.add(run * CUT);
        self.durations.p90 = self.durations.p90.max(run * CUT);
    }

    fn add(&mut self, run: f64) {
        self.sum += run;
        self.durations.mean = self.sum / (self.durations.ended + self.durations.cut) as f64;
        self.durations.longest = self.durations.longest.max(run);
    }
}
