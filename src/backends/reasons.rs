//! Why a job waits, in plain English. Pure; each batch system has a table of its own words.

use crate::config::spec::BackendKind;

/// What a reason means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meaning {
    /// In plain English, fit after "the job waits: ".
    pub meaning: &'static str,
    /// What to do about it, where something can be done.
    pub fix: Option<&'static str>,
    /// It waits for ever unless somebody changes something.
    pub never: bool,
}

/// Returns what a pending job's reason means, as [`super::Observation`] has it; `None` where this version does
/// not know.
pub fn meaning(backend: BackendKind, reason: &str) -> Option<Meaning> {
    match backend {
        BackendKind::Slurm => super::slurm::reasons::meaning(reason),
        BackendKind::Lsf => super::lsf::reasons::meaning(reason),
        BackendKind::Pbs => super::pbs::reasons::meaning(reason),
        BackendKind::Sge => super::sge::reasons::meaning(reason),
        BackendKind::Oar => super::oar::reasons::meaning(reason),
        BackendKind::Condor => super::condor::reasons::meaning(reason),
        BackendKind::Local => None,
    }
}
