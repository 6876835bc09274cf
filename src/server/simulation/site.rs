//! The batch system: what jobs really do, and what is said about them; it fails, lies, forgets and takes back.

use super::links::Peer;
use super::process::{LETTERS, Process};
use super::world::World;
use crate::backends::sentinel::Sentinel;
use crate::backends::{BackendError, EndedHow, ErrorClass, JobRef, Observation, Observed, Submit};
use crate::ledger::Order;
use crate::runtime::ids::{JobName, JobSeq, NativeId};
use crate::server::core::Done;

/// The worst of it in milliseconds: a command takes effect, a job becomes visible, is hidden, a listing is old.
const EFFECT_MAX: u64 = 4000;
const VISIBLE_MAX: u64 = 3000;
const HIDDEN_MAX: u64 = 8000;
const STALE_MAX: u64 = 6000;
/// From TERM to KILL.
const KILL_WAIT: u64 = 5000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Pending,
    Running,
    Gone(EndedHow, Option<i32>),
}

/// A job as it really is.
#[derive(Debug)]
pub(super) struct Real {
    name: JobName,
    id: NativeId,
    phase: Phase,
    since: u64,
    before: Phase,
    visible_at: u64,
    hidden: (u64, u64),
    run_at: u64,
    /// When its worker starts, and that worker.
    up_at: u64,
    machine: Option<u32>,
    /// When the batch system ends it, and how.
    end_at: u64,
    end: Phase,
    warned: bool,
    cancel_at: Option<u64>,
    script_ends: Option<(u64, i32)>,
    restarts: u32,
    sentinel: Option<(u64, Sentinel)>,
    accounted_at: u64,
}

impl Real {
    pub(super) fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Gone(..))
    }
}

fn error(class: ErrorClass) -> BackendError {
    BackendError { class, command: "sbatch".to_owned(), says: "no".to_owned(), fix: None }
}

fn seqs(jobs: &[JobRef]) -> Vec<JobSeq> {
    jobs.iter().filter_map(|job| Some(JobName::parse(LETTERS, job.name.as_str())?.1)).collect()
}

impl World {
    fn percent(&mut self, chance: u32) -> bool {
        self.lot(chance, 100)
    }

    pub(super) fn heal_site(&mut self) {
        self.swarm.site.limit = None;
        for real in self.jobs.values_mut() {
            real.hidden = (0, 0);
            if real.phase == Phase::Running && !real.warned {
                real.end_at = u64::MAX;
            }
        }
    }

