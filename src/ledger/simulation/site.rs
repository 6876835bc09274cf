//! The batch system of the simulation: what jobs really do, and what is said about them.

use super::World;
use crate::backends::sentinel::Sentinel;
use crate::backends::{BackendError, EndedHow, ErrorClass, JobRef, Observation, Observed, Submit};
use crate::ledger::{Moment, Order};
use crate::runtime::ids::{JobName, JobSeq, NativeId};

pub(super) const SECOND: u64 = 1000;
pub(super) const ORPHAN_TIMEOUT: u64 = 60;
/// The worst of the model: a command takes effect, a job becomes visible, a job is hidden, a listing is old.
pub(super) const EFFECT_MAX: u64 = 4 * SECOND;
pub(super) const VISIBLE_MAX: u64 = 3 * SECOND;
pub(super) const HIDDEN_MAX: u64 = 8 * SECOND;
pub(super) const STALE_MAX: u64 = 6 * SECOND;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Pending,
    Running,
    Gone(EndedHow, Option<i32>),
}

/// A job as it really is.
#[derive(Debug)]
pub(super) struct Real {
    pub(super) name: JobName,
    pub(super) id: NativeId,
    pub(super) phase: Phase,
    pub(super) since: u64,
    pub(super) before: Phase,
    pub(super) visible_at: u64,
    pub(super) hidden: (u64, u64),
    pub(super) run_at: u64,
    pub(super) up_at: u64,
    pub(super) end_at: u64,
    pub(super) end: Phase,
    pub(super) cancel_at: Option<u64>,
    pub(super) connected: bool,
    /// No packet passes until then.
    pub(super) cut_until: u64,
    pub(super) cut_since: Option<u64>,
    pub(super) leave_at: Option<u64>,
    pub(super) restarts: u32,
    pub(super) sentinel: Option<(u64, Sentinel)>,
    /// No query knows anything of it any more.
    pub(super) forgotten: bool,
    pub(super) accounted_at: u64,
    /// When the batch system takes the failed job back into its queue, and whether it has.
    pub(super) rises_at: u64,
    pub(super) risen: bool,
}

impl Real {
    pub(super) fn live(&self) -> bool {
        !matches!(self.phase, Phase::Gone(..))
    }
}

pub(super) enum Answer {
    Create(Vec<(JobSeq, JobName)>),
    Submitted(Submit, Vec<NativeId>),
    SubmitFailed(Submit, BackendError),
    Listed(Vec<JobRef>, Vec<Observation>),
    Found(Vec<Observation>),
    Accounted(Vec<JobRef>, Vec<Observation>),
    Cancelled(Vec<JobRef>),
    Sentinels(Vec<(JobSeq, Sentinel)>),
    Failed(Order, BackendError),
}

/// What this seed's site is like.
#[derive(Debug)]
pub(super) struct Site {
    /// Ended jobs are not listed.
    pub(super) forgets: bool,
    pub(super) accounting: bool,
    pub(super) limit: Option<usize>,
    pub(super) faults: bool,
    /// Chance in 100 that a query fails, lies; that a submission goes wrong; of a crash per 1,000 steps.
    pub(super) query_fails: u32,
    pub(super) query_lies: u32,
    pub(super) submit_fails: u32,
    pub(super) crash: u32,
    /// Jobs end soon after their start.
    pub(super) short: bool,
}

pub(super) fn error(class: ErrorClass) -> BackendError {
    BackendError { class, command: "sbatch".to_owned(), says: "no".to_owned(), fix: None }
}

impl World {
    /// Jobs and workers go on by themselves.
    pub(super) fn live_on(&mut self) {
        let (now, moment) = (self.now, self.moment());
        for seq in self.real.keys().copied().collect::<Vec<_>>() {
            let mut real = self.real.remove(&seq).expect("a key");
            self.live_on_job(seq, &mut real, now, moment);
            self.real.insert(seq, real);
        }
    }

