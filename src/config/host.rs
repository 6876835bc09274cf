//! What this machine has: cores this process may use, memory, and which batch system it belongs to.

use super::spec::BackendKind;
use nix::unistd::{SysconfVar, sysconf};
use std::path::Path;

/// Facts about this machine that defaults depend on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Cores this process may use: its affinity and the quota of its cgroup count.
    pub host_cores: u32,
    /// Bytes of memory this process may use, if known.
    pub host_memory_bytes: Option<u64>,
    /// The batch system it belongs to.
    pub found: Found,
}

/// The backend where nobody names one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// It.
    pub kind: BackendKind,
    /// Why: a clause, `sbatch and squeue are on the PATH`.
    pub why: String,
}

impl Facts {
    /// Looks at this machine; the batch system was looked for by [`crate::backends::detect`].
    pub fn of_host(found: Found) -> Self {
        Self { host_cores: cores(), host_memory_bytes: memory_bytes(), found }
    }
}

/// Returns how many cores this process may use.
pub fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores).unwrap_or(u32::MAX)
}

/// Returns the memory of the machine, or the limit of our cgroup when that is less.
pub fn memory_bytes() -> Option<u64> {
    let value = |name| sysconf(name).ok()?.and_then(|n| u64::try_from(n).ok());
    let machine = value(SysconfVar::_PHYS_PAGES)?.checked_mul(value(SysconfVar::PAGE_SIZE)?)?;
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(machine.min(cgroup_limit(&own, Path::new("/sys/fs/cgroup")).unwrap_or(u64::MAX)))
}

/// Returns the smallest `memory.max` from our cgroup (version 2) up to the root.
fn cgroup_limit(own: &str, root: &Path) -> Option<u64> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = root.join(path);
    folder
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .filter_map(|folder| {
            let text = std::fs::read_to_string(folder.join("memory.max")).ok()?;
            text.trim().parse::<u64>().ok()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn this_machine_has_something() {
        let facts = Facts::of_host(Found { kind: BackendKind::Local, why: "said so".to_owned() });
        assert!(facts.host_cores >= 1);
        assert!(facts.host_memory_bytes > Some(1 << 20));
        assert_eq!(facts.found.why, "said so");
    }

    #[test]
    fn the_smallest_limit_of_the_cgroups_holds() {
        let root = tempfile::tempdir().expect("folder");
        let job = root.path().join("slurm/job_7/step_0");
        fs::create_dir_all(&job).expect("folders");
        fs::write(job.join("memory.max"), "max\n").expect("write");
        fs::write(root.path().join("slurm/job_7/memory.max"), "4096\n").expect("write");
        fs::write(root.path().join("slurm/memory.max"), "8192\n").expect("write");
        let own = "1:name=systemd:/x\n0::/slurm/job_7/step_0\n";
        assert_eq!(cgroup_limit(own, root.path()), Some(4096));
        assert_eq!(cgroup_limit("0::/other\n", root.path()), None);
        assert_eq!(cgroup_limit("", root.path()), None);
    }
}
