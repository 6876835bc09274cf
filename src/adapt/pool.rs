//! One pool as the controller knows it: the shape of its jobs, and what was learned of their life.

use super::idle::Rental;
use super::pack::Room;
use super::waits::{Survival, Waits};
use super::{JobView, LearnedPool, PoolShape};
use crate::ui::words::size;

/// Seconds from start to worker, before any was seen.
const STARTUP: f64 = 30.0;
/// Weight of the newest.
const STARTUP_WEIGHT: f64 = 0.2;
/// A start-up longer than this was something else.
const STARTUP_MAX: f64 = 3600.0;
/// The price of another job: start-up, and this share of the wait, within bounds.
const WAIT_PRICE: f64 = 0.1;
const PRICE_MIN: f64 = 20.0;
const PRICE_MAX: f64 = 600.0;
/// Bounds of the time for which pending jobs may be superfluous.
const PATIENCE_MIN: f64 = 10.0;
const PATIENCE_MAX: f64 = 60.0;
const PATIENCE_MAX_AT_WORK: f64 = 1800.0;
/// Every so many submissions, one asks for a shorter walltime than the best.
const PROBE_EVERY: u64 = 10;

/// Times the work that is known: more may come.
const WORK_TO_COME: f64 = 2.0;

/// What new jobs are asked for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Errand {
    /// Seconds that the longest tasks run; `None` = nobody knows.
    pub(super) longest: Option<f64>,
    /// Work for each of them, in seconds.
    pub(super) work: f64,
}

/// A job that was given up: since when it was idle, for how long, and the price of another one at that time.
#[derive(Clone, Copy, Debug)]
pub(super) struct GivenUp {
    pub(super) since: f64,
    pub(super) idle: f64,
    pub(super) price: f64,
}

/// What is known of one pool. Times in seconds.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    shape: PoolShape,
    whole: Room,
    waits: Waits,
    startup: Option<f64>,
    pub(super) rental: Rental,
    /// Jobs that were given up because they were idle. The next job asked for says how long the gap of the last
    /// one was.
    pub(super) given_up: Vec<GivenUp>,
    /// Since when there have been more pending jobs than needed.
    pub(super) surplus_since: Option<f64>,
    asked: u64,
    hedged: u64,
    survival: Survival,
}

impl Pool {
    pub(super) fn new(shape: PoolShape, learned: &LearnedPool) -> Self {
        let whole = Room {
            cores: shape.cores.into(),
            memory: shape.memory_bytes.unwrap_or(u64::MAX),
            gpus: u64::from(shape.gpus) * 1000,
        };
        let waits = Waits::new(&learned.waits);
        let startup = learned.startup.filter(|time| time.is_finite() && (0.0..=STARTUP_MAX).contains(time));
        let rental = Rental::new(&learned.gaps, learned.paid, learned.clairvoyant);
        let survival = waits.survival(&[]);
        Self {
            shape,
            whole,
            waits,
            startup,
            rental,
            given_up: Vec::new(),
            surplus_since: None,
            asked: 0,
            hedged: 0,
            survival,
        }
    }

    pub(super) fn learned(&self) -> LearnedPool {
        LearnedPool {
            waits: self.waits.seen(),
            startup: self.startup,
            gaps: self.rental.gaps(),
            paid: self.rental.paid(),
            clairvoyant: self.rental.clairvoyant(),
        }
    }

    pub(super) fn shape(&self) -> &PoolShape {
        &self.shape
    }

    pub(super) fn whole(&self) -> Room {
        self.whole
    }

    /// A job has waited so long, and asked for this walltime.
    pub(super) fn add_wait(&mut self, wait: f64, walltime: Option<f64>) {
        self.waits.add(wait, walltime.or(self.shape.walltime).unwrap_or(0.0));
    }

    /// A job's worker was there so long after its start.
    pub(super) fn add_startup(&mut self, time: f64) {
        if (0.0..=STARTUP_MAX).contains(&time) {
            self.startup = Some(self.startup.map_or(time, |old| old + STARTUP_WEIGHT * (time - old)));
        }
    }

    /// The batch system expects this wait of a job that asks for this walltime.
    pub(super) fn expect_wait(&mut self, wait: f64, walltime: Option<f64>) {
        if wait.is_finite() && wait >= 0.0 {
            self.waits.expect(wait, walltime.or(self.shape.walltime).unwrap_or(0.0));
        }
    }

    /// Looks at the jobs that are pending now, by their ages.
    pub(super) fn look(&mut self, ages: &[f64]) {
        self.survival = self.waits.survival(ages);
    }

    /// Returns the wait that a share `p` of the jobs does not exceed.
    pub(super) fn wait(&self, p: f64) -> f64 {
        self.survival.quantile(p)
    }

    /// Returns how much longer a job that is pending for `age` waits, most likely.
    pub(super) fn wait_left(&self, age: f64) -> f64 {
        self.survival.residual(0.5, age)
    }

    pub(super) fn startup(&self) -> f64 {
        // Nothing starts in no time; and the time that a job must live is a multiple of this.
        self.startup.unwrap_or(STARTUP).max(1.0)
    }