    pub(super) fn live_on_job(&mut self, seq: JobSeq, real: &mut Real, now: u64, moment: Moment) {
        if self.site.faults && self.rng.u32(..1000) < 10 && now > real.visible_at.max(real.hidden.1) + 15 * SECOND {
            real.hidden = (now, now + self.rng.u64(..HIDDEN_MAX));
        }
        if real.cancel_at.is_some_and(|at| at <= now) && real.live() {
            self.finish(real, Phase::Gone(EndedHow::Cancelled, Some(143)), true);
        }
        match real.phase {
            Phase::Pending if now >= real.run_at => {
                real.before = real.phase;
                real.phase = Phase::Running;
                real.since = now;
                real.up_at = now + self.rng.u64(200..5000);
                let life = if self.site.short { self.rng.u64(1..30) } else { self.rng.u64(20..600) };
                let life = if self.site.faults { life } else { 1_000_000 };
                real.end_at = now + life * SECOND;
                real.end = [
                    Phase::Gone(EndedHow::Exited, Some(0)),
                    Phase::Gone(EndedHow::Exited, Some(9)),
                    Phase::Gone(EndedHow::Walltime, Some(143)),
                    Phase::Gone(EndedHow::Preempted, Some(143)),
                    Phase::Gone(EndedHow::NodeFailed, None),
                    Phase::Gone(EndedHow::OutOfMemory, Some(137)),
                    Phase::Gone(EndedHow::Cancelled, Some(143)),
                    Phase::Pending,
                ][self.rng.usize(..8)];
            }
            Phase::Running if now >= real.end_at => match real.end {
                Phase::Pending => self.requeue(seq, real, moment),
                end => {
                    self.finish(real, end, end != Phase::Gone(EndedHow::NodeFailed, None));
                    if matches!(end, Phase::Gone(EndedHow::NodeFailed, _)) && self.rng.u8(..4) == 0 {
                        real.rises_at = now + self.rng.u64(20_000..60_000);
                    }
                    real.forgotten = real.rises_at == u64::MAX && self.site.faults && self.rng.u8(..20) == 0;
                    if real.forgotten {
                        real.sentinel = None;
                    }
                }
            },
            Phase::Running => self.work(seq, real, now, moment),
            Phase::Pending => {}
            Phase::Gone(..) => {
                if now >= real.rises_at && !real.connected {
                    (real.before, real.phase, real.since) = (real.phase, Phase::Pending, now);
                    (real.risen, real.rises_at, real.cancel_at) = (true, u64::MAX, None);
                    real.restarts += 1;
                    real.run_at = now + self.rng.u64(..600_000);
                }
                if real.connected && now >= real.since + 300 {
                    real.connected = false;
                    self.ledger.on_worker_silent(seq, moment);
                }
            }
        }
    }

    /// What a worker does while its job runs.
    pub(super) fn work(&mut self, seq: JobSeq, real: &mut Real, now: u64, moment: Moment) {
        if self.site.faults && self.rng.u32(..1000) < 3 {
            real.cut_until = now + self.rng.u64(..100 * SECOND);
        }
        if now < real.cut_until {
            if real.connected {
                real.connected = false;
                real.cut_since = Some(now);
                self.ledger.on_worker_silent(seq, moment);
            }
            if real.cut_since.is_some_and(|since| now > since + ORPHAN_TIMEOUT * SECOND) {
                self.finish(real, Phase::Gone(EndedHow::Exited, Some(75)), true);
            }
            return;
        }
        if !real.connected && now >= real.up_at {
            match self.ledger.on_worker_up(&real.name, "n1", moment) {
                Ok(_) => {
                    real.connected = true;
                    real.cut_since = None;
                }
                Err(_) => self.finish(real, Phase::Gone(EndedHow::Exited, Some(0)), true),
            }
        }
        let told = self.ledger.job(seq).is_some_and(|job| job.draining) || self.stopping;
        if real.connected && told && real.leave_at.is_none() {
            let stubborn = self.site.faults && self.rng.u8(..10) == 0;
            real.leave_at = Some(now + if stubborn { 1_000_000_000 } else { self.rng.u64(100..12_000) });
            self.ledger.on_worker_draining(seq);
        }
        if real.connected && real.leave_at.is_some_and(|at| at <= now) {
            real.connected = false;
            self.ledger.on_worker_goodbye(seq, moment);
            self.finish(real, Phase::Gone(EndedHow::Exited, Some(0)), true);
        }
    }

    pub(super) fn requeue(&mut self, seq: JobSeq, real: &mut Real, moment: Moment) {
        if real.connected {
            real.connected = false;
            self.ledger.on_worker_silent(seq, moment);
        }
        let had_sentinel = self.rng.bool();
        self.finish(real, Phase::Pending, had_sentinel);
        real.restarts += 1;
        real.run_at = self.now + self.rng.u64(15_000..60_000);
        real.leave_at = None;
    }

