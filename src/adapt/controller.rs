//! The decisions, in order: too many jobs, too few, more for the work there is, pending ones that nobody
//! needs, idle ones.

use super::demand::Wish;
use super::pack::{Packing, Room};
use super::pool::{Errand, GivenUp, Pool};
use super::words;
use super::{
    Decision, Durations, JobPhase, JobView, Learned, Numbers, Observation, Rule, Settings, Submission, TaskClass,
};
use std::collections::BTreeMap;

/// The longest time between two observations.
const PAUSE_MAX: f64 = 15.0;
/// The shortest time worth waiting for.
const PAUSE_MIN: f64 = 1.0;
/// While most of the work is of unknown length: jobs at once, and the seconds in which they double.
const SLOW_START: f64 = 16.0;
const SLOW_START_DOUBLES: f64 = 5.0;
/// Share of the learned idle time that is granted when no task is ready or will be by itself.
const NOTHING_LEFT: f64 = 0.25;
/// Classes whose durations are remembered.
const REMEMBERED_MAX: usize = 256;

/// What was seen of a job when it was last looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    pool: usize,
    wait_counted: bool,
    startup_counted: bool,
    idle_since: Option<f64>,
    /// What another job would have cost when it was last looked at.
    price: f64,
    given_up: bool,
}

/// Keeps the number of jobs between two bounds, by load. See the module page for what it is told and says.
#[derive(Clone, Debug)]
pub struct Controller {
    settings: Settings,
    pools: Vec<Pool>,
    remembered: BTreeMap<String, Durations>,
    tracks: BTreeMap<u32, Track>,
    /// Since when most of the work has been of unknown length.
    unknown_since: Option<f64>,
    /// Jobs that may be submitted now, where there is a rate, and when that was counted.
    tokens: f64,
    counted_at: Option<f64>,
    /// Whether tasks are ready, or will be when others have ended.
    work_left: bool,
}

/// The jobs of one pool, and the work for them.
#[derive(Debug, Default)]
struct Sight<'a> {
    pending: Vec<&'a JobView>,
    started: Vec<&'a JobView>,
    up: Vec<&'a JobView>,
    leaving: u32,
    work: f64,
    cover: f64,
    pending_cover: f64,
    by_work: u32,
    by_width: u32,
    /// Jobs of its that are needed whatever they are worth: no job there is can run some task.
    must: u32,
    /// Jobs that ready tasks could fill beyond those that have started.
    uncovered: u32,
}

impl Sight<'_> {
    fn staying(&self) -> u32 {
        number(self.pending.len() + self.started.len() + self.up.len())
    }
}

impl Controller {
    /// Makes one that knows what was learned earlier.
    pub fn new(settings: Settings, learned: Learned) -> Self {
        let nothing = super::LearnedPool::default();
        let pool =
            |shape: &super::PoolShape| Pool::new(shape.clone(), learned.pools.get(&shape.name).unwrap_or(&nothing));
        let pools = settings.pools.iter().map(pool).collect();
        let tokens = settings.rate_per_minute.unwrap_or(0.0).max(1.0);
        Self {
            settings,
            pools,
            remembered: learned.durations,
            tracks: BTreeMap::new(),
            unknown_since: None,
            tokens,
            counted_at: None,
            work_left: false,
        }
    }

    /// Returns what was learned, to be kept.
    pub fn learned(&self) -> Learned {
        let pools = self.pools.iter().map(|pool| (pool.shape().name.clone(), pool.learned())).collect();
        Learned { pools, durations: self.remembered.clone() }
    }

