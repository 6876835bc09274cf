//! Asking a site for its queues before there is a cluster. Called by `up`, `render --explain` and the doctor.

use super::{BackendError, ErrorClass, Site, open};
use crate::cluster::{FORMAT, Folder, Identity};
use crate::config::spec::Spec;
use std::time::Duration;

/// Time a site has to say what its queues are: a controller that is down is waited for up to 19 s (Slurm).
const SITE_PATIENCE: Duration = Duration::from_secs(10);

/// Asks the site where jobs of this specification would run for its queues. The cluster need not exist.
///
/// # Errors
///
/// If it does not answer in time or in order; then nothing is known.
pub async fn site_of(folder: &Folder, spec: &Spec) -> Result<Site, BackendError> {
    let identity = Identity {
        format: FORMAT,
        id: String::new(),
        letters: "wxyz".to_owned(),
        path: folder.path().to_owned(),
        authority: String::new(),
    };
    let silent = |says: String| BackendError {
        class: ErrorClass::Transient,
        command: format!("ask {} for its queues", spec.backend.title()),
        says,
        fix: spec.backend.commands().get(1).map(|command| format!("see whether `{command}` answers")),
    };
    let backend = open(folder, &identity, spec).map_err(|problem| silent(problem.to_string()))?;
    let answer = tokio::time::timeout(SITE_PATIENCE, backend.site()).await;
    answer.unwrap_or_else(|_| Err(silent(format!("no answer within {} s", SITE_PATIENCE.as_secs()))))
}
