//! A small server over the journal and the lease, what it may rightly leave behind, and the
//! mistakes that must be caught.

use crate::simdisk::{Image, World};
use dcluster::runtime::disk::{Disk, DiskFile};
use dcluster::runtime::journal::{BuiltPart, Journal, Limits, Part, Records, recover};
use dcluster::runtime::lease::{Claim, Holder, Lease, LeaseError, LeaseState, claim, newest_claim, read_lease};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

pub(crate) const CLUSTER: &str = "sim";

pub(crate) const LIMITS: Limits = Limits { reserve_bytes: 128, compact_bytes: 512, payload_bytes: 300 };

/// The record of a number: of varying length, and different in every byte from its neighbours.
pub(crate) fn record(number: u32) -> Vec<u8> {
    let mut record = number.to_le_bytes().to_vec();
    let length = number.wrapping_mul(2_654_435_761) >> 26;
    record.extend((0..length).map(|byte| (byte * 7 + number * 31) as u8));
    record
}

/// Takes records for what they are; `None` when one is none of ours.
fn numbers(records: &Records) -> Option<Vec<u32>> {
    let number = |bytes: &[u8]| {
        let number = u32::from_le_bytes(*bytes.first_chunk()?);
        (record(number) == *bytes).then_some(number)
    };
    records.iter().map(number).collect()
}

/// What is known to be right.
pub(crate) struct Model {
    /// Numbers whose acknowledgement went out.
    pub(crate) acknowledged: Vec<u32>,
    /// What each server holds, and what it has in flight.
    pub(crate) servers: BTreeMap<u8, (Vec<u32>, Vec<u32>)>,
    pub(crate) next: u32,
    pub(crate) random: fastrand::Rng,
    pub(crate) states: u64,
    pub(crate) violation: Option<String>,
    /// Errors that stopped a server.
    pub(crate) failures: Vec<String>,
    pub(crate) marks: BTreeSet<&'static str>,
}

/// A model that server, observer and test share.
pub(crate) type Shared = Arc<Mutex<Model>>;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Model {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            acknowledged: Vec::new(),
            servers: BTreeMap::new(),
            next: 1,
            random: fastrand::Rng::with_seed(seed),
            states: 0,
            violation: None,
            failures: Vec::new(),
            marks: BTreeSet::new(),
        }
    }

    /// Recovers every crash state of the disk up to `2^bits`, else a sample, and checks each.
    pub(crate) fn walk(&mut self, world: &World, bits: usize, sample: u64) {
        let uncertain = world.uncertain();
        let stale = world.stale_content();
        let all = uncertain <= bits;
        let count = if all { 1 << uncertain } else { sample };
        for state in 0..count {
            // Of a sample, some states keep nearly everything and some nearly nothing.
            let share = self.random.u32(1..16);
            let random = &mut self.random;
            let keep = |number: usize| {
                if all { state >> number & 1 == 1 } else { random.u32(..16) < share }
            };
            let hole: &[u8] = if state % 3 == 2 { &stale } else { &[] };
            let image = world.image(keep, hole);
            self.check(&image, hole);
            if self.violation.is_some() {
                return;
            }
        }
    }

    fn check(&mut self, image: &Image, hole: &[u8]) {
        self.states += 1;
        let lease = match read_lease(image) {
            Ok(lease) => lease,
            Err(error) => return self.fail(format!("honest lease refused: {error}")),
        };
        if lease.is_none() && image.files.contains_key("lease") {
            self.marks.insert("first slot torn");
        }
        let recovered = match recover(image, CLUSTER, lease.as_ref()) {
            Ok(recovered) => recovered,
            Err(error) => return self.fail(format!("honest crash refused: {error}")),
        };
        if recovered.torn_bytes > 0 {
            self.marks.insert(match hole {
                [] => "torn frame",
                _ => "torn frame among stale content",
            });
        }
        let size = |part: &Part| image.files[&part.to_string()].len();
        if recovered.unfinished.iter().any(|part| size(part) > 0) {
            self.marks.insert("torn base");
        }
        let Some(found) = numbers(&recovered.records) else {
            return self.fail("invented: a record that nobody wrote".to_owned());
        };
        self.judge(&found);
    }

    /// Checks a recovered list against what was acknowledged and what could be there.
    pub(crate) fn judge(&mut self, found: &[u32]) {
        if let Some(lost) = self.acknowledged.iter().find(|n| !found.contains(n)) {
            return self.fail(format!("lost: {lost} of {:?}", self.acknowledged));
        }
        let known = |(state, flight): &(Vec<u32>, Vec<u32>)| {
            found.strip_prefix(state.as_slice()).is_some_and(|rest| {
                // A long list is split into frames, and any number of them may be there.
                flight.starts_with(rest)
            })
        };
        if !found.is_empty() && !self.servers.values().any(known) {
            self.fail(format!("invented: {found:?}, not among {:?}", self.servers));
        }
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}

