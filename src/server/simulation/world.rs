//! The world: clocks, randomness, what is in it, and how time goes on.

use super::checker::Truth;
use super::links::{Link, ServerId};
use super::machine::Machine;
use super::process::Process;
use super::simdisk::World as DiskWorld;
use super::site::Real;
use super::swarm::Swarm;
use super::users::{Client, Down};
use crate::backends::Submit;
use crate::ledger::Moment;
use crate::runtime::ids::{JobSeq, NativeId};
use crate::server::core::ConnectionId;
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Milliseconds with faults, and how long everything may take after they have stopped.
const FAULTY: u64 = 200_000;
const HEALING: u64 = 1_800_000;
/// Wall clock at the beginning.
const EPOCH: i64 = 1_700_000_000_000;

/// The clocks of a host; processes that are in the middle of something read them, too.
#[derive(Clone)]
pub(super) struct Clocks {
    now: Arc<AtomicU64>,
    boot: Arc<AtomicU64>,
    skew: Arc<AtomicI64>,
}

impl Clocks {
    pub(super) fn read(&self) -> Moment {
        let now = self.now.load(Ordering::Relaxed);
        let wall = EPOCH + now.cast_signed() + self.skew.load(Ordering::Relaxed);
        Moment { wall: wall.cast_unsigned(), clock: now + self.boot.load(Ordering::Relaxed) }
    }
}

/// A host on which servers and users are.
pub(super) struct Host {
    pub(super) clocks: Clocks,
    pub(super) boots: u32,
}

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) now: u64,
    shared_now: Arc<AtomicU64>,
    base: Instant,
    pub(super) swarm: Swarm,
    pub(super) faults: bool,
    pub(super) loud: bool,
    hash: u64,
    pub(super) steps: u64,
    pub(super) marks: BTreeSet<&'static str>,
    pub(super) disk: Arc<Mutex<DiskWorld>>,
    pub(super) disk_bad_until: u64,
    pub(super) disk_hangs_until: u64,
    pub(super) hosts: [Host; 2],
    pub(super) servers: BTreeMap<ServerId, Process>,
    pub(super) next_server: ServerId,
    /// The newest epoch that is claimed.
    pub(super) claimed: Arc<AtomicU32>,
    /// The server whose addresses are in the folder.
    pub(super) access: Option<ServerId>,
    /// The cluster went down in order.
    pub(super) is_down: bool,
    pub(super) links: BTreeMap<ConnectionId, Link>,
    pub(super) next_link: u64,
    pub(super) machines: BTreeMap<u32, Machine>,
    pub(super) next_machine: u32,
    pub(super) jobs: BTreeMap<JobSeq, Real>,
    /// Jobs that a command under way will make, and their ids.
    pub(super) coming: Vec<(u64, Submit)>,
    pub(super) ids: BTreeMap<JobSeq, NativeId>,
    pub(super) clients: [Client; 2],
    pub(super) down: Option<Down>,
    pub(super) truth: Truth,
}

impl World {
    pub(super) fn new(seed: u64, loud: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let swarm = Swarm::draw(&mut rng);
        let shared_now = Arc::new(AtomicU64::new(0));
        let mut disk = DiskWorld::new(rng.u64(..));
        disk.links_supported = !swarm.no_links;
        let mut host = || Host {
            clocks: Clocks {
                now: Arc::clone(&shared_now),
                boot: Arc::new(AtomicU64::new(rng.u64(..1 << 40))),
                skew: Arc::new(AtomicI64::new(rng.i64(-86_400_000..86_400_000))),
            },
            boots: 1,
        };
        let hosts = [host(), host()];
        let mut world = Self {
            now: 1000,
            shared_now,
            base: Instant::now(),
            swarm,
            faults: true,
            loud,
            hash: 0xcbf2_9ce4_8422_2325,
            steps: 0,
            marks: BTreeSet::new(),
            disk: Arc::new(Mutex::new(disk)),
            disk_bad_until: 0,
            disk_hangs_until: 0,
            hosts,
            servers: BTreeMap::new(),
            next_server: 1,
            claimed: Arc::default(),
            access: None,
            is_down: false,
            links: BTreeMap::new(),
            next_link: 0,
            machines: BTreeMap::new(),
            next_machine: 1,
            jobs: BTreeMap::new(),
            coming: Vec::new(),
            ids: BTreeMap::new(),
            clients: Default::default(),
            down: None,
            truth: Truth::default(),
            rng,
        };
        if loud {
            world.say(&format!("{:?}", world.swarm));
        }
        world.start_server(0, true, false);
        world
    }

