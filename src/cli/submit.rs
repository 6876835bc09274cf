//! `dcluster submit`.

use super::Context;
use super::connect::{Condition, condition, connect};
use super::context::selections;
use super::follow::follow;
use super::needs::NeedsOptions;
use super::wait::time;
use crate::client::{Client, unexpected};
use crate::cluster::{Folder, private_umask, random_hex};
use crate::config::options::{ClusterOption, PoolOptions};
use crate::error::{Kind, Problem};
use crate::runtime::control::{DownMode, Reply, Request};
use crate::runtime::ids::{ArrayId, TaskId};
use crate::runtime::protocol::{Body, Command, Indexes, Output, Submission, TaskRef};
use crate::selection::{ArraySpec, Selection};
use bstr::BString;
use clap::Args;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Put a command on the cluster, once or as an array
///
/// Prints the task's id alone on standard output; elements of an array are ID.INDEX. The task is durable
/// when the id is printed. Output goes to files under the cluster folder (dcluster logs ID) unless
/// --stdout or --stderr name others, with {id}, {index} and {name} filled in.
///
/// With --wait it prints what the task prints and exits with its code; where no cluster is up it then
/// starts the one that the configuration describes and takes it down again.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster submit -- ./model --year 1997
  dcluster submit --array 1-1000 --cores 2 --memory 4G --time-limit 1h -- ./member.sh
  dcluster submit --after 1 --wait -- python plot.py
  dcluster submit --cores 4 --or cores=1,gpus=0.5 -- ./train
  dcluster submit --nodes 4 --cores 24 -- mpirun ./model

In the task: DCLUSTER_TASK_ID, DCLUSTER_TASK_INDEX, DCLUSTER_TASK_CORES.")]
pub(super) struct SubmitArgs {
    /// Command and arguments, run as they stand, without a shell.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    #[command(flatten)]
    task: TaskOptions,
    /// Make an array: 1-1000, 0-9, 1-100:2, 1,3,7; %N at the end lets N run at once.
    #[arg(long, value_name = "INDEXES")]
    array: Option<String>,
    /// Start after these tasks have finished with success; may be repeated.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    after: Vec<String>,
    /// File read as standard input.
    #[arg(long, value_name = "FILE")]
    stdin: Option<OsString>,
    /// File for standard output; {id} {index} {name} are filled in.
    #[arg(long, value_name = "FILE")]
    stdout: Option<OsString>,
    /// File for standard error; the same file as --stdout is fine.
    #[arg(long, value_name = "FILE")]
    stderr: Option<OsString>,
    /// Name for status, tasks and {name}.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// Wait, print what the task prints, exit with its code.
    #[arg(long)]
    wait: bool,
    /// With --wait: keep the cluster up that this command started.
    #[arg(long, requires = "wait")]
    keep: bool,
    /// Name of the cluster (default: "default").
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

/// What `submit` and `map` have in common.
#[derive(Args, Debug)]
#[command(next_help_heading = "Needs of a task")]
pub(super) struct TaskOptions {
    #[command(flatten)]
    needs: NeedsOptions,
    /// Run a task that fails by itself again, up to N times.
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// Kill a task after this wall time, like 1h or 01:30:00.
    #[arg(long, value_name = "TIME")]
    time_limit: Option<String>,
    /// Start a task only where this much walltime is left.
    #[arg(long, value_name = "TIME")]
    time_request: Option<String>,
    /// Larger runs first.
    #[arg(long, value_name = "P", default_value_t = 0, allow_hyphen_values = true)]
    priority: i32,
    /// Working directory (default: this one).
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Set a variable, NAME=VALUE, or pass one on, NAME; may be repeated.
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
}

fn usage(what: impl Into<String>) -> Problem {
    Problem::new(Kind::Usage, what).done("nothing was submitted")
}

impl TaskOptions {
    /// Makes the part of a submission that these options say.
    pub(super) fn submission(
        &self,
        command: Command,
        indexes: Indexes,
        context: &Context,
    ) -> Result<Submission, Problem> {
        let needs = self.needs.needs()?;
        let cwd = match &self.cwd {
            Some(cwd) => std::path::absolute(cwd),
            None => std::env::current_dir(),
        }
        .map_err(|error| usage("there is no working directory").says(error.to_string()))?;
        let mut env = BTreeMap::new();
        for word in &self.env {
            let bytes = BString::from(word.clone().into_vec());
            let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
                Some(0) => return Err(usage(format!("`{bytes}` names no variable")).location("--env")),
                Some(at) => (BString::from(&bytes[..at]), BString::from(&bytes[at + 1..])),
                None => match context.variables.get(&bytes.to_string()) {
                    Some(value) => (bytes, BString::from(value.to_owned().into_vec())),
                    None => {
                        return Err(usage(format!("the variable {bytes} is not set here"))
                            .location("--env")
                            .fix(format!("--env {bytes}=VALUE")));
                    }
                },
            };
            env.insert(name, value);
        }
        let mask = private_umask();
        Ok(Submission {
            body: Body {
                command,
                name: String::new(),
                cwd: BString::from(cwd.into_os_string().into_vec()),
                env,
                stdin: None,
                stdout: Output::Default,
                stderr: Output::Default,
                time_limit_seconds: self.time_limit.as_deref().map(|text| time("--time-limit", text)).transpose()?,
                needs,
                indexes,
                umask: mask,
            },
            inputs: Vec::new(),
            priority: self.priority,
            retries: self.retries,
            time_request_seconds: self.time_request.as_deref().map(|text| time("--time-request", text)).transpose()?,
            after: Vec::new(),
            at_most: None,
        })
    }
}

