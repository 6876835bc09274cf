//! Workers: real sessions on machines that start processes which are not there, and that break.

use super::checker::Run;
use super::links::{Peer, Read};
use super::process::{CORES, MEMORY, ORPHAN_TIMEOUT};
use super::world::World;
use crate::runtime::ids::{JobName, JobSeq, RunId};
use crate::runtime::protocol::{Capacity, EndReport, Outcome, ServerMessage, Usage, WorkerMessage};
use crate::runtime::worker::{Session, SessionOptions, SessionSignal, TaskStart, WorkerAction};
use crate::server::core::ConnectionId;

/// A worker process and what runs below it.
pub(super) struct Machine {
    pub(super) job: JobSeq,
    boot: u64,
    session: Session,
    link: Option<ConnectionId>,
    /// An attempt to connect ends then.
    dialling: Option<u64>,
    outgoing: Vec<WorkerMessage>,
    runs: Vec<RunId>,
    /// No packet passes until then.
    pub(super) cut_until: u64,
    pub(super) stopped_until: u64,
    /// Since then it has been connected and running without a break; for what it must know by now.
    pub(super) attentive_since: u64,
    epoch: u32,
}

impl World {
    /// A job's script starts its worker.
    pub(super) fn boot(&mut self, job: JobSeq, name: JobName, walltime_left: Option<u64>) -> u32 {
        let id = self.next_machine;
        self.next_machine += 1;
        let boot = self.rng.u64(..1 << 40);
        let options = SessionOptions {
            version: "1".to_owned(),
            job: Some(name),
            nonce: format!("n{id}"),
            node: format!("node{id}"),
            pid: 1,
            capacity: Capacity { cores: CORES, memory_bytes: MEMORY, gpus: 0, numa: Vec::new() },
            walltime_left,
            drain_lead: 10_000,
            orphan_grace: 10_000,
            orphan_timeout: ORPHAN_TIMEOUT * 1000,
            seed: self.rng.u64(..),
        };
        let session = Session::new(options, self.now + boot);
        self.trace("worker boots", u64::from(id), u64::from(job.0));
        let machine = Machine {
            job,
            boot,
            session,
            link: None,
            dialling: None,
            outgoing: Vec::new(),
            runs: Vec::new(),
            cut_until: 0,
            stopped_until: 0,
            attentive_since: u64::MAX,
            epoch: 0,
        };
        self.machines.insert(id, machine);
        id
    }

    pub(super) fn run_machines(&mut self) {
        for id in self.machines.keys().copied().collect::<Vec<_>>() {
            self.end_runs(id);
            let Some(machine) = self.machines.get_mut(&id) else { continue };
            if self.now < machine.stopped_until {
                continue;
            }
            if std::mem::take(&mut machine.stopped_until) > 0 {
                machine.attentive_since = self.now;
            }
            self.dialled(id);
            self.hear(id);
            self.report_ends(id);
            let now = self.now;
            if let Some(machine) = self.machines.get_mut(&id)
                && machine.session.next_tick().is_some_and(|at| at <= now + machine.boot)
            {
                let actions = machine.session.on_tick(now + machine.boot);
                self.act(id, actions);
            }
            self.flush_machine(id);
        }
    }

    fn flush_machine(&mut self, id: u32) {
        let Some(machine) = self.machines.get_mut(&id) else { return };
        let messages = std::mem::take(&mut machine.outgoing);
        if let Some(link) = machine.link {
            self.transmit(link, false, &messages);
        }
    }

