//! Layer 1 of the reliability tests: journal and lease over a simulated disk.
//!
//! After every operation of random histories, crash states are recovered and checked: nothing
//! acknowledged is lost, nothing invented, no honest crash refused. Interleavings of two and three
//! writers are run to the end and judged the same way. The last tests show that the checker fails
//! when it should. A failure prints the seed.

#[path = "../support/crash_model.rs"]
mod crash_model;

use crate::simdisk::{Client, Gate, SimDisk, World};
use crash_model::{CLUSTER, Liar, Lie, Model, Server, Shared, Slip, Stop, lock};
use dcluster::runtime::disk::Disk;
use dcluster::runtime::journal::recover;
use dcluster::runtime::lease::read_lease;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// States of one moment: all up to two to this power, else a sample.
const BITS: usize = 4;
const SAMPLE: u64 = 4;
/// Steps of a history.
const STEPS: u32 = 14;
/// Histories of every run; `DCLUSTER_CRASH_HISTORIES` asks for more.
const HISTORIES: u64 = 200;

/// What a history came to.
struct Outcome {
    states: u64,
    flips: u64,
    violation: Option<String>,
    marks: BTreeSet<&'static str>,
    /// What stopped servers other than the protocol.
    failures: Vec<String>,
}

type Simulated = Server<Liar<SimDisk>>;

struct History {
    random: fastrand::Rng,
    world: Arc<Mutex<World>>,
    model: Shared,
    lie: Lie,
    slip: Slip,
    servers: u8,
}

impl History {
    fn new(seed: u64, lie: Lie, slip: Slip) -> Self {
        let model = Arc::new(Mutex::new(Model::new(seed ^ 0x5eed)));
        let mut world = World::new(seed ^ 0xfa17);
        world.links_supported = !seed.is_multiple_of(7);
        let observed = model.clone();
        world.observer = Some(Box::new(move |world| {
            let mut model = lock(&observed);
            if model.violation.is_none() {
                model.walk(world, BITS, SAMPLE);
            }
        }));
        Self {
            random: fastrand::Rng::with_seed(seed),
            world: Arc::new(Mutex::new(world)),
            model,
            lie,
            slip,
            servers: 0,
        }
    }

    fn set_faults(&self, per_mille: u32) {
        lock(&self.world).faults.per_mille = per_mille;
    }

    /// Starts servers until one serves; only the first two tries may meet faults, and the third may
    /// lose the claim to a cached listing. `None` is a violation.
    fn boot(&mut self, per_mille: u32) -> Option<Simulated> {
        for (attempt, per_mille) in [per_mille, per_mille, 0, 0].into_iter().enumerate() {
            self.set_faults(per_mille);
            self.servers += 1;
            let disk = SimDisk { world: self.world.clone(), client: self.servers % 2, gate: None };
            let disk = Liar::new(disk, self.lie);
            match Server::boot(&disk, self.servers, &self.model, self.slip) {
                Ok(server) => {
                    // Its base is whole: from now on nothing else may be seen.
                    let mut model = lock(&self.model);
                    let id = self.servers;
                    model.servers.retain(|&other, _| other == id);
                    drop(model);
                    return Some(server);
                }
                Err(stop) if attempt == 3 => {
                    lock(&self.model).fail(format!("does not start: {stop}"));
                    break;
                }
                Err(_) => {}
            }
        }
        None
    }

    /// Power off, with a random set of survivors.
    fn crash(&mut self) {
        let mut world = lock(&self.world);
        let share = self.random.u32(..=16);
        let random = &mut self.random;
        let image = world.image(|_| random.u32(..16) < share, &[]);
        world.boot(&image);
    }

