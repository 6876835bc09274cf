//! The server: the one long-lived process of a cluster. Here the pure core is wired to sockets, the
//! journal's thread, the backend and the clock.

pub mod clock;
pub mod core;
pub mod describe;
mod driver;
pub mod events;
mod gate;
mod learned;
pub mod listen;
pub mod log;
mod outbox;
pub mod peer;
pub mod record;
pub mod repair;
#[cfg(test)]
mod simulation;
mod takeover;
mod writer;

use self::core::{ConnectionId, Core, CoreOptions, Done, Outgoing, Output, Turn};
use self::events::EventFile;
use self::outbox::{Outbox, Release};
use self::peer::Peer;
use self::record::Record;
use self::writer::{FromJournal, ToJournal, Writer};
use crate::backends::{self, Backend};
use crate::cluster::{Folder, Identity};
use crate::config::spec::Spec;
use crate::error::{Kind, Problem};
use crate::runtime::control::{ClientReply, Reply, Request};
use crate::runtime::disk::{Disk, RealDisk};
use crate::runtime::journal::{self, Journal, Limits};
use crate::runtime::lease::LeaseState;
use crate::runtime::protocol::{WorkerHello, WorkerMessage};
use crate::runtime::transport::{Authority, Role, server_config};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// From connections and backend calls to the core; a full queue slows readers down, nothing is lost.
const INPUTS_MAX: usize = 1024;
/// Events handled in one turn at most, so that a turn stays short.
const TURN_EVENTS_MAX: usize = 4096;
/// Without any event the core looks around this often.
const TICK: Duration = Duration::from_millis(500);
/// … and so often while jobs are about to end: somebody waits for `down`.
const RESTLESS_TICK: Duration = Duration::from_millis(50);
/// Records that nothing waits for are gathered so long before they are written …
const LAZY: Duration = Duration::from_millis(10);
/// … or until there are so many.
const LAZY_MAX: usize = 1024;
/// How often a server looks whether its addresses are where others look for them.
const PUBLISHED_EVERY: Duration = Duration::from_secs(10);

/// What reaches the core from outside.
#[derive(Debug)]
pub enum Input {
    /// A client has greeted.
    Client(ConnectionId, Peer),
    /// A worker has greeted.
    Worker(ConnectionId, Box<WorkerHello>, Peer),
    /// A client asks.
    Request(ConnectionId, u32, Box<Request>),
    /// A worker reports.
    FromWorker(ConnectionId, Vec<WorkerMessage>),
    /// A connection ended.
    Disconnected(ConnectionId),
    /// An order was carried out.
    Done(Box<Done>),
    /// The process was asked to end (SIGTERM): the cluster stays as it is.
    Terminate,
}

/// What the starting server tells the command that started it, one JSON line each on its standard output.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartLine {
    /// It waits for proof that the former server is gone.
    Waiting {
        /// At most so many seconds more.
        seconds: u64,
    },
    /// It answers.
    Ready {
        /// Its epoch.
        epoch: u32,
    },
    /// It could not start.
    Failed {
        /// Exit code.
        code: u8,
        /// What went wrong, ready to print.
        problem: StartProblem,
    },
}

/// A problem across the pipe.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StartProblem {
    /// What.
    pub what: String,
    /// What was done and not done.
    pub done: Option<String>,
    /// The system's words.
    pub says: Option<String>,
    /// Where.
    pub location: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// What to do.
    pub fixes: Vec<String>,
}

/// How a server is started.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The cluster folder.
    pub folder: PathBuf,
    /// `up` was called: ask for jobs, and end a former `down`.
    pub open: bool,
    /// Do not wait for proof that the former server is gone.
    pub take_over: bool,
}

fn announce(line: &StartLine) {
    let mut out = std::io::stdout().lock();
    // The command that started us may be gone (Ctrl-C): the server goes on.
    let _ = serde_json::to_writer(&mut out, line)
        .map_err(std::io::Error::from)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
}

