//! Workers: joining, reporting, falling silent, leaving.

use super::{
    ConnectionId, Core, EventLine, HEARTBEAT_SECONDS, HEARTBEATS_MISSED_MAX, LOOK_AHEAD, Outgoing, Output,
    WALLTIME_MARGIN, Worker,
};
use crate::backends::batch::{bounded, bounded_to};
use crate::config::values::{CORES_MAX, GPUS_MAX};
use crate::ledger::Moment;
use crate::runtime::control::DownMode;
use crate::runtime::ids::{JobSeq, WorkerId};
use crate::runtime::protocol::{
    Capacity, EndReport, Outcome, PROTOCOL_VERSION, ServerMessage, Welcome, WorkerHello, WorkerMessage,
};
use crate::runtime::scheduler::{Action, Event};
use crate::server::record::{Detail, Record};

/// Workers of a cluster.
pub(super) const WORKERS_MAX: usize = 65_000;
/// A worker's name for its process: 128 bits in hex, with room.
const NONCE_BYTES_MAX: usize = 64;
/// NUMA nodes of a worker; Linux knows at most so many (`MAX_NUMNODES`).
const NUMA_NODES_MAX: usize = 1024;
/// Bytes of a host name that are kept.
const NODE_BYTES_MAX: usize = 255;

