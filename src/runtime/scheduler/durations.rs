//! How long the tasks of a class run, learned from those that ended: the 90th percentile says whether a worker
//! has enough walltime left, the mean how many may wait at a worker for room.
//!
//! Used by `ready`. Old tasks count less: at [`WEIGHT_MAX`] all counts are halved.

use super::Millis;

/// Ended tasks that are needed before anything is said.
const ENOUGH: u32 = 10;
const WEIGHT_MAX: u32 = 2_000;
/// Buckets per factor of two.
const STEPS: u32 = 4;
/// 2^40 ms are 35 years.
const BUCKETS: usize = 40 * STEPS as usize;

/// How long ended tasks of a class ran, in milliseconds; old ones count less.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Lasted {
    /// How many.
    pub ended: u64,
    /// Runs that were interrupted although they had had most of what any worker offers. With half as much again
    /// as they ran, they are in the rest and not in `ended`.
    pub cut: u64,
    /// Their mean.
    pub mean: f64,
    /// What nine of ten do not exceed.
    pub p90: Millis,
    /// The longest, at most a fifth too much.
    pub longest: Millis,
}

/// What was learned of one class.
#[derive(Clone, Debug)]
pub(super) struct Durations {
    buckets: Box<[u32; BUCKETS]>,
    count: u32,
    sum: f64,
    /// Tasks that ended by themselves, and runs that were cut; these do not fade.
    ended: u64,
    cut: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), count: 0, sum: 0.0, ended: 0, cut: 0 }
    }
}

impl Durations {
    /// A task has run so long.
    pub(super) fn add(&mut self, wall: Millis) {
        self.ended += 1;
        self.count_in(wall);
    }

    fn count_in(&mut self, wall: Millis) {
        self.buckets[bucket(wall)] += 1;
        self.count += 1;
        self.sum += wall as f64;
        if self.count >= WEIGHT_MAX {
            self.buckets.iter_mut().for_each(|count| *count /= 2);
            let kept = self.buckets.iter().sum();
            self.sum *= f64::from(kept) / f64::from(self.count);
            self.count = kept;
        }
    }

    /// A task was interrupted after so long: it would have run longer. Taken for half as much again.
    pub(super) fn add_interrupted(&mut self, wall: Millis) {
        self.count_in(wall.saturating_add(wall / 2));
    }

    /// As [`Durations::add_interrupted`], and the run had had most of what any worker offers.
    pub(super) fn add_cut(&mut self, wall: Millis) {
        self.cut += 1;
        self.add_interrupted(wall);
    }

    /// Returns what nine of ten tasks do not exceed, at most a fifth too much; `None` before enough have ended.
    pub(super) fn p90(&self) -> Option<Millis> {
        if self.count < ENOUGH {
            return None;
        }
        let mut left = self.count - self.count / 10;
        let at = self.buckets.iter().position(|count| {
            let found = *count >= left;
            left = left.saturating_sub(*count);
            found
        })?;
        Some(upper_edge(at))
    }

    /// Returns all that is known, from the first ended task on.
    pub(super) fn lasted(&self) -> Lasted {
        let total: u32 = self.buckets.iter().sum();
        let mut left = total - total / 10;
        let p90 = self.buckets.iter().position(|count| {
            let found = *count > 0 && *count >= left;
            left = left.saturating_sub(*count);
            found
        });
        let longest = self.buckets.iter().rposition(|count| *count > 0);
        Lasted {
            ended: self.ended,
            cut: self.cut,
            mean: if self.count == 0 { 0.0 } else { self.sum / f64::from(self.count) },
            p90: p90.map_or(0, upper_edge),
            longest: longest.map_or(0, upper_edge),
        }
    }

    /// Returns the mean; `None` before enough have ended.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.count >= ENOUGH).then(|| self.sum / f64::from(self.count))
    }
}

fn bucket(wall: Millis) -> usize {
    let steps = ((wall.saturating_add(1)) as f64).log2() * f64::from(STEPS);
    (steps as usize).min(BUCKETS - 1)
}

fn upper_edge(bucket: usize) -> Millis {
    ((bucket as f64 + 1.0) / f64::from(STEPS)).exp2().ceil() as Millis - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_of_ten_are_not_longer() {
        let mut learned = Durations::default();
        for tenth in 1..=9 {
            learned.add(tenth * 1000);
        }
        assert_eq!((learned.p90(), learned.mean()), (None, None), "nine are not enough");
        learned.add(100_000);
        let p90 = learned.p90().expect("ten are");
        assert!((9_000..=9_000 * 6 / 5).contains(&p90), "{p90}");
        assert_eq!(learned.mean(), Some(14_500.0));
    }

    #[test]
    fn one_ended_task_says_something_to_whoever_asks_for_all() {
        let mut learned = Durations::default();
        assert_eq!(learned.lasted(), Lasted::default());
        learned.add(10_000);
        let lasted = learned.lasted();
        assert_eq!((lasted.ended, lasted.mean), (1, 10_000.0));
        assert!((10_000..12_000).contains(&lasted.p90) && lasted.longest == lasted.p90, "{lasted:?}");
        (0..9).for_each(|_| learned.add(1_000));
        let lasted = learned.lasted();
        assert!(lasted.p90 < 1_200 && lasted.longest >= 10_000, "{lasted:?}");
    }

    #[test]
    fn every_duration_has_a_bucket_that_holds_it() {
        for wall in [0, 1, 2, 3, 999, 60_000, 86_400_000, Millis::MAX] {
            let at = bucket(wall);
            assert!(upper_edge(at) >= wall || at == BUCKETS - 1, "{wall}");
            assert!(at == 0 || upper_edge(at - 1) <= wall, "{wall}");
        }
    }

    #[test]
    fn what_changed_is_learned_anew() {
        let mut learned = Durations::default();
        (0..10_000).for_each(|_| learned.add(60_000));
        (0..10_000).for_each(|_| learned.add(1_000));
        assert!(learned.p90().is_some_and(|p90| p90 < 1_300));
        assert!(learned.mean().is_some_and(|mean| mean < 3_000.0));
    }

    #[test]
    fn interrupted_tasks_are_longer_than_they_ran() {
        let mut learned = Durations::default();
        (0..20).for_each(|_| learned.add_interrupted(10_000));
        assert!(learned.p90().is_some_and(|p90| p90 >= 15_000));
    }
}
