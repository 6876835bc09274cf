//! The exit sentinel: what a job's script leaves in `jobs/<name>/exit` however it ended. One line of JSON,
//! written by `templates/job_body.sh.hbs`; strong evidence for the ledger (`design.md` section 4).

use serde::Deserialize;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Most bytes of a sentinel (`reliability.md` section 10).
const LIMIT_BYTES: u64 = 4096;

/// How a job's script ended.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Sentinel {
    /// Exit code, 128 + signal where one killed the worker.
    pub exit_code: i32,
    /// That signal.
    pub signal: Option<i32>,
    /// When, in seconds since 1970 by the node's clock: for people only.
    pub time: i64,
    /// The node's name for itself.
    pub node: String,
    /// The backend's id of the job.
    pub id: String,
    /// How often the batch system had restarted it.
    #[serde(default)]
    pub restart: u32,
}

impl Sentinel {
    /// Parses the content of a sentinel; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
    /// Reads a sentinel, within bounds and never through a link; `None` when there is none.
    pub fn read(path: &Path) -> Option<Self> {
        // O_NONBLOCK: a task of the user may have put a FIFO there.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).custom_flags(flags).open(path).ok()?;
        let mut text = Vec::new();
        file.take(LIMIT_BYTES).read_to_end(&mut text).ok()?;
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exit");
        let line = r#"{"exit_code":137,"signal":9,"time":1795449512,"node":"n01","id":"12_3","restart":1}"#;
        std::fs::write(&path, line).unwrap();
        let sentinel = Sentinel::read(&path).unwrap();
        assert_eq!((sentinel.exit_code, sentinel.signal, sentinel.restart), (137, Some(9), 1));
        std::fs::write(&path, format!("{line}{}", " ".repeat(5000))).unwrap();
        assert!(Sentinel::read(&path).is_some());
        let before = |bytes: usize| format!("{}{line}", " ".repeat(bytes - line.len()));
        std::fs::write(&path, before(4096)).unwrap();
        assert!(Sentinel::read(&path).is_some(), "at the bound");
        std::fs::write(&path, before(4097)).unwrap();
        assert_eq!(Sentinel::read(&path), None, "one past it");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(Sentinel::read(&link), None);
        assert_eq!(Sentinel::parse(b"{\"exit_code\":1"), None);
    }
}
