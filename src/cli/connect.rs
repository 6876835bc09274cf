//! Reaching the server of a cluster, and bringing it back when it is gone.

use super::Context;
use crate::client::Client;
use crate::cluster::{Folder, Identity};
use crate::error::{Kind, Problem};
use crate::runtime::disk::RealDisk;
use crate::runtime::lease::{self, ServerState};
use crate::server::core::Core;
use crate::server::log;
use crate::server::{StartLine, core_of, replay};
use crate::sys::new_session;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader};

/// What is the matter with a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Condition {
    /// There is none of this name.
    Missing,
    /// It went down in order.
    Down,
    /// It should be up.
    Up,
}

/// Looks at the folder alone.
pub(super) fn condition(folder: &Folder) -> Result<Condition, Problem> {
    if !folder.exists() {
        return Ok(Condition::Missing);
    }
    let disk = open_disk(folder)?;
    let state = lease::read_lease(&disk)
        .map_err(|error| Problem::new(Kind::Unreachable, "cannot read the lease").says(error.to_string()))?;
    Ok(match state {
        Some(state) if state.state == ServerState::Closed => Condition::Down,
        _ => Condition::Up,
    })
}

pub(super) fn open_disk(folder: &Folder) -> Result<RealDisk, Problem> {
    RealDisk::open(folder.path()).map_err(|error| {
        Problem::new(Kind::Unreachable, format!("cannot use the cluster folder {}", folder.path().display()))
            .says(error.to_string())
    })
}

/// The problem of a command that needs a cluster where none is up.
pub(super) fn not_up(folder: &Folder) -> Problem {
    Problem::new(Kind::Unreachable, format!("no cluster {} is up", folder.name())).fix(up_command(folder))
}

fn up_command(folder: &Folder) -> String {
    if folder.name() == "default" { "dcluster up".to_owned() } else { format!("dcluster up --name {}", folder.name()) }
}

/// Returns the option that names a cluster in commands that we suggest.
pub(super) fn cluster_flag(folder: &Folder) -> String {
    if folder.name() == "default" { String::new() } else { format!(" --cluster {}", folder.name()) }
}

/// Connects to the server of a cluster that is up; one that died is brought back first.
pub(super) async fn connect(folder: &Folder, context: &Context) -> Result<Client, Problem> {
    match condition(folder)? {
        Condition::Missing | Condition::Down => return Err(not_up(folder)),
        Condition::Up => {}
    }
    folder.open()?;
    let mut other = None;
    for _ in 0..3 {
        match Client::connect(folder).await {
            Ok(client) => return Ok(client),
            Err(Some(problem)) => return Err(problem),
            // Somebody holds the cluster, and still nobody answers: it cannot be reached from here.
            Err(None) if other.is_some() => break,
            Err(None) => other = start_server(folder, false, false, context).await?,
        }
    }
    let problem = other.unwrap_or_else(|| Problem::new(Kind::Unreachable, "the server does not stay up"));
    Err(problem.location(folder.server_log().display().to_string()).why("it does not answer at any of its addresses"))
}

/// Starts a server process that outlives us, and returns when it answers; or with what it said when it
/// found another one that holds the cluster.
pub(super) async fn start_server(
    folder: &Folder,
    open: bool,
    take_over: bool,
    context: &Context,
) -> Result<Option<Problem>, Problem> {
    let internal =
        |what: &str, error: std::io::Error| Problem::new(Kind::Unreachable, what.to_owned()).says(error.to_string());
    let program = std::env::current_exe().map_err(|error| internal("cannot find the path of this program", error))?;
    let log_path = folder.server_log();
    let log = log::open(&log_path)
        .map_err(|error| internal("cannot write the server's log", error).location(log_path.display().to_string()))?;
    let mut command = Command::new(program);
    command.arg("server").arg("--cluster-folder").arg(folder.path());
    if open {
        command.arg("--open");
    }
    if take_over {
        command.arg("--take-over");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).current_dir(folder.path());
    let mut child = tokio::process::Command::from({
        new_session(&mut command);
        command
    })
    .spawn()
    .map_err(|error| internal("cannot start the server", error))?;
    let Some(out) = child.stdout.take() else {
        return Err(Problem::new(Kind::Internal, "the server has no standard output"));
    };
    let mut lines = BufReader::new(out).lines();
    let mut told = false;
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(StartLine::Waiting { seconds }) => {
                if !told {
                    let text = format!(
                        "the former server gives no sign of life; taking over in {seconds} s unless it does (at once: dcluster up --take-over)"
                    );
                    context.printer.note(&text);
                    told = true;
                }
            }
            Ok(StartLine::Ready { epoch }) => {
                context.printer.detail(&format!("server of epoch {epoch} is up"));
                return Ok(None);
            }
            Ok(StartLine::Failed { code, problem }) => {
                if code == Kind::TryAgain as u8 && problem.what.starts_with("another server") {
                    // Somebody else started one at the same time: that one will do, once it answers.
                    for _ in 0..100 {
                        if condition(folder)? == Condition::Up && Client::connect(folder).await.is_ok() {
                            break;
                        }
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    }
                    return Ok(Some(told_problem(code, problem)));
                }
                return Err(told_problem(code, problem));
            }
            Err(_) => break,
        }
    }
    Err(Problem::new(Kind::Internal, "the server ended while it started")
        .says(tail(&log_path, 600))
        .location(log_path.display().to_string()))
}

fn told_problem(code: u8, told: crate::server::StartProblem) -> Problem {
    let kinds = [Kind::Failed, Kind::Usage, Kind::Unreachable, Kind::Internal, Kind::TryAgain, Kind::Config];
    let kind = kinds.into_iter().find(|kind| *kind as u8 == code).unwrap_or(Kind::Internal);
    let mut problem = Problem::new(kind, told.what);
    if let Some(done) = told.done {
        problem = problem.done(done);
    }
    if let Some(says) = told.says {
        problem = problem.says(says);
    }
    if let Some(location) = told.location {
        problem = problem.location(location);
    }
    if let Some(why) = told.why {
        problem = problem.why(why);
    }
    told.fixes.into_iter().fold(problem, Problem::fix)
}

/// Returns the end of a text file.
pub(super) fn tail(path: &std::path::Path, bytes: u64) -> String {
    let read = || {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut text = Vec::new();
        file.take(bytes).read_to_end(&mut text)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&text).into_owned())
    };
    read().unwrap_or_default()
}

/// Reads the state of a cluster that is down from its journal, for commands that only look.
pub(super) fn offline(folder: &Folder) -> Result<(Core, Identity), Problem> {
    if !folder.exists() {
        return Err(not_up(folder));
    }
    let identity = folder.open()?;
    let disk = open_disk(folder)?;
    let lease = lease::read_lease(&disk)
        .map_err(|error| Problem::new(Kind::Unreachable, "cannot read the lease").says(error.to_string()))?;
    let mut core = core_of(folder, &identity, u32::MAX >> 8, 1)?;
    replay(folder, &disk, &identity, lease.as_ref(), &mut core)?;
    Ok((core, identity))
}
