//! Files of a job: written by the backends before it starts.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Writes a job script with `mode`, and its folder with 0700, off the event loop.
pub(super) async fn write_script(path: PathBuf, script: String, mode: u32) -> io::Result<()> {
    let written = tokio::task::spawn_blocking(move || write(&path, &script, mode));
    written.await.map_err(io::Error::other)?
}

/// See [`write_script`].
pub(super) fn write(path: &Path, script: &str, mode: u32) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = std::fs::OpenOptions::new();
    file.write(true).create(true).truncate(true).mode(mode).custom_flags(libc::O_NOFOLLOW);
    let mut file = file.open(path)?;
    // The umask may have been anything (`reliability.md` section 3).
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(script.as_bytes())
}
