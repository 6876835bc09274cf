//! Jobs: evidence from the backend, plans of the ledger, going down.

use super::{Core, EventLine, Outgoing, Output};
use crate::backends::sentinel::Sentinel;
use crate::backends::{BackendError, JobRef, Observation, Submit};
use crate::ledger::{JobState, Moment, Notice, Order, Situation};
use crate::runtime::control::DownMode;
use crate::runtime::ids::{JobSeq, NativeId, WorkerId};
use crate::runtime::protocol::ServerMessage;
use crate::runtime::scheduler::Event;
use crate::server::record::Record;

/// What carrying out an [`Order`] brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Done {
    /// The submit command said yes.
    Submitted(Submit, Vec<NativeId>),
    /// It did not.
    SubmitFailed(Submit, BackendError),
    /// A listing about these jobs.
    Listed(Vec<JobRef>, Vec<Observation>),
    /// A look by name.
    Found(Vec<Observation>),
    /// What accounting says about these jobs.
    Accounted(Vec<JobRef>, Vec<Observation>),
    /// The cancel command said yes.
    Cancelled(Vec<JobRef>),
    /// When jobs of these pools and walltimes would start, in milliseconds since the epoch.
    Expected(Vec<(String, u64, u64)>),
    /// Sentinels that exist.
    Sentinels(Vec<(JobSeq, Sentinel)>),
    /// A query or cancel failed.
    Failed(Order, BackendError),
}

impl Core {
    /// An order was carried out.
    pub fn on_done(&mut self, done: Done, now: Moment) {
        match done {
            Done::Submitted(submit, ids) => self.ledger.on_submitted(&submit, ids, now),
            Done::SubmitFailed(submit, error) => self.ledger.on_submit_failed(&submit, &error, now),
            Done::Listed(asked, seen) => self.ledger.on_listed(&asked, &seen, now),
            Done::Found(seen) => self.ledger.on_found(&seen, now),
            Done::Accounted(asked, seen) => self.ledger.on_accounted(&asked, &seen, now),
            Done::Cancelled(jobs) => self.ledger.on_cancelled(&jobs, now),
            Done::Expected(starts) => self.expect(starts, now),
            Done::Sentinels(found) => self.ledger.on_sentinels(found, now),
            Done::Failed(order, error) => self.ledger.on_query_failed(&order, &error, now),
        }
    }

    /// Lets the ledger plan, and passes on what it noticed.
    pub(super) fn plan_jobs(&mut self, now: Moment, out: &mut Output) {
        self.check_workers(now, out);
        self.pass_notices(now, out);
        let reached = self.ledger.reached();
        let surplus = self.ledger.live().count() > self.ledger.wanted() as usize;
        let drain_first = if surplus { self.least_loaded() } else { Vec::new() };
        let scaling = self.decide_scaling(now, out);
        let situation = Situation { work: self.scheduler.unfinished() > 0, drain_first, scaling };
        // A journal that cannot be written allows no outside effect: an intent would not be durable.
        if self.journal_trouble.is_none() {
            for order in self.ledger.plan(&situation, now) {
                match order {
                    Order::Drain(job) => self.drain_job(job, now, out),
                    other => out.orders.push(other),
                }
            }
        }
        self.pass_notices(now, out);
        if self.ledger.reached() && !reached {
            out.records.push(Record::Scaled { jobs: self.ledger.wanted(), reached: true });
        }
        let changed = self.ledger.take_changed();
        if let Some(scaling) = self.scaling.as_mut().filter(|_| !changed.is_empty()) {
            scaling.jobs_changed();
        }
        out.records.extend(changed.into_iter().map(|job| Record::Job(Box::new(job))));
    }

    fn pass_notices(&mut self, now: Moment, out: &mut Output) {
        for notice in self.ledger.take_notices() {
            match notice {
                Notice::Event { kind, job, text } => out.events.push(EventLine { kind, job, task: None, text }),
                Notice::Over { job, planned } => self.lose_job(job, !planned, now, out),
                Notice::Dismiss { job } => self.dismiss_job(job, out),
                Notice::TimeLeft { job, seconds } => self.on_time_left(job, seconds, now, out),
            }
        }
        let over: Vec<WorkerId> = self
            .awaited
            .iter()
            .copied()
            .filter(|id| {
                let job = self.workers.get(id).and_then(|worker| worker.job);
                job.and_then(|job| self.ledger.job(job)).is_some_and(|job| !job.live())
            })
            .collect();
        for id in over {
            self.lose(id, true, now, out);
        }
    }

