//! The loop of a worker process: connects [`Session`] and [`Executor`] to sockets, signals and the
//! clock. One thread; the executor owns all child processes.

use super::exit_hook;
use super::runner::Runner;
use super::simulated::{Simulated, Simulation};
use super::{Cores, Executor, ExecutorOptions, Millis, Render, Session, SessionOptions, SessionSignal, WorkerAction};
use crate::cluster::Folder;
use crate::error::{Kind, Problem};
use crate::runtime::dial::dial;
use crate::runtime::ids::JobName;
use crate::runtime::protocol::{Capacity, EndReport, Outcome, ServerMessage, Usage, WorkerMessage};
use crate::runtime::transport::{Channel, FRAME_BYTES_MAX, Role};
use crate::server::clock;
use crate::template::Template;
use bstr::BString;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Between TERM and KILL for a task that is killed by the user or by its time limit.
const KILL_GRACE: Duration = Duration::from_secs(5);
const ORPHAN_GRACE: Millis = 10_000;
/// How long leftovers are fought at the end.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many workers of one process connect at the same time: each attempt has a time limit, and a server takes
/// thousands of them one after the other.
const DIALS_AT_ONCE: usize = 32;

/// How a worker is started.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The cluster folder.
    pub folder: Folder,
    /// The job it runs in; `None` = joined by hand.
    pub job: Option<JobName>,
    /// What it offers.
    pub capacity: Capacity,
    /// Ids of its GPUs.
    pub gpus: Vec<String>,
    /// The cores it pins tasks to, if it does.
    pub cores: Option<Cores>,
    /// The node's folder for temporary files.
    pub temporary: PathBuf,
    /// Shell line to run before it leaves.
    pub on_exit: Option<String>,
    /// Seconds until its walltime ends, if it knows.
    pub walltime_left: Option<u64>,
    /// Seconds before the end of the walltime at which it drains.
    pub drain_lead_seconds: u64,
    /// Seconds it lives on without a server.
    pub orphan_timeout_seconds: u64,
    /// Its own environment, for the tasks.
    pub environment: BTreeMap<BString, BString>,
}

/// What the network side tells the loop.
enum FromServer {
    Connected(mpsc::UnboundedSender<WorkerMessage>, SocketAddr),
    Messages(Vec<ServerMessage>),
    Gone(String),
}

type FromServers = mpsc::UnboundedReceiver<FromServer>;

struct Service {
    session: Session,
    runner: Runner,
    folder: Folder,
    dials: Arc<Semaphore>,
    outgoing: Option<mpsc::UnboundedSender<WorkerMessage>>,
    connection: Option<tokio::task::JoinHandle<()>>,
    to_self: mpsc::UnboundedSender<FromServer>,
    good_address: Option<SocketAddr>,
    leave: Option<(i32, String)>,
    exit_hook: Option<ExitHook>,
    walltime_ends_at: Option<Millis>,
}

/// What is run at the end.
struct ExitHook {
    line: String,
    environment: BTreeMap<BString, BString>,
}

fn parse(template: &BString) -> Result<Render, String> {
    let template = Template::parse(template.as_ref()).map_err(|error| error.to_string())?;
    Ok(Box::new(move |inputs, element| template.render(inputs, u64::from(element) + 1).argv()))
}

/// Runs a worker until it leaves; returns its exit code and why it left.
///
/// # Errors
///
/// If it cannot even begin.
pub fn run(options: &WorkerOptions) -> Result<(i32, String), Problem> {
    crate::cluster::private_umask();
    let executor = Executor::new(ExecutorOptions {
        cluster_folder: options.folder.path().to_owned(),
        cluster_name: options.folder.name().to_owned(),
        job: options.job.clone(),
        environment: options.environment.clone(),
        gpus: options.gpus.clone(),
        cores: options.cores.clone(),
        temporary: options.temporary.clone(),
        kill_grace: KILL_GRACE,
        parse,
    })
    .map_err(|error| internal("cannot prepare to start tasks", &error))?;
    let (mut service, from_server) =
        Service::new(options, Runner::Real(Box::new(executor)), Arc::new(Semaphore::new(1)))?;
    let environment = || options.environment.clone();
    service.exit_hook = options.on_exit.clone().map(|line| ExitHook { line, environment: environment() });
    run_all(vec![(service, from_server)])
}

/// Runs workers that pretend to run tasks, each with a connection of its own, until all have left; returns the
/// exit code and reason of the first that left with another code than 0, or else of the last.
///
/// # Errors
///
/// If they cannot even begin.
pub fn simulate(options: &WorkerOptions, simulation: Simulation, workers: u32) -> Result<(i32, String), Problem> {
    allow_many_connections().map_err(|error| internal("cannot raise the limit of open files", &error))?;
    let dials = Arc::new(Semaphore::new(DIALS_AT_ONCE));
    let one = |_| Service::new(options, Runner::Simulated(Simulated::new(simulation, parse)), Arc::clone(&dials));
    run_all((0..workers).map(one).collect::<Result<_, _>>()?)
}

