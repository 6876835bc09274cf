//! The thread that owns the journal and the lease. A file system that hangs stops this thread and
//! nothing else.
//!
//! Everything that is waiting becomes one frame: group commit without a timer. Durable is what was
//! synced *and* found unfenced after that. A disk that is busy gathers more, so records that nobody waits for
//! delay nothing but the frame behind them.
//!
//! A new part is built on a thread of its own from a snapshot, while the old part goes on; what was appended
//! meanwhile is added at the end. Only a part that failed is replaced at once, as nothing can be acknowledged.

use super::core::{Snapshot, Turn};
use crate::runtime::disk::Disk;
use crate::runtime::journal::{AppendError, BuiltPart, Journal, StartError};
use crate::runtime::lease::{Lease, LeaseError};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// To the thread.
#[derive(Debug)]
pub(super) enum ToJournal {
    /// Make these records durable.
    Write(Turn, Vec<Vec<u8>>),
    /// The whole state as of this turn, as asked for by [`FromJournal::NeedBase`].
    Base(Turn, Box<Snapshot>),
    /// The cluster is closed: say so in journal and lease, and end.
    Close,
}

/// From the thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FromJournal {
    /// Everything up to this turn is on disk, in the frame of this number, and we still hold the cluster.
    Durable(Turn, u64),
    /// The disk refuses; nothing is durable until a base is.
    Trouble(String),
    /// The disk works again.
    Recovered,
    /// Send the whole state.
    NeedBase,
    /// Another server holds the cluster: stop at once.
    Fenced(String),
    /// Closed.
    Closed,
}

const BEAT: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);
/// How often it is looked whether a part is built.
const LOOK: Duration = Duration::from_millis(20);

type Built<D> = Result<BuiltPart<<D as Disk>::File>, StartError>;
/// Work beside the writer: it builds a new part.
pub(super) type Build<D> = Box<dyn FnOnce() -> Built<D> + Send>;
/// How such work is begun.
pub(super) type Spawn<D> = fn(Build<D>) -> Result<Box<dyn Beside<D>>, String>;

/// Work beside the writer that was begun.
pub(super) trait Beside<D: Disk>: Send {
    /// Whether [`Beside::join`] returns at once.
    fn is_finished(&mut self) -> bool;
    /// Returns what came of it; `None` when it panicked.
    fn join(self: Box<Self>) -> Option<Built<D>>;
}

impl<D: Disk> Beside<D> for JoinHandle<Built<D>>
where
    Built<D>: Send,
{
    fn is_finished(&mut self) -> bool {
        JoinHandle::is_finished(self)
    }
    fn join(self: Box<Self>) -> Option<Built<D>> {
        JoinHandle::join(*self).ok()
    }
}

/// Begins work on a thread of its own.
fn on_a_thread<D: Disk + 'static>(work: Build<D>) -> Result<Box<dyn Beside<D>>, String>
where
    Built<D>: Send,
{
    let thread = std::thread::Builder::new().name("new journal part".to_owned()).spawn(work);
    Ok(Box::new(thread.map_err(|error| error.to_string())?))
}

/// A new part on its way.
struct Building<D: Disk> {
    work: Box<dyn Beside<D>>,
    /// What was appended to the old part since.
    tail: Vec<Vec<u8>>,
}

/// The journal and the lease of a serving server.
pub(super) struct Writer<D: Disk> {
    journal: Journal<D>,
    disk: D,
    spawn: Spawn<D>,
    building: Option<Building<D>>,
    lease: Lease<D>,
    replies: UnboundedSender<FromJournal>,
    /// The highest turn whose records are synced but for which the fence could not be read yet.
    unfenced: Option<Turn>,
    trouble: bool,
    marked: bool,
    quiet_at: Instant,
    next_beat: Instant,
    next_base: Option<Instant>,
    base_asked: bool,
}

/// The server that was fenced, or went down, ends its thread.
#[derive(Debug)]
pub(super) struct Over;