    /// Decides what to do now.
    pub fn decide(&mut self, seen: &Observation) -> Decision {
        self.learn(seen);
        let left = |class: &TaskClass| class.ready > 0 || class.waiting > 0;
        self.work_left = seen.classes.iter().any(left);
        let mut decision = Decision { now: seen.now, ..Decision::default() };
        let wishes = self.wishes(seen, &mut decision);
        let mut sights = self.sights(seen);
        self.measure(seen.now, &wishes, &mut sights);
        let total: u32 = sights.iter().map(|sight| sight.staying() + sight.leaving).sum();
        decision.numbers = self.numbers(&wishes, &sights);
        if total > self.settings.max {
            self.shrink(total - self.settings.max, &sights, &mut decision);
        } else {
            let limit = self.grow(seen, &wishes, &sights, total, &mut decision);
            self.cancel_surplus(seen.now, &sights, &mut decision);
            self.give_up_idle(seen.now, &wishes, &sights, &mut decision);
            decision.reason = words::reason(&decision, limit.as_deref());
        }
        if decision.reason.is_empty() {
            decision.reason = words::reason(&decision, None);
        }
        decision.next = self.next(seen.now, &sights);
        decision
    }

    fn pool_of(&self, name: &str) -> usize {
        self.pools.iter().position(|pool| pool.shape().name == name).unwrap_or(0)
    }

    /// Takes in what the jobs have done since the last time.
    fn learn(&mut self, seen: &Observation) {
        for expected in &seen.expected_waits {
            let at = self.pool_of(&expected.pool);
            if let Some(pool) = self.pools.get_mut(at) {
                pool.expect_wait(expected.wait, expected.walltime);
            }
        }
        for job in &seen.jobs {
            let pool = self.pool_of(&job.pool);
            let track = self.tracks.entry(job.id).or_insert(Track { pool, ..Track::default() });
            let Some(known) = self.pools.get_mut(pool) else { continue };
            if !track.wait_counted
                && let (Some(submitted), Some(started)) = (job.submitted_at, job.started_at)
            {
                track.wait_counted = true;
                known.add_wait(started - submitted, job.walltime);
            }
            if !track.startup_counted
                && let (Some(started), Some(up)) = (job.started_at, job.up_at)
            {
                track.startup_counted = true;
                known.add_startup(up - started);
            }
            if let Some(since) = track.idle_since
                && job.idle_since != Some(since)
                && !track.given_up
            {
                let price = if track.price > 0.0 { track.price } else { known.price(1) };
                let until = job.idle_since.unwrap_or(seen.now).min(seen.now);
                known.rental.end_gap((until - since).max(0.0), None, price);
            }
            track.idle_since = job.idle_since;
        }
        let here: std::collections::BTreeSet<u32> = seen.jobs.iter().map(|job| job.id).collect();
        self.tracks.retain(|id, _| here.contains(id));
        for (at, pool) in self.pools.iter_mut().enumerate() {
            let waits = |job: &&JobView| job.phase == JobPhase::Pending && !job.leaving && !job.silent;
            let own =
                seen.jobs.iter().filter(waits).filter(|job| self.tracks.get(&job.id).is_some_and(|t| t.pool == at));
            let ages: Vec<f64> = own.filter_map(|job| Some(seen.now - job.submitted_at?)).collect();
            pool.look(&ages);
        }
        for class in &seen.classes {
            self.remember(class);
        }
    }

    fn remember(&mut self, class: &TaskClass) {
        let fresh = class.durations;
        let before = self.remembered.get(&class.name);
        // Ten say more than what was kept from another day.
        if fresh.ended >= 10 || fresh.ended > before.map_or(0, |before| before.ended) {
            if before.is_none() && self.remembered.len() >= REMEMBERED_MAX {
                let least = self.remembered.iter().min_by_key(|(_, kept)| kept.ended).map(|(name, _)| name.clone());
                least.map(|name| self.remembered.remove(&name));
            }
            self.remembered.insert(class.name.clone(), Durations { cut: 0, ..fresh });
        }
    }