fn internal(what: &str, error: &io::Error) -> Problem {
    Problem::new(Kind::Internal, what.to_owned()).says(error.to_string())
}

fn allow_many_connections() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

fn run_all(services: Vec<(Service, FromServers)>) -> Result<(i32, String), Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| internal("cannot start the event loop", &error))?;
    let all = async {
        let mut running = JoinSet::new();
        for (service, from_server) in services {
            running.spawn(service.serve(from_server));
        }
        let mut worst = (0, String::new());
        while let Some(left) = running.join_next().await {
            let left = left.map_err(io::Error::other)??;
            if worst.0 == 0 {
                worst = left;
            }
        }
        Ok(worst)
    };
    runtime.block_on(all).map_err(|error: io::Error| internal("the worker's loop failed", &error))
}

impl Service {
    fn new(options: &WorkerOptions, runner: Runner, dials: Arc<Semaphore>) -> Result<(Self, FromServers), Problem> {
        let nonce = crate::cluster::random()?;
        let seed = u64::from_le_bytes(nonce[..8].try_into().expect("eight of sixteen bytes"));
        let session = Session::new(
            SessionOptions {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                job: options.job.clone(),
                nonce: nonce.iter().map(|byte| format!("{byte:02x}")).collect(),
                node: clock::host(),
                pid: std::process::id(),
                capacity: options.capacity.clone(),
                walltime_left: options.walltime_left.map(|seconds| seconds * 1000),
                drain_lead: options.drain_lead_seconds * 1000,
                orphan_grace: ORPHAN_GRACE,
                orphan_timeout: options.orphan_timeout_seconds * 1000,
                seed,
            },
            clock::boot_milliseconds(),
        );
        let (to_self, from_server) = mpsc::unbounded_channel();
        let service = Self {
            session,
            runner,
            folder: options.folder.clone(),
            dials,
            outgoing: None,
            connection: None,
            to_self,
            good_address: None,
            leave: None,
            exit_hook: None,
            walltime_ends_at: options
                .walltime_left
                .map(|seconds| clock::boot_milliseconds().saturating_add(seconds.saturating_mul(1000))),
        };
        Ok((service, from_server))
    }

    async fn serve(mut self, mut from_server: FromServers) -> io::Result<(i32, String)> {
        let mut children = if self.runner.has_children() { Some(signal(SignalKind::child())?) } else { None };
        use nix::sys::signal::Signal::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
        let mut ends = [caught(SIGTERM)?, caught(SIGINT)?];
        let mut warnings = [caught(SIGUSR1)?, caught(SIGUSR2)?];
        let first = self.session.on_tick(clock::boot_milliseconds());
        self.carry_out(first);
        while self.leave.is_none() {
            let wakeup = [self.session.next_tick(), self.runner.next_deadline()].into_iter().flatten().min();
            let wait = wakeup.map_or(60_000, |at| at.saturating_sub(clock::boot_milliseconds()).min(60_000));
            let mut actions = Vec::new();
            tokio::select! {
                biased;
                Some(what) = from_server.recv() => actions = self.on_server(what),
                // Before the ends of tasks that the same signal has ended.
                number = any(&mut ends) => actions = self.on_signal(number, SessionSignal::Terminate),
                number = any(&mut warnings) => actions = self.on_signal(number, SessionSignal::Warning),
                () = child(&mut children) => {}
                // A timer would round up to a millisecond.
                () = tokio::task::yield_now(), if wait == 0 => {}
                () = tokio::time::sleep(Duration::from_millis(wait)), if wait > 0 => {}
            }
            self.carry_out(actions);
            let now = clock::boot_milliseconds();
            for report in self.runner.ended(now) {
                let actions = self.session.on_ended(report);
                self.carry_out(actions);
            }
            let actions = self.session.on_tick(now);
            self.carry_out(actions);
        }
        let (code, mut reason) = self.leave.take().unwrap_or_default();
        self.runner.kill_descendants(PATIENCE, clock::boot_milliseconds());
        // What was said last must reach the server: the connection ends when all is written.
        drop(self.outgoing.take());
        if let Some(connection) = self.connection.take() {
            let _ = tokio::time::timeout(Duration::from_secs(1), connection).await;
        }
        if let Some(ExitHook { line, environment }) = &self.exit_hook {
            let now = clock::boot_milliseconds();
            let left = self.walltime_ends_at.map(|end| Duration::from_millis(end.saturating_sub(now)));
            if let Err(trouble) = exit_hook::run(line, &reason, environment, left).await {
                reason = format!("{reason}; {trouble}");
            }
            self.runner.kill_descendants(PATIENCE, clock::boot_milliseconds());
        }
        Ok((code, reason))
    }

    fn on_signal(&mut self, number: nix::sys::signal::Signal, signal: SessionSignal) -> Vec<WorkerAction> {
        let now = clock::boot_milliseconds();
        self.runner.on_signal(number, now);
        self.session.on_signal(signal, now)
    }