    pub(super) fn run_site(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.coming).into_iter().partition(|(at, _)| *at <= now);
        self.coming = later;
        for (_, submit) in due {
            self.create(submit);
        }
        for seq in self.jobs.keys().copied().collect::<Vec<_>>() {
            self.run_job(seq);
        }
    }

    fn run_job(&mut self, seq: JobSeq) {
        let now = self.now;
        let hides = self.lot(10, 10_000);
        let length = self.rng.u64(..HIDDEN_MAX);
        let real = self.jobs.get_mut(&seq).expect("a key");
        if hides && now > real.visible_at.max(real.hidden.1) + 15_000 {
            real.hidden = (now, now + length);
        }
        match real.phase {
            Phase::Gone(..) => {}
            Phase::Pending if real.cancel_at.is_some_and(|at| at <= now) => {
                self.finish(seq, Phase::Gone(EndedHow::Cancelled, None));
            }
            Phase::Pending if now >= real.run_at => self.begin(seq),
            Phase::Pending => {}
            Phase::Running => self.go_on(seq),
        }
    }

    fn begin(&mut self, seq: JobSeq) {
        let now = self.now;
        let life = match self.swarm.site.life {
            Some(life) if self.faults => 1000 * self.rng.u64(5..life),
            _ => u64::MAX / 2,
        };
        let up = self.rng.u64(200..5000);
        let ends = [
            Phase::Gone(EndedHow::Walltime, Some(143)),
            Phase::Gone(EndedHow::Preempted, Some(143)),
            Phase::Gone(EndedHow::NodeFailed, None),
            Phase::Gone(EndedHow::OutOfMemory, Some(137)),
            Phase::Gone(EndedHow::Cancelled, Some(143)),
            Phase::Pending,
        ];
        let end = if self.swarm.site.walltime { ends[0] } else { ends[self.rng.usize(..ends.len())] };
        let real = self.jobs.get_mut(&seq).expect("a key");
        (real.before, real.phase, real.since) = (real.phase, Phase::Running, now);
        (real.up_at, real.end_at, real.end, real.warned) = (now + up, now + life, end, false);
        real.machine = None;
    }

    fn go_on(&mut self, seq: JobSeq) {
        let now = self.now;
        let real = self.jobs.get_mut(&seq).expect("a key");
        if let Some((at, code)) = real.script_ends {
            if at <= now {
                real.script_ends = None;
                self.finish(seq, Phase::Gone(EndedHow::Exited, Some(code)));
            }
            return;
        }
        if let Some(at) = real.cancel_at
            && at <= now
            && !real.warned
        {
            (real.end_at, real.end) = (now + KILL_WAIT, Phase::Gone(EndedHow::Cancelled, Some(143)));
        }
        if real.machine.is_none() && now >= real.up_at {
            let walltime = matches!(real.end, Phase::Gone(EndedHow::Walltime, _)) && real.end_at < u64::MAX / 2;
            let left = walltime.then(|| real.end_at.saturating_sub(now));
            let name = real.name.clone();
            let machine = self.boot(seq, name, left);
            self.jobs.get_mut(&seq).expect("a key").machine = Some(machine);
            return;
        }
        let gentle =
            !matches!(real.end, Phase::Gone(EndedHow::NodeFailed | EndedHow::OutOfMemory | EndedHow::Walltime, _));
        let machine = real.machine;
        if now + KILL_WAIT >= real.end_at && !real.warned && gentle {
            real.warned = true;
            if let Some(machine) = machine {
                self.signal_machine(machine);
            }
            return;
        }
        if now >= real.end_at {
            let end = real.end;
            if let Some(machine) = machine {
                if matches!(end, Phase::Gone(EndedHow::NodeFailed, _)) {
                    // Nobody closes anything.
                    for link in self.links_of(Peer::Machine(machine)) {
                        self.silence(link);
                    }
                    self.mark("a node failed");
                }
                self.end_machine(machine, None);
            }
            self.jobs.get_mut(&seq).expect("a key").script_ends = None;
            self.finish(seq, end);
        }
    }

    /// The worker is gone, by itself or not: its script sweeps up and ends.
    pub(super) fn script_ends(&mut self, seq: JobSeq, machine: u32, code: i32) {
        let at = self.now + self.rng.u64(1..300);
        if let Some(real) = self.jobs.get_mut(&seq).filter(|real| real.machine == Some(machine)) {
            real.script_ends = Some((at, code));
        }
    }

    fn finish(&mut self, seq: JobSeq, phase: Phase) {
        let now = self.now;
        let accounted = now + self.rng.u64(..30_000);
        let visible = now + self.rng.u64(..3000);
        let lost = self.faults && self.rng.u8(..5) == 0;
        let again = now + self.rng.u64(15_000..60_000);
        let real = self.jobs.get_mut(&seq).expect("a key");
        let ran = real.phase == Phase::Running;
        let code = match phase {
            Phase::Gone(EndedHow::NodeFailed, _) => None,
            Phase::Gone(_, code) => code,
            _ => Some(143),
        };
        if let Some(exit_code) = code.filter(|_| ran && !lost) {
            let (id, restart) = (real.id.0.clone(), real.restarts);
            let sentinel = Sentinel { exit_code, signal: None, time: 0, node: "n".to_owned(), id, restart };
            real.sentinel = Some((visible, sentinel));
        }
        (real.before, real.phase, real.since) = (real.phase, phase, now);
        real.accounted_at = accounted;
        if phase == Phase::Pending {
            real.restarts += 1;
            (real.run_at, real.machine) = (again, None);
            self.mark("a job was requeued");
        }
        self.trace("job ended", u64::from(seq.0), 0);
    }

    fn observation(&mut self, seq: JobSeq, stale: bool) -> Option<Observation> {
        let strange = self.swarm.site.query_lies > 0 && self.lot(2, 100);
        let real = &self.jobs[&seq];
        if self.now < real.visible_at || (real.hidden.0..real.hidden.1).contains(&self.now) {
            return None;
        }
        let phase = if stale && self.now < real.since + STALE_MAX { real.before } else { real.phase };
        let state = match phase {
            _ if strange => Observed::Unknown("QUX".to_owned()),
            Phase::Pending => Observed::Pending,
            Phase::Running => Observed::Running,
            Phase::Gone(..) if self.swarm.site.forgets => return None,
            Phase::Gone(how, exit_code) => Observed::Ended { how, exit_code },
        };
        let left = self.swarm.site.walltime && real.phase == Phase::Running && real.end_at < u64::MAX / 2;
        Some(Observation {
            name: real.name.clone(),
            id: real.id.clone(),
            state,
            reason: String::new(),
            node: None,
            seconds_left: left.then(|| real.end_at.saturating_sub(self.now) / 1000),
        })
    }

    fn observe(&mut self, which: impl Fn(JobSeq, &Real) -> bool) -> Vec<Observation> {
        let stale = self.percent(self.swarm.site.query_lies);
        let asked: Vec<JobSeq> =
            self.jobs.iter().filter(|(seq, real)| which(**seq, real)).map(|(seq, _)| *seq).collect();
        let empty = self.swarm.site.query_lies > 0 && self.lot(1, 30);
        if empty && asked.iter().any(|seq| self.jobs[seq].is_live()) {
            self.mark("a listing was empty although jobs live");
            return Vec::new();
        }
        asked.into_iter().filter_map(|seq| self.observation(seq, stale)).collect()
    }

    /// Carries an order of a server out.
    pub(super) fn carry_out(&mut self, process: &mut Process, order: Order) {
        self.trace("order", process.id, 0);
        if self.loud {
            self.say(&format!("{order:?}"));
        }
        let at = self.now + self.rng.u64(10..2000);
        let fails = self.percent(self.swarm.site.query_fails);
        let now = self.now;
        let done = match order {
            Order::Submit(submit) => {
                let (at, done) = self.submit(submit);
                process.serving.as_mut().expect("it serves").answer(at, done);
                return;
            }
            Order::Drain(_) => return,
            Order::Expect(_) => Done::Expected(Vec::new()),
            Order::ReadSentinels(jobs) => Done::Sentinels(
                jobs.iter()
                    .filter_map(|(seq, _)| {
                        let (visible, sentinel) = self.jobs.get(seq)?.sentinel.as_ref()?;
                        (*visible <= now).then(|| (*seq, sentinel.clone()))
                    })
                    .collect(),
            ),
            order if fails => {
                self.mark("a query failed");
                Done::Failed(order, error(ErrorClass::Transient))
            }
            Order::List(jobs) => {
                let asked = seqs(&jobs);
                let ids: Vec<_> = jobs.iter().filter_map(|job| job.id.clone()).collect();
                let seen = self.observe(|seq, real| asked.contains(&seq) && ids.contains(&real.id));
                Done::Listed(jobs, seen)
            }
            Order::Find => Done::Found(self.observe(|_, _| true)),
            Order::Account(jobs) => {
                let mut seen = Vec::new();
                for real in seqs(&jobs).iter().filter_map(|seq| self.jobs.get(seq)) {
                    if let Phase::Gone(how, exit_code) = real.phase
                        && self.swarm.site.accounting
                        && now >= real.accounted_at
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
                Done::Accounted(jobs, seen)
            }
            Order::Cancel(jobs) => {
                for (seq, job) in seqs(&jobs).into_iter().zip(&jobs) {
                    let at = now + self.rng.u64(500..20_000);
                    let real = self.jobs.get_mut(&seq).filter(|real| Some(&real.id) == job.id.as_ref());
                    if let Some(real) = real {
                        real.cancel_at.get_or_insert(at);
                    }
                }
                Done::Cancelled(jobs)
            }
        };
        process.serving.as_mut().expect("it serves").answer(at, done);
    }

    fn submit(&mut self, submit: Submit) -> (u64, Done) {
        self.check_submit(&submit);
        let effect = self.now + self.rng.u64(10..EFFECT_MAX);
        let at = effect + self.rng.u64(..2000);
        let live = self.live_jobs();
        let first = self.truth.next_id;
        let count = submit.jobs.len();
        let ids = |first: u64, count: usize| (0..count as u64).map(|n| NativeId((first + n).to_string())).collect();
        let wrong = self.percent(self.swarm.site.submit_fails);
        let (creates, done) = if self.swarm.site.limit.is_some_and(|limit| live + count > limit) {
            self.mark("the site's limit was met");
            (false, Done::SubmitFailed(submit.clone(), error(ErrorClass::Limit)))
        } else if !wrong {
            (true, Done::Submitted(submit.clone(), ids(first, count)))
        } else {
            match self.rng.u8(..12) {
                0 => (false, Done::SubmitFailed(submit.clone(), error(ErrorClass::Permanent))),
                1..=4 => (false, Done::SubmitFailed(submit.clone(), error(ErrorClass::Transient))),
                5..=7 => {
                    self.mark("a submission that failed made jobs");
                    (true, Done::SubmitFailed(submit.clone(), error(ErrorClass::Ambiguous)))
                }
                8 => (true, Done::Submitted(submit.clone(), Vec::new())),
                9 => (self.rng.bool(), Done::Submitted(submit.clone(), ids(900_000 + first, 1))),
                _ => {
                    self.mark("a submission made nothing, and nobody knows");
                    (false, Done::SubmitFailed(submit.clone(), error(ErrorClass::Ambiguous)))
                }
            }
        };
        if creates {
            for (n, (seq, _)) in submit.jobs.iter().enumerate() {
                self.ids.insert(*seq, NativeId((first + n as u64).to_string()));
            }
            self.truth.next_id += count as u64;
            self.coming.push((effect, submit));
        }
        (at, done)
    }

    /// Jobs that live or will.
    pub(super) fn live_jobs(&self) -> usize {
        let coming: usize = self.coming.iter().map(|(_, submit)| submit.jobs.len()).sum();
        self.jobs.values().filter(|real| real.is_live()).count() + coming
    }

    fn create(&mut self, submit: Submit) {
        for (seq, name) in submit.jobs {
            let (visible, wait) =
                if self.faults { (self.rng.u64(..VISIBLE_MAX), self.rng.u64(..20_000)) } else { (0, 2000) };
            let real = Real {
                name,
                id: self.ids[&seq].clone(),
                phase: Phase::Pending,
                since: self.now,
                before: Phase::Pending,
                visible_at: self.now + visible,
                hidden: (0, 0),
                run_at: self.now + wait,
                up_at: 0,
                machine: None,
                end_at: u64::MAX / 2,
                end: Phase::Pending,
                warned: false,
                cancel_at: None,
                script_ends: None,
                restarts: 0,
                sentinel: None,
                accounted_at: 0,
            };
            self.trace("job comes to be", u64::from(seq.0), 0);
            assert!(self.jobs.insert(seq, real).is_none(), "J2: {seq:?} twice");
        }
        self.check_number_of_jobs();
    }
}
