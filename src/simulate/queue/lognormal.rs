//! Waits are drawn from a log-normal distribution, each on its own.

use super::starts::Starts;
use super::{Asked, Queue};

/// Waits are log-normal: half of the jobs wait less than the median, and few wait very long.
#[derive(Debug)]
pub struct LogNormal {
    median: f64,
    sigma: f64,
    random: fastrand::Rng,
    starts: Starts,
}

impl LogNormal {
    /// Returns a queue with this median in seconds and this standard deviation of the logarithm.
    pub fn new(median: f64, sigma: f64, seed: u64) -> Self {
        // The n-th job of a seed waits the same whatever the policy is.
        Self { median, sigma, random: fastrand::Rng::with_seed(seed), starts: Starts::default() }
    }

    /// Returns a queue in which all jobs wait so many seconds.
    pub fn constant(wait: f64) -> Self {
        Self::new(wait, 0.0, 0)
    }
}

/// Draws from a normal distribution (Box and Muller 1958).
pub(in crate::simulate) fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

impl Queue for LogNormal {
    fn submit(&mut self, job: u32, _: Asked, now: f64) {
        let wait = self.median * (self.sigma * normal(&mut self.random)).exp();
        self.starts.add(job, now + wait);
    }

    fn leave(&mut self, job: u32, _: f64) {
        self.starts.remove(job);
    }

    fn next(&self) -> Option<f64> {
        self.starts.next()
    }

    fn advance(&mut self, now: f64) -> Vec<(f64, u32)> {
        self.starts.until(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(seed: u64) -> Vec<f64> {
        let mut queue = LogNormal::new(120.0, 1.2, seed);
        (0..10_000).for_each(|job| queue.submit(job, Asked { processors: 1, walltime: None }, 0.0));
        queue.advance(f64::MAX).into_iter().map(|(start, _)| start).collect()
    }

    #[test]
    fn has_the_median_and_the_spread_that_were_asked_for() {
        let waits = waits(7);
        let median = waits[waits.len() / 2];
        assert!((110.0..130.0).contains(&median), "{median}");
        // One standard deviation up: 84.1 % of the jobs wait less.
        let upper = waits[8413] / 120.0;
        assert!((upper.ln() - 1.2).abs() < 0.06, "{upper}");
    }

    #[test]
    fn jobs_start_in_the_order_they_came_after_the_same_time() {
        let mut queue = LogNormal::constant(10.0);
        let asked = Asked { processors: 1, walltime: None };
        for job in [3, 1, 2] {
            queue.submit(job, asked, 0.0);
        }
        queue.submit(4, asked, 5.0);
        queue.leave(1, 6.0);
        assert_eq!(queue.next(), Some(10.0));
        assert_eq!(queue.advance(9.9), []);
        assert_eq!(queue.advance(20.0), [(10.0, 3), (10.0, 2), (15.0, 4)]);
        queue.leave(4, 20.0);
        assert_eq!((queue.next(), queue.advance(99.0)), (None, vec![]));
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