    pub(super) fn finish(&mut self, real: &mut Real, phase: Phase, sentinel: bool) {
        real.before = real.phase;
        real.phase = phase;
        real.since = self.now;
        real.accounted_at = self.now + self.rng.u64(..30_000);
        if sentinel && real.before == Phase::Running && !(self.site.faults && self.rng.u8(..5) == 0) {
            let exit_code = match phase {
                Phase::Gone(_, code) => code.unwrap_or(1),
                _ => 143,
            };
            let (name, restart) = (real.id.0.clone(), real.restarts);
            let sentinel = Sentinel { exit_code, signal: None, time: 0, node: "n1".to_owned(), id: name, restart };
            real.sentinel = Some((self.now + self.rng.u64(..3000), sentinel));
        }
    }

    pub(super) fn observation(&mut self, real: &Real, stale: bool) -> Option<Observation> {
        if real.forgotten || self.now < real.visible_at || (real.hidden.0..real.hidden.1).contains(&self.now) {
            return None;
        }
        let phase = if stale && self.now < real.since + STALE_MAX { real.before } else { real.phase };
        let state = match phase {
            _ if self.site.faults && self.site.query_lies > 0 && self.rng.u8(..50) == 0 => {
                Observed::Unknown("QUX".to_owned())
            }
            Phase::Pending => Observed::Pending,
            Phase::Running => Observed::Running,
            Phase::Gone(..) if self.site.forgets => return None,
            Phase::Gone(how, exit_code) => Observed::Ended { how, exit_code },
        };
        Some(Observation {
            name: real.name.clone(),
            id: real.id.clone(),
            state,
            reason: String::new(),
            node: None,
            seconds_left: None,
        })
    }

    pub(super) fn observe(&mut self, which: impl Fn(&JobSeq) -> bool) -> Vec<Observation> {
        let stale = {
            let lies = self.site.query_lies;
            self.chance(lies)
        };
        let real = std::mem::take(&mut self.real);
        let seen =
            real.iter().filter(|(seq, _)| which(seq)).filter_map(|(_, real)| self.observation(real, stale)).collect();
        self.real = real;
        seen
    }

    /// Carries an order out: what it does, and when what answer comes.
    pub(super) fn carry_out(&mut self, order: Order) {
        let at = self.now + self.rng.u64(10..2000);
        let fails = {
            let percent = self.site.query_fails;
            self.chance(percent)
        };
        let epoch = self.epoch;
        let answer = match order {
            Order::Submit(submit) => return self.submit(submit),
            Order::Expect(_) | Order::Drain(_) => return,
            Order::ReadSentinels(jobs) => Answer::Sentinels(
                jobs.iter()
                    .filter_map(|(seq, _)| {
                        let (visible, sentinel) = self.real.get(seq)?.sentinel.as_ref()?;
                        (*visible <= self.now).then(|| (*seq, sentinel.clone()))
                    })
                    .collect(),
            ),
            order if fails => Answer::Failed(order, error(ErrorClass::Transient)),
            Order::List(jobs) => {
                // By id: a job whose id was told wrongly is not in it.
                let mut asked = seqs(&jobs);
                let ids: Vec<_> = jobs.iter().filter_map(|job| job.id.clone()).collect();
                asked.retain(|seq| self.real.get(seq).is_some_and(|real| ids.contains(&real.id)));
                let seen = self.observe(|seq| asked.contains(seq));
                Answer::Listed(jobs, seen)
            }
            Order::Find => Answer::Found(self.observe(|_| true)),
            Order::Account(jobs) => {
                let mut seen = Vec::new();
                for seq in seqs(&jobs) {
                    let Some(real) = self.real.get(&seq).filter(|real| self.site.accounting && !real.forgotten) else {
                        continue;
                    };
                    if let Phase::Gone(how, exit_code) = real.phase
                        && self.now >= real.accounted_at
                    {
                        seen.push(Observation {
                            name: real.name.clone(),
                            id: real.id.clone(),
                            state: Observed::Ended { how, exit_code },
                            reason: String::new(),
                            node: None,
                            seconds_left: None,
                        });
                    }
                }
                Answer::Accounted(jobs, seen)
            }
            Order::Cancel(jobs) => {
                for (seq, job) in seqs(&jobs).into_iter().zip(&jobs) {
                    let at = self.now + self.rng.u64(500..20_000);
                    let real = self.real.get_mut(&seq).filter(|real| Some(&real.id) == job.id.as_ref());
                    if let Some(real) = real {
                        self.asked_to_cancel.insert(seq);
                        real.cancel_at.get_or_insert(at);
                    }
                }
                Answer::Cancelled(jobs)
            }
        };
        self.answers.push((at, epoch, answer));
    }

