//! How long jobs wait in the queue: the product-limit estimate (Kaplan and Meier, 1958) over the last waits,
//! in which the jobs that are still pending count as "longer than this".

use std::collections::{BTreeMap, VecDeque};

/// Waits that are kept.
const KEPT: usize = 40;
/// Waits that are kept when the queue has changed.
const KEPT_AFTER_CHANGE: usize = 5;
/// So many waits in a row beyond the extreme quantiles mean that the queue has changed.
const SURPRISES: u32 = 3;
/// Until so many waits were seen, the prior counts, too.
const ENOUGH: usize = 5;
/// Seconds; nothing is known.
const PRIOR: [f64; 3] = [5.0, 30.0, 180.0];
/// Times the largest value when the estimate does not reach the quantile.
const BEYOND: f64 = 1.5;
/// What the batch system expects, as a prior: half, once and twice as long.
const EXPECTED: [f64; 3] = [0.5, 1.0, 2.0];

/// The last waits of one shape of jobs, in seconds, with the walltime each asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    seen: VecDeque<(f64, f64)>,
    long: u32,
    short: u32,
    /// What the batch system expects, by the walltime asked about in seconds.
    expected: BTreeMap<u64, f64>,
}

/// The share of jobs that wait longer, as steps: at each time (seconds) the share from then on.
#[derive(Clone, Debug)]
pub(super) struct Survival {
    steps: Vec<(f64, f64)>,
    largest: f64,
}

impl Waits {
    pub(super) fn new(seen: &[(f64, f64)]) -> Self {
        let usable = seen.iter().filter(|(wait, walltime)| wait.is_finite() && *wait >= 0.0 && walltime.is_finite());
        let mut seen: VecDeque<_> = usable.copied().collect();
        seen.drain(..seen.len().saturating_sub(KEPT));
        Self { seen, ..Self::default() }
    }

    pub(super) fn seen(&self) -> Vec<(f64, f64)> {
        self.seen.iter().copied().collect()
    }

    /// The batch system itself has an opinion on jobs that ask for this walltime.
    pub(super) fn expect(&mut self, wait: f64, walltime: f64) {
        self.expected.insert(walltime.max(0.0) as u64, wait.max(1.0));
    }

    /// A job has waited so long.
    pub(super) fn add(&mut self, wait: f64, walltime: f64) {
        let wait = wait.max(0.0);
        // What surprised already is no measure of surprise.
        let known = self.seen.len() - self.long.max(self.short) as usize;
        if known >= ENOUGH {
            let before = survival(self.seen.iter().take(known).map(|(wait, _)| *wait).collect(), None, &[]);
            self.long = if wait > before.quantile(0.95) { self.long + 1 } else { 0 };
            self.short = if wait < before.quantile(0.05) { self.short + 1 } else { 0 };
        }
        self.seen.push_back((wait, walltime));
        let changed = self.long >= SURPRISES || self.short >= SURPRISES;
        let kept = if changed { KEPT_AFTER_CHANGE } else { KEPT };
        self.seen.drain(..self.seen.len().saturating_sub(kept));
        if changed {
            (self.long, self.short) = (0, 0);
        }
    }

    /// Returns the estimate, with the ages of jobs that still wait.
    pub(super) fn survival(&self, ages: &[f64]) -> Survival {
        let expected = self.expected.values().next_back().copied();
        survival(self.seen.iter().map(|(wait, _)| *wait).collect(), expected, ages)
    }

    /// As [`Waits::survival`], of jobs that asked for about this walltime only. Where none did and the batch system
    /// says nothing, all count.
    pub(super) fn survival_at(&self, walltime: f64) -> Survival {
        let alike = self.seen.iter().filter(|(_, asked)| (asked / walltime - 1.0).abs() < 0.1);
        let alike: Vec<f64> = alike.map(|(wait, _)| *wait).collect();
        // A longer one waits no less.
        match self.expected.range(walltime as u64..).next() {
            None if alike.is_empty() => self.survival(&[]),
            expected => survival(alike, expected.map(|(_, wait)| *wait), &[]),
        }
    }
}

