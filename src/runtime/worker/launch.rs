//! What a start needs besides its command: working directory, umask, and the words for whatever goes wrong.

use super::Millis;
use crate::runtime::protocol::{Body, Gpus, Outcome};
use bstr::{BString, ByteSlice};
use nix::sys::stat::{Mode, umask};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Why a task has no process. The text is what the user reads in [`Outcome::NotStarted`].
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The command line has no word, or its first word is empty.
    #[error("the command is empty")]
    NoCommand,
    /// The `map` template could not be filled in.
    #[error("cannot fill in the command: {message}")]
    Template {
        /// What the template said.
        message: String,
    },
    /// Not on the PATH, or not at this path.
    #[error("no such program: {program}{}", looked_in(path.as_ref()))]
    NoProgram {
        /// As given.
        program: BString,
        /// The PATH that was searched.
        path: Option<BString>,
    },
    /// No permission to execute it.
    #[error("{} is not executable (chmod +x makes it so)", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
    /// Neither a program nor a script with an interpreter. Shells run such a file with sh; we do not, because
    /// which shell was meant is a guess.
    #[error("{} has no #! line that says what runs it: add one, or submit `sh FILE`", path.display())]
    NoScriptLine {
        /// The file.
        path: PathBuf,
    },
    /// Its `#!` line names a program that is not there.
    #[error("the interpreter of {} does not exist: {interpreter}", path.display())]
    NoInterpreter {
        /// The script.
        path: PathBuf,
        /// Its first word.
        interpreter: BString,
    },
    /// An executable of another architecture, or a damaged one.
    #[error("{} is not a program for this kind of machine", path.display())]
    OtherMachine {
        /// The file.
        path: PathBuf,
    },
    /// More bytes of arguments and environment than the system takes.
    #[error(
        "arguments and environment are too long for the system ({bytes} bytes; one argument may have \
         128 KiB, all together by default 2 MiB)"
    )]
    TooLong {
        /// Both together.
        bytes: usize,
    },
    /// Programs receive C strings.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// Which text.
        what: &'static str,
    },
    /// The working directory is missing on this node.
    #[error("working directory {} does not exist", path.display())]
    NoDirectory {
        /// It.
        path: PathBuf,
    },
    /// The working directory is unusable.
    #[error("cannot use the working directory {}: {source}", path.display())]
    Directory {
        /// It.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of a standard stream could not be opened.
    #[error("cannot open {} for {stream}: {source}", path.display())]
    Stream {
        /// `standard input`, `standard output`, `standard error`.
        stream: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A placeholder that output paths do not have.
    #[error(
        "{stream} has the unknown placeholder {{{placeholder}}}: {{id}}, {{index}} and {{name}} are known, \
         {{{{ and }}}} stand for braces"
    )]
    Placeholder {
        /// Which stream.
        stream: &'static str,
        /// The text between the braces.
        placeholder: BString,
    },
    /// A brace without its partner.
    #[error("{stream} has a brace without its partner: write {{{{ or }}}} for a brace of the file name")]
    Brace {
        /// Which stream.
        stream: &'static str,
    },
    /// `{index}` in a task that has none.
    #[error("{stream} has {{index}}, but this task is not an element of an array: use {{id}}")]
    NoIndex {
        /// Which stream.
        stream: &'static str,
    },
    /// The server sent it here with GPUs that are not there.
    #[error("GPUs requested: {wanted}, of this worker's {offered} the server gave none that exists")]
    NoGpu {
        /// Requested.
        wanted: Gpus,
        /// GPUs of the worker.
        offered: usize,
    },
    /// The server sent it here with cores that are not free.
    #[error("cores requested: {wanted}, free where the server said: fewer, of {free} free ones on this worker")]
    NoCores {
        /// Requested.
        wanted: u32,
        /// Not in use.
        free: usize,
    },
    /// The processes cannot be kept on their cores.
    #[error("cannot pin the task to its cores: {source}")]
    Pin {
        /// What the system said.
        source: io::Error,
    },
    /// The list of its nodes could not be written.
    #[error("cannot write the list of nodes: {source}")]
    NodeFile {
        /// What the system said.
        source: io::Error,
    },
    /// The system refused for another reason.
    #[error("cannot start {}: {source}", path.display())]
    Refused {
        /// The program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A PATH is cut here in messages: they stand in tables.
const PATH_CHARS_MAX: usize = 80;

fn looked_in(path: Option<&BString>) -> String {
    let shown = |path: &BString| match path.char_indices().nth(PATH_CHARS_MAX) {
        Some((cut, ..)) => format!(" (looked in PATH={}…)", path[..cut].as_bstr()),
        None => format!(" (looked in PATH={path})"),
    };
    path.map_or_else(String::new, shown)
}

impl From<StartError> for Outcome {
    fn from(error: StartError) -> Self {
        Self::NotStarted { error: error.to_string() }
    }
}

/// Has the task's umask from its creation until it is dropped. The umask belongs to the whole process:
/// the worker has a single thread, and nothing is awaited while this lives.
pub(super) struct TaskUmask(Mode);

impl TaskUmask {
    pub(super) fn of(body: &Body) -> Self {
        Self(umask(Mode::from_bits_truncate(body.umask & 0o777)))
    }
}

impl Drop for TaskUmask {
    fn drop(&mut self) {
        umask(self.0);
    }
}

/// Returns the working directory if it is usable.
pub(super) fn working_directory(body: &Body) -> Result<PathBuf, StartError> {
    check_nul("the working directory", &body.cwd)?;
    let path = PathBuf::from(OsStr::from_bytes(&body.cwd));
    match path.metadata() {
        Ok(found) if found.is_dir() => Ok(path),
        Ok(_) => Err(StartError::Directory { path, source: io::ErrorKind::NotADirectory.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StartError::NoDirectory { path }),
        Err(source) => Err(StartError::Directory { path, source }),
    }
}

/// Fails if a text that goes to the system contains a NUL byte.
pub(super) fn check_nul(what: &'static str, text: &[u8]) -> Result<(), StartError> {
    if text.contains(&0) {
        return Err(StartError::Nul { what });
    }
    Ok(())
}

/// Returns the time limit of a body in milliseconds.
pub(super) fn time_limit(body: &Body) -> Option<Millis> {
    body.time_limit_seconds.map(|seconds| seconds.saturating_mul(1000))
}