    pub(super) fn moment(&self, host: usize) -> Moment {
        self.hosts[host].clocks.read()
    }

    /// The monotonic clock of a host as the journal's thread sees it.
    pub(super) fn instant(&self, host: usize) -> Instant {
        self.base + Duration::from_millis(self.moment(host).clock)
    }

    pub(super) fn jump_wall_clock(&mut self, host: usize) {
        let skew = self.rng.i64(-86_400_000..86_400_000);
        self.hosts[host].clocks.skew.store(skew, Ordering::Relaxed);
        self.mark("a wall clock jumped");
    }

    pub(super) fn reboot(&mut self, host: usize) {
        self.hosts[host].boots += 1;
        let boot = self.rng.u64(..1 << 20);
        self.hosts[host].clocks.boot.store(boot, Ordering::Relaxed);
    }

    /// Chance in `of`, while there are faults.
    pub(super) fn lot(&mut self, chance: u32, of: u32) -> bool {
        self.faults && chance > 0 && self.rng.u32(..of) < chance
    }

    /// A situation was reached.
    pub(super) fn mark(&mut self, situation: &'static str) {
        debug_assert!(super::marks::known(situation), "{situation} is in no list");
        self.marks.insert(situation);
    }

    /// Something happened: it goes into the hash of events, and to a person who replays the seed.
    pub(super) fn trace(&mut self, what: &str, a: u64, b: u64) {
        self.stir(what.as_bytes());
        self.stir(&a.to_le_bytes());
        self.stir(&b.to_le_bytes());
        if self.loud {
            self.say(&format!("{what} {a} {b}"));
        }
    }

    pub(super) fn trace_bytes(&mut self, what: &str, id: u64, bytes: &[u8]) {
        self.stir(what.as_bytes());
        self.stir(&id.to_le_bytes());
        self.stir(bytes);
    }

    fn stir(&mut self, bytes: &[u8]) {
        for byte in self.now.to_le_bytes().iter().chain(bytes) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    #[expect(clippy::print_stderr, reason = "for who replays a seed")]
    pub(super) fn say(&self, text: &str) {
        eprintln!("{:>9}.{:03} {text}", self.now / 1000, self.now % 1000);
    }

    fn step(&mut self) {
        self.steps += 1;
        self.now += if self.faults { self.rng.u64(5..200) } else { self.rng.u64(5..600) };
        self.shared_now.store(self.now, Ordering::Relaxed);
        self.nemesis();
        self.users();
        self.run_machines();
        self.run_site();
        self.run_servers();
        self.sweep_links();
    }

    /// All faults stop, and what was stopped goes on.
    fn heal(&mut self) {
        self.faults = false;
        self.disk_hangs_until = 0;
        self.heal_disk();
        for process in self.servers.values_mut() {
            process.stopped_until = process.stopped_until.map(|_| 0);
        }
        for machine in self.machines.values_mut() {
            (machine.stopped_until, machine.cut_until) = (0, 0);
        }
        self.heal_site();
    }

    pub(super) fn run(&mut self) -> u64 {
        while self.now < FAULTY {
            self.step();
        }
        self.heal();
        let bound = self.now + HEALING;
        while !self.is_settled() {
            self.step();
            assert!(self.now < bound, "T7: {}", self.standstill());
        }
        self.check_record();
        self.take_down();
        let bound = self.now + HEALING;
        while !(self.is_down && self.servers.is_empty() && self.machines.is_empty()) {
            self.step();
            assert!(self.now < bound, "J4, T7: it does not go down; {}", self.standstill());
        }
        self.check_nothing_left();
        self.marks
            .extend(self.disk.lock().expect("one thread").marks.iter().copied().filter(|m| super::marks::known(m)));
        self.hash
    }
}
