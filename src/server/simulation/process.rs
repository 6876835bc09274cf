//! Server processes: started, taking over, killed, stopped and woken. What they do once they serve is in
//! `serving`.

use super::disk::{Halted, ProcessDisk, Work};
use super::links::ServerId;
use super::serving::Serving;
use super::world::{Clocks, World};
use crate::config::spec::{BackendKind, PoolSpec, Spec};
use crate::runtime::journal::{self, Journal, JournalError, Limits};
use crate::runtime::lease::{self, Claim, Evidence, Holder, Lease, LeaseState, Reason, ServerState, Verdict};
use crate::server::core::{Core, CoreOptions, Output, Turn};
use crate::server::takeover::Watch;
use crate::server::{Unreadable, replay_journal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub(super) const CLUSTER: &str = "simulated";
pub(super) const LETTERS: &str = "abcd";
/// Small, so that parts change often.
const LIMITS: Limits = Limits { reserve_bytes: 4096, compact_bytes: 6000, payload_bytes: 16_000 };
/// Between two looks at the lease.
const LOOK_EVERY: u64 = 2000;
/// Jobs that `up` asks for.
pub(super) const JOBS: u32 = 3;
pub(super) const ORPHAN_TIMEOUT: u64 = 60;
pub(super) const CORES: u32 = 3;
pub(super) const MEMORY: u64 = 4 << 30;

/// A server process.
pub(super) struct Process {
    pub(super) id: ServerId,
    pub(super) host: usize,
    /// 0 before it has claimed.
    pub(super) epoch: u32,
    boots: u32,
    pub(super) stopped_until: Option<u64>,
    pub(super) disk: ProcessDisk,
    open: bool,
    looking: Option<Looking>,
    starting: Option<Halted<Result<Started, Fail>>>,
    pub(super) serving: Option<Box<Serving>>,
}

struct Looking {
    watch: Watch,
    at: u64,
    by_force: bool,
}

/// A server that is about to serve.
pub(super) struct Started {
    pub(super) core: Core,
    pub(super) out: Output,
    pub(super) turn: Turn,
    pub(super) journal: Journal<ProcessDisk>,
    pub(super) lease: Lease<ProcessDisk>,
    torn: bool,
    unfinished: bool,
}

/// Why a start came to nothing.
enum Fail {
    Lost,
    Disk(String),
    /// Refused although nothing but honest faults happened.
    Refused(String),
}

pub(super) fn spec() -> Spec {
    let pool = PoolSpec { memory_bytes: Some(MEMORY), drain_lead_seconds: 10, ..PoolSpec::new(CORES) };
    Spec { jobs: JOBS, orphan_timeout_seconds: ORPHAN_TIMEOUT, ..Spec::new(BackendKind::Local, pool) }
}

fn options(epoch: u32, jobs_per_submit: u32) -> CoreOptions {
    CoreOptions {
        folder: "/c".into(),
        letters: LETTERS.to_owned(),
        spec: spec(),
        epoch,
        host: "h".to_owned(),
        pid: 1,
        jobs_per_submit,
    }
}

/// Everything from the claim to the first base, as `Server::start` does it.
struct Start {
    disk: ProcessDisk,
    holder: Holder,
    epoch: u32,
    proved: bool,
    open: bool,
    jobs_per_submit: u32,
    clocks: Clocks,
    claimed: Arc<AtomicU32>,
}

impl Start {
    fn run(self) -> Result<Started, Fail> {
        let says = |error: &dyn std::fmt::Display| Fail::Disk(error.to_string());
        let Self { disk, holder, epoch, .. } = self;
        match lease::claim(&disk, &holder, epoch).map_err(|error| says(&error))? {
            Claim::Won { .. } => {}
            Claim::Lost { .. } => return Err(Fail::Lost),
        }
        self.claimed.fetch_max(epoch, Ordering::Relaxed);
        let (lease, before) = Lease::open(disk.clone(), holder, epoch).map_err(|error| says(&error))?;
        // While another server writes, a part may vanish or grow under the reader.
        let refused = |what: String| match lease.fence() {
            Ok(()) => Fail::Refused(what),
            Err(error) => says(&error),
        };
        let found = match journal::recover(&disk, CLUSTER, before.as_ref()) {
            Ok(found) => found,
            Err(error @ JournalError::Io { .. }) => return Err(says(&error)),
            Err(error) => return Err(refused(error.to_string())),
        };
        let mut core = Core::new(options(epoch, self.jobs_per_submit), self.clocks.read());
        let position = match replay_journal(&disk, CLUSTER, before.as_ref(), &mut core) {
            Ok(position) => position,
            Err(Unreadable::Journal(error @ JournalError::Io { .. })) => return Err(says(&error)),
            Err(error) => return Err(refused(error.to_string())),
        };
        let now = self.clocks.read();
        let mut out = Output::default();
        let turn = core.begin_turn();
        let asks = self.open && (core.is_stopping() || !core.was_opened());
        core.finish_restore(self.open, self.proved, now, &mut out);
        if asks && !core.is_stopping() {
            core.open(now, &mut out);
        }
        out.records.clear();
        let base = core.snapshot();
        let journal =
            Journal::start(disk, CLUSTER, epoch, position, base.encoded(), LIMITS).map_err(|error| says(&error))?;
        let (torn, unfinished) = (found.torn_bytes > 0, !found.unfinished.is_empty());
        Ok(Started { core, out, turn, journal, lease, torn, unfinished })
    }
}

impl World {
    pub(super) fn core(&self, epoch: u32) -> Core {
        Core::new(options(epoch, self.swarm.site.jobs_per_submit), self.moment(0))
    }

    /// A user's command starts a server.
    pub(super) fn start_server(&mut self, host: usize, open: bool, by_force: bool) {
        let id = self.next_server;
        self.next_server += 1;
        self.trace("server starts", id, host as u64);
        let disk = ProcessDisk::new(Arc::clone(&self.disk), host as u8);
        let looking = Some(Looking { watch: Watch::default(), at: self.now, by_force });
        let (boots, starting, serving) = (self.hosts[host].boots, None, None);
        let process =
            Process { id, host, epoch: 0, boots, stopped_until: None, disk, open, looking, starting, serving };
        self.servers.insert(id, process);
        if by_force {
            self.mark("take-over by force");
        }
    }

    fn holder(&self, process: &Process) -> Holder {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&process.id.to_le_bytes());
        Holder {
            nonce,
            host: format!("host{}", process.host),
            boot: format!("boot{}", process.boots),
            pid: process.id as u32,
            pid_namespace: 1,
            pid_start: process.id,
        }
    }

    fn evidence(&self, host: usize, holder: &Holder) -> Evidence {
        let same_host = holder.host == format!("host{host}");
        let same_boot = holder.boot == format!("boot{}", self.hosts[host].boots);
        let alive = self.servers.contains_key(&holder.pid_start);
        Evidence {
            same_host,
            same_boot: same_host.then_some(same_boot),
            same_pid_namespace: true,
            pid_alive_with_same_start: same_host.then_some(alive),
            flock_free: None,
            job_ended: None,
        }
    }

    /// What the lease says to who only looks at the folder.
    pub(super) fn lease(&self, host: usize) -> Option<LeaseState> {
        let disk = ProcessDisk::new(Arc::clone(&self.disk), host as u8);
        lease::read_lease(&disk).ok().flatten()
    }

    pub(super) fn run_servers(&mut self) {
        for id in self.servers.keys().copied().collect::<Vec<_>>() {
            let Some(mut process) = self.servers.remove(&id) else { continue };
            let alive = match process.stopped_until {
                Some(at) if at > self.now => true,
                Some(_) => self.wake(&mut process) && self.run_server(&mut process),
                None => self.run_server(&mut process),
            };
            if alive {
                self.servers.insert(id, process);
            } else {
                self.bury(process);
            }
        }
    }

    /// Returns whether it lives on.
    fn run_server(&mut self, process: &mut Process) -> bool {
        if process.stopped_until.is_some() {
            return true;
        }
        if process.serving.is_some() { self.serve(process) } else { self.look(process) }
    }

    fn look(&mut self, process: &mut Process) -> bool {
        let host = process.host;
        let Some(looking) = &mut process.looking else { return true };
        if self.now < looking.at || self.now < self.disk_hangs_until {
            return true;
        }
        let clock = self.moment(host).clock;
        let seen = looking.watch.look(&process.disk, looking.by_force, clock, |holder| self.evidence(host, holder));
        let Ok(seen) = seen else {
            self.trace("server cannot read the lease", process.id, 0);
            return false;
        };
        let reason = match seen.verdict {
            Verdict::Now(reason) => reason,
            Verdict::Alive => {
                self.mark("the other server is alive");
                self.trace("server finds another one alive", process.id, 0);
                return false;
            }
            Verdict::Wait { .. } => {
                looking.at = self.now + LOOK_EVERY;
                return true;
            }
        };
        self.mark(match reason {
            Reason::Silent if looking.by_force => "take-over by force",
            Reason::Silent => "take-over after the beat stood still",
            Reason::ProcessGone => "take-over by proof: process gone",
            Reason::Rebooted => "take-over by proof: rebooted",
            Reason::Closed => "up again",
            _ => "first start",
        });
        process.looking = None;
        let start = Start {
            disk: process.disk.clone(),
            holder: self.holder(process),
            epoch: seen.next_epoch,
            proved: !matches!(reason, Reason::Silent),
            open: process.open,
            jobs_per_submit: self.swarm.site.jobs_per_submit,
            clocks: self.hosts[host].clocks.clone(),
            claimed: Arc::clone(&self.claimed),
        };
        process.epoch = seen.next_epoch;
        self.trace("server claims", process.id, u64::from(seen.next_epoch));
        // Starts are rare.
        let (stop, kill) = self.amid(40, 40);
        match process.disk.run(stop, kill, move || start.run()) {
            Work::Done(result) => self.started(process, result),
            Work::Halted(halted) => {
                process.starting = Some(halted);
                self.halt(process);
                true
            }
        }
    }

    /// Draws whether a piece of work is stopped or killed in its middle, and where.
    pub(super) fn amid(&mut self, operations: u32, of: u32) -> (Option<u32>, Option<u32>) {
        let (stop, kill) = (self.swarm.stop_amid, self.swarm.kill_amid);
        let stop = self.lot(stop, of).then(|| self.rng.u32(..operations));
        let kill = self.lot(kill, of).then(|| self.rng.u32(..operations));
        (stop, kill)
    }

    /// The process is stopped.
    pub(super) fn halt(&mut self, process: &mut Process) {
        let until = self.now + self.rng.u64(10..self.swarm.stop_max);
        process.stopped_until = Some(until);
        self.trace("server stopped", process.id, until);
        if self.loud {
            self.say(&format!("stopped before: {}", process.disk.stopped_before()));
        }
    }

    fn wake(&mut self, process: &mut Process) -> bool {
        process.stopped_until = None;
        self.trace("server goes on", process.id, 0);
        let claimed = self.claimed.load(Ordering::Relaxed);
        if process.epoch != 0 && claimed > process.epoch {
            self.mark("a server sleeps while another one takes over");
        }
        if let Some(halted) = process.starting.take() {
            self.mark("server stopped while it starts");
            let result = process.disk.resume(halted);
            return self.started(process, result);
        }
        match process.serving.as_mut().and_then(|serving| serving.halted.take()) {
            Some(halted) => {
                let before = process.disk.stopped_before();
                if claimed > process.epoch && before == "read lease" {
                    self.mark("take-over between sync and fence");
                } else if claimed > process.epoch && before.contains("journal/") {
                    self.mark("take-over while a frame is in flight");
                }
                let done = process.disk.resume(halted);
                self.journal_done(process, done)
            }
            None => true,
        }
    }

    fn started(&mut self, process: &mut Process, result: Result<Started, Fail>) -> bool {
        if process.disk.is_dead() {
            self.mark("server killed while it starts");
            self.trace("server killed while it starts", process.id, 0);
            return false;
        }
        let started = match result {
            Ok(started) => started,
            Err(Fail::Refused(what)) => panic!("an honest journal is refused: {what}"),
            Err(Fail::Lost) => {
                self.mark("a claim was lost to a rival");
                self.trace("server loses its claim", process.id, 0);
                return false;
            }
            Err(Fail::Disk(what)) => {
                if self.loud {
                    self.say(&format!("start failed: {what}"));
                }
                self.trace("server cannot start", process.id, 0);
                return false;
            }
        };
        if started.torn {
            self.mark("a torn tail was found");
        }
        if started.unfinished {
            self.mark("a part without a whole base was found");
        }
        let newest = self.claimed.load(Ordering::Relaxed) == process.epoch;
        if newest {
            self.check_promises(&started.core);
        } else {
            self.mark("overtaken between claim and service");
        }
        self.trace("server serves", process.id, u64::from(process.epoch));
        (self.access, self.is_down) = (Some(process.id), false);
        let (now, host) = (self.instant(process.host), process.host);
        process.serving = Some(Box::new(Serving::new(started, process.disk.clone(), now)));
        if self.servers.values().any(|other| other.host != host && other.serving.is_some()) {
            self.mark("two servers at once");
        }
        self.first_turn(process)
    }

    /// SIGKILL.
    pub(super) fn kill_server(&mut self, id: ServerId) {
        let Some(process) = self.servers.remove(&id) else { return };
        self.trace("server killed", id, 0);
        self.mark(match (process.stopped_until.is_some(), process.serving.is_some()) {
            (true, _) => "server killed while it is stopped",
            (false, true) => "server killed between two steps",
            (false, false) => "server killed while it looks",
        });
        self.bury(process);
    }

    /// The process is gone: its connections break, and its answers go nowhere.
    pub(super) fn bury(&mut self, mut process: Process) {
        process.disk.kill();
        if let Some(halted) = process.starting.take() {
            let _ = process.disk.resume(halted);
        }
        if let Some(halted) = process.serving.as_mut().and_then(|serving| serving.halted.take()) {
            let _ = process.disk.resume(halted);
        }
        let ended = process.serving.as_ref().is_some_and(|serving| serving.ended_in_order);
        for id in self.links_to(process.id) {
            if !ended {
                self.reset(id);
            }
            self.server_closes(id);
        }
        self.trace("server is gone", process.id, 0);
    }

    /// Power is lost where servers run and where the files are; workers are elsewhere.
    pub(super) fn lose_power(&mut self) {
        self.mark("power loss");
        for id in self.servers.keys().copied().collect::<Vec<_>>() {
            self.kill_server(id);
        }
        for host in 0..self.hosts.len() {
            self.reboot(host);
        }
        let share = self.rng.u32(..=16);
        let mut disk = self.disk.lock().expect("one thread");
        let hole = if self.rng.bool() { disk.stale_content() } else { Vec::new() };
        let image = disk.image(|_| self.rng.u32(..16) < share, &hole);
        disk.boot(&image);
        drop(disk);
        self.trace("power loss", u64::from(share), 0);
    }

    /// Whether the folder says that the cluster is down.
    pub(super) fn says_down(&self, host: usize) -> bool {
        self.lease(host).is_some_and(|lease| lease.state == ServerState::Closed)
    }

    /// The records that would be found if the power went now and nothing that was not synced survived.
    pub(super) fn durable_core(&self) -> Core {
        let image = self.disk.lock().expect("one thread").image(|_| false, &[]);
        let mut core = self.core(u32::MAX >> 8);
        replay_journal(&image, CLUSTER, None, &mut core).expect("what is durable is whole");
        core
    }
}
