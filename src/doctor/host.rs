//! What the doctor sees on a host by itself: umask, limits, file systems, who ends processes. The same facts are
//! gathered in a job by [`super::probe`].

use super::Check;
use crate::config::spec::BackendKind;
use crate::error::Kind;
use crate::ui::words::{count, duration, size};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::statfs::statfs;
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Free space below which a folder is nearly full.
const SPACE_LEAST_BYTES: u64 = 1_000_000_000;
/// Free places for files below which a folder is nearly full: a task leaves a few.
const FILES_LEAST: u64 = 10_000;
/// What is written to see whether a quota allows it.
const TRIAL_BYTES: usize = 1 << 20;
/// Descriptors with which a server holds the workers of most clusters.
const DESCRIPTORS_LEAST: u64 = 4096;
/// Processes of a user below which a node full of tasks comes to its limit.
const PROCESSES_LEAST: u64 = 512;
/// Address space below which programs of some size do not start. The probe asks for as much memory, which is its
/// limit on some sites.
const ADDRESSES_LEAST_BYTES: u64 = 1 << 30;

/// Limits of a process, `None` where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Open files, at most.
    pub descriptors: Option<u64>,
    /// Processes of the user.
    pub processes: Option<u64>,
    /// Processor time.
    pub cpu_seconds: Option<u64>,
    /// Address space.
    pub address_bytes: Option<u64>,
}

impl Limits {
    /// Looks at those of this process. Of descriptors the hard limit counts: the server raises the other one.
    pub fn of_process() -> Self {
        let number = |limit: u64| (limit != RLIM_INFINITY).then_some(limit);
        let soft = |resource| getrlimit(resource).ok().and_then(|(soft, _)| number(soft));
        Self {
            descriptors: getrlimit(Resource::RLIMIT_NOFILE).ok().and_then(|(_, hard)| number(hard)),
            processes: soft(Resource::RLIMIT_NPROC),
            cpu_seconds: soft(Resource::RLIMIT_CPU),
            address_bytes: soft(Resource::RLIMIT_AS),
        }
    }

    /// Says what of them gets in the way, of the server's host or of a job.
    pub fn trouble(&self, in_job: bool) -> Vec<String> {
        let mut trouble = Vec::new();
        if let Some(seconds) = self.cpu_seconds {
            let whom = if in_job { "a worker" } else { "the server" };
            trouble
                .push(format!("{whom} is killed after {} of processor time", duration(Duration::from_secs(seconds))));
        }
        if let Some(descriptors) = self.descriptors.filter(|number| *number < DESCRIPTORS_LEAST && !in_job) {
            trouble.push(format!("{descriptors} open files: a server holds about so many workers and clients"));
        }
        if let Some(processes) = self.processes.filter(|number| *number < PROCESSES_LEAST) {
            trouble
                .push(format!("{} of a user at a time", count(processes, "process").replace("processs", "processes")));
        }
        if let Some(bytes) = self.address_bytes.filter(|bytes| *bytes < ADDRESSES_LEAST_BYTES) {
            trouble.push(format!("{} of address space for a process", size(bytes)));
        }
        trouble
    }
}

/// Judges the limits of this host.
pub fn limits(limits: &Limits) -> Check {
    let trouble = limits.trouble(false);
    if trouble.is_empty() {
        let files = limits.descriptors.map_or_else(|| "any number of".to_owned(), crate::ui::words::grouped);
        return Check::ok("limits", format!("{files} open files, no limit of processor time"));
    }
    let fix = "bring clusters up where these limits are not: another login node, or a small job of its own; `ulimit -a` shows them";
    Check::warn("limits", trouble.join("; "), fix)
}