impl<D: Disk + Clone + Send + 'static> Writer<D> {
    /// Takes the journal and the lease over; [`Writer::run`] goes on a thread of its own.
    pub(super) fn new(
        journal: Journal<D>,
        disk: D,
        lease: Lease<D>,
        replies: UnboundedSender<FromJournal>,
        now: Instant,
    ) -> Self
    where
        Built<D>: Send,
    {
        Self::with(on_a_thread, journal, disk, lease, replies, now)
    }

    /// The same, with another way to do work beside it.
    pub(super) fn with(
        spawn: Spawn<D>,
        journal: Journal<D>,
        disk: D,
        lease: Lease<D>,
        replies: UnboundedSender<FromJournal>,
        now: Instant,
    ) -> Self {
        Self {
            journal,
            disk,
            spawn,
            building: None,
            lease,
            replies,
            unfenced: None,
            trouble: false,
            marked: true,
            quiet_at: now,
            next_beat: now + BEAT,
            next_base: None,
            base_asked: false,
        }
    }

    /// Runs until the server is down, fenced or gone.
    pub(super) fn run(mut self, requests: &Receiver<ToJournal>, clock: fn() -> Instant) {
        loop {
            let first = match requests.recv_timeout(self.patience(clock())) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.step(first, || requests.try_recv().ok(), clock).is_err() {
                return;
            }
        }
    }

    /// Returns how long nobody need call [`Writer::step`] while no request comes.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let mut wait = self.next_beat.saturating_duration_since(now);
        if !self.marked && !self.trouble {
            wait = wait.min(self.quiet_at.saturating_duration_since(now));
        }
        if let Some(at) = self.next_base {
            wait = wait.min(at.saturating_duration_since(now));
        }
        if self.unfenced.is_some() {
            wait = wait.min(QUIET);
        }
        if self.building.is_some() {
            wait = wait.min(LOOK);
        }
        wait
    }

    /// Handles a request (`None`: there was none for so long as [`Writer::patience`] said) with all that came
    /// after it, and does what is due.
    pub(super) fn step(
        &mut self,
        first: Option<ToJournal>,
        more: impl FnMut() -> Option<ToJournal>,
        clock: impl Fn() -> Instant,
    ) -> Result<(), Over> {
        if first.is_some() {
            self.quiet_at = clock() + QUIET;
        }
        self.handle(first, more, &clock)?;
        self.look_at_building(&clock);
        if !self.marked && clock() >= self.quiet_at && !self.trouble {
            self.marked = true;
            if let Err(error) = self.journal.mark() {
                self.condemned(error.to_string());
            }
        }
        let now = clock();
        if self.next_base.is_some_and(|at| now >= at) {
            self.next_base = None;
            self.ask_for_base();
        }
        if now >= self.next_beat {
            self.next_beat = now + BEAT;
            match self.lease.beat(self.journal.durable()) {
                Ok(()) => {}
                Err(error) if error.is_fenced() => return self.fenced(&error),
                Err(error) => tracing::warn!(%error, "lease not renewed"),
            }
        }
        if self.unfenced.is_some() {
            self.fence()?;
        }
        if self.trouble && self.next_base.is_none() && !self.base_asked {
            self.next_base = Some(now + RETRY);
        }
        Ok(())
    }

    /// Takes everything that waits; writes become one frame.
    fn handle(
        &mut self,
        first: Option<ToJournal>,
        mut more: impl FnMut() -> Option<ToJournal>,
        clock: &impl Fn() -> Instant,
    ) -> Result<(), Over> {
        let mut batch: Option<(Turn, Vec<Vec<u8>>)> = None;
        let mut next = first;
        while let Some(request) = next {
            match request {
                ToJournal::Write(turn, records) => match &mut batch {
                    Some((last, all)) => {
                        *last = turn;
                        all.extend(records);
                    }
                    None => batch = Some((turn, records)),
                },
                ToJournal::Base(turn, base) => {
                    // The base holds whatever the writes before it said.
                    if self.journal.is_condemned() {
                        batch = None;
                    } else if let Some((turn, records)) = batch.take() {
                        self.append(turn, &records)?;
                    }
                    self.base_asked = false;
                    if self.trouble {
                        self.restart(turn, &base)?;
                    } else if self.building.is_none() {
                        self.build(base, clock);
                    }
                }
                ToJournal::Close => {
                    if let Some((turn, records)) = batch.take() {
                        self.append(turn, &records)?;
                    }
                    self.close();
                    return Err(Over);
                }
            }
            next = more();
        }
        match batch {
            Some((turn, records)) => self.append(turn, &records),
            None => Ok(()),
        }
    }

    fn append(&mut self, turn: Turn, records: &[Vec<u8>]) -> Result<(), Over> {
        if self.journal.is_condemned() {
            return Ok(());
        }
        self.marked = false;
        match self.journal.append(records) {
            Ok(_) => {
                if let Some(building) = &mut self.building {
                    building.tail.extend_from_slice(records);
                }
                self.unfenced = Some(turn);
                self.fence()?;
                let busy = self.base_asked || self.building.is_some() || self.next_base.is_some();
                if self.journal.should_compact() && !busy {
                    self.ask_for_base();
                }
            }
            Err(AppendError::Condemned(error)) => self.condemned(error.to_string()),
            Err(error @ AppendError::RecordTooLarge { .. }) => self.condemned(error.to_string()),
        }
        Ok(())
    }

    fn condemned(&mut self, error: String) {
        tracing::warn!(error, "journal part condemned");
        self.trouble = true;
        self.say(FromJournal::Trouble(error));
        self.ask_for_base();
    }

    /// Begins a new part beside the one in use.
    fn build(&mut self, base: Box<Snapshot>, clock: &impl Fn() -> Instant) {
        let (disk, spawn) = (self.disk.clone(), self.spawn);
        let plan = self.journal.plan_part().map_err(|error| error.to_string());
        match plan.and_then(|plan| spawn(Box::new(move || plan.build(&disk, base.encoded())))) {
            Ok(work) => self.building = Some(Building { work, tail: Vec::new() }),
            Err(error) => self.not_built(&error, clock()),
        }
    }

    /// Goes on in the new part once it is built.
    fn look_at_building(&mut self, clock: &impl Fn() -> Instant) {
        let Some(building) = self.building.take_if(|building| building.work.is_finished()) else { return };
        let Some(built) = building.work.join() else { return self.not_built("its thread failed", clock()) };
        match built.and_then(|built| self.journal.adopt_part(built, building.tail.iter())) {
            Ok(_) => {}
            Err(error) => {
                self.journal.make_room(&error);
                if self.journal.is_condemned() && !self.trouble {
                    // It failed so late that it may count, and the old part must not go on beside it.
                    self.condemned(error.to_string());
                } else {
                    self.not_built(&error.to_string(), clock());
                }
            }
        }
    }

    /// The old part goes on, and a new one is tried again later.
    fn not_built(&mut self, error: &str, now: Instant) {
        tracing::warn!(error, "no new journal part");
        self.next_base = Some(now + RETRY);
    }

    /// Goes on in a new part after an error; one that is being built has an older number and will be dropped.
    fn restart(&mut self, turn: Turn, base: &Snapshot) -> Result<(), Over> {
        match self.journal.restart_part(base.encoded()) {
            Ok(_) => {
                self.marked = false;
                if self.trouble {
                    self.trouble = false;
                    self.say(FromJournal::Recovered);
                }
                self.unfenced = Some(turn);
                self.fence()
            }
            Err(error) => {
                tracing::warn!(%error, "no new journal part");
                if self.journal.is_condemned() {
                    self.trouble = true;
                    self.say(FromJournal::Trouble(error.to_string()));
                }
                Ok(())
            }
        }
    }

    fn ask_for_base(&mut self) {
        self.base_asked = true;
        self.say(FromJournal::NeedBase);
    }

    /// After the sync and before any acknowledgement: do we still hold the cluster?
    fn fence(&mut self) -> Result<(), Over> {
        let Some(turn) = self.unfenced else { return Ok(()) };
        match self.lease.fence() {
            Ok(()) => {
                self.unfenced = None;
                self.say(FromJournal::Durable(turn, self.journal.durable()));
                Ok(())
            }
            Err(error) if error.is_fenced() => self.fenced(&error),
            Err(error) => {
                tracing::warn!(%error, "the lease cannot be read: nothing is acknowledged");
                Ok(())
            }
        }
    }

    fn fenced(&self, error: &LeaseError) -> Result<(), Over> {
        self.say(FromJournal::Fenced(error.to_string()));
        Err(Over)
    }

    fn close(&mut self) {
        if let Err(error) = self.journal.close() {
            tracing::warn!(%error, "journal not closed");
        }
        if let Err(error) = self.lease.close(self.journal.durable()) {
            tracing::warn!(%error, "lease not closed");
        }
        self.say(FromJournal::Closed);
    }

    fn say(&self, what: FromJournal) {
        // Nobody listens any more when the server's loop is over; then there is nothing to tell.
        let _ = self.replies.send(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Moment;
    use crate::runtime::disk::RealDisk;
    use crate::runtime::journal::{JOURNAL_FOLDER, Limits, Position, recover};
    use crate::runtime::lease::{Holder, claim, read_lease};
    use crate::server::core::{Core, CoreOptions};
    use crate::server::record::Record;

    fn core() -> Core {
        let pool = serde_json::json!({ "cores": 1, "drain_lead_seconds": 60 });
        let spec = serde_json::json!({ "backend": "local", "pool": pool, "jobs": 1, "orphan_timeout_seconds": 60 });
        let options = CoreOptions {
            folder: "/c".into(),
            letters: "abcd".to_owned(),
            spec: serde_json::from_value(spec).expect("it is whole"),
            epoch: 1,
            host: "h".to_owned(),
            pid: 1,
            jobs_per_submit: 1,
        };
        Core::new(options, Moment { wall: 0, clock: 0 })
    }

    fn scaled(jobs: u32) -> Record {
        Record::Scaled { jobs, reached: false }
    }

    #[test]
    fn a_new_part_is_built_while_records_go_on() {
        let root = tempfile::tempdir().expect("temp");
        let disk = RealDisk::open(root.path()).expect("open");
        let holder =
            Holder { nonce: [1; 16], host: "a".into(), boot: "b".into(), pid: 1, pid_namespace: 2, pid_start: 3 };
        claim(&disk, &holder, 1).expect("claim");
        let (lease, _) = Lease::open(disk.clone(), holder, 1).expect("lease");
        let limits = Limits { compact_bytes: 2000, ..Limits::default() };
        let base = std::iter::empty::<&[u8]>();
        let journal = Journal::start(disk.clone(), "id", 1, Position::default(), base, limits).expect("start");
        let (replies, mut from) = tokio::sync::mpsc::unbounded_channel();
        let (to, requests) = std::sync::mpsc::channel();
        let writer = Writer::new(journal, disk.clone(), lease, replies, Instant::now());
        let thread = std::thread::spawn(move || writer.run(&requests, Instant::now));
        let mut core = core();
        let (mut turn, mut durable, mut bases) = (0, 0, 0);
        // Until several parts were begun, whatever the disk's speed.
        while Some(true) != disk.list(JOURNAL_FOLDER).ok().map(|names| names.iter().any(|name| name == "1.4")) {
            turn += 1;
            assert!(turn < 100_000, "no new part comes into use");
            core.replay(scaled(turn)).expect("it makes sense");
            to.send(ToJournal::Write(turn.into(), vec![scaled(turn).encode()])).expect("it lives");
            while durable < u64::from(turn) {
                match from.blocking_recv().expect("it lives") {
                    FromJournal::Durable(turn, _) => durable = turn,
                    FromJournal::NeedBase => {
                        bases += 1;
                        to.send(ToJournal::Base(turn.into(), Box::new(core.snapshot()))).expect("it lives");
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(bases >= 3);
        to.send(ToJournal::Close).expect("it lives");
        while from.blocking_recv().expect("it says so") != FromJournal::Closed {}
        thread.join().expect("it ended");
        let lease = read_lease(&disk).expect("lease");
        let read = recover(&disk, "id", lease.as_ref()).expect("whole");
        assert!(read.clean);
        let asked = read.records.iter().filter_map(|bytes| match Record::decode(bytes).expect("ours") {
            Record::Scaled { jobs, .. } => Some(jobs),
            _ => None,
        });
        let last = asked.last();
        assert_eq!(last, Some(turn));
        // Each new part began with the state and not with all that led to it.
        assert!(read.records.len() < turn as usize, "{} of {turn}", read.records.len());
    }
}
