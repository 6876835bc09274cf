//! Becoming the server of a cluster: proof that the former one is gone (or patience), the claim,
//! the lease, and only then the journal.

use super::clock;
use crate::cluster::{Folder, random};
use crate::error::{Kind, Problem};
use crate::runtime::disk::{Disk, RealDisk};
use crate::runtime::lease::{self, Claim, Evidence, Holder, Lease, LeaseError, LeaseState, Situation, Verdict};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{self, FsType};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// File systems on which `flock` is known to work between all processes that see them.
const LOCAL: &[FsType] = &[
    statfs::EXT4_SUPER_MAGIC,
    statfs::XFS_SUPER_MAGIC,
    statfs::BTRFS_SUPER_MAGIC,
    statfs::TMPFS_MAGIC,
    statfs::OVERLAYFS_SUPER_MAGIC,
];
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The cluster is ours.
pub(super) struct Taken {
    /// Our slot.
    pub lease: Lease<RealDisk>,
    /// The lease as the former server left it.
    pub before: Option<LeaseState>,
    /// The former server is known to be dead, not only silent.
    pub proved: bool,
    /// Held as long as the server lives, on file systems where that means something.
    pub lock: Option<Flock<File>>,
}

fn lease_problem(error: &LeaseError) -> Problem {
    let kind = if error.is_fenced() { Kind::TryAgain } else { Kind::Unreachable };
    Problem::new(kind, "cannot take the cluster over").says(error.to_string())
}

/// Tries the lock; `None` where it proves nothing.
fn try_lock(folder: &Folder) -> Option<Result<Flock<File>, ()>> {
    let kind = statfs::statfs(folder.path()).ok()?.filesystem_type();
    if !LOCAL.contains(&kind) {
        return None;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(folder.path().join("lock"))
        .ok()?;
    Some(Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| ()))
}

/// What a candidate saw so far of lease and claims.
#[derive(Default)]
pub(super) struct Watch {
    last: Option<(Option<(u32, u64)>, u32)>,
    changed_at: u64,
    seen_changing: bool,
}

/// What a look at them says.
pub(super) struct Seen {
    /// Whether the cluster may be claimed.
    pub verdict: Verdict,
    /// The epoch to claim.
    pub next_epoch: u32,
    /// Where the holder of the lease runs.
    pub host: String,
}

impl Watch {
    /// Looks once; `now` in milliseconds on the boot clock of this host.
    ///
    /// # Errors
    ///
    /// When lease or claims cannot be read: then nothing may be taken over.
    pub(super) fn look<D: Disk>(
        &mut self,
        disk: &D,
        by_force: bool,
        now: u64,
        evidence: impl Fn(&Holder) -> Evidence,
    ) -> Result<Seen, LeaseError> {
        let lease = lease::read_lease(disk)?;
        let newest = lease::newest_claim(disk)?;
        let leased = lease.as_ref().map_or(0, |state| state.epoch);
        let seen = (lease.as_ref().map(|state| (state.epoch, state.beat)), newest);
        match self.last.replace(seen) {
            None => self.changed_at = now,
            Some(last) if last != seen => {
                self.changed_at = now;
                self.seen_changing = true;
            }
            Some(_) => {}
        }
        let claimer = if newest > leased {
            Some(lease::read_claim(disk, newest)?.map_or_else(Default::default, |holder| evidence(&holder)))
        } else {
            None
        };
        let situation = Situation {
            lease: lease.as_ref().map(|state| (state, evidence(&state.holder))),
            claimer,
            unchanged_for_seconds: (now - self.changed_at) / 1000,
            seen_changing: self.seen_changing,
        };
        let verdict = if by_force { Verdict::Now(lease::Reason::Silent) } else { lease::may_take_over(&situation) };
        let host = lease.map(|state| state.holder.host).unwrap_or_default();
        Ok(Seen { verdict, next_epoch: leased.max(newest) + 1, host })
    }
}

/// Takes the cluster over. `by_force` skips the wait for proof, which is always safe: the fence
/// stops a former server that still lives. `waiting` is told how many seconds may be left.
///
/// # Errors
///
/// [`Kind::TryAgain`] when another server lives or was faster.
pub(super) fn take_over(
    folder: &Folder,
    disk: &RealDisk,
    by_force: bool,
    mut waiting: impl FnMut(u64),
) -> Result<Taken, Problem> {
    let mut watch = Watch::default();
    let mut lock = None;
    loop {
        let tried = try_lock(folder);
        let flock_free = tried.as_ref().map(Result::is_ok);
        if let Some(Ok(held)) = tried {
            lock = Some(held);
        }
        let evidence = |holder: &Holder| clock::evidence(holder, flock_free);
        let seen = watch.look(disk, by_force, clock::boot_milliseconds(), evidence);
        let seen = seen.map_err(|error| lease_problem(&error))?;
        match seen.verdict {
            Verdict::Now(reason) => {
                let proved = !matches!(reason, lease::Reason::Silent);
                return claim(folder, disk, seen.next_epoch, lock, proved);
            }
            Verdict::Alive => {
                let what = format!("another server of this cluster is alive on {}", seen.host);
                return Err(Problem::new(Kind::TryAgain, what)
                    .fix("dcluster up --take-over  (safe: the other one stops by itself)"));
            }
            Verdict::Wait { seconds } => {
                waiting(seconds);
                lock = None;
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
}

fn claim(
    folder: &Folder,
    disk: &RealDisk,
    epoch: u32,
    lock: Option<Flock<File>>,
    proved: bool,
) -> Result<Taken, Problem> {
    let holder = clock::holder(random()?);
    match lease::claim(disk, &holder, epoch).map_err(|error| lease_problem(&error))? {
        Claim::Won { epoch } => {
            let (lease, before) = Lease::open(disk.clone(), holder, epoch).map_err(|error| lease_problem(&error))?;
            Ok(Taken { lease, before, proved, lock: lock.or_else(|| hold_lock(folder)) })
        }
        Claim::Lost { holder, .. } => {
            let host = holder.map(|holder| holder.host).unwrap_or_default();
            Err(Problem::new(Kind::TryAgain, format!("another server was faster (on {host})")))
        }
    }
}

/// Gets the lock that a rival held while it looked. A former server that lives (stopped, or being fenced)
/// keeps it: then it is done without.
fn hold_lock(folder: &Folder) -> Option<Flock<File>> {
    for _ in 0..20 {
        match try_lock(folder)? {
            Ok(lock) => return Some(lock),
            Err(()) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    None
}
