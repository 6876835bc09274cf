//! The standard streams of a task: path templates, the files behind them, and their fate at the end.

use super::label::Label;
use super::launch::{StartError, TaskUmask, check_nul};
use super::spool::{self, Spool};
use crate::runtime::ids::TaskId;
use crate::runtime::protocol::{Body, OUTPUT_BYTES_MAX, Output};
use bstr::ByteSlice;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

const STDIN: &str = "standard input";
const STDOUT: &str = "standard output";
const STDERR: &str = "standard error";

/// Returns where standard output and error of a task go, for those who want to read them; an error
/// when a path template makes no sense (then the task cannot start either).
pub fn output_paths(body: &Body, task: TaskId, cluster_folder: &Path) -> Result<(PathBuf, PathBuf), StartError> {
    let cwd = Path::new(OsStr::from_bytes(&body.cwd));
    let places = Places::of_task(body, &Label::new(task, body), cwd, cluster_folder)?;
    let stderr = places.stderr.as_ref().unwrap_or(&places.stdout);
    Ok((places.stdout.path().to_owned(), stderr.path().to_owned()))
}

/// Returns a part of a file that a task writes; nothing if there is no such file, or no more in it.
pub(super) fn read_part(path: &[u8], offset: u64) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let mut options = OpenOptions::new();
        let mut file = never_blocking(options.read(true)).open(OsStr::from_bytes(path))?;
        let mut bytes = Vec::new();
        if file.metadata()?.is_file() {
            file.seek(io::SeekFrom::Start(offset))?;
            file.take(OUTPUT_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    read().unwrap_or_default()
}

/// Opened for one run.
#[derive(Debug)]
pub(super) struct Streams {
    /// Standard output.
    pub(super) stdout: File,
    /// Standard error.
    pub(super) stderr: File,
}

/// Where the outputs of one run go.
#[derive(Debug)]
pub(super) struct Places {
    stdout: Place,
    /// `None`: the same as stdout.
    stderr: Option<Place>,
}

#[derive(Debug)]
enum Place {
    /// Chosen by us, private, removed when empty. The file is there while it has no name.
    Default(PathBuf, Option<File>),
    /// Chosen by the user, with the task's umask.
    Named(PathBuf),
}

impl Places {
    /// Finds the paths; nothing is touched yet.
    pub(super) fn of_task(body: &Body, label: &Label, cwd: &Path, cluster_folder: &Path) -> Result<Self, StartError> {
        let default = |extension| Place::Default(default_path(cluster_folder, label, extension), None);
        let stdout = match &body.stdout {
            Output::File(template) => Place::Named(cwd.join(render(STDOUT, template, label)?)),
            Output::Default | Output::SameAsStdout => default("out"),
        };
        let stderr = match &body.stderr {
            Output::File(template) => Some(Place::Named(cwd.join(render(STDERR, template, label)?))),
            Output::Default => Some(default("err")),
            Output::SameAsStdout => None,
        };
        Ok(Self { stdout, stderr })
    }

    /// Opens both, empty. Two names of one file become one open file, so that neither stream overwrites the
    /// other.
    pub(super) fn open(&mut self, body: &Body, spool: &mut Spool) -> Result<Streams, StartError> {
        let stdout = self.stdout.open(STDOUT, body, spool)?;
        let share = |path: &Path| {
            stdout.try_clone().map_err(|source| StartError::Stream { stream: STDERR, path: path.to_owned(), source })
        };
        let stderr = match &mut self.stderr {
            None => share(self.stdout.path())?,
            Some(place) => {
                let file = place.open(STDERR, body, spool)?;
                let both_named = matches!((&self.stdout, &place), (Place::Named(_), Place::Named(_)));
                if both_named && same_file(&file, &stdout) { share(self.stdout.path())? } else { file }
            }
        };
        Ok(Streams { stdout, stderr })
    }

    /// Gives default outputs their names, for those who want to read them while the task runs.
    pub(super) fn name(&mut self) {
        for place in [Some(&mut self.stdout), self.stderr.as_mut()].into_iter().flatten() {
            place.name();
        }
    }

    /// At the end of a run: names what was written, and leaves no default output that stayed empty.
    pub(super) fn close(self, spool: &mut Spool) {
        for place in [Some(self.stdout), self.stderr].into_iter().flatten() {
            place.close(spool);
        }
    }
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::Default(path, _) | Self::Named(path) => path,
        }
    }

    fn name(&mut self) {
        if let Self::Default(path, file) = self
            && let Some(nameless) = file.take()
        {
            let named = match (spool::name(&nameless, path), path.parent()) {
                (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
                    private_parents().create(parent).and_then(|()| spool::name(&nameless, path))
                }
                (result, _) => result,
            };
            if let Err(error) = named {
                tracing::warn!(path = %path.display(), %error, "the output of a task gets no name");
                *file = Some(nameless);
            }
        }
    }

    fn close(mut self, spool: &mut Spool) {
        match &mut self {
            Self::Default(_, Some(file)) if !spool::is_empty(file) => self.name(),
            Self::Default(_, file @ Some(_)) => {
                if let Some(file) = file.take() {
                    spool.give_back(file);
                }
            }
            Self::Default(path, None) => {
                if path.symlink_metadata().is_ok_and(|found| found.len() == 0)
                    && let Err(error) = std::fs::remove_file(&*path)
                {
                    tracing::debug!(path = %path.display(), %error, "empty output not removed");
                }
            }
            Self::Named(_) => {}
        }
    }

    fn open(&mut self, stream: &'static str, body: &Body, spool: &mut Spool) -> Result<File, StartError> {
        let opened = match self {
            Self::Default(path, nameless) => match spool.take() {
                Some(file) => {
                    // That of an earlier run.
                    if let Err(error) = std::fs::remove_file(&*path)
                        && error.kind() != io::ErrorKind::NotFound
                    {
                        return Err(StartError::Stream { stream, path: path.clone(), source: error });
                    }
                    let handed_on = file.try_clone();
                    *nameless = Some(file);
                    handed_on
                }
                None => {
                    let mut options = OpenOptions::new();
                    options.write(true).create(true).truncate(true).mode(0o600);
                    open_with_parents(path, &options, &private_parents())
                }
            },
            Self::Named(path) => {
                let _umask = TaskUmask::of(body);
                let mut parents = DirBuilder::new();
                parents.recursive(true);
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(true);
                open_with_parents(path, never_blocking(&mut options), &parents).and_then(blocking)
            }
        };
        opened.map_err(|source| StartError::Stream { stream, path: self.path().to_owned(), source })
    }
}