    /// Returns what a new job must do to be worth its start-up.
    pub(super) fn useful_life(&self, efficiency: f64) -> f64 {
        self.startup() * efficiency / (1.0 - efficiency)
    }

    /// Returns the time a fresh job has for tasks, of the longest walltime there is.
    pub(super) fn usable_life(&self) -> f64 {
        self.life(self.shape.walltime.map_or(f64::INFINITY, |walltime| walltime - self.shape.drain_lead))
    }

    /// Returns the time that every fresh job has for tasks which was asked for while nobody knew how long they run.
    pub(super) fn hedged_life(&self) -> f64 {
        let middle = self.middle_walltime().map(|walltime| self.life(walltime - self.shape.lead(Some(walltime))));
        middle.unwrap_or(f64::INFINITY).min(self.usable_life())
    }

    fn life(&self, until_drain: f64) -> f64 {
        // What the start-up takes is taken for small: too careful would mean never.
        (until_drain - self.startup().min(10.0)).max(0.0)
    }

    fn middle_walltime(&self) -> Option<f64> {
        let choices = &self.shape.walltime_choices;
        choices.get(choices.len() / 2).copied().filter(|_| choices.len() > 1)
    }

    /// Returns the time a job has left for tasks.
    pub(super) fn life_left(&self, job: &JobView, now: f64) -> f64 {
        job.ends_at.map_or(f64::INFINITY, |ends| ends - now - self.shape.lead(job.walltime))
    }

    /// Returns what getting another job costs, as idle time worth spending to keep one of `jobs`. All that are
    /// missing are waited for at the same time, so each has its part of that price.
    pub(super) fn price(&self, jobs: u32) -> f64 {
        (self.startup() + WAIT_PRICE * self.wait(0.5) / f64::from(jobs.max(1))).clamp(PRICE_MIN, PRICE_MAX)
    }

    /// Returns for how long pending jobs may be superfluous before they are cancelled. Where there is work, more of
    /// it may come, and their place in the queue is worth more.
    pub(super) fn patience(&self, work: bool) -> f64 {
        (self.wait(0.5) / 2.0).clamp(PATIENCE_MIN, if work { PATIENCE_MAX_AT_WORK } else { PATIENCE_MAX })
    }

    /// Jobs are asked for now: the last ones given up are bought back, their gaps are over.
    pub(super) fn buy_back(&mut self, jobs: u32, now: f64) {
        for _ in 0..jobs {
            let Some(GivenUp { since, idle, price }) = self.given_up.pop() else { return };
            self.rental.end_gap((now - since).max(idle), Some(idle), price);
        }
    }

    /// Returns the walltimes to ask for, each with a number of jobs that add up to `jobs`; `None` = the pool's.
    pub(super) fn choose_walltimes(&mut self, jobs: u32, errand: Errand) -> Vec<(u32, Option<f64>)> {
        let Some(longest) = errand.longest else { return self.hedge(jobs) };
        self.asked += 1;
        vec![(jobs, self.cheapest_walltime(longest, errand.work))]
    }

    /// While nobody knows how long tasks run, every other job asks for the longest walltime, the rest for a middle one:
    /// it may start hours sooner, and what runs in it says how long tasks run.
    fn hedge(&mut self, jobs: u32) -> Vec<(u32, Option<f64>)> {
        let Some(middle) = self.middle_walltime() else { return vec![(jobs, None)] };
        let longest = (jobs + u32::from(self.hedged.is_multiple_of(2))) / 2;
        self.hedged += u64::from(jobs);
        let parts = [(longest, None), (jobs - longest, Some(middle))];
        parts.into_iter().filter(|(jobs, _)| *jobs > 0).collect()
    }

    fn cheapest_walltime(&self, longest: f64, work: f64) -> Option<f64> {
        let life = |walltime: f64| walltime - self.shape.lead(Some(walltime)) - self.startup();
        let mut able: Vec<f64> = self.shape.walltime_choices.clone();
        able.retain(|walltime| life(*walltime) >= longest);
        able.sort_by(f64::total_cmp);
        // The price of a second of use: what is waited for it, and the part of the life in which no task of the
        // longest kind can begin. A life longer than the work is of no use.
        let cost = |walltime: f64| {
            let wait = self.waits.survival_at(walltime).quantile(0.5);
            let used = life(walltime).min((work * WORK_TO_COME).max(longest)).max(1.0);
            (wait + self.startup() + longest) / used
        };
        let best = (0..able.len()).min_by(|a, b| cost(able[*a]).total_cmp(&cost(able[*b])))?;
        let probe = self.asked.is_multiple_of(PROBE_EVERY) && best > 0;
        able.get(if probe { best - 1 } else { best }).copied()
    }

