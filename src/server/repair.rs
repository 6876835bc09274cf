//! Making a usable journal of a damaged one. The damaged files are copied first, and what cannot be read is
//! named; nothing that can be read is left out without being named.
//!
//! Called by `dcluster journal repair`. It takes the cluster over like a server (claim, lease, only then the
//! parts), so that no server can write beside it, and writes a base in an epoch of its own.

use super::core::Core;
use super::describe::Describer;
use super::record::Record;
use super::{clock, core_of, takeover};
use crate::cluster::{Folder, Identity, private_folder};
use crate::error::{Kind, Problem};
use crate::runtime::disk::RealDisk;
use crate::runtime::journal::inspect::{Hole, inspect, salvage};
use crate::runtime::journal::{Journal, Limits, Part, Position};
use crate::runtime::lease::{LeaseState, ServerState, read_lease};
use crate::runtime::scheduler::RestoreError;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What can be saved and what cannot.
#[derive(Debug)]
pub struct Plan {
    /// The state that the readable records make.
    core: Core,
    /// The number behind which the new journal begins.
    sequence: u64,
    /// Submissions that are saved.
    pub submissions: u64,
    /// Records that are saved.
    pub records: u64,
    /// Bytes that are no frame, by part.
    pub holes: Vec<(Part, Hole)>,
    /// The part whose base is damaged, and the older one from which the state before it is taken.
    pub base_from: Option<(Part, Part)>,
    /// First and last number of frames that the lease promises behind the last one that is there.
    pub missing_end: Option<(u64, u64)>,
    /// Ids of submissions that are lost.
    pub lost_submissions: Vec<u32>,
    /// Records that can be read and make no sense without what is lost: number of the frame, and words.
    pub left_out: Vec<(u64, String)>,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repaired {
    /// Where the damaged files are.
    pub saved: PathBuf,
    /// The epoch of the new journal.
    pub epoch: u32,
}

fn unreadable(folder: &Folder, what: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::Failed, format!("the journal of cluster {} cannot be repaired", folder.name()))
        .says(what.to_string())
        .done("nothing was changed")
        .fix(format!("keep a copy of {} and start afresh under another name", folder.path().display()))
}

/// Finds out what can be saved, without changing anything.
///
/// # Errors
///
/// If the files cannot be read, or no part was ever used.
pub fn plan(folder: &Folder, identity: &Identity, disk: &RealDisk) -> Result<Plan, Problem> {
    let lease = read_lease(disk).map_err(|error| unreadable(folder, &error))?;
    plan_with(folder, identity, disk, lease.as_ref(), 1)
}

fn plan_with(
    folder: &Folder,
    identity: &Identity,
    disk: &RealDisk,
    lease: Option<&LeaseState>,
    epoch: u32,
) -> Result<Plan, Problem> {
    let parts = inspect(disk, &identity.id).map_err(|error| unreadable(folder, &error))?;
    let salvage = salvage(&parts).ok_or_else(|| unreadable(folder, &"no part of it was ever used by a server"))?;
    let durable = lease.map_or(0, |lease| lease.durable);
    let mut plan = Plan {
        core: core_of(folder, identity, epoch, 1)?,
        sequence: salvage.last_sequence.max(durable),
        submissions: 0,
        records: 0,
        holes: salvage.lost,
        base_from: salvage.base_from,
        missing_end: (salvage.last_sequence < durable).then_some((salvage.last_sequence + 1, durable)),
        lost_submissions: Vec::new(),
        left_out: Vec::new(),
    };
    let (mut known, mut spoken_of) = (BTreeSet::new(), BTreeSet::new());
    let mut describer = Describer::default();
    for (sequence, bytes) in salvage.records {
        let record = match Record::decode(&bytes) {
            Ok(record) => record,
            Err(error) => {
                plan.left_out.push((sequence, format!("a record of an unknown kind: {error}")));
                continue;
            }
        };
        let submitted = match &record {
            Record::Submitted { array, .. } => Some(array.0),
            _ => None,
        };
        let described = describer.describe(&record);
        spoken_of.extend(described.submission);
        match plan.core.replay(record) {
            Ok(()) => {
                plan.records += 1;
                known.extend(submitted);
            }
            // That its submission is lost is said once.
            Err(RestoreError::UnknownTask(_)) => plan.left_out.push((sequence, described.text)),
            Err(error) => plan.left_out.push((sequence, format!("{}: {error}", described.text))),
        }
    }
    plan.submissions = known.len() as u64;
    // Ids are given out one after the other, so what is missing between them was there.
    let highest = spoken_of.last().copied().unwrap_or(0);
    plan.lost_submissions = (1..=highest).filter(|array| !known.contains(array)).collect();
    Ok(plan)
}

/// Takes the cluster over, copies its journal, and writes a new one from what can be saved. `waiting` is told
/// how many seconds the proof that no server lives may take.
///
/// # Errors
///
/// [`Kind::TryAgain`] when a server lives; the damaged files are as they were after any error.
pub fn repair(
    folder: &Folder,
    identity: &Identity,
    disk: &RealDisk,
    waiting: impl FnMut(u64),
) -> Result<(Plan, Repaired), Problem> {
    let mut taken = takeover::take_over(folder, disk, false, waiting).map_err(|problem| {
        let problem = if problem.kind == Kind::TryAgain { Problem { fixes: Vec::new(), ..problem } } else { problem };
        problem.done("nothing was changed").fix("take the cluster down first: dcluster down")
    })?;
    let epoch = taken.lease.epoch();
    let plan = plan_with(folder, identity, disk, taken.before.as_ref(), epoch)?;
    let now = jiff::Timestamp::from_millisecond(i64::try_from(clock::now().wall).unwrap_or(0)).unwrap_or_default();
    let saved = folder.path().join(format!("journal.damaged-{}", now.strftime("%Y%m%dT%H%M%SZ")));
    let room = |what: &dyn std::fmt::Display| {
        Problem::new(Kind::TryAgain, format!("cannot write in {}", folder.path().display()))
            .says(what.to_string())
            .done("the damaged journal is as it was")
            .fix("make room there (quota, full disk)")
    };
    copy(folder.path(), &saved).map_err(|error| room(&error))?;
    // No source: nothing that is older is removed, until a server that works has written its own base twice.
    let position = Position { sequence: plan.sequence, source: None };
    let base = plan.core.snapshot();
    let mut journal = Journal::start(disk.clone(), &identity.id, epoch, position, base.encoded(), Limits::default())
        .map_err(|error| room(&error))?;
    let durable = journal.close().map_err(|error| room(&error))?;
    // A cluster that was down stays down; one that was not is brought back by any command.
    let was_down = taken.before.as_ref().is_some_and(|before| before.state == ServerState::Closed);
    let told = if was_down { taken.lease.close(durable) } else { taken.lease.beat(durable) };
    told.map_err(|error| room(&error))?;
    Ok((plan, Repaired { saved, epoch }))
}

/// Copies what tells the state: `id`, `lease`, `epochs`, `journal`; `dcluster journal check` reads the copy, too.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let one = |name: &Path| -> io::Result<()> {
        fs::copy(from.join(name), to.join(name))?;
        File::open(to.join(name))?.sync_all()
    };
    for name in ["id", "lease"] {
        one(Path::new(name))?;
    }
    for name in ["epochs", "journal"] {
        private_folder(&to.join(name))?;
        for entry in fs::read_dir(from.join(name))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                one(&Path::new(name).join(entry.file_name()))?;
            }
        }
        File::open(to.join(name))?.sync_all()?;
    }
    File::open(to)?.sync_all()?;
    File::open(from)?.sync_all()
}