fn file(path: &OsString) -> Output {
    Output::File(BString::from(path.clone().into_vec()))
}

fn submission(args: &SubmitArgs, context: &Context) -> Result<Submission, Problem> {
    let words = args.command.iter().map(|word| BString::from(word.clone().into_vec())).collect();
    let array = args
        .array
        .as_deref()
        .map(|text| {
            text.parse::<ArraySpec>()
                .map_err(|error| usage(error.to_string()).location("--array").fix("--array 1-1000, 1-100:2 or 1,3,7"))
        })
        .transpose()?;
    let (indexes, at_most) = array.map_or((Indexes::Single, None), |array| (array.indexes, array.at_most));
    let mut submission = args.task.submission(Command::Argv(words), indexes, context)?;
    submission.at_most = at_most;
    submission.body.name.clone_from(&args.name);
    submission.body.stdin = args.stdin.as_ref().map(|path| BString::from(path.clone().into_vec()));
    if let Some(path) = &args.stdout {
        submission.body.stdout = file(path);
    }
    submission.body.stderr = match (&args.stderr, &args.stdout) {
        (Some(error), Some(out)) if error == out => Output::SameAsStdout,
        (Some(error), _) => file(error),
        (None, _) => Output::Default,
    };
    Ok(submission)
}

/// Turns `--after` into references; indexes need what the server knows of the arrays.
async fn dependencies(after: &[String], client: &mut Client) -> Result<Vec<TaskRef>, Problem> {
    let mut references = Vec::new();
    for selection in selections(after)? {
        match selection.indexes {
            None => references.push(TaskRef::Array(selection.array)),
            Some(_) => {
                let request = Request::Tasks { tasks: vec![selection], kinds: Vec::new(), after: None, limit: 1000 };
                match client.ask(request).await? {
                    Reply::Tasks { tasks, .. } => references.extend(tasks.iter().map(|info| TaskRef::Task(info.task))),
                    other => return Err(unexpected(&other)),
                }
            }
        }
    }
    Ok(references)
}

/// Submits, once, however often the connection breaks: the key tells the server that it is the same.
pub(super) async fn send(client: &mut Client, submission: Submission) -> Result<ArrayId, Problem> {
    let request = Request::Submit { key: random_hex()?, submission: Box::new(submission) };
    match client.ask(request).await? {
        Reply::Submitted { array } => Ok(array),
        other => Err(unexpected(&other)),
    }
}

