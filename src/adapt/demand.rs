//! How much work there is: how long tasks take, which pools could run them, which one should.

use super::pack::{Items, Room};
use super::pool::Pool;
use super::words::{seconds, tasks};
use super::{Durations, Parked, TaskClass};

/// Seconds that a task of which nothing is known is taken to run, at least.
const UNKNOWN: f64 = 60.0;
/// Times the time that nine of ten tasks do not exceed: next to none runs longer.
const UNLIKELY: f64 = 2.0;
/// Ended tasks that outweigh what was remembered from earlier.
const REMEMBERED: u64 = 10;
/// Share of a fresh job's time that a learned duration may ask for: it must not exclude every job.
const LEARNED_SHARE: f64 = 0.9;
/// Runs cut by the walltime, with none that ended, after which no more jobs are spent on a class.
const CUTS: u64 = 5;

/// How long the tasks of a class run, in seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Estimate {
    pub(super) mean: f64,
    pub(super) p90: f64,
    /// Whether any task of it has ever ended.
    pub(super) known: bool,
}

impl Estimate {
    pub(super) fn of(class: &TaskClass, remembered: Option<&Durations>) -> Self {
        let fresh = class.durations;
        let old = remembered.filter(|old| old.ended > 0);
        let seen = fresh.ended + fresh.cut;
        let weight = old.map_or(0, |old| old.ended.min(REMEMBERED.saturating_sub(seen)));
        if seen + weight == 0 {
            let longest = class.running.iter().map(|some| some.elapsed).fold(0.0, f64::max);
            let mean = (2.0 * longest).max(UNKNOWN);
            return Self { mean, p90: mean, known: false };
        }
        let mix = |fresh: f64, old: f64| (fresh * seen as f64 + old * weight as f64) / (seen + weight) as f64;
        let mut mean = mix(fresh.mean, old.map_or(0.0, |old| old.mean));
        let mut count = (seen + weight) as f64;
        // Those that run longer than that already will end later than the mean says.
        let plain = mean;
        for late in class.running.iter().filter(|some| some.elapsed > plain) {
            let more = f64::from(late.tasks);
            mean = (mean * count + late.elapsed * 1.5 * more) / (count + more);
            count += more;
        }
        let p90 = if seen > 0 { fresh.p90 } else { old.map_or(mean, |old| old.p90) };
        Self { mean: mean.max(0.001), p90: p90.max(0.001), known: true }
    }

    /// Returns how long a task that runs since `elapsed` goes on.
    pub(super) fn remaining(&self, elapsed: f64) -> f64 {
        if elapsed < self.mean { self.mean - elapsed } else { elapsed / 2.0 }
    }
}

/// A class as the controller sees it.
#[derive(Clone, Debug)]
pub(super) struct Wish<'a> {
    pub(super) class: &'a TaskClass,
    pub(super) estimate: Estimate,
    pub(super) room: Room,
    /// Tasks that could start now, were there room.
    pub(super) ready: u64,
    /// The pool whose jobs it would get; `None` = no pool can ever run it.
    pub(super) home: Option<usize>,
    /// Which pools can run it.
    pub(super) able: Vec<bool>,
}

impl<'a> Wish<'a> {
    /// Looks at a class; the second value says why no pool can run it.
    pub(super) fn of(
        class: &'a TaskClass,
        remembered: Option<&Durations>,
        pools: &[Pool],
        max: u32,
        efficiency: f64,
    ) -> (Self, Option<Parked>) {
        let running: u64 = class.running.iter().map(|some| u64::from(some.tasks)).sum();
        let room = Room { cores: class.cores.into(), memory: class.memory_bytes, gpus: class.gpu_thousandths.into() };
        let mut wish = Self {
            class,
            estimate: Estimate::of(class, remembered),
            room,
            ready: class.ready.min(class.at_once_max.map_or(u64::MAX, |most| most.saturating_sub(running))),
            home: None,
            able: Vec::new(),
        };
        let verdicts: Vec<Result<(), String>> = pools.iter().map(|pool| wish.feasible(pool, max)).collect();
        wish.able = verdicts.iter().map(Result::is_ok).collect();
        let score = |pool: &Pool| {
            let share = (wish.ready.max(1) as f64 * wish.share(pool)).min(1.0);
            share / (pool.wait(0.5) + pool.startup() + pool.useful_life(efficiency))
        };
        // The first of equals is the one that the user named first.
        let best = (0..pools.len()).filter(|at| wish.able[*at]).map(|at| (score(&pools[at]), at));
        wish.home = best.reduce(|a, b| if b.0 > a.0 * 1.000_001 { b } else { a }).map(|(_, at)| at);
        // Of several pools the largest comes closest.
        let largest = (0..pools.len()).rev().max_by_key(|at| pools[*at].shape().cores);
        let parked = match (wish.home, largest.and_then(|at| verdicts.into_iter().nth(at))) {
            (None, Some(Err(reason))) if class.ready > 0 => {
                Some(Parked { class: class.name.clone(), tasks: class.ready, reason })
            }
            _ => None,
        };
        (wish, parked)
    }