    pub(super) fn submit(&mut self, submit: Submit) {
        self.submits.push_back(self.now);
        for (seq, name) in &submit.jobs {
            assert!(self.durable.contains_key(seq), "J1: {name} is submitted without a durable record");
            let coming = self.answers.iter().any(
                |(_, _, answer)| matches!(answer, Answer::Create(jobs) if jobs.iter().any(|(other, _)| other == seq)),
            );
            assert!(!self.real.contains_key(seq) && !coming, "J2: {name} is submitted twice");
        }
        let effect = self.now + self.rng.u64(10..EFFECT_MAX);
        let at = effect + self.rng.u64(..2000);
        let live = self.real.values().filter(|real| real.live()).count() + self.coming;
        let jobs = submit.jobs.clone();
        let goes_wrong = {
            let percent = self.site.submit_fails;
            self.chance(percent)
        };
        let ids =
            |first: u64, count: usize| (0..count as u64).map(|offset| NativeId((first + offset).to_string())).collect();
        let first = self.next_id;
        let (creates, answer) = if self.site.limit.is_some_and(|limit| live + submit.jobs.len() > limit) {
            (false, Answer::SubmitFailed(submit, error(ErrorClass::Limit)))
        } else if !goes_wrong {
            let count = submit.jobs.len();
            (true, Answer::Submitted(submit, ids(first, count)))
        } else {
            match self.rng.u8(..12) {
                0 => (false, Answer::SubmitFailed(submit, error(ErrorClass::Permanent))),
                1..=4 => (false, Answer::SubmitFailed(submit, error(ErrorClass::Transient))),
                5..=7 => (true, Answer::SubmitFailed(submit, error(ErrorClass::Ambiguous))),
                8 => (true, Answer::Submitted(submit, Vec::new())),
                9 => (self.rng.bool(), Answer::Submitted(submit, ids(900_000 + first, 1))),
                _ => (false, Answer::SubmitFailed(submit, error(ErrorClass::Ambiguous))),
            }
        };
        if creates {
            self.coming += jobs.len();
            self.next_id += jobs.len() as u64;
            for (offset, (seq, _)) in jobs.iter().enumerate() {
                // The id is fixed now, the job comes later.
                self.ids.insert(*seq, NativeId((first + offset as u64).to_string()));
            }
            self.answers.push((effect, 0, Answer::Create(jobs)));
        }
        let epoch = self.epoch;
        self.answers.push((at, epoch, answer));
    }

    pub(super) fn create(&mut self, jobs: Vec<(JobSeq, JobName)>) {
        for (seq, name) in jobs {
            self.coming -= 1;
            let id = self.ids.get(&seq).cloned().expect("chosen at submission");
            let (visible, wait) =
                if self.site.faults { (self.rng.u64(..VISIBLE_MAX), self.rng.u64(..60_000)) } else { (0, 2000) };
            let real = Real {
                name,
                id,
                phase: Phase::Pending,
                since: self.now,
                before: Phase::Pending,
                visible_at: self.now + visible,
                hidden: (0, 0),
                run_at: self.now + wait,
                up_at: 0,
                end_at: u64::MAX,
                end: Phase::Pending,
                cancel_at: None,
                connected: false,
                cut_until: 0,
                cut_since: None,
                leave_at: None,
                restarts: 0,
                sentinel: None,
                forgotten: false,
                accounted_at: 0,
                rises_at: u64::MAX,
                risen: false,
            };
            assert!(self.real.insert(seq, real).is_none());
        }
    }
}

fn seqs(jobs: &[JobRef]) -> Vec<JobSeq> {
    jobs.iter().filter_map(|job| Some(JobName::parse("abcd", job.name.as_str())?.1)).collect()
}