/// A cluster for one command: one that is up, or one that is started for it and must go again.
pub(super) struct Borrowed {
    /// Connected.
    pub(super) client: Client,
    folder: Folder,
    ours: bool,
}

impl Borrowed {
    /// Finds or starts it.
    pub(super) async fn get(cluster: &ClusterOption, keep: bool, context: &Context) -> Result<Self, Problem> {
        let resolved = context.resolve(cluster, &PoolOptions::default())?;
        let folder = Folder::of(&context.state()?, &resolved.name);
        if condition(&folder)? == Condition::Up {
            return Ok(Self { client: connect(&folder, context).await?, folder, ours: false });
        }
        let (client, _) = super::up::up(&folder, &resolved, None, context).await?;
        let spec = &resolved.spec;
        let after = if keep { "it stays up" } else { "it goes down when this is done" };
        context.printer.note(&format!(
            "no cluster was up: started {} on {} ({} of {}); {after}",
            folder.name(),
            spec.backend.as_str(),
            crate::ui::words::count(u64::from(spec.jobs), "job"),
            crate::ui::words::count(u64::from(spec.pool.cores), "core"),
        ));
        Ok(Self { client, folder, ours: !keep })
    }

    /// Whether it was started for this command and goes when it is done.
    pub(super) fn ours(&self) -> bool {
        self.ours
    }

    /// Gives it back: takes it down if it was started for this.
    pub(super) async fn give_back(self, context: &Context) -> Result<(), Problem> {
        if self.ours {
            drop(self.client);
            super::down::down(&self.folder, DownMode::Stop, true, &context.hushed()).await?;
        }
        Ok(())
    }
}

pub(super) fn run(args: &SubmitArgs, context: &Context) -> Result<u8, Problem> {
    let mut submission = submission(args, context)?;
    let cluster = ClusterOption { name: args.cluster.clone() };
    let array_of_tasks = submission.body.indexes != Indexes::Single;
    let id = std::cell::Cell::new(None);
    let started = std::cell::Cell::new(false);
    let work = async {
        if !args.wait {
            let folder = context.folder(&cluster)?;
            if condition(&folder)? != Condition::Up {
                return Err(super::connect::not_up(&folder)
                    .fix("or: dcluster submit --wait …  (starts a cluster for this one command)"));
            }
            let mut client = connect(&folder, context).await?;
            submission.after = dependencies(&args.after, &mut client).await?;
            let array = send(&mut client, submission).await?;
            if context.printer.json {
                context.printer.data_json(&serde_json::json!({ "id": array.to_string() }))?;
            } else {
                context.printer.data(array.to_string())?;
            }
            return Ok(0);
        }
        let mut borrowed = Borrowed::get(&cluster, args.keep, context).await?;
        submission.after = dependencies(&args.after, &mut borrowed.client).await?;
        let array = send(&mut borrowed.client, submission).await?;
        id.set(Some(array));
        started.set(borrowed.ours());
        context.printer.detail(&format!("task {array}"));
        let code = follow(&mut borrowed.client, array, context).await;
        borrowed.give_back(context).await?;
        let ends = code?;
        Ok(if array_of_tasks { u8::from(ends.failed > 0) } else { ends.last_code })
    };
    context.block_on(work, || match id.get() {
        Some(array) => super::wait::stopped(&array.to_string()).fix_if(started.get(), "dcluster down"),
        None => super::context::interrupted(),
    })
}

/// Returns the tasks of one submission.
pub(super) fn all_of(array: ArrayId) -> Vec<Selection> {
    vec![Selection { array, indexes: None }]
}

/// Returns the first task of a submission.
pub(super) fn before_first(array: ArrayId) -> Option<TaskId> {
    array.0.checked_sub(1).map(|before| TaskId { array: ArrayId(before), element: u32::MAX })
}