    fn step(&mut self, mut server: Simulated) -> Option<Simulated> {
        let faults = if self.random.u32(..3) == 0 { 120 } else { 0 };
        self.set_faults(faults);
        let done = match self.random.u32(..15) {
            0..=4 => server.submit(self.random.u32(1..4)),
            5 => server.submit(self.random.u32(6..12)),
            6 => server.mark(),
            7 => server.beat(),
            8 => server.restart(self.random.bool()),
            9 => {
                // Full, but for a few bytes.
                let mut world = lock(&self.world);
                world.capacity = Some(world.used() + self.random.usize(..120));
                drop(world);
                let done = server.submit(3).and_then(|()| server.restart(true));
                if self.random.bool() {
                    lock(&self.world).capacity = None;
                }
                done
            }
            10 => {
                let disk = SimDisk { world: self.world.clone(), client: self.servers % 2, gate: None };
                server.build(&Liar::new(disk, self.lie))
            }
            11 | 12 => server.adopt(),
            13 => {
                // A client dies in the middle of a batch; maybe its host with it.
                let budget = self.random.u32(1..4);
                let client = self.servers % 2;
                lock(&self.world).budgets.insert(client, budget);
                let _ = server.submit(2).and_then(|()| server.submit(2));
                lock(&self.world).budgets.clear();
                drop(server);
                if self.random.bool() {
                    self.crash();
                }
                return self.boot(faults);
            }
            _ => {
                let closed = server.close();
                if closed.is_err() || self.random.bool() {
                    self.crash();
                }
                return self.boot(faults);
            }
        };
        self.set_faults(0);
        self.observe();
        if done.is_ok() {
            return Some(server);
        }
        lock(&self.world).capacity = None;
        if !server.journal.is_condemned() && server.is_idle() {
            return Some(server);
        }
        if server.journal.is_condemned() && self.random.u32(..4) > 0 {
            let fold = self.random.bool();
            for per_mille in [200, 0] {
                self.set_faults(per_mille);
                if server.restart(fold).is_ok() {
                    self.set_faults(0);
                    self.observe();
                    return Some(server);
                }
            }
        }
        self.set_faults(0);
        drop(server);
        if self.random.bool() {
            self.crash();
        }
        self.boot(faults)
    }

    fn observe(&self) {
        lock(&self.world).observe();
    }

    fn run(mut self, steps: u32) -> Outcome {
        let mut server = self.boot(0);
        for _ in 0..steps {
            server = match server {
                Some(server) if lock(&self.model).violation.is_none() => self.step(server),
                _ => break,
            };
        }
        let flips = server.map_or(0, |server| self.come_to_rest(server));
        let mut marks = lock(&self.world).marks.clone();
        let model = lock(&self.model);
        marks.extend(&model.marks);
        Outcome { states: model.states, flips, violation: model.violation.clone(), marks, failures: Vec::new() }
    }

    fn come_to_rest(&mut self, mut server: Simulated) -> u64 {
        self.set_faults(0);
        // Whatever the history left in flight is taken; then comes one of the things that make a
        // flip in the last data frame visible.
        let quiet = server.restart(true).and_then(|()| match self.random.u32(..4) {
            0 => server.submit(2).and_then(|()| server.beat()),
            1 => {
                server.submit(2)?;
                server.submit(1)?;
                server.mark()
            }
            2 => {
                // The base alone holds what failed before.
                self.set_faults(1000);
                let failed = server.submit(2);
                self.set_faults(0);
                assert!(failed.is_err(), "every operation fails");
                server.restart(true)
            }
            _ => server.mark(),
        });
        if let Err(stop) = quiet {
            lock(&self.model).fail(format!("does not come to rest: {stop}"));
        }
        self.flip_bits()
    }

    /// Flips bits of the files at rest: each must be noticed, or change nothing.
    fn flip_bits(&mut self) -> u64 {
        let image = lock(&self.world).image(|_| true, &[]);
        let mut model = lock(&self.model);
        if model.violation.is_some() {
            return 0;
        }
        let lease = read_lease(&image).expect("at rest");
        let good = recover(&image, CLUSTER, lease.as_ref()).expect("at rest");
        let mut flips = 0;
        // Every byte in each tenth history.
        let stride = if self.random.u32(..10) == 0 { 1 } else { 13 };
        let read_by_recovery = |path: &str| path.starts_with("journal/") || path == "lease";
        for (path, content) in image.files.iter().filter(|(path, _)| read_by_recovery(path)) {
            let newest = good.position.source.is_some_and(|part| part.to_string() == *path);
            // Older parts and the holes of the lease are read less, so looked at less.
            let stride = if newest { stride } else { 97 };
            for at in (self.random.usize(..stride)..content.len()).step_by(stride) {
                let mut flipped = image.clone();
                let mut bytes = (**content).clone();
                bytes[at] ^= 1 << self.random.u8(..8);
                flipped.files.insert(path.clone(), Arc::new(bytes));
                flips += 1;
                let Ok(lease) = read_lease(&flipped) else {
                    continue;
                };
                match recover(&flipped, CLUSTER, lease.as_ref()) {
                    Ok(read) if read.records != good.records => {
                        model.fail(format!("flip in {path} at {at} passed unnoticed"));
                    }
                    Ok(_) => {
                        model.marks.insert("flip changed nothing");
                    }
                    Err(_) => {
                        model.marks.insert("flip refused");
                    }
                }
            }
        }
        flips
    }
}