/// Opens the standard input of a task.
pub(super) fn open_stdin(body: &Body, cwd: &Path) -> Result<Stdio, StartError> {
    let Some(name) = &body.stdin else {
        return Ok(Stdio::null());
    };
    check_nul(STDIN, name)?;
    let path = cwd.join(OsStr::from_bytes(name));
    let mut options = OpenOptions::new();
    options.read(true);
    match never_blocking(&mut options).open(&path).and_then(|file| match file.metadata()?.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => blocking(file),
    }) {
        Ok(file) => Ok(file.into()),
        Err(source) => Err(StartError::Stream { stream: STDIN, path, source }),
    }
}

fn default_path(cluster_folder: &Path, label: &Label, extension: &str) -> PathBuf {
    let stem = label.index.map_or_else(|| "task".to_owned(), |index| index.to_string());
    let mut path = cluster_folder.join("tasks");
    path.push(&label.array);
    path.push(format!("{stem}.{extension}"));
    path
}

fn private_parents() -> DirBuilder {
    let mut parents = DirBuilder::new();
    parents.recursive(true).mode(0o700);
    parents
}

/// The path is the user's, so it may be a named pipe that nobody reads, or a terminal: the worker must not
/// hang on it.
fn never_blocking(options: &mut OpenOptions) -> &OpenOptions {
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
}

