//! A serving server, turn by turn: what `Server::serve` does with sockets and a thread, here done by a world
//! that decides when.

use super::disk::{Halted, ProcessDisk, Work};
use super::links::{Peer, Read};
use super::process::{Process, Started};
use super::world::World;
use crate::runtime::control::{ClientMessage, ClientReply, Reply};
use crate::runtime::disk::Disk;
use crate::runtime::protocol::{ServerMessage, WorkerMessage};
use crate::server::core::{ConnectionId, Core, Done, Outgoing, Output, Turn};
use crate::server::outbox::{Outbox, Release};
use crate::server::writer::{Beside, Build, FromJournal, Over, ToJournal, Writer};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const TICK: u64 = 500;
const RESTLESS_TICK: u64 = 50;
const PUBLISHED_EVERY: u64 = 10_000;

pub(super) type JournalDone = (Writer<ProcessDisk>, Result<(), Over>);

/// The server's loop and its journal thread.
pub(super) struct Serving {
    pub(super) core: Core,
    out: Output,
    outbox: Outbox,
    turn: Turn,
    written: Turn,
    durable: Turn,
    /// `None` while its work is halted, and when it is over.
    writer: Option<Writer<ProcessDisk>>,
    pub(super) halted: Option<Halted<JournalDone>>,
    to_journal: VecDeque<ToJournal>,
    from_journal: UnboundedReceiver<FromJournal>,
    /// The journal's thread does nothing before, and something without a request at the latest then.
    journal_at: u64,
    wake_at: Instant,
    tick_at: u64,
    /// When it looks again whether its addresses are in the folder.
    publish_at: u64,
    done: Vec<(u64, Done)>,
    closing: Option<Vec<(ConnectionId, u32)>>,
    pub(super) ended_in_order: bool,
    in_trouble: bool,
    /// Submit commands that it began although another server had claimed the cluster.
    late_submits: u32,
}

impl Serving {
    pub(super) fn new(started: Started, disk: ProcessDisk, now: Instant) -> Self {
        let Started { core, out, turn, journal, lease, .. } = started;
        let (replies, from_journal) = unbounded_channel();
        let writer = Writer::with(later, journal, disk, lease, replies, now);
        Self {
            core,
            out,
            outbox: Outbox::default(),
            turn,
            written: 0,
            durable: turn,
            wake_at: now + writer.patience(now),
            writer: Some(writer),
            halted: None,
            to_journal: VecDeque::new(),
            from_journal,
            journal_at: 0,
            tick_at: 0,
            publish_at: 0,
            done: Vec::new(),
            closing: None,
            ended_in_order: false,
            in_trouble: false,
            late_submits: 0,
        }
    }

    /// Whether a durable turn is on its way from the journal's thread to the loop.
    pub(super) fn has_news(&self) -> bool {
        !self.from_journal.is_empty()
    }

    /// Whether nothing is on its way to the disk.
    pub(super) fn is_quiet(&self) -> bool {
        self.to_journal.is_empty() && self.durable >= self.written && !self.in_trouble
    }

    pub(super) fn answer(&mut self, at: u64, done: Done) {
        self.done.push((at, done));
    }

    fn write_records(&mut self) {
        if !self.out.records.is_empty() {
            let records = self.out.records.drain(..).map(|record| record.encode()).collect();
            self.written = self.turn;
            self.to_journal.push_back(ToJournal::Write(self.turn, records));
        }
    }
}

impl World {
    /// What the start itself produced leaves.
    pub(super) fn first_turn(&mut self, process: &mut Process) -> bool {
        self.dispatch(process);
        true
    }

    /// A step of a server that runs. Returns whether it lives on.
    pub(super) fn serve(&mut self, process: &mut Process) -> bool {
        let serving = process.serving.as_mut().expect("it serves");
        if self.now >= serving.publish_at {
            serving.publish_at = self.now + PUBLISHED_EVERY;
            if self.access.replace(process.id) != Some(process.id) {
                self.mark("a server puts its addresses back");
            }
        }
        // Loop and thread run in any order.
        let journal_first = self.rng.bool();
        if journal_first && !self.journal(process) {
            return false;
        }
        self.turn(process) && (journal_first || self.journal(process))
    }