#[test]
fn random_histories_lose_nothing_invent_nothing_and_are_never_refused() {
    let histories =
        std::env::var("DCLUSTER_CRASH_HISTORIES").ok().and_then(|number| number.parse().ok()).unwrap_or(HISTORIES);
    let mut states = 0;
    let mut flips = 0;
    let mut marks = BTreeSet::new();
    // Two threads, as there are two cores; each history depends on its seed alone.
    let outcomes = std::thread::scope(|scope| {
        let run = |first: u64| {
            move || {
                let seeds = (first..histories).step_by(2);
                let runs = seeds.map(|s| (s, History::new(s, Lie::Nothing, Slip::None).run(STEPS)));
                runs.collect::<Vec<_>>()
            }
        };
        let threads = [scope.spawn(run(0)), scope.spawn(run(1))];
        threads.map(|thread| thread.join().expect("the history panicked"))
    });
    for (seed, outcome) in outcomes.into_iter().flatten() {
        assert_eq!(outcome.violation, None, "seed {seed}");
        states += outcome.states;
        flips += outcome.flips;
        marks.extend(outcome.marks);
    }
    assert!(states >= 150_000, "only {states} crash states");
    assert!(flips >= 40_000, "only {flips} flips");
    for situation in [
        "built part adopted",
        "built part adopted with what came since",
        "built part dropped",
        "built part failed and may count",
        "clean close",
        "close failed",
        "disk full",
        "disk full in base",
        "failed compaction may count",
        "failed compaction, old part used on",
        "first slot torn",
        "flight folded into base",
        "flight refused after new base",
        "flip changed nothing",
        "flip refused",
        "folder sync failed",
        "link repeated",
        "no hard links",
        "part condemned",
        "reserve freed",
        "sync failed",
        "taken over, frame in flight arrived",
        "taken over, frame in flight lost",
        "torn base",
        "torn frame",
        "torn frame among stale content",
        "write failed",
    ] {
        assert!(marks.contains(situation), "never reached: {situation}");
    }
}

/// Runs an old server and its successors in a given interleaving, and judges what is left.
fn interleave(plan: &[(Client, u32)], kill: Option<(Client, u32)>, lie: Lie, slip: Slip) -> Outcome {
    let model = Arc::new(Mutex::new(Model::new(1)));
    let world = Arc::new(Mutex::new(World::new(1)));
    let disk = |client, gate| SimDisk { world: world.clone(), client, gate };
    // The old server serves before the others come.
    let first = Server::boot(&disk(0, None), 100, &model, Slip::None).and_then(|mut server| {
        server.submit(1)?;
        server.beat()
    });
    if let Err(stop) = first {
        lock(&model).fail(format!("does not start: {stop}"));
    }
    let gate = Gate::new(&[0, 1, 2], plan);
    lock(&world).budgets.extend(kill);
    let work = |client: Client| {
        let disk = Liar::new(disk(client, Some(gate.clone())), lie);
        let work = || {
            let mut server = Server::boot(&disk, client, &model, slip)?;
            server.submit(1)?;
            server.submit(2)?;
            server.beat()?;
            server.restart(false)?;
            server.submit(1)
        };
        let stopped = work();
        if kill.is_none_or(|(killed, _)| killed != client) {
            let mark = match stopped {
                Err(Stop::Fenced) => "stopped by the fence",
                Err(Stop::ClaimLost) => "stopped by the claim",
                Err(Stop::Failed(ref why)) => {
                    lock(&model).failures.push(why.clone());
                    "stopped by an error"
                }
                Ok(()) => "served to the end",
            };
            lock(&model).marks.insert(mark);
        }
        gate.finish(client);
    };
    std::thread::scope(|scope| {
        for client in [0, 1, 2] {
            scope.spawn(move || work(client));
        }
    });
    let mut world = lock(&world);
    world.budgets.clear();
    let mut model = lock(&model);
    model.walk(&world, BITS, SAMPLE);
    world.observer = None;
    Outcome {
        states: model.states,
        flips: 0,
        violation: model.violation.clone(),
        marks: model.marks.clone(),
        failures: model.failures.clone(),
    }
}