fn survival(mut waits: Vec<f64>, expected: Option<f64>, ages: &[f64]) -> Survival {
    if waits.len() < ENOUGH {
        match expected {
            Some(wait) => waits.extend(EXPECTED.map(|times| times * wait)),
            None => waits.extend(PRIOR),
        }
    }
    // At the same time, waits that ended come before those that go on.
    let ended = waits.into_iter().map(|wait| (wait, false));
    let mut all: Vec<(f64, bool)> = ended.chain(ages.iter().map(|age| (age.max(0.0), true))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut steps: Vec<(f64, f64)> = Vec::new();
    let mut share = 1.0;
    let mut at_risk = all.len() as f64;
    for (time, censored) in &all {
        if !censored {
            share *= 1.0 - 1.0 / at_risk;
            match steps.last_mut() {
                Some(last) if last.0 == *time => last.1 = share,
                _ => steps.push((*time, share)),
            }
        }
        at_risk -= 1.0;
    }
    Survival { steps, largest: all.last().map_or(0.0, |last| last.0) }
}

impl Survival {
    /// Returns what a share `p` of the jobs does not exceed, in seconds.
    pub(super) fn quantile(&self, p: f64) -> f64 {
        self.first_below(1.0 - p)
    }

    /// Returns how much longer a job that has waited for `age` waits, by the same measure.
    pub(super) fn residual(&self, p: f64, age: f64) -> f64 {
        let left = self.steps.iter().rev().find(|(time, _)| *time <= age).map_or(1.0, |(_, share)| *share);
        if left <= f64::EPSILON {
            // Older than all that was ever seen.
            return age * (BEYOND - 1.0);
        }
        (self.first_below((1.0 - p) * left) - age).max(0.0)
    }

    fn first_below(&self, share: f64) -> f64 {
        let reached = self.steps.iter().find(|(_, left)| *left <= share + 1e-9);
        reached.map_or(self.largest * BEYOND, |(time, _)| *time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(waits: &[f64]) -> Waits {
        let mut all = Waits::default();
        waits.iter().for_each(|wait| all.add(*wait, 3600.0));
        all
    }

    #[test]
    fn without_pending_jobs_it_is_the_plain_quantile() {
        let waits = seen(&[80.0, 10.0, 70.0, 20.0, 60.0, 30.0, 50.0, 40.0]);
        let survival = waits.survival(&[]);
        assert_eq!((survival.quantile(0.25), survival.quantile(0.5)), (20.0, 40.0));
        assert_eq!(survival.quantile(1.0), 80.0);
    }

    #[test]
    fn pending_jobs_lengthen_the_estimate() {
        let waits = seen(&[10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(waits.survival(&[]).quantile(0.5), 30.0);
        assert_eq!(waits.survival(&[45.0; 5]).quantile(0.5), 50.0);
        assert_eq!(waits.survival(&[1000.0; 20]).quantile(0.5), 1500.0, "not reached: half as much again");
        // By hand: at risk 5, 4, then one censored, 2: 1 × 4/5 × 3/4 × 1/2 × 0.
        let steps = waits.survival(&[25.0]).steps;
        let shares: Vec<f64> = steps.iter().map(|(_, share)| (share * 1e6).round() / 1e6).collect();
        assert_eq!(shares, [0.833_333, 0.666_667, 0.444_444, 0.222_222, 0.0]);
    }

    #[test]
    fn nothing_known_is_half_a_minute_and_the_batch_system_knows_better() {
        let mut waits = Waits::default();
        assert_eq!(waits.survival(&[]).quantile(0.5), 30.0);
        waits.expect(600.0, 3600.0);
        assert_eq!(waits.survival(&[]).quantile(0.5), 600.0);
        (0..5).for_each(|_| waits.add(7.0, 3600.0));
        assert_eq!(waits.survival(&[]).quantile(0.95), 7.0, "what was seen counts more");
    }

    #[test]
    fn who_has_waited_long_waits_less() {
        let waits = seen(&[60.0, 10.0, 50.0, 20.0, 40.0, 30.0]);
        let survival = waits.survival(&[]);
        assert_eq!(survival.residual(0.5, 0.0), 30.0);
        assert_eq!(survival.residual(0.5, 35.0), 15.0);
        assert_eq!(survival.residual(0.5, 80.0), 40.0);
    }

    #[test]
    fn a_change_of_the_queue_is_believed_after_three_surprises() {
        let mut waits = seen(&[10.0; 40]);
        waits.add(1000.0, 3600.0);
        waits.add(1000.0, 3600.0);
        assert_eq!(waits.survival(&[]).quantile(0.5), 10.0);
        waits.add(1000.0, 3600.0);
        assert_eq!(waits.seen().len(), KEPT_AFTER_CHANGE);
        waits.add(1000.0, 3600.0);
        assert_eq!(waits.survival(&[]).quantile(0.5), 1000.0);
        (0..3).for_each(|_| waits.add(5.0, 3600.0));
        assert_eq!(waits.survival(&[]).quantile(0.5), 5.0, "and for the better just so");
    }

    #[test]
    fn walltimes_are_told_apart() {
        let mut waits = Waits::default();
        (0..6).for_each(|_| waits.add(10.0, 3600.0));
        (0..6).for_each(|_| waits.add(500.0, 14_400.0));
        assert_eq!(waits.survival_at(3600.0).quantile(0.5), 10.0);
        assert_eq!(waits.survival_at(14_400.0).quantile(0.5), 500.0);
    }

    #[test]
    fn learned_rubbish_is_dropped() {
        let waits = Waits::new(&[(f64::NAN, 1.0), (-3.0, 1.0), (4.0, 1.0), (5.0, f64::INFINITY)]);
        assert_eq!(waits.seen(), [(4.0, 1.0)]);
    }
}
