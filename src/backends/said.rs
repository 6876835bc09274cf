//! What a batch system says of itself that its job scripts depend on: asked before jobs are, and before a script is
//! shown.

use super::{lsf, oar, pbs, sge};
use crate::config::spec::BackendKind;

/// What was said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Said {
    /// Nothing: it was not asked, or nothing depends on it.
    #[default]
    Nothing,
    /// By Grid Engine.
    Sge(sge::site::Found),
    /// By PBS.
    Pbs(pbs::script::Tongue),
    /// By LSF.
    Lsf(lsf::site::Memory),
    /// By OAR.
    Oar(oar::site::Found),
}

impl Said {
    /// Returns what most sites say, for a script that is only looked at.
    pub fn guessed(backend: BackendKind) -> Self {
        match backend {
            BackendKind::Sge => Self::Sge(sge::site::Found::guessed()),
            BackendKind::Pbs => Self::Pbs(pbs::script::Tongue::Professional),
            BackendKind::Lsf => Self::Lsf(lsf::site::Memory::USUAL),
            BackendKind::Oar => Self::Oar(oar::site::Found::guessed()),
            BackendKind::Condor | BackendKind::Local | BackendKind::Slurm => Self::Nothing,
        }
    }
}