    /// Returns the share of one job of a pool that a task takes.
    pub(super) fn share(&self, pool: &Pool) -> f64 {
        1.0 / pool.whole().copies(&self.room).clamp(1, u64::from(u32::MAX)) as f64
    }

    /// Returns the seconds that must be left on a job of a pool for a task to be put there.
    pub(super) fn time_needed(&self, pool: &Pool) -> f64 {
        let usable = pool.usable_life();
        match (self.class.time_request, self.estimate.known) {
            (Some(asked), _) => asked,
            (None, true) => self.estimate.p90.min(usable * LEARNED_SHARE),
            // Nothing is known: the first wave goes where at least half of the time is left.
            (None, false) if usable.is_finite() => pool.hedged_life() / 2.0,
            (None, false) => 0.0,
        }
    }

    /// Returns how long tasks of the class may run on a job of a pool; `None` = nobody knows.
    pub(super) fn longest(&self, pool: &Pool) -> Option<f64> {
        let likely = (self.estimate.p90 * UNLIKELY).min(pool.usable_life() * LEARNED_SHARE);
        self.class.time_request.or(self.estimate.known.then_some(likely))
    }

    /// Returns the tasks as items to pack, for the jobs of a pool.
    pub(super) fn items(&self, pool: &Pool) -> Items {
        let count = self.ready.saturating_mul(u64::from(self.class.nodes.max(1)));
        Items { room: self.room, time: self.time_needed(pool), count }
    }

    fn feasible(&self, pool: &Pool, max: u32) -> Result<(), String> {
        let (class, shape) = (self.class, pool.shape());
        if pool.whole().copies(&self.room) == 0 {
            return Err(pool.too_small(&self.room));
        }
        if class.nodes > max {
            return Err(format!(
                "a task needs {} jobs at once, and there are at most {max}: dcluster adapt --max {}",
                class.nodes, class.nodes
            ));
        }
        let Some(walltime) = shape.walltime else { return Ok(()) };
        let usable = pool.usable_life();
        if usable <= 0.0 {
            return Err(format!(
                "a job of {} is over before it could take a task (it starts no task in its last {}): ask for a longer \
                 walltime",
                seconds(walltime),
                seconds(shape.drain_lead),
            ));
        }
        if let Some(asked) = class.time_request
            && asked > usable
        {
            return Err(format!(
                "a task asks for {}, and a job has {} for tasks (walltime {}): ask for a longer walltime, or less \
                 with --time-request",
                seconds(asked),
                seconds(usable.max(0.0)),
                seconds(walltime),
            ));
        }
        // With half as much again as they ran: they had had most of a walltime like this one.
        let cut = class.durations;
        if class.time_request.is_none() && cut.ended == 0 && cut.cut >= CUTS && cut.longest / 1.5 >= usable * 0.8 {
            return Err(format!(
                "{} ran until the end of the walltime of {}, and none has finished: ask for a longer walltime",
                tasks(cut.cut),
                seconds(walltime),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapt::RunningTasks;

    fn class(ended: u64, mean: f64, running: &[(u32, f64)]) -> TaskClass {
        let running = running.iter().map(|(tasks, elapsed)| RunningTasks { job: 1, tasks: *tasks, elapsed: *elapsed });
        let durations = Durations { ended, cut: 0, mean, p90: mean * 2.0, longest: mean * 3.0 };
        TaskClass { ready: 1, running: running.collect(), durations, ..TaskClass::new("a") }
    }

    #[test]
    fn unknown_tasks_are_a_minute_or_twice_what_they_have_run() {
        assert_eq!(Estimate::of(&class(0, 0.0, &[]), None), Estimate { mean: 60.0, p90: 60.0, known: false });
        assert_eq!(Estimate::of(&class(0, 0.0, &[(3, 50.0)]), None).mean, 100.0);
    }

    #[test]
    fn what_is_remembered_counts_until_enough_is_seen() {
        let old = Durations { ended: 100, mean: 10.0, p90: 12.0, ..Durations::default() };
        let known = Estimate::of(&class(0, 0.0, &[]), Some(&old));
        assert_eq!((known.mean, known.p90, known.known), (10.0, 12.0, true));
        assert_eq!(Estimate::of(&class(5, 20.0, &[]), Some(&old)).mean, 15.0);
        assert_eq!(Estimate::of(&class(10, 20.0, &[]), Some(&old)).mean, 20.0);
    }

    #[test]
    fn late_tasks_lengthen_the_mean() {
        assert_eq!(Estimate::of(&class(1, 10.0, &[(1, 20.0)]), None).mean, 20.0);
        assert_eq!(Estimate::of(&class(1, 10.0, &[(1, 5.0)]), None).mean, 10.0);
        let estimate = Estimate { mean: 10.0, p90: 20.0, known: true };
        assert_eq!((estimate.remaining(4.0), estimate.remaining(30.0)), (6.0, 15.0));
    }
}
