//! Pauses between attempts to connect: none after a connection that had lasted, then random ones below a
//! doubling bound, so that a thousand workers do not come back in step.

use super::Millis;

/// Longest pause.
const CAP: Millis = 10_000;
/// Half the bound of the first pause; doubles with each attempt.
const BASE: Millis = 250;
/// A connection that lasted this long was a good one. Shorter ones do not count, or a server that accepts and
/// hangs up would be dialled without a pause.
const STABLE: Millis = 10_000;

/// Which pause is next.
#[derive(Debug)]
pub(super) struct Backoff {
    random: fastrand::Rng,
    attempts: u32,
}

impl Backoff {
    /// The first attempt is under way already.
    pub(super) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), attempts: 1 }
    }

    /// A connection ended that had lasted this long.
    pub(super) fn on_connection_of(&mut self, duration: Millis) {
        if duration >= STABLE {
            self.attempts = 0;
        }
    }

    /// Returns the pause before the next attempt.
    pub(super) fn pause(&mut self) -> Millis {
        let attempt = self.attempts;
        self.attempts = attempt.saturating_add(1);
        if attempt == 0 {
            return 0;
        }
        let bound = BASE.saturating_mul(1 << attempt.min(16));
        self.random.u64(0..=bound.min(CAP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immediate_after_a_good_connection_then_longer_and_bounded() {
        let mut backoff = Backoff::new(3);
        backoff.on_connection_of(STABLE);
        assert_eq!(backoff.pause(), 0);
        assert!(backoff.pause() <= 500);
        backoff.on_connection_of(STABLE - 1);
        assert!(backoff.pause() <= 1_000);
        let later: Vec<Millis> = (0..100).map(|_| backoff.pause()).collect();
        assert!(later.iter().all(|pause| *pause <= CAP));
        assert!(later.iter().max() > later.iter().min());
    }
}
