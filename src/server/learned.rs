//! What the scaling loop has learned, kept beside the clusters: one file a backend and queue, so that the next
//! cluster starts wise. It may be lost or deleted at any time; a damaged one is ignored.

use crate::adapt::Learned;
use crate::cluster::{Folder, private_folder};
use crate::config::spec::Spec;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder in the state folder; no cluster can be called so.
const FOLDER: &str = ".learned";
/// Larger than anything that is ever written.
const BYTES_MAX: u64 = 1 << 20;

fn path(cluster: &Path, spec: &Spec) -> Option<PathBuf> {
    let queue = spec.pool.queue.as_deref().unwrap_or("default");
    // A queue's name is the batch system's affair.
    let safe: String = queue.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(64).collect();
    Some(cluster.parent()?.join(FOLDER).join(format!("{}-{safe}.json", spec.backend.as_str())))
}

/// Returns what earlier clusters of the same backend and queue have learned.
pub(super) fn read(folder: &Folder, spec: &Spec) -> Learned {
    let Some(path) = path(folder.path(), spec) else { return Learned::default() };
    let small = std::fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= BYTES_MAX);
    let Some(text) = small.then(|| std::fs::read(&path).ok()).flatten() else { return Learned::default() };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(%error, path = %path.display(), "what was learned is damaged and ignored");
        Learned::default()
    })
}

/// Keeps it. Whoever writes last wins: it is statistics.
pub(super) fn write(cluster: &Path, spec: &Spec, learned: &Learned) {
    let Some(path) = path(cluster, spec) else { return };
    let write = || {
        let folder = path.parent().unwrap_or(cluster);
        private_folder(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec_pretty(learned)?)?;
        file.persist(&path).map(|_| ()).map_err(|error| error.error)
    };
    if let Err(error) = write() {
        tracing::warn!(%error, path = %path.display(), "what was learned is not kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_private_comes_back_and_may_be_damaged() {
        use std::os::unix::fs::PermissionsExt;
        let state = tempfile::tempdir().expect("a folder can be made");
        let cluster = Folder::at(&state.path().join("default"));
        let mut spec = spec();
        spec.pool.queue = Some("../../regular".to_owned());
        let mut learned = Learned::default();
        learned.pools.entry("default".to_owned()).or_default().waits.push((5.0, 3600.0));
        write(cluster.path(), &spec, &learned);
        assert_eq!(read(&cluster, &spec), learned);
        let file = state.path().join(FOLDER).join("local-______regular.json");
        let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&file, b"{").expect("it is ours");
        assert_eq!(read(&cluster, &spec), Learned::default());
        spec.pool.queue = None;
        assert_eq!(read(&cluster, &spec), Learned::default(), "another queue");
    }

    fn spec() -> Spec {
        let text = r#"{"backend": "local", "jobs": 1, "orphan_timeout_seconds": 300,
            "pool": {"cores": 1, "drain_lead_seconds": 30}}"#;
        serde_json::from_str(text).expect("the rest has defaults")
    }
}