impl Core {
    /// A worker that proved itself by its certificate says who it is.
    pub fn on_worker_hello(&mut self, connection: ConnectionId, mut hello: WorkerHello, now: Moment, out: &mut Output) {
        let refuse = |reason: String, out: &mut Output| {
            out.sends.push((connection, 0, Outgoing::Worker(ServerMessage::Refused { reason })));
            out.close.push(connection);
        };
        if hello.protocol != PROTOCOL_VERSION {
            let reason = format!(
                "it speaks protocol {}, this server {PROTOCOL_VERSION}: use one version of dcluster",
                hello.protocol
            );
            return refuse(reason, out);
        }
        if hello.epoch > self.options.epoch {
            // It has obeyed a newer server: the fence will tell us soon. Say nothing, promise nothing.
            out.close.push(connection);
            return;
        }
        if hello.nonce.len() > NONCE_BYTES_MAX {
            return refuse(format!("its nonce has more than {NONCE_BYTES_MAX} bytes"), out);
        }
        let Capacity { cores, gpus, numa, .. } = &hello.capacity;
        if *cores > CORES_MAX || *gpus > GPUS_MAX || numa.len() > NUMA_NODES_MAX {
            let most = format!("{CORES_MAX} cores, {GPUS_MAX} GPUs and {NUMA_NODES_MAX} NUMA nodes");
            return refuse(format!("it offers more than {most}"), out);
        }
        hello.node = bounded_to(&hello.node, NODE_BYTES_MAX);
        let known = self.nonces.get(&hello.nonce).copied();
        let said = known.and_then(|id| self.workers.get(&id)).map_or(0, |worker| worker.hellos);
        if said >= hello.hellos || self.departed.contains(&hello.nonce) {
            return refuse("it said this hello before".to_owned(), out);
        }
        if known.is_none() && self.workers.len() >= WORKERS_MAX {
            return refuse(format!("the cluster has {WORKERS_MAX} workers, and takes no more"), out);
        }
        let job = match &hello.job {
            Some(name) => match self.ledger.on_worker_up(name, &hello.node, now) {
                Ok(seq) => Some(seq),
                Err(reason) => return refuse(reason, out),
            },
            None => None,
        };
        let id = known.unwrap_or(self.next_worker);
        if known.is_none() {
            // Another process of the same job (requeued, or restarted): the former one is gone.
            let former: Vec<WorkerId> = self
                .workers
                .iter()
                .filter(|_| job.is_some())
                .filter(|(_, worker)| worker.job == job)
                .map(|(id, _)| *id)
                .collect();
            for worker in former {
                self.lose(worker, true, now, out);
            }
            self.next_worker = WorkerId(id.0.saturating_add(1));
            self.nodes.insert(id, hello.node.clone());
            out.records.push(Record::Joined { worker: id, job, nonce: hello.nonce.clone(), node: hello.node.clone() });
        }
        if let Some(job) = job.filter(|_| hello.seconds_left.is_some()) {
            self.ledger.on_limited(job);
        }
        let ends_at = hello.seconds_left.map(|seconds| ends_at(seconds, now));
        if let Some(old) = self.workers.get(&id).and_then(|worker| worker.connection) {
            self.connections.remove(&old);
            out.close.push(old);
        }
        let worker = Worker {
            job,
            nonce: hello.nonce,
            node: hello.node,
            capacity: hello.capacity.clone(),
            connection: Some(connection),
            hellos: hello.hellos,
            draining: hello.draining,
            joined: self.turn,
            heard_at: now.clock,
            silent_since: None,
            ends_at,
            asked_again: false,
            bodies: Default::default(),
            ends_seen: 0,
        };
        self.nonces.insert(worker.nonce.clone(), id);
        self.workers.insert(id, worker);
        self.workers_due = 0;
        self.connections.insert(connection, id);
        self.awaited.remove(&id);
        // What it does not list it does not run, and what was not sent on the old connection never will be.
        let lists = |task, run| hello.running.iter().any(|held| (held.task, held.run) == (task, run));
        self.dying.retain(|(task, at, run)| *at != id || lists(*task, *run));
        self.delayed.retain(|start| start.worker != id);
        for held in &hello.running {
            self.running_since.entry(held.task).or_insert((id, now)).0 = id;
        }
        let mut actions = Vec::new();
        let members = hello.running.iter().flat_map(|held| &held.place.nodes).map(|part| part.worker);
        let gone: Vec<WorkerId> = members.filter(|member| !self.workers.contains_key(member)).collect();
        let joined = Event::WorkerJoined { worker: id, capacity: hello.capacity, ends_at, running: hello.running };
        self.scheduler.apply(joined, now.clock, &mut actions);
        for member in gone {
            // It was lost before its lead came back to a restarted server.
            self.scheduler.apply(Event::WorkerLost { worker: member, counts: false }, now.clock, &mut actions);
        }
        let welcome = Welcome {
            id,
            epoch: self.options.epoch,
            heartbeat_seconds: HEARTBEAT_SECONDS,
            orphan_timeout_seconds: self.options.spec.orphan_timeout_seconds,
            guests: self.scheduler.guests_of(id),
        };
        out.sends.push((connection, self.turn, Outgoing::Worker(ServerMessage::Welcome(welcome))));
        if hello.draining {
            self.scheduler.apply(Event::WorkerDrains { worker: id }, now.clock, &mut actions);
        }
        self.carry_out(actions, now, out);
        if let Some(message) = self.stop_message() {
            out.sends.push((connection, self.turn, Outgoing::Worker(message)));
        } else if job.and_then(|job| self.ledger.job(job)).is_some_and(|job| job.draining) {
            out.sends.push((connection, self.turn, Outgoing::Worker(ServerMessage::Drain)));
        }
        self.release_hold(now, out);
    }

    /// What a worker is told when the cluster goes down.
    pub(super) fn stop_message(&self) -> Option<ServerMessage> {
        match self.down.as_ref()?.mode {
            DownMode::Stop => Some(ServerMessage::Stop { grace_seconds: 10 }),
            DownMode::Now => Some(ServerMessage::Stop { grace_seconds: 0 }),
            DownMode::Drain => Some(ServerMessage::Drain),
        }
    }

