//! Our own controller.

use super::Policy;
use crate::adapt::{Controller, Decision, Observation};

impl Policy for Controller {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn decide(&mut self, seen: &Observation) -> Decision {
        Controller::decide(self, seen)
    }

    fn knows_walltime(&self) -> bool {
        true
    }
}