    fn turn(&mut self, process: &mut Process) -> bool {
        loop {
            let serving = process.serving.as_mut().expect("it serves");
            let Ok(message) = serving.from_journal.try_recv() else { break };
            if !self.on_journal(process, message) {
                return false;
            }
            self.flush(process);
        }
        let now = self.moment(process.host);
        let inputs = self.inputs(process);
        let serving = process.serving.as_mut().expect("it serves");
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut serving.done).into_iter().partition(|(at, _)| *at <= self.now);
        serving.done = later;
        if inputs.is_empty() && due.is_empty() && self.now < serving.tick_at {
            return true;
        }
        serving.turn = serving.core.begin_turn();
        // The listener answers heartbeats, not the core: whatever waits for the disk.
        let mut heartbeats = Vec::new();
        for (connection, input) in inputs {
            if matches!(input, Input::Worker(WorkerMessage::Heartbeat, _)) {
                heartbeats.push(connection);
            }
            let (core, out) = (&mut serving.core, &mut serving.out);
            match input {
                Input::Worker(WorkerMessage::Hello(hello), true) => core.on_worker_hello(connection, hello, now, out),
                Input::Worker(message, _) => core.on_worker_message(connection, message, now, out),
                Input::Request(id, request) => core.on_request(connection, id, request, now, out),
                Input::Gone => core.on_disconnected(connection, now),
            }
        }
        for (_, done) in due {
            serving.core.on_done(done, now);
        }
        serving.core.end_turn(now, &mut serving.out);
        serving.tick_at = self.now + if serving.core.is_restless() { RESTLESS_TICK } else { TICK };
        for connection in heartbeats {
            self.transmit(connection, true, &[ServerMessage::Heartbeat]);
        }
        self.dispatch(process);
        true
    }

    fn on_journal(&mut self, process: &mut Process, message: FromJournal) -> bool {
        let now = self.moment(process.host);
        let serving = process.serving.as_mut().expect("it serves");
        match message {
            FromJournal::Durable(turn, sequence) => {
                serving.durable = turn;
                serving.core.on_durable(turn, sequence, &mut serving.out);
            }
            FromJournal::Trouble(what) => {
                serving.in_trouble = true;
                serving.core.on_journal(Some(what), now, &mut serving.out);
                self.mark("a journal part was condemned");
            }
            FromJournal::Recovered => {
                serving.in_trouble = false;
                serving.core.on_journal(None, now, &mut serving.out);
                self.mark("the journal works again");
            }
            FromJournal::NeedBase => {
                let base = Box::new(serving.core.snapshot());
                serving.to_journal.push_back(ToJournal::Base(serving.turn, base));
                if !serving.in_trouble {
                    self.mark("compaction");
                }
            }
            FromJournal::Fenced(_) => {
                self.mark("a server was fenced");
                self.trace("server fenced", process.id, u64::from(process.epoch));
                return false;
            }
            FromJournal::Closed => {
                let clients = serving.closing.take().unwrap_or_default();
                serving.ended_in_order = true;
                let newest = self.claimed.load(Ordering::Relaxed) == process.epoch;
                self.trace("server closed", process.id, 0);
                for (connection, id) in clients {
                    let reply = Box::new(Reply::Left { jobs: Vec::new(), closed: true });
                    self.transmit(connection, true, &[ClientReply::Reply { id, reply }]);
                }
                if newest {
                    self.on_closed(process.id);
                }
                return false;
            }
        }
        serving.write_records();
        true
    }

    fn dispatch(&mut self, process: &mut Process) {
        let serving = process.serving.as_mut().expect("it serves");
        serving.out.events.clear();
        serving.write_records();
        if let Some(clients) = serving.out.closed.take() {
            serving.closing = Some(clients);
            serving.to_journal.push_back(ToJournal::Close);
        }
        self.flush(process);
    }

    fn flush(&mut self, process: &mut Process) {
        let serving = process.serving.as_mut().expect("it serves");
        let durable = if serving.durable >= serving.written { serving.turn } else { serving.durable };
        serving.core.on_durable(durable, 0, &mut serving.out);
        serving.outbox.put(serving.turn, &mut serving.out);
        let mut to_workers: BTreeMap<ConnectionId, Vec<ServerMessage>> = BTreeMap::new();
        let mut to_clients: BTreeMap<ConnectionId, Vec<ClientReply>> = BTreeMap::new();
        let (mut closed, mut orders) = (Vec::new(), Vec::new());
        for release in serving.outbox.release(durable) {
            match release {
                Release::Send(connection, Outgoing::Worker(message)) => {
                    to_workers.entry(connection).or_default().push(message);
                }
                Release::Send(connection, Outgoing::Client(message)) => {
                    to_clients.entry(connection).or_default().push(message);
                }
                Release::Close(connection) => closed.push(connection),
                Release::Order(order) => orders.push(order),
            }
        }
        for (connection, messages) in to_workers {
            self.transmit(connection, true, &messages);
        }
        for (connection, messages) in to_clients {
            self.transmit(connection, true, &messages);
        }
        for connection in closed {
            self.server_closes(connection);
        }
        for order in orders {
            if matches!(order, crate::ledger::Order::Submit(_)) && self.claimed.load(Ordering::Relaxed) > process.epoch
            {
                let serving = process.serving.as_mut().expect("it serves");
                serving.late_submits += 1;
                assert!(serving.late_submits <= 1, "S1: a server that was overtaken submits again and again");
                self.mark("a submission by a server that was overtaken");
            }
            self.carry_out(process, order);
        }
    }

    /// A step of the journal's thread.
    fn journal(&mut self, process: &mut Process) -> bool {
        let now = self.instant(process.host);
        let serving = process.serving.as_mut().expect("it serves");
        let asked = !serving.to_journal.is_empty();
        if self.now < serving.journal_at || self.now < self.disk_hangs_until || !(asked || now >= serving.wake_at) {
            return true;
        }
        let Some(mut writer) = serving.writer.take() else { return true };
        let mut requests = std::mem::take(&mut serving.to_journal);
        let (stop, kill) = self.amid(12, 1000);
        let work = move || {
            let first = requests.pop_front();
            let result = writer.step(first, || requests.pop_front(), || now);
            (writer, result)
        };
        match process.disk.run(stop, kill, work) {
            Work::Done(done) => self.journal_done(process, done),
            Work::Halted(halted) => {
                process.serving.as_mut().expect("it serves").halted = Some(halted);
                self.mark("server stopped amid work on the disk");
                self.halt(process);
                true
            }
        }
    }

    pub(super) fn journal_done(&mut self, process: &mut Process, (writer, result): JournalDone) -> bool {
        if process.disk.is_dead() {
            self.mark("server killed amid work on the disk");
            self.trace("server killed amid work on the disk", process.id, 0);
            return false;
        }
        let slow = self.swarm.disk_slow && self.faults && self.rng.u8(..10) == 0;
        let lag = if slow { self.rng.u64(..4000) } else { self.rng.u64(..60) };
        let now = self.instant(process.host);
        let serving = process.serving.as_mut().expect("it serves");
        serving.journal_at = self.now + lag;
        if result.is_ok() {
            serving.wake_at = now + writer.patience(now);
            serving.writer = Some(writer);
        }
        true
    }

    /// Reads what has arrived.
    fn inputs(&mut self, process: &Process) -> Vec<(ConnectionId, Input)> {
        let mut inputs = Vec::new();
        for id in self.links_to(process.id) {
            let peer = self.links[&id].peer;
            loop {
                match peer {
                    Peer::Machine(_) => match self.read_at_server::<WorkerMessage>(id) {
                        Some(Read::Messages(messages)) => {
                            // As the listener does, whatever the core waits for.
                            if messages.contains(&WorkerMessage::Heartbeat) {
                                self.transmit(id, true, &[ServerMessage::Heartbeat]);
                            }
                            for message in messages {
                                let first =
                                    !std::mem::replace(&mut self.links.get_mut(&id).expect("just read").greeted, true);
                                inputs.push((id, Input::Worker(message, first)));
                            }
                        }
                        Some(Read::End) => {
                            inputs.push((id, Input::Gone));
                            self.server_closes(id);
                        }
                        None => break,
                    },
                    Peer::Client(_) => match self.read_at_server::<ClientMessage>(id) {
                        Some(Read::Messages(messages)) => {
                            for message in messages {
                                match message {
                                    ClientMessage::Hello(_) => {
                                        let (epoch, version) = (process.epoch, String::new());
                                        self.transmit(id, true, &[ClientReply::Welcome { epoch, version }]);
                                    }
                                    ClientMessage::Request { id: request, request: what } => {
                                        inputs.push((id, Input::Request(request, *what)));
                                    }
                                }
                            }
                        }
                        Some(Read::End) => {
                            inputs.push((id, Input::Gone));
                            self.server_closes(id);
                        }
                        None => break,
                    },
                }
            }
        }
        inputs
    }
}

/// A new part that is built when the journal's thread has looked a few times whether it is.
struct Later {
    looks: u32,
    work: Build<ProcessDisk>,
}

impl Beside<ProcessDisk> for Later {
    fn is_finished(&mut self) -> bool {
        self.looks -= 1;
        self.looks == 0
    }
    fn join(self: Box<Self>) -> Option<Built> {
        Some((self.work)())
    }
}

type Built =
    Result<crate::runtime::journal::BuiltPart<<ProcessDisk as Disk>::File>, crate::runtime::journal::StartError>;

fn later(work: Build<ProcessDisk>) -> Result<Box<dyn Beside<ProcessDisk>>, String> {
    Ok(Box::new(Later { looks: 4, work }))
}

enum Input {
    /// A message; whether it is the first.
    Worker(WorkerMessage, bool),
    Request(u32, crate::runtime::control::Request),
    Gone,
}