    fn wishes<'a>(&self, seen: &'a Observation, decision: &mut Decision) -> Vec<Wish<'a>> {
        let mut wishes: Vec<Wish<'a>> = Vec::new();
        for class in &seen.classes {
            let remembered = self.remembered.get(&class.name);
            let (wish, parked) = Wish::of(class, remembered, &self.pools, self.settings.max, self.settings.efficiency);
            decision.parked.extend(parked);
            wishes.push(wish);
        }
        wishes
    }

    fn sights<'a>(&self, seen: &'a Observation) -> Vec<Sight<'a>> {
        let mut sights: Vec<Sight<'a>> = self.pools.iter().map(|_| Sight::default()).collect();
        for job in &seen.jobs {
            let Some(sight) = sights.get_mut(self.tracks.get(&job.id).map_or(0, |track| track.pool)) else { continue };
            match job.phase {
                _ if job.leaving => sight.leaving += 1,
                JobPhase::Pending => sight.pending.push(job),
                JobPhase::Started => sight.started.push(job),
                JobPhase::Up => sight.up.push(job),
            }
        }
        for sight in &mut sights {
            sight.pending.sort_by_key(|job| job.id);
        }
        sights
    }

    /// Measures work against jobs, in jobs.
    fn measure(&self, now: f64, wishes: &[Wish<'_>], sights: &mut [Sight<'_>]) {
        let mut free = BTreeMap::new();
        let mut pool_of_job = BTreeMap::new();
        let mut packing = Packing::default();
        for (at, (sight, pool)) in sights.iter().zip(&self.pools).enumerate() {
            for job in sight.up.iter().chain(&sight.started) {
                free.insert(job.id, pool.whole());
                pool_of_job.insert(job.id, at);
            }
        }
        for wish in wishes {
            for some in &wish.class.running {
                if let Some(room) = free.get_mut(&some.job) {
                    room.take(&wish.room, some.tasks.into());
                }
                let Some(at) = pool_of_job.get(&some.job).copied() else { continue };
                let left = wish.estimate.remaining(some.elapsed) * f64::from(some.tasks);
                sights[at].work += left * wish.share(&self.pools[at]);
            }
            if let Some(home) = wish.home {
                let tasks = wish.ready as f64 * f64::from(wish.class.nodes.max(1));
                sights[home].work += tasks * wish.estimate.mean * wish.share(&self.pools[home]);
            }
        }
        for (at, (sight, pool)) in sights.iter_mut().zip(&self.pools).enumerate() {
            sight.cover_all(pool, self.settings.efficiency, now);
            for job in &sight.up {
                let room = if job.silent { Room::default() } else { free.get(&job.id).copied().unwrap_or_default() };
                packing.add(at, room, pool.life_left(job, now), 1);
            }
            packing.add(at, pool.whole(), pool.usable_life(), sight.started.len() as u64);
        }
        let mut started = packing.clone();
        for (at, (sight, pool)) in sights.iter().zip(&self.pools).enumerate() {
            packing.add(at, pool.whole(), pool.usable_life(), sight.pending.len() as u64);
        }
        let mut order: Vec<(usize, &Wish<'_>)> = wishes.iter().filter_map(|wish| Some((wish.home?, wish))).collect();
        let share = |(home, wish): &(usize, &Wish<'_>)| wish.room.share(&self.pools[*home].whole());
        order.sort_by(|a, b| share(b).total_cmp(&share(a)));
        for (home, wish) in order.into_iter().filter(|(_, wish)| wish.ready > 0) {
            let pool = &self.pools[home];
            let items = wish.items(pool);
            let open = |packing: &mut Packing| {
                let left = packing.place(items, |at| wish.able[at]);
                let left = super::pack::Items { count: left, ..items };
                number(packing.open(home, pool.whole(), f64::INFINITY, left) as usize)
            };
            let opened = open(&mut packing);
            let sight = &mut sights[home];
            sight.by_width = sight.by_width.saturating_add(opened);
            sight.uncovered = sight.uncovered.saturating_add(open(&mut started));
            if opened > 0 {
                let hosts = self.hosts(wish, sights, now);
                sights[home].must = sights[home].must.max(wish.class.nodes.max(1).saturating_sub(hosts));
            }
        }
        for (sight, pool) in sights.iter_mut().zip(&self.pools) {
            let worth = (sight.work - sight.cover).max(0.0) / pool.useful_life(self.settings.efficiency);
            sight.by_work = worth.min(f64::from(u32::MAX)) as u32;
        }
    }

    /// Returns how many of the jobs there are could ever run a task of a class.
    fn hosts(&self, wish: &Wish<'_>, sights: &[Sight<'_>], now: f64) -> u32 {
        let able = sights.iter().zip(&self.pools).enumerate().filter(|(at, _)| wish.able[*at]);
        let hosts = able.map(|(_, (sight, pool))| {
            let time = wish.time_needed(pool);
            let up = sight.up.iter().filter(|job| !job.silent && pool.life_left(job, now) >= time).count();
            up + sight.started.len() + sight.pending.len()
        });
        number(hosts.sum())
    }

    fn numbers(&self, wishes: &[Wish<'_>], sights: &[Sight<'_>]) -> Numbers {
        let sum = |part: fn(&Sight<'_>) -> u32| add_up(sights.iter().map(part));
        let running = |wish: &Wish<'_>| wish.class.running.iter().map(|some| u64::from(some.tasks)).sum::<u64>();
        let ready = wishes.iter().filter(|wish| wish.home.is_some()).map(|wish| wish.ready);
        let running = wishes.iter().map(running).fold(0, u64::saturating_add);
        let mut numbers = Numbers {
            // Both together are a number, too.
            ready: ready.fold(0, u64::saturating_add).min(u64::MAX - running),
            running,
            pending: sum(|sight| number(sight.pending.len())),
            started: sum(|sight| number(sight.started.len())),
            up: sum(|sight| number(sight.up.len())),
            leaving: sum(|sight| sight.leaving),
            idle: sum(|sight| number(sight.up.iter().filter(|job| job.idle_since.is_some()).count())),
            work: sights.iter().map(|sight| sight.work).fold(0.0, |sum, work| sum + work),
            cover: sights.iter().map(|sight| sight.cover).fold(0.0, |sum, cover| sum + cover),
            by_work: sum(|sight| sight.by_work),
            by_width: sum(|sight| sight.by_width),
            ..Numbers::default()
        };
        if let Some(pool) = self.pools.first() {
            numbers.wait_p25 = pool.wait(0.25);
            numbers.wait_p50 = pool.wait(0.5);
            numbers.startup = pool.startup();
            numbers.useful_life = pool.useful_life(self.settings.efficiency);
        }
        numbers
    }

    /// There are more jobs than the maximum: it was lowered. Pending ones go first, then those that do least.
    fn shrink(&self, excess: u32, sights: &[Sight<'_>], decision: &mut Decision) {
        let leaving: u32 = sights.iter().map(|sight| sight.leaving).sum();
        let mut left = excess.saturating_sub(leaving) as usize;
        let mut pending: Vec<u32> = sights.iter().flat_map(|sight| &sight.pending).map(|job| job.id).collect();
        pending.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        pending.truncate(left);
        left -= pending.len();
        let others = sights.iter().flat_map(|sight| sight.up.iter().chain(&sight.started));
        let mut others: Vec<(u32, std::cmp::Reverse<u32>)> =
            others.map(|job| (job.tasks, std::cmp::Reverse(job.id))).collect();
        others.sort_unstable();
        decision.cancel = pending;
        decision.drain = others.into_iter().take(left).map(|(_, id)| id.0).collect();
        decision.rule = Rule::AboveMax;
    }

    /// Asks for more jobs; returns what forbids more than that, if something does.
    fn grow(
        &mut self,
        seen: &Observation,
        wishes: &[Wish<'_>],
        sights: &[Sight<'_>],
        total: u32,
        decision: &mut Decision,
    ) -> Option<String> {
        let staying: u32 = sights.iter().map(Sight::staying).sum();
        let pending: u32 = sights.iter().map(|sight| number(sight.pending.len())).sum();
        let mut wanted: Vec<u32> = sights.iter().map(|sight| sight.by_work.min(sight.by_width)).collect();
        let slow = self.slow_start(seen.now, wishes, total);
        let mut budget = slow.unwrap_or(u32::MAX);
        for (wanted, sight) in wanted.iter_mut().zip(sights) {
            *wanted = (*wanted).min(budget).max(sight.must);
            budget = budget.saturating_sub(*wanted);
        }
        let worth = add_up(wanted.iter().copied());
        let must = sights.iter().any(|sight| sight.must > 0);
        let missing = self.settings.min.saturating_sub(staying.saturating_add(worth));
        if let Some(first) = wanted.first_mut() {
            *first = first.saturating_add(missing);
        }
        let wish = add_up(wanted.iter().copied());
        self.refill(seen.now);
        // The minimum waits for nothing but the maximum and the site.
        let below = self.settings.min.saturating_sub(staying);
        let rate = self.settings.rate_per_minute.map_or(u32::MAX, |_| self.tokens as u32).max(below);
        let queue = self.settings.max_pending.map_or(u32::MAX, |most| most.saturating_sub(pending)).max(below);
        let room = self.settings.max.saturating_sub(total);
        let site = seen.submit_max.unwrap_or(u32::MAX);
        let allowed = wish.min(room).min(queue).min(rate).min(site);
        let mut left = allowed;
        for (at, wanted) in wanted.into_iter().enumerate() {
            let jobs = wanted.min(left);
            left -= jobs;
            if jobs > 0 {
                self.ask(at, jobs, seen.now, wishes, decision);
            }
        }
        self.tokens -= f64::from(allowed);
        decision.rule = match allowed {
            0 if wish > 0 => Rule::Held,
            0 => Rule::Steady,
            _ if below > 0 => Rule::BelowMin,
            _ if must && staying == 0 => Rule::FirstJob,
            _ => Rule::MoreWork,
        };
        if allowed == wish {
            return None;
        }
        Some(if allowed == room {
            format!("the maximum is {}", self.settings.max)
        } else if allowed == site {
            seen.submit_limited_by.clone().unwrap_or_else(|| "the batch system takes no more now".to_owned())
        } else if allowed == queue {
            format!("{pending} are pending (--max-pending {})", self.settings.max_pending.unwrap_or_default())
        } else {
            format!(
                "no more than {} a minute are asked for (--rate)",
                self.settings.rate_per_minute.unwrap_or_default()
            )
        })
    }

    fn ask(&mut self, at: usize, jobs: u32, now: f64, wishes: &[Wish<'_>], decision: &mut Decision) {
        let pool = &mut self.pools[at];
        pool.buy_back(jobs, now);
        let own = wishes.iter().filter(|wish| wish.home == Some(at) && wish.ready > 0);
        // Tasks that wait for others are work, too, and nobody knows how much.
        let waiting = wishes.iter().any(|wish| wish.class.waiting > 0);
        let known = Errand { longest: Some(0.0), work: if waiting { f64::INFINITY } else { 0.0 } };
        let errand = own.fold(known, |errand, wish| Errand {
            longest: errand.longest.zip(wish.longest(pool)).map(|(a, b)| a.max(b)),
            work: errand.work + wish.ready as f64 * wish.estimate.mean * wish.share(pool) / f64::from(jobs),
        });
        for (jobs, walltime) in pool.choose_walltimes(jobs, errand) {
            decision.submit.push(Submission { pool: pool.shape().name.clone(), jobs, walltime });
        }
    }

    /// While most of the ready work is of unknown length, few jobs are asked for at first; returns how many more.
    fn slow_start(&mut self, now: f64, wishes: &[Wish<'_>], total: u32) -> Option<u32> {
        let work = |wish: &&Wish<'_>| wish.ready as f64 * wish.estimate.mean;
        let all: f64 = wishes.iter().filter(|wish| wish.home.is_some()).map(|wish| work(&wish)).sum();
        let unknown = wishes.iter().filter(|wish| wish.home.is_some() && !wish.estimate.known);
        let unknown: f64 = unknown.map(|wish| work(&wish)).sum();
        if unknown <= all / 2.0 {
            self.unknown_since = None;
            return None;
        }
        let since = *self.unknown_since.get_or_insert(now);
        let most = SLOW_START * ((now - since) / SLOW_START_DOUBLES).exp2();
        Some((most.min(f64::from(u32::MAX)) as u32).saturating_sub(total))
    }

    fn refill(&mut self, now: f64) {
        let before = self.counted_at.replace(now).unwrap_or(now);
        if let Some(rate) = self.settings.rate_per_minute {
            self.tokens = (self.tokens.max(0.0) + (now - before).max(0.0) * rate / 60.0).min(rate.max(1.0));
        }
    }

    /// Cancels pending jobs that have been superfluous for long enough, the newest first: the oldest carry
    /// the priority in the queue.
    fn cancel_surplus(&mut self, now: f64, sights: &[Sight<'_>], decision: &mut Decision) {
        let efficiency = self.settings.efficiency;
        let staying: u32 = sights.iter().map(Sight::staying).sum();
        let mut spare = staying.saturating_sub(self.settings.min);
        let work = self.work_left;
        for (sight, pool) in sights.iter().zip(&mut self.pools) {
            // Half of what a new one would need: those that were asked for are not given up at once.
            let life = pool.useful_life(efficiency) / 2.0;
            let worth = ((sight.work - sight.cover + sight.pending_cover) / life).ceil().clamp(0.0, 1e9) as u32;
            // What makes a task runnable at all stays, whatever it is worth.
            let keep = sight.uncovered.min(worth).max(u32::from(sight.uncovered > 0 && sight.up.is_empty()));
            let surplus = number(sight.pending.len()).saturating_sub(keep).min(spare);
            let asked = decision.submit.iter().any(|some| some.pool == pool.shape().name);
            if surplus == 0 || asked {
                pool.surplus_since = None;
                continue;
            }
            decision.numbers.surplus += surplus;
            let since = *pool.surplus_since.get_or_insert(now);
            if now - since < pool.patience(work) {
                continue;
            }
            pool.surplus_since = None;
            spare -= surplus;
            decision.cancel.extend(sight.pending.iter().rev().take(surplus as usize).map(|job| job.id));
            if matches!(decision.rule, Rule::Steady | Rule::Held) {
                decision.rule = Rule::SurplusPending;
            }
        }
    }

    /// Gives up jobs that have been idle for long enough, the longest first, and those with too little time.
    fn give_up_idle(&mut self, now: f64, wishes: &[Wish<'_>], sights: &[Sight<'_>], decision: &mut Decision) {
        let cancelled = number(decision.cancel.len());
        let staying: u32 = sights.iter().map(Sight::staying).sum();
        let mut spare = staying.saturating_sub(self.settings.min.saturating_add(cancelled));
        let mut level = staying - cancelled;
        for (at, sight) in sights.iter().enumerate() {
            let mut idle: Vec<(f64, &JobView)> =
                sight.up.iter().filter(|job| !job.silent).filter_map(|job| Some((job.idle_since?, *job))).collect();
            idle.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.id.cmp(&a.1.id)));
            for (since, job) in idle {
                let able = wishes.iter().filter(|wish| wish.ready > 0 && wish.able[at]);
                let shortest = able.map(|wish| wish.time_needed(&self.pools[at])).reduce(f64::min);
                let price = self.pools[at].price(level);
                if let Some(track) = self.tracks.get_mut(&job.id) {
                    track.price = price;
                }
                let threshold = self.threshold(at, job.id, since);
                let rule = match shortest {
                    // It may run them, and will within this turn.
                    Some(time) if self.pools[at].life_left(job, now) >= time && now - since < threshold + PAUSE_MAX => {
                        continue;
                    }
                    Some(time) if self.pools[at].life_left(job, now) < time => Rule::TooLittleTime,
                    _ if now - since >= threshold => Rule::Idle,
                    _ => continue,
                };
                // With work waiting, another one takes its place.
                if spare == 0 && (rule == Rule::Idle || decision.numbers.ready == 0) {
                    break;
                }
                spare = spare.saturating_sub(1);
                level -= 1;
                decision.drain.push(job.id);
                decision.numbers.idle_threshold = now - since;
                if matches!(decision.rule, Rule::Steady | Rule::Held) {
                    decision.rule = rule;
                }
                if let Some(track) = self.tracks.get_mut(&job.id).filter(|track| !track.given_up) {
                    track.given_up = true;
                    self.pools[at].given_up.push(GivenUp { since, idle: now - since, price });
                }
            }
        }
    }

    /// Returns after how long a job that has been idle since `since` is given up: one draw for each idle time.
    fn threshold(&self, pool: usize, job: u32, since: f64) -> f64 {
        if let Some(fixed) = self.settings.idle_timeout {
            return fixed;
        }
        let mixed = self.settings.seed ^ (u64::from(job) << 32) ^ since.to_bits().rotate_left(17);
        let draw = fastrand::Rng::with_seed(mixed).f64();
        let price = self.tracks.get(&job).map_or(0.0, |track| track.price);
        let threshold = self.pools[pool].rental.threshold(price, draw);
        if self.work_left { threshold } else { threshold * NOTHING_LEFT }
    }

    /// Returns when something may have to be decided although nothing happens.
    fn next(&self, now: f64, sights: &[Sight<'_>]) -> f64 {
        let mut next = now + PAUSE_MAX;
        if self.unknown_since.is_some() {
            next = now + PAUSE_MIN;
        }
        for (at, (sight, pool)) in sights.iter().zip(&self.pools).enumerate() {
            if let Some(since) = pool.surplus_since {
                next = next.min(since + pool.patience(self.work_left));
            }
            for job in &sight.up {
                if let Some(since) = job.idle_since {
                    let due = since + self.threshold(at, job.id, since);
                    next = if due > now { next.min(due) } else { next };
                }
            }
        }
        next.max(now + PAUSE_MIN)
    }
}

impl Sight<'_> {
    /// Adds up what the jobs there are will have done when a new one could be of use.
    fn cover_all(&mut self, pool: &Pool, efficiency: f64, now: f64) {
        let startup = pool.startup();
        let horizon = pool.wait(0.25) + startup + pool.useful_life(efficiency);
        let up = self.up.iter().map(|job| pool.life_left(job, now).min(horizon).max(0.0));
        let started = self.started.iter().map(|job| {
            let rest = startup - (now - job.started_at.unwrap_or(now));
            (horizon - rest.max(0.0)).max(0.0)
        });
        let pending = self.pending.iter().map(|job| {
            let wait = pool.wait_left(now - job.submitted_at.unwrap_or(now));
            (horizon - wait - startup).max(0.0)
        });
        self.pending_cover = pending.sum();
        self.cover = up.sum::<f64>() + started.sum::<f64>() + self.pending_cover;
    }
}

/// Adds up numbers of jobs. Those that tasks would fill are as many as the tasks that somebody says there are.
fn add_up(counts: impl Iterator<Item = u32>) -> u32 {
    counts.fold(0, u32::saturating_add)
}

/// Counts of jobs are bounded by the settings' maximum, far below 2³².
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
