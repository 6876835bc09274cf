//! Who decides how many jobs there are: our own controller, and the rules of others as read from their code.

use crate::adapt::{Decision, Observation};

/// A rule that sizes a cluster.
pub trait Policy {
    /// Returns its name, as `--policy` takes it.
    fn name(&self) -> &'static str;

    /// Looks at the situation and decides. Called when something happened and by [`Decision::next`] at the latest.
    fn decide(&mut self, seen: &Observation) -> Decision;

    /// Whether tasks are placed by the walltime that is left on a worker; the others' are not.
    fn knows_walltime(&self) -> bool {
        false
    }
}
