//! What is the same for all tasks of a submission, made once and kept for a moment: parsed template, environment,
//! program, working directory. Made anew every second, so that a program that was replaced is found.

use super::Millis;
use super::environment::{Base, Variables};
use super::launch::{self, StartError};
use super::output::Streams;
use super::program;
use crate::runtime::ids::ArrayId;
use crate::runtime::protocol::{Body, Command as Words};
use bstr::{BString, ByteSlice};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// How long what was found is believed.
const BELIEVED: Millis = 1_000;
/// Submissions whose preparation is kept.
const KEPT_MAX: usize = 64;

/// Makes the words of a `map` element: its input values, its dense number from 0.
pub type Render = Box<dyn Fn(&[BString], u32) -> Vec<BString> + Send>;

/// Reads a `map` template.
pub type ParseTemplate = fn(&BString) -> Result<Render, String>;

/// The words of a submission's tasks.
pub(super) enum Argv {
    /// The same for all.
    Fixed(Vec<BString>),
    /// Made of each element's inputs.
    Template(Render),
}

impl Argv {
    pub(super) fn of_body(body: &Body, parse: ParseTemplate) -> Result<Self, StartError> {
        match &body.command {
            Words::Argv(words) => Ok(Self::Fixed(words.clone())),
            Words::Template(template) => {
                parse(template).map(Self::Template).map_err(|message| StartError::Template { message })
            }
        }
    }
}

/// One submission, ready to start tasks of.
pub(super) struct Prepared {
    body: Arc<Body>,
    made_at: Millis,
    argv: Argv,
    pub(super) cwd: PathBuf,
    variables: Variables,
    /// That of the task before, if the words are fixed.
    command: Option<Command>,
    /// Which variables of its own that one got.
    told: Vec<&'static str>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("made_at", &self.made_at).finish_non_exhaustive()
    }
}

impl Prepared {
    fn new(body: &Arc<Body>, variant: u8, base: &Base, parse: ParseTemplate, now: Millis) -> Result<Self, StartError> {
        let argv = Argv::of_body(body, parse)?;
        let cwd = launch::working_directory(body)?;
        let variables = base.of_body(body, body.needs.variant(variant));
        for (name, value) in &variables {
            launch::check_nul("an environment variable", name)?;
            launch::check_nul("an environment variable", value)?;
        }
        Ok(Self { body: Arc::clone(body), made_at: now, argv, cwd, variables, command: None, told: Vec::new() })
    }

    /// Starts a task in a process group of its own and returns its process id. To be called with the task's
    /// umask.
    ///
    /// There is no code of ours between fork and exec, so std uses `posix_spawn`: that takes the same short time
    /// however much memory the worker has.
    pub(super) fn spawn(
        &mut self,
        input: &[BString],
        element: u32,
        of_run: Vec<(&'static str, String)>,
        stdin: Stdio,
        streams: Streams,
    ) -> Result<u32, StartError> {
        let rendered;
        let argv = match &self.argv {
            Argv::Fixed(words) => words,
            Argv::Template(render) => {
                rendered = render(input, element);
                self.command = None;
                &rendered
            }
        };
        // What one task was told and this one is not must not stay.
        if !self.told.iter().eq(of_run.iter().map(|(name, _)| name)) {
            self.command = None;
            self.told = of_run.iter().map(|(name, _)| *name).collect();
        }
        let command = match &mut self.command {
            Some(command) => command,
            none => none.insert(new_command(argv, &self.cwd, &self.variables)?),
        };
        for (name, value) in of_run {
            command.env(name, value);
        }
        let spawned = command.stdin(stdin).stdout(streams.stdout).stderr(streams.stderr).spawn();
        // The files of this task are not to stay open in us.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match spawned {
            // The handle neither waits nor kills when it is dropped; the executor reaps by process id.
            Ok(child) => Ok(child.id()),
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => Err(StartError::TooLong {
                bytes: argv.iter().map(|word| word.len() + 1).sum::<usize>()
                    + self.variables.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>(),
            }),
            Err(error) => {
                // What was found a moment ago may be gone.
                launch::working_directory(&self.body)?;
                let search = self.variables.get(b"PATH".as_bstr());
                let program = argv.first().ok_or(StartError::NoCommand)?;
                let path = program::find(program.as_bstr(), search, &self.cwd)?;
                Err(program::explain(error, program.clone(), search.cloned(), &self.cwd.join(path)))
            }
        }
    }
}

fn new_command(argv: &[BString], cwd: &Path, variables: &Variables) -> Result<Command, StartError> {
    let program = argv.first().ok_or(StartError::NoCommand)?;
    for word in argv {
        launch::check_nul("an argument", word)?;
    }
    let search = variables.get(b"PATH".as_bstr());
    let mut command = Command::new(program::find(program.as_bstr(), search, cwd)?);
    command
        .arg0(OsStr::from_bytes(program))
        .args(argv[1..].iter().map(|word| OsStr::from_bytes(word)))
        .current_dir(cwd)
        .env_clear()
        .envs(variables.iter().map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value))))
        .process_group(0);
    Ok(command)
}

/// The submissions whose tasks were started last.
#[derive(Debug, Default)]
pub(super) struct Preparations(BTreeMap<(ArrayId, u8), Prepared>);

impl Preparations {
    /// Returns the preparation of a submission for one variant of what it needs.
    pub(super) fn of(
        &mut self,
        array: ArrayId,
        variant: u8,
        body: &Arc<Body>,
        base: &Base,
        parse: ParseTemplate,
        now: Millis,
    ) -> Result<&mut Prepared, StartError> {
        let good = self.0.get(&(array, variant)).is_some_and(|prepared| {
            Arc::ptr_eq(&prepared.body, body) && now.saturating_sub(prepared.made_at) < BELIEVED
        });
        if !good {
            if self.0.len() >= KEPT_MAX {
                self.0.clear();
            }
            self.0.insert((array, variant), Prepared::new(body, variant, base, parse, now)?);
        }
        Ok(self.0.get_mut(&(array, variant)).expect("was there, or was inserted"))
    }
}
