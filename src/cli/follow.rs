//! Prints what tasks print, element after element in order, while they run.

use super::Context;
use super::submit::all_of;
use super::wait::{Notes, ask};
use crate::client::{Client, unexpected};
use crate::error::{Kind, Problem};
use crate::runtime::control::{Reply, Request, TaskInfo};
use crate::runtime::ids::{ArrayId, TaskId};
use crate::runtime::scheduler::Kind as TaskKind;
use bstr::BStr;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Between two looks at the files of a task that runs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const READ_BYTES: u64 = 1 << 20;

/// How a followed submission ended.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Ends {
    /// Tasks that did not finish with success.
    pub(super) failed: u64,
    /// Exit code of the last task, as a shell would say it.
    pub(super) last_code: u8,
}

/// One stream of one task, read as it grows.
#[derive(Default)]
struct Stream {
    offset: u64,
}

/// Whether a file cannot be seen on this host, rather than not be there: not even the folders it would be in are.
fn out_of_sight(path: &BStr) -> bool {
    let path = Path::new(OsStr::from_bytes(path));
    path.ancestors().take(3).all(|part| !part.exists())
}

impl Stream {
    /// Copies what is new; a file that is not there (yet, or because nothing was written) is empty.
    fn copy(&mut self, path: &BStr, out: &mut impl Write) -> std::io::Result<bool> {
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        let Ok(mut file) = OpenOptions::new().read(true).custom_flags(flags).open(Path::new(OsStr::from_bytes(path)))
        else {
            return Ok(false);
        };
        let mut any = false;
        loop {
            file.seek(SeekFrom::Start(self.offset))?;
            let mut bytes = Vec::new();
            let read = (&file).take(READ_BYTES).read_to_end(&mut bytes)? as u64;
            if read == 0 {
                break;
            }
            out.write_all(&bytes)?;
            self.offset += read;
            any = true;
        }
        out.flush()?;
        Ok(any)
    }

    /// Reads the next parts through the server, not more at once than a file is read.
    async fn ask(&mut self, client: &mut Client, task: TaskId, stderr: bool, out: &mut Vec<u8>) -> Result<(), Problem> {
        while (out.len() as u64) < READ_BYTES {
            match client.ask(Request::Output { task, stderr, offset: self.offset }).await? {
                Reply::Output { bytes } if bytes.is_empty() => break,
                Reply::Output { bytes } => {
                    self.offset += bytes.len() as u64;
                    out.extend_from_slice(&bytes);
                }
                other => return Err(unexpected(&other)),
            }
        }
        Ok(())
    }
}

/// Copies both streams of a task from where they stand.
struct Tail {
    out: Stream,
    error: Stream,
}

impl Tail {
    fn new() -> Self {
        Self { out: Stream::default(), error: Stream::default() }
    }

    /// Prints what is new; what cannot be seen from here is asked of the server.
    async fn copy(&mut self, info: &TaskInfo, client: Option<&mut Client>) -> Result<bool, Problem> {
        if let Some(client) = client
            && out_of_sight(info.stdout.as_ref())
        {
            let mut out = Vec::new();
            self.out.ask(client, info.task, false, &mut out).await?;
            let mut error = Vec::new();
            if info.stderr != info.stdout {
                self.error.ask(client, info.task, true, &mut error).await?;
            }
            std::io::stdout().lock().write_all(&out).map_err(closed)?;
            std::io::stdout().lock().flush().map_err(closed)?;
            std::io::stderr().lock().write_all(&error).map_err(closed)?;
            return Ok(!out.is_empty() || !error.is_empty());
        }
        let out = self.out.copy(info.stdout.as_ref(), &mut std::io::stdout().lock()).map_err(closed)?;
        if info.stderr == info.stdout {
            return Ok(out);
        }
        let error = self.error.copy(info.stderr.as_ref(), &mut std::io::stderr().lock()).map_err(closed)?;
        Ok(out || error)
    }
}

fn closed(error: std::io::Error) -> Problem {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Problem::new(Kind::OutputClosed, "output closed"),
        _ => Problem::new(Kind::Failed, "cannot print the output").says(error.to_string()),
    }
}

/// Prints the outputs of a submission in order until all of it has ended.
pub(super) async fn follow(client: &mut Client, array: ArrayId, context: &Context) -> Result<Ends, Problem> {
    let mut ends = Ends::default();
    let mut after: Option<TaskId> = super::submit::before_first(array);
    let mut tail = Tail::new();
    let mut notes = Notes::default();
    let tasks = all_of(array);
    loop {
        // Looked at first: what was written before a task ended is then read after it.
        let answer = ask(client, &tasks, LOOK_EVERY).await?;
        notes.tell(&answer, |line| context.printer.note(line));
        loop {
            let request = Request::Tasks { tasks: tasks.clone(), kinds: Vec::new(), after, limit: 256 };
            let page = match client.ask(request).await? {
                Reply::Tasks { tasks, .. } => tasks,
                other => return Err(unexpected(&other)),
            };
            if page.is_empty() {
                return Ok(ends);
            }
            let mut waits = false;
            for info in page {
                tail.copy(&info, Some(client)).await?;
                if matches!(info.kind, TaskKind::Finished | TaskKind::Failed | TaskKind::Cancelled) {
                    ends.last_code = code(&info);
                    if info.kind != TaskKind::Finished {
                        ends.failed += 1;
                        report(&info, context);
                    }
                    after = Some(info.task);
                    tail = Tail::new();
                } else {
                    waits = true;
                    break;
                }
            }
            if waits {
                break;
            }
        }
    }
}

/// Says on standard error how a task failed, unless its exit code says it all.
fn report(info: &TaskInfo, context: &Context) {
    if info.exit_code.is_none() {
        let id = info.id();
        let reason = info.reason.as_deref().unwrap_or("failed");
        context.printer.note(&format!("task {id}: {}", crate::ui::words::escape(reason)));
    }
}

/// The exit code of a task, as a shell would say it: 128 + signal, 124 at a time limit, 127 not started.
pub(super) fn code(info: &TaskInfo) -> u8 {
    match (info.exit_code, info.signal) {
        (Some(code), _) => u8::try_from(code & 0xff).unwrap_or(1),
        (_, Some(signal)) => u8::try_from(128 + signal).unwrap_or(1),
        _ if info.reason.as_deref().is_some_and(|reason| reason.contains("time limit")) => Kind::TimeOut as u8,
        _ if info.kind == TaskKind::Failed => 127,
        _ => 1,
    }
}

/// Prints the output of one task; `follow` keeps on until `ended` says that it is over.
pub(super) struct Copier(Tail);

impl Copier {
    /// Starts at the beginning.
    pub(super) fn new() -> Self {
        Self(Tail::new())
    }

    /// Prints what is new; returns whether there was anything.
    pub(super) async fn copy(&mut self, info: &TaskInfo, client: Option<&mut Client>) -> Result<bool, Problem> {
        self.0.copy(info, client).await
    }
}