/// A folder and the file system it is on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The folder.
    pub path: PathBuf,
    /// What kind of file system: `nfs`, `lustre`, `ext4`, or its number.
    pub kind: String,
    /// Whether file systems of this kind are shared between machines; `None` when it can be either.
    pub shared: Option<bool>,
    /// Bytes free for this user.
    pub free_bytes: Option<u64>,
    /// Files that can still be made, where that is counted.
    pub free_files: Option<u64>,
    /// What writing a megabyte said, when it failed.
    pub refused: Option<String>,
}

/// Kinds of file systems by the number statfs(2) tells, and whether they are shared between machines.
const KINDS: &[(i64, &str, Option<bool>)] = &[
    (0x6969, "nfs", Some(true)),
    (0x0BD0_0BD0, "lustre", Some(true)),
    (0x4750_4653, "gpfs", Some(true)),
    (0x1983_0326, "beegfs", Some(true)),
    (0x00C3_6400, "ceph", Some(true)),
    (0x5346_414F, "afs", Some(true)),
    (0xFE53_4D42, "smb", Some(true)),
    (0x013111A8, "ibrix", Some(true)),
    (0xAAD7_AAEA, "panfs", Some(true)),
    (0x0102_1994, "tmpfs", Some(false)),
    (0xEF53, "ext4", Some(false)),
    (0x5846_5342, "xfs", Some(false)),
    (0x9123_683E, "btrfs", Some(false)),
    (0x2FC1_2FC1, "zfs", None),
    (0x794C_7630, "overlay", Some(false)),
    (0x6573_5546, "fuse", None),
];

impl Place {
    /// Looks at a folder, which must exist, and writes into it for a moment.
    pub fn of(path: &Path) -> Self {
        let number = statfs(path).map(|found| found.filesystem_type().0).unwrap_or_default();
        // The number is a 32-bit one, signed or not by the machine's taste.
        let number = i64::from(number as u32);
        let (kind, shared) = KINDS
            .iter()
            .find(|(known, ..)| *known == number)
            .map_or_else(|| (format!("{number:#x}"), None), |(_, name, shared)| ((*name).to_owned(), *shared));
        let room = statvfs(path).ok();
        Self {
            path: path.to_owned(),
            kind,
            shared,
            free_bytes: room.map(|room| room.blocks_available() * room.fragment_size()),
            free_files: room.filter(|room| room.files() > 0).map(|room| room.files_available()),
            refused: trial(path).err().map(|error| error.to_string()),
        }
    }

    /// Says what is wrong with its room, if anything.
    fn trouble(&self) -> Option<String> {
        let full = |what: String| format!("{} has only {what} left", self.path.display());
        match (self.free_bytes, self.free_files) {
            (Some(bytes), _) if bytes < SPACE_LEAST_BYTES => Some(full(size(bytes))),
            (_, Some(files)) if files < FILES_LEAST => Some(full(format!("room for {}", count(files, "file")))),
            _ => None,
        }
    }

    fn words(&self) -> String {
        match self.free_bytes {
            Some(bytes) => format!("{} ({}, {} free)", self.path.display(), self.kind, size(bytes)),
            None => format!("{} ({})", self.path.display(), self.kind),
        }
    }
}

