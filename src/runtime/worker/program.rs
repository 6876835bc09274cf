//! Finds the program of a task the way `execvp` would, but says precisely what is wrong with it.

use super::launch::StartError;
use bstr::{BStr, BString, ByteSlice};
use nix::unistd::{AccessFlags, access};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";
/// Longest `#!` line the kernel reads.
const SCRIPT_LINE_BYTES: u64 = 256;

/// Returns the path to execute; like the program itself it may be relative to the working directory.
pub(super) fn find(program: &BStr, path: Option<&BString>, cwd: &Path) -> Result<PathBuf, StartError> {
    if program.is_empty() {
        return Err(StartError::NoCommand);
    }
    if program.contains(&b'/') {
        let candidate = PathBuf::from(OsStr::from_bytes(program));
        return match check(&cwd.join(&candidate)) {
            Ok(()) => Ok(candidate),
            Err(error) => Err(explain(error, program.into(), None, &cwd.join(&candidate))),
        };
    }
    let path = path.map_or(DEFAULT_PATH.as_bstr(), |path| path.as_bstr());
    let mut refused = None;
    for folder in path.split(|&byte| byte == b':') {
        // An empty entry is the working directory (POSIX); `./` keeps the slash that execution needs.
        let folder: &[u8] = if folder.is_empty() { b"." } else { folder };
        let candidate = Path::new(OsStr::from_bytes(folder)).join(OsStr::from_bytes(program));
        match check(&cwd.join(&candidate)) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                refused.get_or_insert(candidate);
            }
            Err(_) => {}
        }
    }
    Err(match refused {
        Some(path) => StartError::NotExecutable { path },
        None => StartError::NoProgram { program: program.into(), path: Some(path.into()) },
    })
}

/// Says whether this is a file that may be executed.
fn check(path: &Path) -> io::Result<()> {
    if path.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(access(path, AccessFlags::X_OK)?)
}

/// Turns the refusal of the system to execute `full` into a sentence.
pub(super) fn explain(error: io::Error, program: BString, path: Option<BString>, full: &Path) -> StartError {
    let start = || script_start(full);
    match error.raw_os_error() {
        Some(libc::ENOEXEC) if start().starts_with(b"\x7fELF") => StartError::OtherMachine { path: full.to_owned() },
        Some(libc::ENOEXEC) => StartError::NoScriptLine { path: full.to_owned() },
        Some(libc::EACCES) => StartError::NotExecutable { path: full.to_owned() },
        Some(libc::ENOENT | libc::ENOTDIR) => match start().strip_prefix(b"#!") {
            Some(line) => StartError::NoInterpreter {
                path: full.to_owned(),
                interpreter: line.fields().next().unwrap_or_default().into(),
            },
            None => StartError::NoProgram { program, path },
        },
        _ => StartError::Refused { path: full.to_owned(), source: error },
    }
}

fn script_start(path: &Path) -> Vec<u8> {
    let mut start = Vec::new();
    // Only called for what the system took for an executable file, so that this is no device or pipe.
    if path.is_file()
        && let Ok(file) = std::fs::File::open(path)
        && file.take(SCRIPT_LINE_BYTES).read_to_end(&mut start).is_err()
    {
        start.clear();
    }
    start
}