/// Undoes the part of [`never_blocking`] that the task would notice.
fn blocking(file: File) -> io::Result<File> {
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}

fn open_with_parents(path: &Path, options: &OpenOptions, parents: &DirBuilder) -> io::Result<File> {
    match (options.open(path), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            parents.create(parent)?;
            options.open(path)
        }
        (result, _) => result,
    }
}

fn same_file(one: &File, other: &File) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Fills in an output template.
fn render(stream: &'static str, template: &[u8], label: &Label) -> Result<OsString, StartError> {
    check_nul(stream, template)?;
    let mut path = Vec::with_capacity(template.len() + 16);
    let mut rest = template;
    while let Some(at) = rest.find_byteset(b"{}") {
        path.extend_from_slice(&rest[..at]);
        let (brace, after) = (rest[at], &rest[at + 1..]);
        if let Some(after) = after.strip_prefix(&[brace]) {
            path.push(brace);
            rest = after;
            continue;
        }
        let end = match brace {
            b'{' => after.find_byte(b'}'),
            _ => None,
        };
        let Some(end) = end else {
            return Err(StartError::Brace { stream });
        };
        match &after[..end] {
            b"id" => path.extend_from_slice(label.id.as_bytes()),
            b"name" => path.extend_from_slice(label.name.as_bytes()),
            b"index" => {
                let index = label.index.ok_or(StartError::NoIndex { stream })?;
                path.extend_from_slice(index.to_string().as_bytes());
            }
            other => {
                return Err(StartError::Placeholder { stream, placeholder: other.into() });
            }
        }
        rest = &after[end + 1..];
    }
    path.extend_from_slice(rest);
    Ok(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &[u8], index: Option<u32>) -> Result<Vec<u8>, String> {
        let label = Label { id: "3.7".into(), array: "3".into(), index, name: "a_b".into() };
        render(STDOUT, template, &label).map(OsString::into_vec).map_err(|error| error.to_string())
    }

    #[test]
    fn parts_are_bounded_and_nothing_but_files_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, [vec![b'x'; OUTPUT_BYTES_MAX], b"yz".to_vec()].concat()).unwrap();
        let part = |offset| read_part(path.as_os_str().as_bytes(), offset);
        assert_eq!(part(0).len(), OUTPUT_BYTES_MAX);
        assert_eq!(part(OUTPUT_BYTES_MAX as u64 + 1), b"z");
        assert_eq!(part(u64::from(u32::MAX)), b"");
        assert_eq!(read_part(b"/dev/zero", 0), b"");
        assert_eq!(read_part(b"/no/such/file", 0), b"");
    }

    #[test]
    fn templates_are_filled_in() {
        let full = b"\xff/{id}-{index}-{name}{{x}}.out";
        assert_eq!(filled(full, Some(7)).unwrap(), b"\xff/3.7-7-a_b{x}.out".to_vec());
        assert_eq!(filled(b"plain", None).unwrap(), b"plain".to_vec());
    }

    #[test]
    fn wrong_templates_say_why() {
        for (template, sentence) in [
            (
                &b"{task}"[..],
                "standard output has the unknown placeholder {task}: {id}, {index} and {name} are known, {{ and }} stand for braces",
            ),
            (b"a{id", "standard output has a brace without its partner: write {{ or }} for a brace of the file name"),
            (b"a}", "standard output has a brace without its partner: write {{ or }} for a brace of the file name"),
            (b"{index}", "standard output has {index}, but this task is not an element of an array: use {id}"),
            (b"a\0b", "standard output contains a NUL byte"),
        ] {
            assert_eq!(filled(template, None).unwrap_err(), sentence);
        }
    }
}