    fn on_server(&mut self, what: FromServer) -> Vec<WorkerAction> {
        let now = clock::boot_milliseconds();
        match what {
            FromServer::Connected(outgoing, address) => {
                self.outgoing = Some(outgoing);
                self.good_address = Some(address);
                self.session.on_connected(now)
            }
            FromServer::Messages(messages) => {
                let mut actions = Vec::new();
                for message in messages {
                    match &message {
                        ServerMessage::TimeLeft { seconds } => {
                            self.walltime_ends_at = Some(now.saturating_add(seconds.saturating_mul(1000)));
                        }
                        ServerMessage::ReadOutput { request, path, offset } => {
                            let bytes = super::output::read_part(path, *offset).into();
                            self.carry_out(vec![WorkerAction::Send(WorkerMessage::Output {
                                request: *request,
                                bytes,
                            })]);
                        }
                        _ => {}
                    }
                    let more = self.session.on_message(message, now);
                    // Each message's actions before the next message: a start must be known to a kill.
                    self.carry_out(more);
                    if self.leave.is_some() {
                        break;
                    }
                }
                actions.append(&mut self.session.on_tick(now));
                actions
            }
            FromServer::Gone(reason) => {
                tracing::debug!(reason, "no connection");
                self.outgoing = None;
                self.session.on_disconnected(now)
            }
        }
    }

    fn carry_out(&mut self, actions: Vec<WorkerAction>) {
        let now = clock::boot_milliseconds();
        // A list, not a recursion: a thousand runs that cannot be started follow each other.
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                WorkerAction::Dial => self.dial(),
                WorkerAction::Send(message) => {
                    if let Some(outgoing) = &self.outgoing {
                        // A connection that is gone is reported on its own.
                        let _ = outgoing.send(message);
                    }
                }
                WorkerAction::Disconnect { reason } => {
                    tracing::info!(reason, "disconnecting");
                    self.outgoing = None;
                    if let Some(connection) = self.connection.take() {
                        connection.abort();
                    }
                    prepend(&mut actions, self.session.on_disconnected(now));
                }
                WorkerAction::StartTask(start) => match self.runner.start(&start, now) {
                    Ok(()) => self.session.on_started(start.run, now),
                    Err(error) => {
                        let outcome = Outcome::from(error);
                        let report = EndReport { task: start.task, run: start.run, outcome, usage: Usage::default() };
                        prepend(&mut actions, self.session.on_ended(report));
                    }
                },
                WorkerAction::KillTask { run } => self.runner.kill(run, now),
                WorkerAction::InterruptAll { grace } => self.runner.interrupt_all(Duration::from_millis(grace), now),
                WorkerAction::Leave { code, reason } => {
                    self.leave = Some((code, reason));
                    return;
                }
            }
        }
    }

    /// Starts a connection of its own task; addresses and key are read anew, since a restarted server has others.
    fn dial(&mut self) {
        let (folder, to_self, first) = (self.folder.clone(), self.to_self.clone(), self.good_address);
        let dials = Arc::clone(&self.dials);
        self.connection = Some(tokio::spawn(async move {
            let ended = converse(&folder, &to_self, first, &dials).await;
            let reason = ended.map_or_else(|error| error, |()| "the server closed the connection".to_owned());
            // The loop is gone only when the worker ends.
            let _ = to_self.send(FromServer::Gone(reason));
        }));
    }
}

fn prepend(actions: &mut VecDeque<WorkerAction>, more: Vec<WorkerAction>) {
    for action in more.into_iter().rev() {
        actions.push_front(action);
    }
}

async fn child(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// A signal and where it arrives.
type Caught = (nix::sys::signal::Signal, Signal);

fn caught(number: nix::sys::signal::Signal) -> io::Result<Caught> {
    Ok((number, signal(SignalKind::from_raw(number as i32))?))
}

async fn any(signals: &mut [Caught; 2]) -> nix::sys::signal::Signal {
    let [one, two] = signals;
    tokio::select! { _ = one.1.recv() => one.0, _ = two.1.recv() => two.0 }
}

async fn converse(
    folder: &Folder,
    to_loop: &mpsc::UnboundedSender<FromServer>,
    first: Option<SocketAddr>,
    dials: &Semaphore,
) -> Result<(), String> {
    let turn = dials.acquire().await.map_err(|error| error.to_string())?;
    let access = folder.access(Role::Worker).map_err(|problem| problem.what)?;
    let (stream, address) = dial(&access, first).await.map_err(|error| error.to_string())?;
    drop(turn);
    let (mut to, mut from) = Channel::new(stream, FRAME_BYTES_MAX).split();
    let (sender, mut outgoing) = mpsc::unbounded_channel();
    to_loop.send(FromServer::Connected(sender, address)).map_err(|error| error.to_string())?;
    let write = async {
        let mut batch = Vec::new();
        while outgoing.recv_many(&mut batch, 4096).await > 0 {
            to.send(&batch).await?;
            batch.clear();
        }
        to.close().await
    };
    let read = async {
        while let Some(messages) = from.receive::<ServerMessage>().await? {
            if to_loop.send(FromServer::Messages(messages)).is_err() {
                break;
            }
        }
        Ok::<(), io::Error>(())
    };
    tokio::select! { ended = write => ended, ended = read => ended }.map_err(|error| error.to_string())
}
