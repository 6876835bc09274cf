//! As many jobs as may be, from the first task to the last: what `dcluster scale` does, and every peer without
//! its automatic scaling.

use super::{Bounds, Policy, Ticks, count, staying};
use crate::adapt::{Decision, Observation};

/// Seconds between looks.
const INTERVAL: f64 = 5.0;

pub(super) struct Fixed {
    bounds: Bounds,
    ticks: Ticks,
}

impl Fixed {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, ticks: Ticks::new(INTERVAL) }
    }
}

impl Policy for Fixed {
    fn name(&self) -> &'static str {
        "static"
    }

    fn decide(&mut self, seen: &Observation) -> Decision {
        let (mut decision, due) = self.ticks.look(seen.now);
        if due {
            let missing = self.bounds.max.saturating_sub(count(staying(seen).iter()));
            self.bounds.submit(missing, seen, &mut decision);
        }
        decision
    }

    fn is_taken_down(&self) -> bool {
        true
    }
}