    /// Says why a task does not fit.
    pub(super) fn too_small(&self, room: &Room) -> String {
        let has = &self.whole;
        let what = if room.cores > has.cores {
            format!("{} cores, and a job has {}: ask for jobs with --cores {}", room.cores, has.cores, room.cores)
        } else if room.memory > has.memory {
            let (wants, has) = (size(room.memory), size(has.memory));
            // Rounded up: what is asked for must do.
            let megabytes = room.memory.div_ceil(1_000_000);
            let enough = match megabytes {
                10_000.. => format!("{}GB", megabytes.div_ceil(1000)),
                _ => format!("{megabytes}MB"),
            };
            format!("{wants} of memory, and a job has {has}: ask for jobs with --memory {enough}")
        } else {
            let wants = room.gpus.div_ceil(1000);
            format!("{wants} GPUs, and a job has {}: ask for jobs with --gpus {wants}", self.shape.gpus)
        };
        format!("a task needs {what}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(choices: &[f64]) -> Pool {
        let walltime_choices = choices.to_vec();
        let shape = PoolShape { walltime: Some(14_400.0), walltime_choices, ..PoolShape::new(8) };
        Pool::new(shape, &LearnedPool::default())
    }

    #[test]
    fn a_higher_efficiency_asks_for_a_longer_life() {
        let pool = pool(&[]);
        assert_eq!(pool.startup(), 30.0);
        let life: Vec<f64> = [0.5, 0.65, 0.85].iter().map(|share| pool.useful_life(*share).round()).collect();
        assert_eq!(life, [30.0, 56.0, 170.0]);
    }

    fn choose(pool: &mut Pool, longest: f64, work: f64) -> Option<f64> {
        let chosen = pool.choose_walltimes(3, Errand { longest: Some(longest), work });
        assert_eq!((chosen.len(), chosen[0].0), (1, 3));
        chosen[0].1
    }

    #[test]
    fn the_walltime_that_starts_soonest_is_chosen_if_tasks_fit_it() {
        let mut pool = pool(&[3600.0, 7200.0, 14_400.0]);
        for _ in 0..6 {
            pool.add_wait(60.0, Some(3600.0));
            pool.add_wait(4000.0, Some(7200.0));
            pool.add_wait(20_000.0, Some(14_400.0));
        }
        assert_eq!(choose(&mut pool, 300.0, 1e6), Some(3600.0));
        assert_eq!(choose(&mut pool, 5000.0, 1e6), Some(7200.0));
        assert_eq!(choose(&mut pool, 10_000.0, 1e6), Some(14_400.0));
        let asked: Vec<Option<f64>> = (0..10).map(|_| choose(&mut pool, 5000.0, 1e6)).collect();
        assert!(asked.iter().all(|walltime| *walltime == Some(7200.0)), "there is no shorter one that would do");
    }

    #[test]
    fn a_walltime_covers_the_work_and_no_more() {
        let mut pool = pool(&[900.0, 3600.0, 14_400.0]);
        assert_eq!(choose(&mut pool, 60.0, 120.0), Some(900.0));
        assert_eq!(choose(&mut pool, 60.0, 1200.0), Some(3600.0));
        assert_eq!(choose(&mut pool, 60.0, 1e6), Some(14_400.0), "all wait alike: the more life the better");
        let asked: Vec<Option<f64>> = (0..10).map(|_| choose(&mut pool, 60.0, 1e6)).collect();
        assert!(asked.contains(&Some(3600.0)), "one in ten tries a shorter one");
    }

    #[test]
    fn while_nobody_knows_how_long_tasks_run_bets_are_hedged() {
        let mut pool = pool(&[900.0, 3600.0, 14_400.0]);
        let unknown = Errand { longest: None, work: 10.0 };
        assert_eq!(pool.choose_walltimes(1, unknown), [(1, None)]);
        assert_eq!(pool.choose_walltimes(1, unknown), [(1, Some(3600.0))]);
        assert_eq!(pool.choose_walltimes(5, unknown), [(3, None), (2, Some(3600.0))]);
        assert_eq!(pool.choose_walltimes(5, unknown), [(2, None), (3, Some(3600.0))]);
        assert_eq!(self::pool(&[]).choose_walltimes(5, unknown), [(5, None)]);
    }

    #[test]
    fn the_batch_system_is_believed_until_waits_were_seen() {
        let mut pool = pool(&[900.0, 3600.0, 14_400.0]);
        pool.expect_wait(5.0, Some(900.0));
        pool.expect_wait(40_000.0, Some(3600.0));
        pool.expect_wait(90_000.0, Some(14_400.0));
        assert_eq!(choose(&mut pool, 60.0, 1e6), Some(900.0));
        for _ in 0..6 {
            pool.add_wait(90_000.0, Some(900.0));
            pool.add_wait(1.0, Some(3600.0));
        }
        assert_eq!(choose(&mut pool, 60.0, 1e6), Some(3600.0));
    }

    #[test]
    fn a_job_given_up_too_early_is_a_gap() {
        let mut pool = pool(&[]);
        pool.given_up.push(GivenUp { since: 100.0, idle: 40.0, price: 50.0 });
        pool.buy_back(2, 200.0);
        assert_eq!(pool.rental.gaps(), [100.0]);
        assert_eq!(pool.rental.paid(), 90.0);
    }
}