    /// A worker says something after its hello.
    pub fn on_worker_message(
        &mut self,
        connection: ConnectionId,
        message: WorkerMessage,
        now: Moment,
        out: &mut Output,
    ) {
        let Some(id) = self.connections.get(&connection).copied() else { return };
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.heard_at = now.clock;
        }
        match message {
            WorkerMessage::Hello(_) => out.close.push(connection),
            WorkerMessage::Heartbeat => {}
            WorkerMessage::Output { request, bytes } => self.on_output(id, request, bytes, out),
            WorkerMessage::Started { task, run } => {
                let mut actions = Vec::new();
                self.scheduler.apply(Event::RunStarted { task, run }, now.clock, &mut actions);
                self.carry_out(actions, now, out);
            }
            WorkerMessage::Ended(report) => self.on_run_ended(id, connection, report, now, out),
            WorkerMessage::Draining => {
                let mut actions = Vec::new();
                self.scheduler.apply(Event::WorkerDrains { worker: id }, now.clock, &mut actions);
                self.carry_out(actions, now, out);
                let job = self.workers.get_mut(&id).and_then(|worker| {
                    worker.draining = true;
                    worker.job
                });
                if let Some(job) = job {
                    self.ledger.on_worker_draining(job);
                }
            }
            WorkerMessage::Goodbye => {
                let worker = self.workers.get(&id);
                let job = worker.and_then(|worker| worker.job);
                self.departed.extend(worker.map(|worker| worker.nonce.clone()));
                self.lose(id, false, now, out);
                out.close.push(connection);
                match job {
                    Some(job) => self.ledger.on_worker_goodbye(job, now),
                    None => out.events.push(worker_event("worker_left", id, "left")),
                }
            }
        }
    }

    fn on_run_ended(
        &mut self,
        worker: WorkerId,
        connection: ConnectionId,
        report: EndReport,
        now: Moment,
        out: &mut Output,
    ) {
        let EndReport { task, run, mut outcome, usage } = report;
        if let Outcome::NotStarted { error } = &mut outcome {
            *error = bounded(error);
        }
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.ends_seen += 1;
        }
        self.unrecorded.push_back((self.turn, connection, run));
        self.dying.remove(&(task, worker, run));
        let mut actions = Vec::new();
        self.scheduler.apply(
            Event::RunEnded { worker, task, run, outcome, wall: usage.wall_milliseconds },
            now.clock,
            &mut actions,
        );
        let since = self.running_since.get(&task).filter(|(on, _)| *on == worker).map(|(_, at)| at.wall);
        let detail =
            Detail { worker, started_at: since.unwrap_or(now.wall.saturating_sub(usage.wall_milliseconds)), usage };
        let mut rest = Vec::new();
        for action in actions {
            match action {
                Action::Ended { task: ended, end } if ended == task => self.ended(task, end, Some(detail), now, out),
                other => rest.push(other),
            }
        }
        self.carry_out(rest, now, out);
    }

    /// A connection ended.
    pub fn on_disconnected(&mut self, connection: ConnectionId, now: Moment) {
        self.waits.retain(|wait| wait.connection != connection);
        self.forget_output_reads(connection);
        if let Some(down) = &mut self.down {
            down.clients.retain(|(client, _)| *client != connection);
        }
        let Some(id) = self.connections.remove(&connection) else { return };
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.connection = None;
        worker.silent_since = Some(now.clock);
        self.workers_due = 0;
        let job = worker.job;
        self.scheduler.apply(Event::WorkerSilent { worker: id }, now.clock, &mut Vec::new());
        if let Some(job) = job {
            self.ledger.on_worker_silent(job, now);
        }
    }

    /// A worker is gone for good.
    pub(super) fn lose(&mut self, id: WorkerId, counts: bool, now: Moment, out: &mut Output) {
        self.awaited.remove(&id);
        self.dying.retain(|(_, at, _)| *at != id);
        self.delayed.retain(|start| start.worker != id);
        let Some(worker) = self.workers.remove(&id) else { return };
        self.nonces.remove(&worker.nonce);
        if let Some(connection) = worker.connection {
            self.connections.remove(&connection);
            out.close.push(connection);
        }
        let mut actions = Vec::new();
        self.scheduler.apply(Event::WorkerLost { worker: id, counts }, now.clock, &mut actions);
        self.carry_out(actions, now, out);
        out.records.push(Record::Left { worker: id });
        self.release_hold(now, out);
    }

    /// All workers of a job are gone for good.
    pub(super) fn lose_job(&mut self, job: JobSeq, counts: bool, now: Moment, out: &mut Output) {
        let gone: Vec<WorkerId> =
            self.workers.iter().filter(|(_, worker)| worker.job == Some(job)).map(|(id, _)| *id).collect();
        for id in gone {
            self.lose(id, counts, now, out);
        }
    }

    /// After a restart nothing is assigned until every worker that may hold tasks is back or proved gone.
    pub(super) fn release_hold(&mut self, now: Moment, out: &mut Output) {
        if self.awaited.is_empty() && self.down.is_none() {
            let mut actions = Vec::new();
            self.scheduler.apply(Event::Hold(false), now.clock, &mut actions);
            self.carry_out(actions, now, out);
        }
    }

    /// Looks for workers that went silent without closing, and by-hand workers that never came back.
    pub(super) fn check_workers(&mut self, now: Moment, out: &mut Output) {
        if now.clock < self.workers_due {
            return;
        }
        let limit = HEARTBEAT_SECONDS * HEARTBEATS_MISSED_MAX * 1000;
        let silent: Vec<ConnectionId> = self
            .workers
            .values()
            .filter(|worker| now.clock > worker.heard_at + limit)
            .filter_map(|worker| worker.connection)
            .collect();
        for connection in silent {
            out.close.push(connection);
            self.on_disconnected(connection, now);
        }
        let longest = self.options.spec.shapes().map(|(_, pool)| pool.drain_lead_seconds).max().unwrap_or_default();
        let ahead = longest * 1000 + LOOK_AHEAD;
        for worker in self.workers.values_mut().filter(|worker| worker.job.is_some() && !worker.asked_again) {
            if worker.ends_at.is_some_and(|at| now.clock + ahead >= at) {
                worker.asked_again = true;
                self.ledger.refresh(now);
            }
        }
        let orphaned = self.options.spec.orphan_timeout_seconds * 1000 + 30_000;
        let gone: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.job.is_none())
            .filter(|(_, worker)| worker.silent_since.is_some_and(|since| now.clock > since + orphaned))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.lose(id, true, now, out);
            out.events.push(worker_event("worker_lost", id, "did not come back"));
        }
        // What a worker says meanwhile only puts it off.
        let due = self.workers.values().flat_map(|worker| {
            let silent = worker.connection.map(|_| worker.heard_at + limit + 1);
            let asked = worker.job.filter(|_| !worker.asked_again).and(worker.ends_at);
            let lost = worker.silent_since.filter(|_| worker.job.is_none()).map(|since| since + orphaned + 1);
            [silent, asked.map(|at| at.saturating_sub(ahead)), lost]
        });
        self.workers_due = due.flatten().min().unwrap_or(u64::MAX);
    }

    /// The batch system says how much time a job has left.
    pub(super) fn on_time_left(&mut self, job: JobSeq, seconds: u64, now: Moment, out: &mut Output) {
        let ends_at = ends_at(seconds, now);
        let mut actions = Vec::new();
        for (id, worker) in self.workers.iter_mut().filter(|(_, worker)| worker.job == Some(job)) {
            // Clocks and rounding: a second or two is no news.
            if worker.ends_at.is_some_and(|known| known.abs_diff(ends_at) < 5_000) {
                continue;
            }
            worker.ends_at = Some(ends_at);
            worker.asked_again = false;
            self.workers_due = 0;
            self.scheduler.apply(Event::WorkerEndsAt { worker: *id, ends_at: Some(ends_at) }, now.clock, &mut actions);
            if let Some(connection) = worker.connection {
                out.sends.push((connection, 0, Outgoing::Worker(ServerMessage::TimeLeft { seconds })));
            }
        }
        self.carry_out(actions, now, out);
    }
}

/// Returns when tasks must have ended; the seconds are somebody's word.
fn ends_at(seconds: u64, now: Moment) -> u64 {
    now.clock.saturating_add(seconds.saturating_mul(1000)).saturating_sub(WALLTIME_MARGIN)
}

fn worker_event(kind: &'static str, id: WorkerId, what: &str) -> EventLine {
    EventLine { kind, job: None, task: None, text: format!("worker {id}, joined by hand, {what}") }
}
