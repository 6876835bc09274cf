//! Random clusters on a batch system that lies: the real ledger against the truth, step by step.
//!
//! The server's half is modelled too: records become durable late, orders leave only then, and a crash
//! forgets whatever was not durable while commands under way go on. Time is virtual.
//! A failure prints its seed; `SEED=n` runs that one alone.

mod site;

use super::{EndReason, Job, JobState, Ledger, Moment, Order, Scaling, Situation, Wish};
use crate::backends::EndedHow;
use crate::runtime::ids::{JobSeq, NativeId};
use fastrand::Rng;
use site::{Answer, ORPHAN_TIMEOUT, Phase, Real, SECOND, STALE_MAX, Site};
use std::collections::{BTreeMap, VecDeque};

struct World {
    rng: Rng,
    seed: u64,
    now: u64,
    site: Site,
    ledger: Ledger,
    epoch: u32,
    real: BTreeMap<JobSeq, Real>,
    answers: Vec<(u64, u32, Answer)>,
    /// Creations under way.
    coming: usize,
    durable: BTreeMap<JobSeq, Job>,
    held: VecDeque<(u64, Vec<Job>, Vec<Order>)>,
    /// The scaling loop decides: it wants what the user wants.
    adapt: bool,
    wanted: u32,
    wanted_max: u32,
    stopping: bool,
    patience: Option<u64>,
    next_id: u64,
    /// The id of every job that was or will be created.
    ids: BTreeMap<JobSeq, NativeId>,
    steps: u64,
    submits: VecDeque<u64>,
    asked_to_cancel: std::collections::BTreeSet<JobSeq>,
    blind_since: Option<u64>,
    crashed: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let site = Site {
            forgets: rng.u8(..4) == 0,
            accounting: rng.bool(),
            limit: (rng.u8(..4) == 0).then(|| rng.usize(1..4)),
            faults: true,
            query_fails: [0, 10, 40][rng.usize(..3)],
            query_lies: [0, 10, 40][rng.usize(..3)],
            submit_fails: [0, 20, 60][rng.usize(..3)],
            crash: [0, 5, 20][rng.usize(..3)],
            short: rng.u8(..4) == 0,
        };
        let batch = [1, 3][rng.usize(..2)];
        Self {
            seed,
            now: 1000,
            site,
            ledger: Ledger::new("abcd", 1, "default", batch, ORPHAN_TIMEOUT),
            epoch: 1,
            real: BTreeMap::new(),
            answers: Vec::new(),
            coming: 0,
            durable: BTreeMap::new(),
            held: VecDeque::new(),
            adapt: seed.is_multiple_of(3),
            wanted: 0,
            wanted_max: 0,
            stopping: false,
            patience: None,
            next_id: 100,
            ids: BTreeMap::new(),
            steps: 0,
            submits: VecDeque::new(),
            asked_to_cancel: Default::default(),
            blind_since: None,
            crashed: false,
            rng,
        }
    }

    fn moment(&self) -> Moment {
        Moment { wall: 1_700_000_000_000 + self.now, clock: self.now }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.site.faults && self.rng.u32(..100) < percent
    }

    fn scale(&mut self, jobs: u32) {
        self.wanted = jobs;
        self.wanted_max = self.wanted_max.max(jobs);
        if self.adapt {
            self.ledger.adapt(jobs, self.moment());
        } else {
            self.ledger.scale(jobs, self.moment());
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        self.now += self.rng.u64(200..1200);
        if self.site.faults && self.rng.u32(..1000) < self.site.crash {
            self.crash();
        }
        if self.site.faults && !self.stopping && self.rng.u32(..1000) < 4 {
            let jobs = self.rng.u32(..6);
            self.scale(jobs);
        }
        self.live_on();
        self.deliver();
        let situation = Situation {
            work: true,
            drain_first: self.real.iter().filter(|(_, real)| real.connected).map(|(seq, _)| *seq).collect(),
            scaling: self.scaling(),
        };
        let open = self.ledger.breaker.is_open_for_good();
        let orders = self.ledger.plan(&situation, self.moment());
        if open {
            assert!(!orders.iter().any(|order| matches!(order, Order::Submit(_))), "submits while the breaker is open");
        }
        let changed = self.ledger.take_changed();
        self.check_ends(&changed);
        self.ledger.take_notices();
        let lag = if self.chance(10) { self.rng.u64(..5000) } else { self.rng.u64(..50) };
        let at = self.held.back().map_or(0, |(at, ..)| *at).max(self.now + lag);
        self.held.push_back((at, changed, orders));
        while self.held.front().is_some_and(|(at, ..)| *at <= self.now + 50) {
            let (_, records, orders) = self.held.pop_front().expect("looked at");
            for job in records {
                self.durable.insert(job.seq, job);
            }
            for order in orders {
                self.carry_out(order);
            }
        }
        for job in self.ledger.live() {
            let restarts = self.real.get(&job.seq).map_or(0, |real| real.restarts);
            assert!(job.requeues <= restarts, "{job:?} was not requeued so often: its worker may live");
        }
        // What the batch system itself takes back is not ours to count, only to cancel.
        let live = self.real.values().filter(|real| real.live() && !real.risen).count() + self.coming;
        assert!(live <= self.wanted_max as usize, "J3: {live} jobs, never more than {} wanted", self.wanted_max);
    }

    /// What the loop wants: the number the user wants, without regard to what the ledger allows.
    fn scaling(&mut self) -> Scaling {
        if !self.adapt {
            return Scaling::default();
        }
        let staying: Vec<JobSeq> =
            self.ledger.live().filter(|job| !job.cancelling && !job.draining).map(|job| job.seq).collect();
        let wanted = self.wanted as usize;
        let more = wanted.saturating_sub(staying.len());
        let fewer: Vec<JobSeq> = staying.into_iter().skip(wanted).collect();
        let jobs = more as u32 + u32::from(self.chance(10));
        let wish = |pool: &str, walltime_seconds, jobs| Wish { pool: pool.to_owned(), walltime_seconds, jobs };
        let submit = match self.chance(30) {
            true => vec![wish("big", Some(900), jobs / 2), wish("default", None, jobs - jobs / 2)],
            false => vec![wish("default", None, jobs)],
        };
        Scaling { submit, cancel: fewer.clone(), drain: fewer }
    }

    /// The server dies and comes back: what was not durable is forgotten, commands under way go on.
    fn crash(&mut self) {
        self.crashed = true;
        self.epoch += 1;
        self.held.clear();
        let reached = self.ledger.reached();
        self.ledger = Ledger::new("abcd", self.epoch, "default", 3, ORPHAN_TIMEOUT);
        for job in self.durable.values() {
            self.ledger.restore(job.clone());
        }
        if self.adapt {
            self.ledger.restore_adapt(self.wanted);
        } else {
            self.ledger.restore_wanted(self.wanted, reached);
        }
        let proved = self.rng.bool();
        self.ledger.finish_restore(proved, self.moment());
        if self.stopping {
            self.ledger.stop(self.patience, self.moment());
        }
        for real in self.real.values_mut() {
            if real.connected {
                real.connected = false;
                real.up_at = self.now + self.rng.u64(200..20000);
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.answers).into_iter().partition(|(at, ..)| *at <= now);
        self.answers = later;
        let moment = self.moment();
        for (_, epoch, answer) in due {
            if let Answer::Create(jobs) = answer {
                self.create(jobs);
                continue;
            }
            if epoch != self.epoch {
                continue;
            }
            match answer {
                Answer::Create(_) => {}
                Answer::Submitted(submit, ids) => self.ledger.on_submitted(&submit, ids, moment),
                Answer::SubmitFailed(submit, error) => self.ledger.on_submit_failed(&submit, &error, moment),
                Answer::Listed(asked, seen) => {
                    self.blind_since = None;
                    self.ledger.on_listed(&asked, &seen, moment);
                }
                Answer::Found(seen) => self.ledger.on_found(&seen, moment),
                Answer::Accounted(asked, seen) => self.ledger.on_accounted(&asked, &seen, moment),
                Answer::Cancelled(jobs) => self.ledger.on_cancelled(&jobs, moment),
                Answer::Sentinels(found) => self.ledger.on_sentinels(found, moment),
                Answer::Failed(order, error) => {
                    if matches!(order, Order::List(_)) {
                        self.blind_since.get_or_insert(now);
                    }
                    self.ledger.on_query_failed(&order, &error, moment);
                }
            }
        }
    }

    /// Nothing is closed that lives, and the reason is the true one where anybody told it.
    fn check_ends(&mut self, changed: &[Job]) {
        for job in changed.iter().filter(|job| job.state == JobState::Ended) {
            let seed = self.seed;
            let end = job.end.expect("ended jobs have a reason");
            let Some(real) = self.real.get(&job.seq) else {
                let coming = self.ids.contains_key(&job.seq);
                assert!(!coming, "seed {seed}: {} is closed ({end:?}) and will come", job.name);
                continue;
            };
            // Taken back into the queue a moment ago (an answer is that old, and takes its time): the record was
            // closed on what was true before, and the job is cancelled when it is seen.
            let taken_back = real.risen && real.live() && self.now < real.since + 2 * STALE_MAX;
            let Phase::Gone(how, code) = (if taken_back { real.before } else { real.phase }) else {
                panic!("seed {seed}: {} is closed ({end:?}) and is {:?}; {job:?} {real:?}", job.name, real.phase);
            };
            // How much of the truth could be known.
            let told = !real.forgotten && !self.site.forgets;
            let blind = self.blind_since.is_some_and(|since| self.now > since + 60 * SECOND);
            if !told || blind || self.crashed || job.id.is_none() {
                continue;
            }
            let by_us = job.cancelling;
            let right = match (how, code) {
                (EndedHow::Walltime, _) => end == EndReason::Walltime,
                (EndedHow::Preempted, _) => end == EndReason::Preempted,
                (EndedHow::NodeFailed, _) => end == EndReason::NodeFailed,
                (EndedHow::OutOfMemory, _) => end == EndReason::OutOfMemory,
                (EndedHow::Cancelled, _) if by_us => end == EndReason::CancelledByUs,
                (EndedHow::Cancelled, _) => end == EndReason::CancelledByOthers,
                (EndedHow::Exited, Some(0)) => {
                    matches!(end, EndReason::Finished | EndReason::Drained) || by_us && end == EndReason::CancelledByUs
                }
                (EndedHow::Exited, _) => {
                    matches!(end, EndReason::Crashed | EndReason::CouldNotStart)
                        || by_us && end == EndReason::CancelledByUs
                }
                (EndedHow::LaunchFailed, _) => end == EndReason::CouldNotStart,
            };
            assert!(right, "J5, seed {seed}: {how:?} {code:?} is recorded as {end:?}; {job:?} {real:?}");
        }
    }

    fn heal(&mut self) {
        self.site.faults = false;
        self.site.limit = None;
        for real in self.real.values_mut() {
            real.cut_until = 0;
            real.hidden = (0, 0);
            if real.phase == Phase::Running {
                real.end_at = u64::MAX;
            }
            real.leave_at = real.leave_at.filter(|at| *at < self.now + 100_000);
        }
    }

    fn run(&mut self) {
        self.scale(3);
        let faults = self.rng.u64(100..600) * SECOND;
        let early_stop = self.rng.u8(..3) == 0;
        while self.now < faults {
            self.step();
        }
        if early_stop {
            self.stop();
            for _ in 0..self.rng.u32(..100) {
                self.step();
            }
        }
        self.heal();
        if !early_stop {
            let wanted = self.rng.u32(1..5);
            self.scale(wanted);
            let bound = self.now + 900 * SECOND;
            // The limit of a site that has none any more is found by growing; no user has to look.
            let bound = if self.adapt { bound + 3 * 3600 * SECOND } else { bound };
            let up = |world: &Self| world.real.values().filter(|real| real.live() && real.connected).count();
            while up(self) != wanted as usize || self.ledger.live().count() != wanted as usize {
                self.step();
                if self.ledger.breaker.is_open_for_good() {
                    // By an answer that was under way; the user has looked.
                    self.scale(wanted);
                }
                assert!(self.now < bound, "{} of {wanted} jobs after healing; {:#?}", up(self), self.ledger);
            }
            self.stop();
        }
        let bound = self.now + 600 * SECOND;
        while !self.ledger.is_clear() {
            self.step();
            let left: Vec<_> = self.ledger.live().collect();
            assert!(self.now < bound, "J4: still there long after a stop: {left:?} {:#?}", self.ledger);
        }
        let left: Vec<_> = self.real.values().filter(|real| real.live()).collect();
        assert!(left.is_empty() && self.coming == 0, "J4: down, but there is {left:?}");
        for seq in self.real.keys() {
            assert!(self.ledger.job(*seq).is_some(), "J1: {seq:?} has no record");
        }
        // A submission every few seconds for ever is an attack on the site.
        let many = self.submits.iter().zip(self.submits.iter().skip(40)).any(|(a, b)| b - a < 60 * SECOND);
        assert!(!many, "40 submissions within a minute");
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.wanted = 0;
        self.patience = [Some(25 * SECOND), Some(3 * SECOND), None][self.rng.usize(..3)];
        self.ledger.stop(self.patience, self.moment());
    }
}

/// Says the seed of a failed run.
struct PrintSeed(u64);
impl Drop for PrintSeed {
    #[expect(clippy::print_stderr, reason = "the one place where a failed test says its seed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with SEED={}", self.0);
        }
    }
}

fn simulate(seed: u64) {
    let _seed = PrintSeed(seed);
    World::new(seed).run();
}

#[test]
fn random_sites_tell_lies() {
    if let Ok(seed) = std::env::var("SEED") {
        return simulate(seed.parse().expect("a number"));
    }
    (0..500).for_each(simulate);
}
