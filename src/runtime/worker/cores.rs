//! The cores of a worker with `--pin`: which it may use, on which NUMA node each is, and which are free. A run gets
//! cores of its own and its processes run on no other.

use super::launch::StartError;
use crate::runtime::protocol::NumaCores;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io;

/// Cores by NUMA node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cores {
    /// Free ones, by node.
    free: Vec<BTreeSet<usize>>,
    /// All, by node.
    all: Vec<BTreeSet<usize>>,
}

impl Cores {
    /// Looks at this machine and takes so many of the cores that this process may use.
    ///
    /// # Errors
    ///
    /// If it may not use so many, or the system does not tell.
    pub fn of_host(count: u32) -> io::Result<Self> {
        let allowed = affinity()?;
        let nodes = std::fs::read_dir("/sys/devices/system/node").into_iter().flatten().flatten();
        let mut lists: Vec<(u32, String)> = nodes
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
                Some((number, std::fs::read_to_string(entry.path().join("cpulist")).ok()?))
            })
            .collect();
        lists.sort();
        let lists: Vec<String> = lists.into_iter().map(|(_, list)| list).collect();
        Self::choose(&allowed, &lists, count as usize).ok_or_else(|| {
            let may = allowed.len();
            io::Error::other(format!("{count} cores cannot be set aside: this process may use {may}"))
        })
    }

    /// Chooses `count` of the allowed cores; `lists` has the cores of each NUMA node.
    fn choose(allowed: &BTreeSet<usize>, lists: &[String], count: usize) -> Option<Self> {
        let mut left = allowed.clone();
        let mut all: Vec<BTreeSet<usize>> = Vec::new();
        for list in lists {
            let here: BTreeSet<usize> = parse_list(list)?.intersection(&left).copied().collect();
            left.retain(|core| !here.contains(core));
            all.push(here);
        }
        // Cores of which the system says no node.
        all.push(left);
        let mut wanted = count;
        for node in &mut all {
            *node = node.iter().copied().take(wanted).collect();
            wanted -= node.len();
        }
        all.retain(|node| !node.is_empty());
        (wanted == 0).then(|| Self { free: all.clone(), all })
    }

    /// Returns the cores of each NUMA node, as the server wants to know them: nothing if there is only one.
    pub fn by_node(&self) -> Vec<u32> {
        match self.all.len() {
            0 | 1 => Vec::new(),
            _ => self.all.iter().map(|node| u32::try_from(node.len()).unwrap_or(u32::MAX)).collect(),
        }
    }

    /// Takes free cores: of the NUMA nodes named, or else `count` of any.
    pub(super) fn take(&mut self, place: &[NumaCores], count: u32) -> Result<Vec<usize>, StartError> {
        let mut taken = Vec::new();
        for part in place {
            let free = self.free.get(part.numa as usize).into_iter().flatten();
            taken.extend(free.copied().take(part.cores as usize));
        }
        if place.is_empty() {
            taken.extend(self.free.iter().flatten().copied().take(count as usize));
        }
        if taken.len() < count as usize {
            return Err(StartError::NoCores { wanted: count, free: self.free.iter().map(BTreeSet::len).sum() });
        }
        for node in &mut self.free {
            node.retain(|core| !taken.contains(core));
        }
        Ok(taken)
    }

    /// Takes back the cores of a run.
    pub(super) fn give_back(&mut self, cores: &[usize]) {
        for (free, all) in self.free.iter_mut().zip(&self.all) {
            free.extend(cores.iter().copied().filter(|core| all.contains(core)));
        }
    }
}

/// Lets what this thread starts run on these cores only, until it is dropped: what is set for a thread is inherited,
/// and setting it in the child would need code between fork and exec.
#[derive(Debug)]
pub(super) struct Pinned(Option<CpuSet>);

impl Pinned {
    pub(super) fn to(cores: &[usize]) -> io::Result<Self> {
        let before = sched_getaffinity(Pid::from_raw(0))?;
        let mut set = CpuSet::new();
        for core in cores {
            set.set(*core)?;
        }
        sched_setaffinity(Pid::from_raw(0), &set)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.0
            && let Err(error) = sched_setaffinity(Pid::from_raw(0), before)
        {
            tracing::warn!(%error, "the worker stays on the cores of a task");
        }
    }
}

fn affinity() -> io::Result<BTreeSet<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// Reads a list like `0-3,8`; `None` if it is none.
fn parse_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut cores = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}

/// Writes cores as the kernel does: `0-3,8`.
pub(super) fn list(cores: &[usize]) -> String {
    let mut sorted = cores.to_vec();
    sorted.sort_unstable();
    let ranges = sorted.chunk_by(|one, next| one + 1 == *next).map(|range| match range {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    ranges.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(count: usize) -> Option<Cores> {
        let lists = ["0-3,8-11\n".to_owned(), "4-7,12-15\n".to_owned()];
        Cores::choose(&(2..14).collect(), &lists, count)
    }

    #[test]
    fn lists_are_read_and_written() {
        let read = parse_list("0-2,8\n").unwrap();
        assert_eq!(read.iter().copied().collect::<Vec<_>>(), [0, 1, 2, 8]);
        assert_eq!(list(&[8, 2, 0, 1, 10]), "0-2,8,10");
        assert_eq!(parse_list("a"), None);
        assert!(parse_list("\n").unwrap().is_empty());
    }

    #[test]
    fn only_allowed_cores_are_offered_by_node() {
        let all = cores(12).unwrap();
        assert_eq!(all.by_node(), [6, 6]);
        assert_eq!(cores(7).unwrap().by_node(), [6, 1]);
        assert!(cores(6).unwrap().by_node().is_empty());
        assert_eq!(cores(13), None);
        let nothing_known = Cores::choose(&(0..4).collect(), &[], 4).unwrap();
        assert!(nothing_known.by_node().is_empty());
    }

    #[test]
    fn no_core_is_given_twice_and_all_come_back() {
        let mut cores = cores(12).unwrap();
        let first = cores.take(&[NumaCores { numa: 1, cores: 4 }], 4).unwrap();
        assert_eq!(first, [4, 5, 6, 7]);
        assert_eq!(
            cores.take(&[NumaCores { numa: 1, cores: 2 }, NumaCores { numa: 0, cores: 1 }], 3).unwrap(),
            [12, 13, 2]
        );
        assert!(cores.take(&[NumaCores { numa: 1, cores: 1 }], 1).is_err());
        assert_eq!(cores.take(&[], 5).unwrap(), [3, 8, 9, 10, 11]);
        assert!(cores.take(&[], 1).is_err());
        cores.give_back(&first);
        assert_eq!(cores.take(&[], 4).unwrap(), first);
    }

    #[test]
    fn what_is_started_stays_on_its_core_and_the_worker_does_not() {
        let allowed = affinity().unwrap();
        let core = *allowed.last().unwrap();
        let pinned = Pinned::to(&[core]).unwrap();
        let output =
            std::process::Command::new("grep").args(["Cpus_allowed_list", "/proc/self/status"]).output().unwrap();
        drop(pinned);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.split_whitespace().last(), Some(core.to_string().as_str()));
        assert_eq!(affinity().unwrap(), allowed);
    }
}