    /// The server that a worker finds by the address file, if it answers.
    fn dialled(&mut self, id: u32) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&id).filter(|m| m.dialling.is_some_and(|at| at <= now)) else {
            return;
        };
        machine.dialling = None;
        let cut = now < machine.cut_until;
        let answers = self
            .access
            .and_then(|access| self.servers.get(&access))
            .filter(|server| server.serving.is_some() && server.stopped_until.is_none());
        let server = answers.map(|server| server.id).filter(|_| !cut);
        let machine = self.machines.get_mut(&id).expect("just seen");
        let clock = now + machine.boot;
        let actions = match server {
            Some(server) => {
                let link = self.connect(server, Peer::Machine(id));
                let machine = self.machines.get_mut(&id).expect("just seen");
                machine.link = Some(link);
                machine.attentive_since = u64::MAX;
                machine.session.on_connected(clock)
            }
            None => machine.session.on_disconnected(clock),
        };
        self.act(id, actions);
    }

    fn hear(&mut self, id: u32) {
        while let Some(machine) = self.machines.get_mut(&id)
            && let Some(link) = machine.link
            && let Some(read) = self.read_at_peer::<ServerMessage>(link)
        {
            match read {
                Read::End => {
                    self.peer_closes(link);
                    self.disconnected(id);
                }
                Read::Messages(messages) => {
                    for message in messages {
                        self.hear_one(id, message);
                    }
                }
            }
        }
    }

    fn hear_one(&mut self, id: u32, message: ServerMessage) {
        let now = self.now;
        let runs = self.runs_on(id).len();
        let Some(machine) = self.machines.get_mut(&id) else { return };
        if let ServerMessage::Welcome(welcome) = &message {
            let before = machine.epoch;
            machine.epoch = before.max(welcome.epoch);
            machine.attentive_since = now;
            if before > 0 && welcome.epoch > before && runs > 0 {
                self.mark("a worker is back with running tasks after a restart");
            } else if welcome.epoch < before {
                self.mark("a worker does not obey an older server");
            }
        }
        match &message {
            ServerMessage::Assign { after_ends: Some(_), .. } => self.mark("runs wait at their worker for room"),
            ServerMessage::TakeBack { .. } => self.mark("runs are taken back"),
            ServerMessage::Guest { .. } => self.mark("a worker is used by a run of another one"),
            _ => {}
        }
        if let ServerMessage::Recorded { runs, .. } = &message {
            for run in runs {
                if let Some(run) = self.truth.runs.get_mut(run) {
                    run.recorded = true;
                }
            }
        }
        let Some(machine) = self.machines.get_mut(&id) else { return };
        let actions = machine.session.on_message(message, now + machine.boot);
        self.act(id, actions);
    }

    fn disconnected(&mut self, id: u32) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&id) else { return };
        machine.link = None;
        machine.outgoing.clear();
        machine.attentive_since = u64::MAX;
        let actions = machine.session.on_disconnected(now + machine.boot);
        self.act(id, actions);
    }

    fn act(&mut self, id: u32, actions: Vec<WorkerAction>) {
        let now = self.now;
        for action in actions {
            let Some(machine) = self.machines.get_mut(&id) else { return };
            match action {
                WorkerAction::Dial => {
                    let takes = if now < machine.cut_until { 5000 } else { self.rng.u64(1..100) };
                    machine.dialling = Some(now + takes);
                }
                WorkerAction::Send(message) => machine.outgoing.push(message),
                WorkerAction::Disconnect { reason } => {
                    self.trace(reason, u64::from(id), 0);
                    self.mark("a worker hangs up");
                    if let Some(link) = self.machines.get(&id).and_then(|machine| machine.link) {
                        self.flush_machine(id);
                        self.peer_closes(link);
                        self.disconnected(id);
                    }
                }
                WorkerAction::StartTask(start) => self.start(id, &start),
                WorkerAction::KillTask { run } => {
                    let at = now + self.rng.u64(..3000);
                    self.cut_short(run, at, Outcome::Killed);
                }
                WorkerAction::InterruptAll { grace } => {
                    for run in self.runs_on(id) {
                        let at = now + self.rng.u64(..=grace.min(10_000));
                        self.cut_short(run, at, Outcome::Interrupted);
                    }
                }
                WorkerAction::Leave { code, reason } => {
                    self.trace("worker leaves", u64::from(id), code as u64);
                    if code == 75 {
                        self.mark("an orphan ended itself");
                    }
                    if reason.contains("refused") {
                        self.mark("a straggler was refused");
                    }
                    if reason.contains("walltime") || reason == "drained" {
                        self.mark("a worker drained");
                    }
                    self.flush_machine(id);
                    self.end_machine(id, Some(code));
                }
            }
        }
    }

    fn cut_short(&mut self, id: RunId, at: u64, outcome: Outcome) {
        if let Some(run) = self.truth.runs.get_mut(&id).filter(|run| !run.over && run.ends_at > at) {
            run.ends_at = at;
            run.outcome = outcome;
        }
    }

    /// Runs that are there, or whose outcome is not known to be recorded.
    fn runs_on(&mut self, id: u32) -> Vec<RunId> {
        let Some(machine) = self.machines.get_mut(&id) else { return Vec::new() };
        let runs = &self.truth.runs;
        machine.runs.retain(|run| !runs[run].recorded);
        machine.runs.clone()
    }

    fn start(&mut self, id: u32, start: &TaskStart) {
        let (task, run) = (start.task, start.run);
        self.trace("task starts", u64::from(task.array.0) << 32 | u64::from(task.element), run.0);
        let parts = self.check_start(id, start);
        let now = self.now;
        let all_live = parts.iter().all(|part| self.machines.contains_key(&part.machine));
        self.machines.get_mut(&id).expect("it acts").runs.push(run);
        if self.rng.u8(..50) == 0 {
            let outcome = Outcome::NotStarted { error: "no such file".to_owned() };
            self.truth.runs.insert(run, Run::new(parts, task, now, now, outcome, !all_live));
        } else {
            let outcome = match self.rng.u8(..10) {
                0..=6 => Outcome::Finished,
                7 => Outcome::Signalled { signal: 11 },
                _ => Outcome::Failed { code: 1 + i32::from(self.rng.u8(..100)) },
            };
            let longest = self.task_max(&start.body.name);
            // A few short ones take much longer than their like.
            let longest = if longest < 1000 && self.rng.u8(..20) == 0 { longest * 40 } else { longest };
            let ends_at = now + self.rng.u64(10..longest);
            self.truth.runs.insert(run, Run::new(parts, task, now, ends_at, outcome, !all_live));
            if let Some(machine) = self.machines.get_mut(&id) {
                machine.session.on_started(run, now + machine.boot);
            }
        }
    }

    /// Processes end, whatever their worker does.
    fn end_runs(&mut self, id: u32) {
        for run in self.runs_on(id) {
            let run = self.truth.runs.get_mut(&run).expect("just listed");
            if !run.over && run.ends_at <= self.now {
                run.over = true;
            }
        }
    }

    fn report_ends(&mut self, id: u32) {
        for run in self.runs_on(id) {
            let found = self.truth.runs.get_mut(&run).expect("just listed");
            if !found.over || std::mem::replace(&mut found.reported, true) {
                continue;
            }
            let usage = Usage { wall_milliseconds: found.ends_at - found.started_at, ..Usage::default() };
            let report = EndReport { task: found.task, run, outcome: found.outcome.clone(), usage };
            if let Some(machine) = self.machines.get_mut(&id) {
                let actions = machine.session.on_ended(report);
                self.act(id, actions);
            }
        }
    }

    /// The worker process is gone, and with it what it started; `code` = it left by itself.
    pub(super) fn end_machine(&mut self, id: u32, code: Option<i32>) {
        let mut running = false;
        for run in self.runs_on(id) {
            let run = self.truth.runs.get_mut(&run).expect("just listed");
            running |= !run.over;
            if !run.over {
                run.ends_at = self.now;
            }
            (run.over, run.lost) = (true, true);
        }
        for run in self.truth.runs.values_mut().filter(|run| !run.recorded) {
            run.lost |= run.parts.iter().any(|part| part.machine == id);
        }
        let Some(machine) = self.machines.remove(&id) else { return };
        for link in self.links_of(Peer::Machine(id)) {
            if code.is_none() {
                self.reset(link);
            }
            self.peer_closes(link);
        }
        if code.is_none() && running {
            self.mark("a worker died with running tasks");
        }
        self.trace("worker is gone", u64::from(id), u64::from(machine.job.0));
        self.script_ends(machine.job, id, code.unwrap_or(137));
    }

    /// A signal to the worker.
    pub(super) fn signal_machine(&mut self, id: u32) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&id).filter(|machine| machine.stopped_until <= now) else { return };
        let actions = machine.session.on_signal(SessionSignal::Terminate, now + machine.boot);
        self.act(id, actions);
        self.flush_machine(id);
    }
}