/// Mistakes of a server; `None` of them in the honest one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slip {
    None,
    AcknowledgesBeforeAppend,
    FencesBeforeAppend,
    NeverFences,
    ReadsBeforeClaim,
    /// Acknowledges although the part failed.
    IgnoresErrors,
    /// A part built beside the one in use lacks what came since.
    ForgetsTail,
}

/// Why a server stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    Fenced,
    ClaimLost,
    Failed(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fenced => f.write_str("fenced"),
            Self::ClaimLost => f.write_str("claim lost"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl From<LeaseError> for Stop {
    fn from(error: LeaseError) -> Self {
        if error.is_fenced() { Self::Fenced } else { Self::Failed(error.to_string()) }
    }
}

/// What was appended since a part was planned.
type Appended = Vec<Vec<u8>>;

/// A server: the order of calls is the one of `docs/journal.md`.
pub(crate) struct Server<D: Disk + Clone> {
    id: u8,
    lease: Lease<D>,
    pub(crate) journal: Journal<D>,
    /// A part that was built beside the one in use, and what was appended since.
    built: Option<(BuiltPart<D::File>, Appended)>,
    model: Shared,
    slip: Slip,
}

impl<D: Disk + Clone> Server<D> {
    pub(crate) fn boot(disk: &D, id: u8, model: &Shared, slip: Slip) -> Result<Self, Stop> {
        let failed = |error: &dyn std::error::Error| Stop::Failed(error.to_string());
        let read = |lease: Option<&LeaseState>| recover(disk, CLUSTER, lease).map_err(|error| failed(&error));
        let early = match slip {
            Slip::ReadsBeforeClaim => Some(read(read_lease(disk)?.as_ref())?),
            _ => None,
        };
        // What any status command does; it fills the cache of this client.
        let _ = disk.list("journal");
        let epoch = newest_claim(disk)? + 1;
        let holder = Holder {
            nonce: [id; 16],
            host: format!("host{id}"),
            boot: "boot".to_owned(),
            pid: id.into(),
            pid_namespace: 1,
            pid_start: 1,
        };
        if let Claim::Lost { .. } = claim(disk, &holder, epoch)? {
            lock(model).marks.insert("claim lost");
            return Err(Stop::ClaimLost);
        }
        let (lease, before) = Lease::open(disk.clone(), holder, epoch)?;
        let recovered = match early {
            Some(early) => early,
            // A successor may remove what we read: whatever that looks like, the fence explains it.
            None => match read(before.as_ref()) {
                Err(_) if lease.fence().is_err_and(|error| error.is_fenced()) => {
                    return Err(Stop::Fenced);
                }
                other => other?,
            },
        };
        let state = numbers(&recovered.records).ok_or(Stop::Failed("invented".to_owned()))?;
        {
            let mut model = lock(model);
            if recovered.clean {
                model.marks.insert("clean close");
            }
            let flights: Vec<_> = model.servers.values().cloned().collect();
            for (held, flight) in flights.iter().filter(|(_, flight)| !flight.is_empty()) {
                let arrived = state.len() == held.len() + flight.len();
                model.marks.insert(match arrived {
                    true => "taken over, frame in flight arrived",
                    false => "taken over, frame in flight lost",
                });
            }
            model.servers.insert(id, (state.clone(), Vec::new()));
        }
        let base: Vec<_> = state.iter().map(|&number| record(number)).collect();
        let journal = Journal::start(disk.clone(), CLUSTER, epoch, recovered.position, base.iter(), LIMITS)
            .map_err(|error| failed(&error))?;
        lease.fence()?;
        Ok(Self { id, lease, journal, built: None, model: model.clone(), slip })
    }

    fn held(&self) -> (Vec<u32>, Vec<u32>) {
        lock(&self.model).servers[&self.id].clone()
    }

    /// Nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.held().1.is_empty()
    }

    /// What is in flight is now part of the state, and of what was promised.
    fn acknowledge(&self) {
        let mut model = lock(&self.model);
        let model = &mut *model;
        let (state, flight) = model.servers.get_mut(&self.id).expect("it booted");
        state.extend_from_slice(flight);
        model.acknowledged.append(flight);
    }

    /// Takes new numbers in: durable, fence, acknowledge.
    pub(crate) fn submit(&mut self, count: u32) -> Result<(), Stop> {
        let mut batch = Vec::new();
        {
            let mut model = lock(&self.model);
            let first = model.next;
            model.next += count;
            let (_, flight) = model.servers.get_mut(&self.id).expect("it booted");
            flight.extend(first..first + count);
            batch.extend(flight.iter().map(|&number| record(number)));
        }
        match self.slip {
            Slip::AcknowledgesBeforeAppend => self.acknowledge(),
            Slip::FencesBeforeAppend => self.lease.fence()?,
            _ => {}
        }
        let appended = self.journal.append(&batch);
        if self.slip == Slip::IgnoresErrors {
            self.acknowledge();
            return Ok(());
        }
        if let Err(error) = appended {
            lock(&self.model).marks.insert("part condemned");
            return Err(Stop::Failed(error.to_string()));
        }
        if let Some((_, tail)) = &mut self.built
            && self.slip != Slip::ForgetsTail
        {
            tail.extend(batch);
        }
        if !matches!(self.slip, Slip::FencesBeforeAppend | Slip::NeverFences) {
            self.fence()?;
        }
        self.acknowledge();
        Ok(())
    }

    fn fence(&self) -> Result<(), Stop> {
        let result = self.lease.fence();
        if result.as_ref().is_err_and(LeaseError::is_fenced) {
            lock(&self.model).marks.insert("writer fenced");
        }
        Ok(result?)
    }

    /// Opens the next part. What was in flight goes into its base (`fold`), or is refused, so
    /// that it must never be seen again.
    pub(crate) fn restart(&mut self, fold: bool) -> Result<(), Stop> {
        let (mut base, flight) = self.held();
        if fold {
            base.extend(&flight);
        }
        let base: Vec<_> = base.iter().map(|&number| record(number)).collect();
        let was_condemned = self.journal.is_condemned();
        if let Err(error) = self.journal.restart_part(base.iter()) {
            let mut model = lock(&self.model);
            if error.is_full() {
                model.marks.insert("disk full in base");
            }
            if !was_condemned {
                model.marks.insert(match self.journal.is_condemned() {
                    true => "failed compaction may count",
                    false => "failed compaction, old part used on",
                });
            }
            return Err(Stop::Failed(error.to_string()));
        }
        if fold && !flight.is_empty() {
            self.fence()?;
            self.acknowledge();
            lock(&self.model).marks.insert("flight folded into base");
        } else if !flight.is_empty() {
            let mut model = lock(&self.model);
            model.servers.get_mut(&self.id).expect("it booted").1.clear();
            model.marks.insert("flight refused after new base");
        }
        Ok(())
    }

    /// Builds a part beside the one in use, from what is acknowledged; one that was built before is dropped.
    pub(crate) fn build(&mut self, disk: &D) -> Result<(), Stop> {
        if let Some((built, _)) = self.built.take() {
            self.journal.discard_part(built);
        }
        let base: Vec<_> = self.held().0.iter().map(|&number| record(number)).collect();
        let plan = self.journal.plan_part().map_err(|error| Stop::Failed(error.to_string()))?;
        let built = plan.build(disk, base.iter()).map_err(|error| Stop::Failed(error.to_string()))?;
        self.built = Some((built, Vec::new()));
        Ok(())
    }

    /// Goes on in the part that was built.
    pub(crate) fn adopt(&mut self) -> Result<(), Stop> {
        let Some((built, tail)) = self.built.take() else { return Ok(()) };
        let was_condemned = self.journal.is_condemned();
        let done = self.journal.adopt_part(built, tail.iter());
        lock(&self.model).marks.insert(match (&done, self.journal.is_condemned()) {
            (Ok(_), _) if tail.is_empty() => "built part adopted",
            (Ok(_), _) => "built part adopted with what came since",
            (Err(_), true) if !was_condemned => "built part failed and may count",
            (Err(_), _) => "built part dropped",
        });
        done.map(drop).map_err(|error| Stop::Failed(error.to_string()))
    }

    pub(crate) fn mark(&mut self) -> Result<(), Stop> {
        let marked = self.journal.mark();
        marked.map(drop).map_err(|error| Stop::Failed(error.to_string()))
    }

    pub(crate) fn beat(&mut self) -> Result<(), Stop> {
        Ok(self.lease.beat(self.journal.durable())?)
    }

    pub(crate) fn close(mut self) -> Result<(), Stop> {
        let durable = self.journal.close();
        let durable = durable.map_err(|error| Stop::Failed(error.to_string()))?;
        Ok(self.lease.close(durable)?)
    }
}

/// Mistakes of a file system, or of the code that calls it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lie {
    Nothing,
    SyncDoesNothing,
    FolderSyncDoesNothing,
    /// The classic: after a failed sync, sync again and believe it.
    SyncRetried,
    WritesCutShort,
    LeaseCached,
    /// A name that exists is no obstacle to a link.
    LinkOverwrites,
    FolderSyncErrorIgnored,
}

