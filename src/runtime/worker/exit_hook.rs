//! `--on-exit`: the shell line that a worker runs on its node before it leaves.

use bstr::{BString, ByteSlice};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::process::Command;

/// The hook may take so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// The batch system needs so long after it.
const MARGIN: Duration = Duration::from_millis(500);
/// Even if the walltime is over, the batch system may be late.
const LEAST: Duration = Duration::from_secs(1);

/// Returns how long the hook may take.
fn limit(walltime_left: Option<Duration>) -> Duration {
    let left = walltime_left.map_or(PATIENCE, |left| left.saturating_sub(MARGIN));
    left.clamp(LEAST, PATIENCE)
}

/// Runs the hook to its end, or to the end of its time; returns what went wrong. Its output goes where the worker's
/// goes: to the job's log.
pub(super) async fn run(
    line: &str,
    reason: &str,
    environment: &BTreeMap<BString, BString>,
    walltime_left: Option<Duration>,
) -> Result<(), String> {
    let limit = limit(walltime_left);
    let variables =
        environment.iter().filter_map(|(name, value)| Some((name.to_os_str().ok()?, value.to_os_str().ok()?)));
    let mut child = Command::new("sh")
        .args(["-c", line])
        .env_clear()
        .envs(variables)
        .env("DCLUSTER_EXIT_REASON", reason)
        .stdin(std::process::Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("the on-exit command cannot be started: {error}"))?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let ended = tokio::time::timeout(limit, child.wait()).await;
    // What it left in the background, too. No group is the normal case.
    if let Some(group) = group {
        let _ = killpg(group, Signal::SIGKILL);
    }
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("the on-exit command failed: {status}")),
        Ok(Err(error)) => Err(format!("the on-exit command was lost: {error}")),
        Err(_) => Err(format!("the on-exit command was ended after {limit:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_beyond_the_walltime_but_always_a_moment() {
        assert_eq!(limit(None), PATIENCE);
        assert_eq!(limit(Some(Duration::from_secs(3600))), PATIENCE);
        assert_eq!(limit(Some(Duration::from_secs(2))), Duration::from_millis(1500));
        assert_eq!(limit(Some(Duration::ZERO)), LEAST);
    }
}