/// Runs the server until the cluster is down. Its standard output carries [`StartLine`]s.
///
/// # Errors
///
/// Also told on standard output when it happens during the start.
pub fn run(options: &ServerOptions) -> Result<(), Problem> {
    crate::cluster::private_umask();
    // A core dump would hold keys. The soft limit only: jobs started from here get it back.
    let _ = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE)
        .and_then(|(_, hard)| nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, hard));
    // A connection takes a descriptor, and many systems begin with 1,024. Jobs get the limit back from env.sh.
    let _ = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::new(Kind::Internal, "cannot start the event loop").says(error.to_string()))?;
    let result = match runtime.block_on(Server::start(options)) {
        Ok(server) => runtime.block_on(server.serve()),
        Err(problem) => {
            let told = StartProblem {
                what: problem.what.clone(),
                done: problem.done.as_deref().map(str::to_owned),
                says: problem.says.as_deref().map(str::to_owned),
                location: problem.location.as_deref().map(str::to_owned),
                why: problem.why.as_deref().map(str::to_owned),
                fixes: problem.fixes.clone(),
            };
            announce(&StartLine::Failed { code: problem.exit_code(), problem: told });
            Err(problem)
        }
    };
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// Replays the journal of a cluster into a core.
///
/// # Errors
///
/// If the journal is damaged, lost data, or makes no sense.
pub fn replay(
    folder: &Folder,
    disk: &RealDisk,
    identity: &Identity,
    before: Option<&LeaseState>,
    core: &mut Core,
) -> Result<journal::Position, Problem> {
    let option = if folder.name() == "default" { String::new() } else { format!(" --cluster {}", folder.name()) };
    let refused = |what: String| {
        Problem::new(Kind::Failed, format!("the journal of cluster {} is not usable", folder.name()))
            .says(what)
            .done("nothing was changed")
    };
    let damaged = |what: String| {
        refused(what)
            .why("damage is never shortened away: accepted tasks may be at stake")
            .fix(format!("dcluster journal check{option}  (says what is lost)"))
            .fix(format!("dcluster journal repair{option}  (saves the rest; keeps the damaged files)"))
    };
    replay_journal(disk, &identity.id, before, core).map_err(|why| match why {
        Unreadable::Newer(_) => refused(why.to_string()).why("a newer dcluster wrote it").fix("use that version"),
        _ => damaged(why.to_string()),
    })
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
    #[error("a record of an unknown kind: {0}")]
    Newer(#[from] rmp_serde::decode::Error),
    #[error(transparent)]
    Senseless(#[from] crate::runtime::scheduler::RestoreError),
}

/// The same on any disk.
fn replay_journal<D: Disk>(
    disk: &D,
    cluster_id: &str,
    before: Option<&LeaseState>,
    core: &mut Core,
) -> Result<journal::Position, Unreadable> {
    let recovered = journal::recover(disk, cluster_id, before)?;
    for bytes in recovered.records.iter() {
        core.replay(Record::decode(bytes)?)?;
    }
    Ok(recovered.position)
}

/// Makes the core of a cluster that is read without serving it, or before.
///
/// # Errors
///
/// If the folder's specification cannot be read.
pub fn core_of(folder: &Folder, identity: &Identity, epoch: u32, jobs_per_submit: u32) -> Result<Core, Problem> {
    let options = CoreOptions {
        folder: folder.path().to_owned(),
        letters: identity.letters.clone(),
        spec: folder.spec()?,
        epoch,
        host: clock::host(),
        pid: std::process::id(),
        jobs_per_submit,
    };
    Ok(Core::new(options, clock::now()))
}

/// Puts our addresses back where clients and workers look: a server that was overtaken while it started may write
/// its own over them before it finds out, and then nobody would reach us.
async fn keep_published(folder: Folder, identity: Identity, authority: Authority, addresses: Vec<SocketAddr>) {
    let ours = Arc::new((folder, identity, authority, addresses));
    loop {
        tokio::time::sleep(PUBLISHED_EVERY).await;
        let ours = Arc::clone(&ours);
        let look = move || {
            let (folder, identity, authority, addresses) = &*ours;
            let access = folder.access(Role::Client);
            if access.is_ok_and(|access| access.pid == std::process::id() && access.addresses == *addresses) {
                return;
            }
            if let Err(problem) = folder.publish(identity, authority, addresses, &clock::host()) {
                tracing::warn!(what = problem.what, "addresses not published");
            }
        };
        // The file system may hang: not on the loop's thread.
        if tokio::task::spawn_blocking(look).await.is_err() {
            return;
        }
    }
}

struct Server {
    publisher: tokio::task::JoinHandle<()>,
    core: Core,
    outbox: Outbox,
    output: Output,
    connections: BTreeMap<ConnectionId, Peer>,
    inputs: mpsc::Receiver<Input>,
    to_self: mpsc::Sender<Input>,
    to_journal: std::sync::mpsc::Sender<ToJournal>,
    from_journal: mpsc::UnboundedReceiver<FromJournal>,
    backend: Arc<dyn Backend>,
    folder: PathBuf,
    spec: Spec,
    events: EventFile,
    /// Last turn with records, and the last that is durable.
    written: u64,
    /// Bytes of each turn that the journal has not said to be durable.
    /// Records that nobody waits for yet, and when they are written at the latest.
    lazy: Vec<record::Record>,
    lazy_until: Option<Instant>,
    unwritten: VecDeque<(Turn, usize)>,
    durable: u64,
    turn: u64,
    /// Clients that wait for the end, once the core says that nothing is left.
    closing: Option<Vec<(ConnectionId, u32)>>,
    _lock: Option<nix::fcntl::Flock<std::fs::File>>,
}

impl Server {
    async fn start(options: &ServerOptions) -> Result<Self, Problem> {
        let folder = Folder::at(&options.folder);
        let identity = folder.open()?;
        let spec = folder.spec()?;
        let disk = RealDisk::open(folder.path()).map_err(|error| {
            Problem::new(Kind::Unreachable, format!("cannot use the cluster folder {}", folder.path().display()))
                .says(error.to_string())
        })?;
        // Before anything is taken: a server without keys could only fail.
        let authority = folder.authority(&identity)?;
        let tls = server_config(&authority).map_err(|error| {
            Problem::new(Kind::Unreachable, format!("the keys of cluster {} are damaged", folder.name()))
                .says(error.to_string())
                .location(folder.path().join("ca.key").display().to_string())
                .done("nothing was started")
                .fix("start afresh under another name: dcluster up --name OTHER")
        })?;
        let taken = takeover::take_over(&folder, &disk, options.take_over, |seconds| {
            announce(&StartLine::Waiting { seconds })
        })?;
        let epoch = taken.lease.epoch();
        let backend = backends::open(&folder, &identity, &spec)?;
        if let Err(error) = backend.prepare().await {
            tracing::warn!(%error, "the backend does not answer yet");
        }
        let mut core = core_of(&folder, &identity, epoch, backend.jobs_per_submit())?;
        core.set_learned(learned::read(&folder, &spec));
        let position = replay(&folder, &disk, &identity, taken.before.as_ref(), &mut core)?;
        let now = clock::now();
        let mut output = Output::default();
        let turn = core.begin_turn();
        // A server that died, or that `up` took over from, had its number of jobs; a new cluster and one that
        // went down get theirs from the specification.
        let asks = options.open && (core.is_stopping() || !core.was_opened());
        core.finish_restore(options.open, taken.proved, now, &mut output);
        if asks && !core.is_stopping() {
            core.open(now, &mut output);
        }
        // The base holds all of this already; its records need not be written once more.
        output.records.clear();
        let base = core.snapshot();
        let journal = Journal::start(disk.clone(), &identity.id, epoch, position, base.encoded(), Limits::default())
            .map_err(|error| {
                Problem::new(Kind::TryAgain, "cannot write the journal")
                    .says(error.to_string())
                    .fix("make room in the cluster folder (quota, full disk)")
            })?;
        let (journal_replies, from_journal) = mpsc::unbounded_channel();
        let (to_journal, journal_requests) = std::sync::mpsc::channel();
        let writer = Writer::new(journal, disk, taken.lease, journal_replies, Instant::now());
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(&journal_requests, Instant::now))
            .map_err(|error| Problem::new(Kind::Internal, "cannot start a thread").says(error.to_string()))?;

        let (to_self, inputs) = mpsc::channel(INPUTS_MAX);
        let tls = Arc::new(tls);
        let reception = listen::Reception::new(to_self.clone(), &identity.id, epoch);
        let (listeners, addresses) = listen::bind_tcp(&spec).await?;
        for listener in listeners {
            tokio::spawn(reception.clone().serve_tls(listener, Arc::clone(&tls)));
        }
        match listen::bind_unix(&folder) {
            Ok(listener) => {
                tokio::spawn(reception.serve_unix(listener));
            }
            Err(error) => tracing::warn!(%error, "no unix socket; clients use TLS"),
        }
        folder.publish(&identity, &authority, &addresses, &clock::host())?;
        let publisher = tokio::spawn(keep_published(folder.clone(), identity, authority, addresses));
        let mut events = EventFile::open(&folder.events(), epoch);
        output.events.push(core::EventLine {
            kind: "server_started",
            job: None,
            task: None,
            text: format!("server started on {} (epoch {epoch})", clock::host()),
        });
        events.write(std::mem::take(&mut output.events), now);
        let server = Self {
            publisher,
            core,
            outbox: Outbox::default(),
            output,
            connections: BTreeMap::new(),
            inputs,
            to_self,
            to_journal,
            from_journal,
            backend,
            folder: folder.path().to_owned(),
            spec,
            events,
            written: 0,
            unwritten: VecDeque::new(),
            lazy: Vec::new(),
            lazy_until: None,
            durable: turn,
            turn,
            closing: None,
            _lock: taken.lock,
        };
        announce(&StartLine::Ready { epoch });
        Ok(server)
    }

    async fn serve(mut self) -> Result<(), Problem> {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(|error| Problem::new(Kind::Internal, "cannot watch for signals").says(error.to_string()))?;
        loop {
            let patience = self.patience();
            let mut from_journal = None;
            let mut input = None;
            tokio::select! {
                biased;
                message = self.from_journal.recv() => from_journal = Some(message),
                received = self.inputs.recv() => input = received,
                _ = terminate.recv() => input = Some(Input::Terminate),
                () = tokio::time::sleep(patience) => {}
            }
            let woken = Instant::now();
            if let Some(message) = from_journal {
                match message {
                    Some(FromJournal::Closed) => return self.say_closed().await,
                    Some(message) => self.on_journal(message)?,
                    None => return Err(Problem::new(Kind::Internal, "the journal's thread is gone")),
                }
                if self.inputs.is_empty() {
                    self.flush();
                    self.core.turn_took(woken.elapsed());
                    continue;
                }
            }
            let now = clock::now();
            self.turn = self.core.begin_turn();
            let mut count = 0;
            while let Some(next) = input.take().or_else(|| self.inputs.try_recv().ok()) {
                if matches!(next, Input::Terminate) {
                    tracing::info!("asked to end: jobs and tasks go on, any dcluster command brings the server back");
                    return Ok(());
                }
                count += match &next {
                    Input::FromWorker(_, messages) => messages.len(),
                    _ => 1,
                };
                self.on_input(next, now);
                if count >= TURN_EVENTS_MAX {
                    break;
                }
            }
            self.core.end_turn(now, &mut self.output);
            self.dispatch(now);
            self.core.turn_took(woken.elapsed());
        }
    }

    fn on_input(&mut self, input: Input, now: crate::ledger::Moment) {
        match input {
            Input::Client(connection, sender) => {
                self.connections.insert(connection, sender);
            }
            Input::Worker(connection, hello, sender) => {
                self.connections.insert(connection, sender);
                self.core.on_worker_hello(connection, *hello, now, &mut self.output);
            }
            Input::Request(connection, id, request) => {
                self.core.on_request(connection, id, *request, now, &mut self.output)
            }
            Input::FromWorker(connection, messages) => {
                for message in messages {
                    self.core.on_worker_message(connection, message, now, &mut self.output);
                }
            }
            Input::Disconnected(connection) => {
                self.connections.remove(&connection);
                self.core.on_disconnected(connection, now);
            }
            Input::Done(done) => self.core.on_done(*done, now),
            Input::Terminate => {}
        }
    }

    fn on_journal(&mut self, message: FromJournal) -> Result<(), Problem> {
        let now = clock::now();
        match message {
            FromJournal::Durable(turn, sequence) => {
                self.durable = turn;
                self.count_unwritten();
                self.core.on_durable(turn, sequence, &mut self.output);
            }
            FromJournal::Trouble(what) => self.core.on_journal(Some(what), now, &mut self.output),
            FromJournal::Recovered => self.core.on_journal(None, now, &mut self.output),
            FromJournal::NeedBase => {
                // The base is of now: nothing that it holds may follow it.
                self.lazy.append(&mut self.output.records);
                self.write_lazy();
                let base = Box::new(self.core.snapshot());
                self.tell_journal(ToJournal::Base(self.turn, base));
            }
            FromJournal::Fenced(what) => {
                self.events.write(
                    vec![core::EventLine { kind: "server_fenced", job: None, task: None, text: what.clone() }],
                    now,
                );
                return Err(Problem::new(Kind::TryAgain, "another server holds the cluster; this one stops").says(what));
            }
            FromJournal::Closed => {}
        }
        // Recovering may itself have ended tasks (submissions given back).
        self.write_records();
        Ok(())
    }

    /// Sends a turn's outputs on their way.
    fn dispatch(&mut self, now: crate::ledger::Moment) {
        let events = std::mem::take(&mut self.output.events);
        if !events.is_empty() {
            self.events.write(events, now);
        }
        for entry in std::mem::take(&mut self.output.decisions) {
            self.events.write_decision(&entry);
        }
        if let Some(learned) = self.output.learned.take() {
            let (folder, spec) = (self.folder.clone(), self.spec.clone());
            // A file system that hangs must not stop the server.
            tokio::task::spawn_blocking(move || learned::write(&folder, &spec, &learned));
        }
        self.write_records();
        if let Some(clients) = self.output.closed.take() {
            self.closing = Some(clients);
            let text = "the cluster is down: nothing of it is left".to_owned();
            self.events.write(vec![core::EventLine { kind: "closed", job: None, task: None, text }], now);
            self.tell_journal(ToJournal::Close);
        }
        self.flush();
    }

    /// Returns how long the loop may sleep.
    fn patience(&self) -> Duration {
        let tick = if self.core.is_restless() { RESTLESS_TICK } else { TICK };
        let lazy = self.lazy_until.map(|at| at.saturating_duration_since(Instant::now()));
        lazy.map_or(tick, |lazy| lazy.min(tick))
    }

    /// Sends records to the journal: at once if something waits for them, otherwise together with those of the
    /// next milliseconds.
    fn write_records(&mut self) {
        if !self.output.records.is_empty() {
            self.lazy.append(&mut self.output.records);
            self.written = self.turn;
        }
        if self.lazy.is_empty() {
            return;
        }
        let until = *self.lazy_until.get_or_insert_with(|| Instant::now() + LAZY);
        let awaited = self.output.sends.iter().any(|(_, after, _)| *after > self.durable);
        let closes = self.output.closed.is_some();
        if awaited || closes || !self.output.orders.is_empty() || self.lazy.len() >= LAZY_MAX || Instant::now() >= until
        {
            self.write_lazy();
        }
    }

    fn write_lazy(&mut self) {
        self.lazy_until = None;
        if self.lazy.is_empty() {
            return;
        }
        let records: Vec<Vec<u8>> = self.lazy.drain(..).map(|record| record.encode()).collect();
        self.unwritten.push_back((self.written, records.iter().map(Vec::len).sum()));
        self.count_unwritten();
        self.tell_journal(ToJournal::Write(self.written, records));
    }

    fn count_unwritten(&mut self) {
        while self.unwritten.front().is_some_and(|(turn, _)| *turn <= self.durable) {
            self.unwritten.pop_front();
        }
        self.core.on_journal_queue(self.unwritten.iter().map(|(_, bytes)| bytes).sum());
    }

    fn flush(&mut self) {
        // A turn without records is as durable as the last one with.
        let durable = if self.durable >= self.written { self.turn } else { self.durable };
        // A worker that is interrupted waits to hear that this is known, although nothing is written of it.
        self.core.on_durable(durable, 0, &mut self.output);
        self.outbox.put(self.turn, &mut self.output);
        for release in self.outbox.release(durable) {
            match release {
                Release::Send(connection, message) => {
                    if let Some(peer) = self.connections.get(&connection)
                        && peer.send(message).is_err()
                    {
                        tracing::warn!(connection = connection.0, "a peer does not read: disconnected");
                        self.connections.remove(&connection);
                    }
                }
                Release::Close(connection) => {
                    self.connections.remove(&connection);
                }
                Release::Order(order) => {
                    let (backend, jobs, to_self) =
                        (Arc::clone(&self.backend), self.folder.join("jobs"), self.to_self.clone());
                    tokio::spawn(async move {
                        if let Some(done) = driver::carry_out(order, backend, jobs).await {
                            // The loop is gone only when the server ends.
                            let _ = to_self.send(Input::Done(Box::new(done))).await;
                        }
                    });
                }
            }
        }
    }

    fn tell_journal(&self, request: ToJournal) {
        // The thread ends only after it told us why.
        let _ = self.to_journal.send(request);
    }

    /// Answers those who asked for the end, and ends.
    async fn say_closed(mut self) -> Result<(), Problem> {
        for (connection, id) in self.closing.take().unwrap_or_default() {
            if let Some(peer) = self.connections.get(&connection) {
                let reply = Reply::Left { jobs: Vec::new(), closed: true };
                let _ = peer.send(Outgoing::Client(ClientReply::Reply { id, reply: Box::new(reply) }));
            }
        }
        self.publisher.abort();
        // Nobody is to be sent to an address that is nobody's any more.
        for stale in ["sock", "access", "worker"] {
            // What cannot be removed is refused by the handshake.
            let _ = std::fs::remove_file(self.folder.join(stale));
        }
        // Dropping the senders lets the writers finish; they need a moment of this thread.
        self.connections.clear();
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(())
    }
}