/// Offset and bytes of the end of a file.
type Tail = (u64, Vec<u8>);

/// A disk with one of them.
#[derive(Clone)]
pub(crate) struct Liar<D> {
    disk: D,
    lie: Lie,
    lease: Rc<RefCell<Option<Tail>>>,
}

impl<D> Liar<D> {
    pub(crate) fn new(disk: D, lie: Lie) -> Self {
        let lease = Rc::default();
        Self { disk, lie, lease }
    }
}

pub(crate) struct LiarFile<F> {
    file: F,
    lie: Lie,
}

impl<D: Disk> Disk for Liar<D> {
    type File = LiarFile<D::File>;
    fn create(&self, path: &str) -> io::Result<Self::File> {
        let file = self.disk.create(path)?;
        Ok(LiarFile { file, lie: self.lie })
    }
    fn open_write(&self, path: &str) -> io::Result<Self::File> {
        let file = self.disk.open_write(path)?;
        // A client that writes updates its own cache.
        self.lease.take();
        Ok(LiarFile { file, lie: self.lie })
    }
    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        self.disk.read(path, limit)
    }
    fn read_tail(&self, path: &str, limit: u64) -> io::Result<(u64, Vec<u8>)> {
        if self.lie == Lie::LeaseCached
            && let Some(cached) = self.lease.borrow().clone()
        {
            return Ok(cached);
        }
        let tail = self.disk.read_tail(path, limit)?;
        self.lease.replace(Some(tail.clone()));
        Ok(tail)
    }
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }
    fn make_folder(&self, path: &str) -> io::Result<()> {
        self.disk.make_folder(path)
    }
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        if self.lie == Lie::LinkOverwrites {
            let _ = self.disk.remove(to);
        }
        self.disk.link(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_folder(&self, path: &str) -> io::Result<()> {
        match self.lie {
            Lie::FolderSyncDoesNothing => Ok(()),
            Lie::FolderSyncErrorIgnored => {
                let _ = self.disk.sync_folder(path);
                Ok(())
            }
            _ => self.disk.sync_folder(path),
        }
    }
}

impl<F: DiskFile> DiskFile for LiarFile<F> {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let cut = match self.lie {
            // Claims and slots are read back at once; a frame is not.
            Lie::WritesCutShort if data.starts_with(b"DCJ1") => data.len().min(96),
            _ => data.len(),
        };
        self.file.write_at(offset, &data[..cut])
    }
    fn sync(&mut self) -> io::Result<()> {
        match self.lie {
            Lie::SyncDoesNothing => Ok(()),
            Lie::SyncRetried => self.file.sync().or_else(|_| self.file.sync()),
            _ => self.file.sync(),
        }
    }
    fn close(self) -> io::Result<()> {
        self.file.close()
    }
}
