//! The thread that owns the journal and the lease. A file system that hangs stops this thread and
//! nothing else.
//!
//! Everything that is waiting becomes one frame: group commit without a timer. Durable is what was
//! synced *and* found unfenced after that.

use super::core::{Snapshot, Turn};
use crate::runtime::disk::RealDisk;
use crate::runtime::journal::{AppendError, Journal};
use crate::runtime::lease::{Lease, LeaseError};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
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

/// The journal and the lease of a serving server.
pub(super) struct Writer {
    journal: Journal<RealDisk>,
    lease: Lease<RealDisk>,
    replies: UnboundedSender<FromJournal>,
    /// The highest turn whose records are synced but for which the fence could not be read yet.
    unfenced: Option<Turn>,
    trouble: bool,
    marked: bool,
    next_beat: Instant,
    next_base: Option<Instant>,
    base_asked: bool,
}

/// The server that was fenced, or went down, ends its thread.
struct Over;

impl Writer {
    /// Takes the journal and the lease over; [`Writer::run`] goes on a thread of its own.
    pub(super) fn new(
        journal: Journal<RealDisk>,
        lease: Lease<RealDisk>,
        replies: UnboundedSender<FromJournal>,
        now: Instant,
    ) -> Self {
        Self {
            journal,
            lease,
            replies,
            unfenced: None,
            trouble: false,
            marked: true,
            next_beat: now + BEAT,
            next_base: None,
            base_asked: false,
        }
    }

    /// Runs until the server is down, fenced or gone.
    pub(super) fn run(mut self, requests: &Receiver<ToJournal>, clock: fn() -> Instant) {
        while self.round(requests, clock).is_ok() {}
    }

    fn round(&mut self, requests: &Receiver<ToJournal>, clock: fn() -> Instant) -> Result<(), Over> {
        let now = clock();
        let mut wait = self.next_beat.saturating_duration_since(now);
        if !self.marked {
            wait = wait.min(QUIET);
        }
        if let Some(at) = self.next_base {
            wait = wait.min(at.saturating_duration_since(now));
        }
        if self.unfenced.is_some() {
            wait = wait.min(QUIET);
        }
        let first = match requests.recv_timeout(wait) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Err(Over),
        };
        let quiet = first.is_none();
        self.handle(first, requests)?;
        if quiet && !self.marked && !self.journal.is_condemned() {
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
        if self.journal.is_condemned() && self.next_base.is_none() && !self.base_asked {
            self.next_base = Some(now + RETRY);
        }
        Ok(())
    }

    /// Takes everything that waits; writes become one frame.
    fn handle(&mut self, first: Option<ToJournal>, requests: &Receiver<ToJournal>) -> Result<(), Over> {
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
                    self.restart(turn, &base)?;
                }
                ToJournal::Close => {
                    if let Some((turn, records)) = batch.take() {
                        self.append(turn, &records)?;
                    }
                    self.close();
                    return Err(Over);
                }
            }
            next = requests.try_recv().ok();
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
                self.unfenced = Some(turn);
                self.fence()?;
                if self.journal.should_compact() && !self.base_asked {
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

    fn restart(&mut self, turn: Turn, base: &Snapshot) -> Result<(), Over> {
        self.base_asked = false;
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
