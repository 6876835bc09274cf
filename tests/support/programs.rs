//! Programs that a test writes and then runs.
//!
//! `install` writes them: what this process has open for writing, a child that another thread is just starting holds
//! too until it runs its own program, and meanwhile the kernel refuses to run the file ("Text file busy"; 5 of 240
//! copies with four threads).

use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a script that all may run.
#[track_caller]
pub(crate) fn write(path: &Path, text: &str) {
    let mut install = Command::new("install").args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped()).spawn();
    let install = install.as_mut().unwrap();
    std::io::Write::write_all(&mut install.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(install.wait().unwrap().success(), "{}", path.display());
}

/// Copies a program, for all to run.
#[track_caller]
pub(crate) fn copy(from: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "755"]).arg(from).arg(to).status().unwrap();
    assert!(status.success(), "{}", to.display());
}