    fn least_loaded(&self) -> Vec<JobSeq> {
        let mut jobs: Vec<(usize, JobSeq)> = self
            .workers
            .iter()
            .filter_map(|(id, worker)| {
                let load = self.scheduler.worker_load(*id).map_or(0, |load| load.running);
                Some((load, worker.job?))
            })
            .collect();
        jobs.sort_by_key(|(load, job)| (*load, std::cmp::Reverse(*job)));
        jobs.into_iter().map(|(_, job)| job).collect()
    }

    fn drain_job(&mut self, job: JobSeq, now: Moment, out: &mut Output) {
        let mut actions = Vec::new();
        for (id, worker) in self.workers.iter().filter(|(_, worker)| worker.job == Some(job)) {
            self.scheduler.apply(Event::WorkerDrains { worker: *id }, now.clock, &mut actions);
            if let Some(connection) = worker.connection {
                out.sends.push((connection, self.turn, Outgoing::Worker(ServerMessage::Drain)));
            }
        }
        self.carry_out(actions, now, out);
    }

    /// Ends what runs in a job that the backend calls over.
    fn dismiss_job(&mut self, job: JobSeq, out: &mut Output) {
        for connection in self.workers.values().filter(|worker| worker.job == Some(job)).filter_map(|w| w.connection) {
            let message = ServerMessage::Stop { grace_seconds: 0 };
            out.sends.push((connection, self.turn, Outgoing::Worker(message)));
        }
    }

    /// Begins to go down, or hurries a stop under way.
    pub(super) fn go_down(
        &mut self,
        mode: DownMode,
        client: Option<(super::ConnectionId, u32)>,
        now: Moment,
        out: &mut Output,
    ) {
        let mut clients = self.down.take().map(|down| down.clients).unwrap_or_default();
        clients.extend(client);
        self.down = Some(super::Down { mode, clients });
        if !self.stopped {
            self.stopped = true;
            out.records.push(Record::Stopping);
            let text = format!("the cluster goes down; {} tasks are unfinished", self.scheduler.unfinished());
            out.events.push(EventLine { kind: "stopping", job: None, task: None, text });
        }
        self.keep_learned(out);
        let patience = match mode {
            DownMode::Stop => Some(25_000),
            DownMode::Now => Some(3_000),
            DownMode::Drain => None,
        };
        self.ledger.stop(patience, now);
        self.scheduler.apply(Event::Hold(true), now.clock, &mut Vec::new());
        if let Some(message) = self.stop_message() {
            for connection in self.workers.values().filter_map(|worker| worker.connection) {
                out.sends.push((connection, self.turn, Outgoing::Worker(message.clone())));
            }
        }
    }

    /// Closes the cluster once nothing of it is left.
    pub(super) fn look_whether_down(&mut self, out: &mut Output) {
        let Some(down) = &self.down else { return };
        let connected = self.workers.values().any(|worker| worker.connection.is_some());
        if self.closing || connected || !self.ledger.is_clear() {
            return;
        }
        self.closing = true;
        out.closed = Some(down.clients.clone());
    }

    /// Whether something is about to end that nobody will report: a job whose worker is gone.
    pub fn is_restless(&self) -> bool {
        self.down.is_some() || self.ledger.live().any(|job| job.silent)
    }

    /// Returns whether any job may exist or any worker is connected.
    pub(super) fn jobs_left(&self) -> Vec<crate::ledger::Job> {
        self.ledger.live().cloned().collect()
    }

    /// Returns the number of jobs that are live, for progress.
    pub(super) fn jobs_live(&self) -> u32 {
        u32::try_from(self.ledger.live().count()).unwrap_or(u32::MAX)
    }

    /// Says why nothing runs, as far as jobs explain it.
    pub(super) fn jobs_explain(&self) -> Option<String> {
        if let Some(trouble) = self.ledger.trouble() {
            let advice = self.ledger.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
            return Some(format!("{trouble}{advice}"));
        }
        let job = self.ledger.live().min_by_key(|job| std::cmp::Reverse(job.state))?;
        Some(match job.state {
            JobState::Pending if !job.reason.is_empty() => format!("job {} is pending: {}", job.seq.0, job.reason),
            state => format!("job {} is {}", job.seq.0, state.as_str()),
        })
    }
}