/// Whose operations run in which order, and who is killed after how many.
type Plan = (Vec<(Client, u32)>, Option<(Client, u32)>);

/// All ways to pause 0 after i operations and 1 after j; then random ones, some with a kill.
fn plans() -> impl Iterator<Item = Plan> {
    let systematic = (0..90)
        .step_by(2)
        .flat_map(|i| (0..90).step_by(3).map(move |j| (vec![(0, i), (1, j), (0, 200), (1, 200)], None)));
    let mut random = fastrand::Rng::with_seed(11);
    let drawn = (0..900).map(move |_| {
        let switches = random.usize(2..12);
        let plan = (0..switches).map(|_| (random.u8(..3), random.u32(1..30)));
        let plan = plan.collect();
        let kill = random.bool().then(|| (random.u8(..3), random.u32(5..80)));
        (plan, kill)
    });
    systematic.chain(drawn)
}

#[test]
fn an_old_server_that_wakes_acknowledges_nothing_that_its_successor_lacks() {
    let mut count = 0;
    let mut marks = BTreeSet::new();
    for (plan, kill) in plans() {
        let outcome = interleave(&plan, kill, Lie::Nothing, Slip::None);
        assert_eq!(outcome.violation, None, "plan {plan:?}, kill {kill:?}");
        assert_eq!(outcome.failures, Vec::<String>::new(), "plan {plan:?}, kill {kill:?}");
        marks.extend(outcome.marks);
        count += 1;
    }
    assert!(count > 2000, "only {count} interleavings");
    for situation in ["stopped by the fence", "stopped by the claim", "writer fenced"] {
        assert!(marks.contains(situation), "never reached: {situation}");
    }
}

#[test]
fn lies_of_the_disk_are_caught_by_random_histories() {
    for (lie, slip) in [
        (Lie::SyncDoesNothing, Slip::None),
        (Lie::FolderSyncDoesNothing, Slip::None),
        (Lie::FolderSyncErrorIgnored, Slip::None),
        (Lie::SyncRetried, Slip::None),
        (Lie::WritesCutShort, Slip::None),
        (Lie::Nothing, Slip::AcknowledgesBeforeAppend),
        (Lie::Nothing, Slip::IgnoresErrors),
        (Lie::Nothing, Slip::ForgetsTail),
    ] {
        let caught = (0..60).find(|&seed| History::new(seed, lie, slip).run(STEPS).violation.is_some());
        assert!(caught.is_some(), "{lie:?} {slip:?} was not caught");
    }
}

#[test]
fn mistakes_of_order_are_caught_by_interleavings() {
    for (lie, slip) in [
        (Lie::LeaseCached, Slip::None),
        (Lie::Nothing, Slip::FencesBeforeAppend),
        (Lie::Nothing, Slip::NeverFences),
        (Lie::Nothing, Slip::ReadsBeforeClaim),
    ] {
        let caught = plans().find(|(plan, kill)| interleave(plan, *kill, lie, slip).violation.is_some());
        assert!(caught.is_some(), "{lie:?} {slip:?} was not caught");
    }
}

/// Two servers that both believe they won an epoch: the nonce in the lease and the names of the parts, each
/// made once and removed only by its maker, are the second line.
#[test]
fn a_claim_won_twice_loses_nothing() {
    for (plan, kill) in plans().step_by(3) {
        let outcome = interleave(&plan, kill, Lie::LinkOverwrites, Slip::None);
        assert_eq!(outcome.violation, None, "{plan:?} {kill:?}");
    }
}

#[test]
fn a_listing_from_the_cache_is_not_believed_when_taking_over() {
    let model = Arc::new(Mutex::new(Model::new(1)));
    let world = Arc::new(Mutex::new(World::new(1)));
    let disk = |client| SimDisk { world: world.clone(), client, gate: None };
    let mut old = Server::boot(&disk(0), 1, &model, Slip::None).expect("boots");
    assert_eq!(disk(1).list("journal").expect("lists").len(), 1);
    old.restart(false).expect("a part that the cache does not show");
    old.submit(1).expect("acknowledged there");
    assert_eq!(disk(1).list("journal").expect("lists").len(), 1);
    Server::boot(&disk(1), 2, &model, Slip::None).expect("boots");
    let held = lock(&model).servers[&2].clone();
    assert_eq!(held, (vec![1], vec![]));
}