/// Writes a megabyte, to the disk, and takes it away again: only this shows a quota of any kind.
fn trial(folder: &Path) -> std::io::Result<()> {
    let path = folder.join(format!(".dcluster-doctor-{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&path)?;
    let written = file.write_all(&vec![0x5a; TRIAL_BYTES]).and_then(|()| file.sync_all());
    std::fs::remove_file(&path).and(written)
}

/// Judges the state folder. `probed`: a job will say whether the nodes see it.
pub fn state_folder(place: &Place, backend: BackendKind, probed: bool) -> Check {
    let elsewhere = "set DCLUSTER_STATE to a folder of yours that you can write and all nodes see";
    if let Some(refused) = &place.refused {
        let says = format!("{} cannot be written: {refused}", place.path.display());
        return Check::fail(
            Kind::Unreachable,
            "state folder",
            says,
            format!("free some of your quota, or {elsewhere}"),
        );
    }
    if let Some(trouble) = place.trouble() {
        return Check::warn("state folder", trouble, format!("clean up, or {elsewhere}"));
    }
    if backend != BackendKind::Local && place.shared == Some(false) && !probed {
        let says = format!("{}, a kind that nodes do not share as a rule", place.words());
        return Check::warn("state folder", says, format!("without --no-probe a job looks; or {elsewhere}"));
    }
    Check::ok("state folder", place.words())
}

/// Judges the home folder.
pub fn home(place: Option<&Place>) -> Check {
    let Some(place) = place else {
        let says = "you have no home folder on this host";
        return Check::warn("home", says, "set HOME, and DCLUSTER_STATE to a folder that all nodes see");
    };
    match (&place.refused, place.trouble()) {
        (Some(refused), _) => {
            let says = format!("{} cannot be written: {refused}", place.path.display());
            Check::warn("home", says, "free some of your quota: batch systems and tasks write there")
        }
        (None, Some(trouble)) => Check::warn("home", trouble, "clean up: batch systems and tasks write there"),
        (None, None) => Check::ok("home", place.words()),
    }
}

/// Returns the umask of this process without changing it (proc(5), `Umask`, Linux 4.7).
pub fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let text = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(text.trim(), 8).ok()
}

/// Judges the umask, which tasks get; what dcluster itself writes is private whatever it is.
pub fn umask_check(umask: Option<u32>) -> Check {
    match umask {
        None => Check::ok("umask", "not known; what dcluster writes is private in any case"),
        Some(mask) if mask & 0o002 == 0 => Check::warn(
            "umask",
            format!("{mask:04o}: your group or others may change what your tasks write"),
            "umask 022 in your shell's profile, unless your group shares files on purpose",
        ),
        Some(mask) if mask & 0o700 != 0 => Check::warn(
            "umask",
            format!("{mask:04o}: tasks cannot use again what they wrote"),
            "umask 022 in your shell's profile",
        ),
        Some(mask) => Check::ok("umask", format!("{mask:04o} for your tasks; what dcluster itself writes is private")),
    }
}

/// Whether systemd ends what a user leaves behind at log-out (logind.conf(5), `KillUserProcesses`), read from the
/// files in their order; the last word counts.
pub fn kills_at_logout(texts: &[String]) -> bool {
    let mut words = texts.iter().flat_map(|text| text.lines()).filter_map(|line| {
        let (key, value) = line.trim().split_once('=')?;
        (key.trim() == "KillUserProcesses").then(|| value.trim().to_ascii_lowercase())
    });
    matches!(words.next_back().as_deref(), Some("yes" | "true" | "on" | "1"))
}

/// Judges whether a server stays when its user logs out.
pub fn logout(kills: bool) -> Check {
    if kills {
        let says = "systemd ends your processes when you log out, the server among them";
        return Check::warn("log-out", says, "loginctl enable-linger, or run `dcluster up` where that is not so");
    }
    Check::ok("log-out", "the server stays when you log out")
}

/// Reads the configuration of logind.
pub fn logind_texts() -> Vec<String> {
    let mut files = vec![PathBuf::from("/etc/systemd/logind.conf")];
    let mut more: Vec<_> = std::fs::read_dir("/etc/systemd/logind.conf.d").into_iter().flatten().flatten().collect();
    more.sort_by_key(std::fs::DirEntry::file_name);
    files.extend(
        more.into_iter().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "conf")),
    );
    files.into_iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn place() -> Place {
        Place {
            path: "/s".into(),
            kind: "ext4".into(),
            shared: Some(false),
            free_bytes: Some(5_000_000_000),
            free_files: Some(1_000_000),
            refused: None,
        }
    }

    #[test]
    fn this_host_can_be_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let found = Place::of(folder.path());
        assert!(found.refused.is_none() && found.free_bytes > Some(0), "{found:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the trial is taken away");
        assert!(Place::of(Path::new("/proc/self")).refused.is_some());
        assert!(umask().is_some());
        assert_eq!(
            Limits::of_process().descriptors.is_some(),
            getrlimit(Resource::RLIMIT_NOFILE).unwrap().1 != RLIM_INFINITY
        );
    }

    #[test]
    fn a_folder_is_judged_by_what_can_be_written() {
        let verdict = |place: &Place, backend, probed| state_folder(place, backend, probed).verdict;
        assert_eq!(verdict(&place(), BackendKind::Local, false), Verdict::Ok);
        assert_eq!(verdict(&place(), BackendKind::Slurm, true), Verdict::Ok);
        assert_eq!(verdict(&place(), BackendKind::Slurm, false), Verdict::Warn);
        assert_eq!(verdict(&Place { shared: Some(true), ..place() }, BackendKind::Slurm, false), Verdict::Ok);
        let full = Place { refused: Some("Disk quota exceeded (os error 122)".into()), ..place() };
        let check = state_folder(&full, BackendKind::Local, true);
        assert_eq!((check.verdict, check.kind), (Verdict::Fail, Kind::Unreachable));
        assert!(check.says.contains("quota") && check.fix.unwrap().contains("DCLUSTER_STATE"));
        assert_eq!(home(Some(&full)).verdict, Verdict::Warn);
        let at_bound = Place { free_bytes: Some(SPACE_LEAST_BYTES), free_files: Some(FILES_LEAST), ..place() };
        assert_eq!(verdict(&at_bound, BackendKind::Local, false), Verdict::Ok);
        for less in [
            Place { free_bytes: Some(SPACE_LEAST_BYTES - 1), ..place() },
            Place { free_files: Some(FILES_LEAST - 1), ..place() },
        ] {
            assert_eq!(verdict(&less, BackendKind::Local, false), Verdict::Warn);
            assert_eq!(home(Some(&less)).verdict, Verdict::Warn);
        }
        assert_eq!((home(Some(&place())).verdict, home(None).verdict), (Verdict::Ok, Verdict::Warn));
    }

    #[test]
    fn limits_that_end_a_server_are_told() {
        assert_eq!(limits(&Limits::default()).verdict, Verdict::Ok);
        let cpu = Limits { cpu_seconds: Some(1800), ..Limits::default() };
        assert_eq!(limits(&cpu).says, "the server is killed after 30 min of processor time");
        assert_eq!(cpu.trouble(true), ["a worker is killed after 30 min of processor time"]);
        let files = Limits { descriptors: Some(1024), ..Limits::default() };
        assert_eq!((limits(&files).verdict, files.trouble(true).len()), (Verdict::Warn, 0));
        let few = Limits { processes: Some(100), address_bytes: Some(1 << 29), ..Limits::default() };
        assert_eq!(few.trouble(true), ["100 processes of a user at a time", "537 MB of address space for a process"]);
    }

    #[test]
    fn umasks() {
        let verdict = |mask| umask_check(mask).verdict;
        assert_eq!(
            (verdict(Some(0o022)), verdict(Some(0o077)), verdict(None)),
            (Verdict::Ok, Verdict::Ok, Verdict::Ok)
        );
        assert_eq!((verdict(Some(0o002)), verdict(Some(0))), (Verdict::Ok, Verdict::Warn));
        assert_eq!(verdict(Some(0o722)), Verdict::Warn);
    }

    #[test]
    fn who_ends_processes_at_logout() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert!(!kills_at_logout(&[]));
        assert!(!kills_at_logout(&texts(&["[Login]\n#KillUserProcesses=yes\n"])));
        assert!(kills_at_logout(&texts(&["[Login]\nKillUserProcesses = yes\n"])));
        assert!(!kills_at_logout(&texts(&["KillUserProcesses=yes\n", "KillUserProcesses=no\n"])));
        assert_eq!((logout(true).verdict, logout(false).verdict), (Verdict::Warn, Verdict::Ok));
    }
}
