//! Finds processes below the worker that it did not start itself.
//!
//! The worker is a child subreaper: when a process somewhere below it loses its parent, the worker becomes the
//! parent. So killing direct children again and again reaches everything, and a direct child's
//! process id cannot be given away before the worker reaps it.

use super::environment::RUN_VARIABLE;
use crate::runtime::ids::RunId;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

/// The list of children of the thread that made it, kept open because it is read after every task.
#[derive(Debug)]
pub(super) struct OwnChildren(Option<File>);

impl OwnChildren {
    /// For the thread that calls it.
    pub(super) fn new() -> Self {
        // Not every kernel has the `children` files (CONFIG_PROC_CHILDREN).
        Self(File::open("/proc/thread-self/children").ok())
    }

    /// Returns the process ids of the direct children of this process, dead ones that were not reaped included. A
    /// child that appears or ends meanwhile may be missing: callers look again after the next child signal.
    pub(super) fn list(&self) -> Vec<i32> {
        match &self.0 {
            None => children_by_parent(),
            Some(own) if has_one_thread() => numbers(&read_again(own)),
            Some(_) => children_by_thread(),
        }
    }
}

/// A task folder has two links, and one more for each thread.
fn has_one_thread() -> bool {
    fs::metadata("/proc/self/task").is_ok_and(|found| found.nlink() == 3)
}

/// Reads a file of the proc file system from its beginning; what cannot be read is empty.
fn read_again(file: &File) -> String {
    let mut text = vec![0; 4096];
    let mut filled = 0;
    while let Ok(count @ 1..) = file.read_at(&mut text[filled..], filled as u64) {
        filled += count;
        if filled == text.len() {
            text.resize(2 * filled, 0);
        }
    }
    text.truncate(filled);
    String::from_utf8(text).unwrap_or_default()
}

fn numbers(text: &str) -> Vec<i32> {
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn numbers_in(folder: &str) -> impl Iterator<Item = i32> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn children_by_thread() -> Vec<i32> {
    numbers_in("/proc/self/task")
        .filter_map(|thread| fs::read_to_string(format!("/proc/self/task/{thread}/children")).ok())
        .flat_map(|text| numbers(&text))
        .collect()
}

fn children_by_parent() -> Vec<i32> {
    let me = std::process::id();
    numbers_in("/proc").filter(|pid| parent_of(*pid) == Some(me)).collect()
}

fn parent_of(pid: i32) -> Option<u32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The command name stands in parentheses and may itself contain any byte.
    let rest = &stat[stat.iter().rposition(|&byte| byte == b')')? + 1..];
    let rest = String::from_utf8_lossy(rest);
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Returns the run a process belongs to, from the environment it was started with.
pub(super) fn run_of(pid: i32) -> Option<RunId> {
    let mut environment = Vec::new();
    // Empty for a dead process, and for a moment in the middle of an exec: worth a second look.
    for _ in 0..3 {
        environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        if !environment.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    environment.split(|&byte| byte == 0).find_map(|variable| {
        let value = variable.strip_prefix(RUN_VARIABLE.as_bytes())?.strip_prefix(b"=")?;
        str::from_utf8(value).ok()?.parse().ok().map(RunId)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_find_a_child_and_its_run() {
        let mut child = std::process::Command::new("sleep").arg("60").env(RUN_VARIABLE, "77").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = OwnChildren::new();
        assert!(own.list().contains(&pid));
        assert!(children_by_thread().contains(&pid));
        // This thread started it.
        assert!(numbers(&read_again(own.0.as_ref().unwrap())).contains(&pid));
        assert!(children_by_parent().contains(&pid));
        assert_eq!(run_of(pid), Some(RunId(77)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children_by_parent().contains(&pid));
        assert_eq!(run_of(1), None);
    }
}
