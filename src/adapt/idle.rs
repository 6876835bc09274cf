//! When a job without tasks is given up: rent or buy ("ski rental").
//!
//! Keeping an idle job costs its time; giving it up costs `b`, the price of getting another one. Whoever knows
//! the future pays min(gap, b) for a gap. A random threshold (density e^(x/b) / (b (e − 1))) pays at most
//! e/(e − 1) times that on average (Karlin, Manasse, McGeoch, Owicki 1990), the threshold b at most twice
//! always. What recorded gaps teach may do better; it is trusted only with what was saved against that bound,
//! so that for every sequence of gaps paid ≤ 2 × clairvoyant + 2 b.

use std::collections::VecDeque;

/// Gaps that are kept.
const KEPT: usize = 64;
/// Gaps that are needed to learn from.
const ENOUGH: usize = 8;
/// The thresholds to choose from: seconds, then shares of the price.
const SHORTEST: f64 = 3.0;
const SHARES: [f64; 4] = [0.1, 0.25, 0.5, 1.0];

/// What idling has cost so far. All in seconds.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Rental {
    gaps: VecDeque<f64>,
    paid: f64,
    clairvoyant: f64,
}

impl Rental {
    pub(super) fn new(gaps: &[f64], paid: f64, clairvoyant: f64) -> Self {
        let usable = gaps.iter().filter(|gap| gap.is_finite() && **gap >= 0.0);
        let mut gaps: VecDeque<_> = usable.copied().collect();
        gaps.drain(..gaps.len().saturating_sub(KEPT));
        let sane = |value: f64| if value.is_finite() { value.max(0.0) } else { 0.0 };
        Self { gaps, paid: sane(paid), clairvoyant: sane(clairvoyant) }
    }

    pub(super) fn gaps(&self) -> Vec<f64> {
        self.gaps.iter().copied().collect()
    }

    pub(super) fn paid(&self) -> f64 {
        self.paid
    }

    pub(super) fn clairvoyant(&self) -> f64 {
        self.clairvoyant
    }

    /// Returns after how long an idle job is given up, at the price `b`; `draw` is uniform in [0, 1).
    pub(super) fn threshold(&self, b: f64, draw: f64) -> f64 {
        // A learned threshold of 3 s may cost 3 + b for a gap of 3, which is b more than twice the least.
        if self.gaps.len() >= ENOUGH && 2.0 * self.clairvoyant - self.paid >= b {
            return self.learned(b);
        }
        if self.paid - 2.0 * self.clairvoyant <= b {
            return b * (1.0 + (std::f64::consts::E - 1.0) * draw).ln();
        }
        b
    }

    /// Returns the threshold that would have cost least on the gaps that are remembered.
    fn learned(&self, b: f64) -> f64 {
        let cost = |threshold: f64| -> f64 {
            self.gaps.iter().map(|gap| if *gap < threshold { *gap } else { threshold + b }).sum()
        };
        let choices = std::iter::once(SHORTEST.min(b)).chain(SHARES.map(|share| share * b));
        // The longest of equals: a job kept for nothing costs less than a wait that was not foreseen.
        choices.min_by(|a, c| cost(*a).total_cmp(&cost(*c)).then(c.total_cmp(a))).unwrap_or(b)
    }

    /// A gap is over: the job was kept, or (`given_up_after`) another one is bought now.
    pub(super) fn end_gap(&mut self, gap: f64, given_up_after: Option<f64>, b: f64) {
        self.paid += given_up_after.map_or(gap, |idle| idle + b);
        self.clairvoyant += gap.min(b);
        self.gaps.push_back(gap);
        self.gaps.drain(..self.gaps.len().saturating_sub(KEPT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Lives through gaps; returns the greatest of paid − 2 × clairvoyant, in b.
    fn live(gaps: &[f64], b: f64, seed: u64) -> (Rental, f64) {
        let mut rental = Rental::default();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut worst = f64::MIN;
        for gap in gaps {
            let threshold = rental.threshold(b, random.f64());
            let given_up = (*gap >= threshold).then_some(threshold);
            rental.end_gap(*gap, given_up, b);
            worst = worst.max((rental.paid - 2.0 * rental.clairvoyant) / b);
        }
        (rental, worst)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn costs_at_most_twice_the_least_and_two_prices(
            gaps in prop::collection::vec(prop_oneof![0.0..1.0f64, 0.0..100.0f64, 50.0..5000.0f64], 0..200),
            b in 30.0..600.0f64,
            seed in any::<u64>(),
        ) {
            let (_, worst) = live(&gaps, b, seed);
            prop_assert!(worst <= 2.0 + 1e-9, "{worst}");
        }

        /// An adversary that sees the threshold ends each gap just after it.
        #[test]
        fn whoever_knows_the_threshold_gets_no_more(rounds in 1..300usize, seed in any::<u64>(), spared in 0..10u32) {
            let b = 100.0;
            let mut rental = Rental::default();
            let mut random = fastrand::Rng::with_seed(seed);
            for round in 0..rounds {
                let threshold = rental.threshold(b, random.f64());
                let gap = if round as u32 % 10 < spared { threshold * 0.5 } else { threshold };
                rental.end_gap(gap, (gap >= threshold).then_some(threshold), b);
                prop_assert!(rental.paid <= 2.0 * rental.clairvoyant + 2.0 * b + 1e-6);
            }
        }
    }

    #[test]
    fn long_gaps_are_learned() {
        let (rental, _) = live(&[4000.0; 60], 100.0, 7);
        let ratio = rental.paid / rental.clairvoyant;
        assert!(ratio < 1.35, "{ratio}");
        assert_eq!(rental.threshold(100.0, 0.5), 3.0);
    }

    #[test]
    fn short_gaps_are_sat_out() {
        let (rental, _) = live(&[20.0; 200], 100.0, 7);
        let ratio = rental.paid / rental.clairvoyant;
        assert!(ratio < 1.5, "{ratio}");
        assert!(rental.threshold(100.0, 0.0) > 20.0);
    }

    #[test]
    fn the_random_threshold_is_in_expectation_below_the_bound() {
        // The worst gap for it is a long one: cost b (1 + E x / b) = b e/(e − 1).
        let rental = Rental::default();
        let draws = (0..1000).map(|at| rental.threshold(1.0, (f64::from(at) + 0.5) / 1000.0));
        let mean = draws.map(|x| x + 1.0).sum::<f64>() / 1000.0;
        assert!((mean - 1.582).abs() < 0.01, "{mean}");
    }
}
