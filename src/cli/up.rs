//! `dcluster up`.

use super::Context;
use super::connect::{Condition, condition, connect, start_server};
use crate::backends::fit::{Fit, Misfit, fit};
use crate::backends::render::{RenderInput, render_description, render_job_script};
use crate::backends::said::Said;
use crate::backends::site::site_of;
use crate::backends::{Submit, job_home};
use crate::client::{Client, unexpected};
use crate::cluster::Folder;
use crate::config::keys::Key;
use crate::config::layers::Origin;
use crate::config::options::{ClusterOption, PoolOptions};
use crate::config::resolve::Resolved;
use crate::config::spec::{BackendKind, Spec};
use crate::doctor::save::saved_site;
use crate::error::{Kind, Problem};
use crate::ledger::JobState;
use crate::runtime::control::{Reply, Request, Status};
use crate::runtime::ids::{JobName, JobSeq};
use crate::ui::words::count;
use clap::Args;
use std::time::Duration;

/// Start a cluster: its server on this host, and jobs that run its workers
///
/// Returns when the server answers, not when jobs start: in a queue that can take hours. A second
/// `up` of a running cluster changes nothing; with other options it is refused.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster up                                          on this machine
  dcluster up --backend slurm --cores 24 --memory 100GB --queue regular --walltime 4h --jobs 10
  dcluster up --profile big --wait 1                   return when one job is up")]
pub(super) struct UpArgs {
    #[command(flatten)]
    cluster: ClusterOption,
    #[command(flatten)]
    pool: PoolOptions,
    /// Return when so many jobs are up.
    #[arg(long, value_name = "JOBS")]
    wait: Option<u32>,
    /// Take the cluster over from a server that does not answer, without waiting for proof that it is dead.
    ///
    /// Safe: a former server that still lives notices before it does anything, and stops.
    #[arg(long)]
    take_over: bool,
}

pub(super) fn run(args: &UpArgs, context: &Context) -> Result<u8, Problem> {
    let resolved = context.resolve(&args.cluster, &args.pool)?;
    let folder = Folder::of(&context.state()?, &resolved.name);
    let as_it_is = args.pool == PoolOptions::default();
    let take_over = args.take_over.then_some(TakeOver { as_it_is });
    let done = async {
        let (mut client, news) = up(&folder, &resolved, take_over, context).await?;
        if let Some(jobs) = args.wait {
            wait_for_jobs(&mut client, jobs, resolved.spec.backend, context).await?;
        }
        let status = status(&mut client).await?;
        Ok((news, status))
    };
    let (news, status) = context.block_on(done, interrupted)?;
    if context.printer.json {
        context.printer.data_json(&super::status::view(&folder, &folder.spec()?, &status))?;
        return Ok(0);
    }
    report(&folder, &resolved.spec, news, &status, context);
    Ok(0)
}

fn interrupted() -> Problem {
    super::context::interrupted()
        .done("if the cluster was up by then, it stays up")
        .fix("dcluster status  shows it")
        .fix("dcluster down    ends it")
}

/// How a server that does not answer is replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakeOver {
    /// The cluster goes on with the options it was made with: the command names none.
    as_it_is: bool,
}

/// What `up` found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum News {
    /// It made or reopened the cluster.
    Started,
    /// The cluster was up.
    Running,
    /// The server was gone, and is back.
    Revived,
}

/// Brings a cluster up, or joins it.
pub(super) async fn up(
    folder: &Folder,
    resolved: &Resolved,
    take_over: Option<TakeOver>,
    context: &Context,
) -> Result<(Client, News), Problem> {
    let mut found = condition(folder)?;
    if found == Condition::Missing {
        say_why(resolved, context);
        check_reach(folder, &resolved.spec, context)?;
        check_site(folder, &resolved.spec, context).await?;
        if folder.create(&resolved.spec, &context.environment())? {
            start_server(folder, true, take_over.is_some(), context).await?;
            return Ok((connect(folder, context).await?, News::Started));
        }
        found = Condition::Up;
    }
    folder.open()?;
    if found == Condition::Down {
        say_why(resolved, context);
        check_reach(folder, &resolved.spec, context)?;
        check_site(folder, &resolved.spec, context).await?;
        rewrite(folder, &resolved.spec, &context.environment())?;
        start_server(folder, true, take_over.is_some(), context).await?;
        return Ok((connect(folder, context).await?, News::Started));
    }
    let news = if take_over.is_some() {
        // Not asked: it may be the very server that does not answer.
        News::Revived
    } else {
        match Client::connect(folder).await {
            Ok(_) => News::Running,
            Err(Some(problem)) => return Err(problem),
            Err(None) => News::Revived,
        }
    };
    // In an emergency nobody remembers the options; those that are given must be the same.
    let differences = match take_over {
        Some(TakeOver { as_it_is: true }) => Vec::new(),
        _ => differences(&folder.spec()?, &resolved.spec),
    };
    if !differences.is_empty() {
        return Err(Problem::new(Kind::Usage, format!("cluster {} is up with other options", folder.name()))
            .done("nothing was changed")
            .why(differences.join("; "))
            .fix("dcluster scale N, or adapt --min N --max N  changes the number of jobs")
            .fix("dcluster down, then up  changes the rest; or up --name OTHER"));
    }
    if news == News::Revived {
        start_server(folder, true, take_over.is_some(), context).await?;
    }
    Ok((connect(folder, context).await?, news))
}

fn rewrite(folder: &Folder, spec: &Spec, environment: &[u8]) -> Result<(), Problem> {
    let bytes = serde_json::to_vec_pretty(spec).map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    folder.write("spec", &bytes).and_then(|()| folder.write("env.sh", environment)).map_err(|error| {
        Problem::new(Kind::Unreachable, format!("cannot write into {}", folder.path().display()))
            .says(error.to_string())
            .done("nothing was started")
    })
}

/// Says which backend was chosen and why, where nobody named one.
fn say_why(resolved: &Resolved, context: &Context) {
    let origin = resolved.values.iter().find(|shown| shown.key == Key::Backend).map(|shown| &shown.origin);
    if let Some(Origin::BuiltIn { because: Some(why) }) = origin {
        context.printer.note(&format!("backend {}: {why}", resolved.spec.backend.as_str()));
    }
}

/// Refuses what cannot work before anything is made.
fn check_reach(folder: &Folder, spec: &Spec, context: &Context) -> Result<(), Problem> {
    let kind = spec.backend;
    if let Some(program) = kind.commands().iter().find(|program| !context.variables.has_program(program)) {
        return Err(Problem::new(Kind::Unreachable, format!("there is no {program} on the PATH"))
            .done("nothing was started")
            .why(format!("the {} backend starts jobs with {}'s own commands", kind.as_str(), kind.title()))
            .fix(format!("on a login node: load the module of {}, or add its folder to PATH", kind.title()))
            .fix("on this machine alone: dcluster up --backend local"));
    }
    check_scripts(folder, spec)
}

/// Refuses what the job script of a batch system cannot say.
fn check_scripts(folder: &Folder, spec: &Spec) -> Result<(), Problem> {
    let mut home = job_home(folder, "wxyz", spec)?;
    // What a site says of itself is asked for when jobs are; here any will do.
    home.said = Said::guessed(spec.backend);
    for (name, _) in spec.shapes() {
        let jobs = vec![(JobSeq(1), JobName::new("wxyz", JobSeq(1)))];
        let submit = Submit { pool: name.to_owned(), walltime_seconds: None, jobs, exclude: Vec::new() };
        let home = home.of(&submit);
        let input = RenderInput::plain(&home, spec.backend, JobSeq(1), 1);
        render_job_script(&input).and_then(|_| render_description(&input)).map_err(|error| {
            let which = if name == Spec::DEFAULT_POOL { String::new() } else { format!(" of pool {name}") };
            Problem::new(Kind::Config, format!("the jobs{which} cannot be asked for: {error}"))
                .done("nothing was started")
                .fix("dcluster render  shows the job script")
        })?;
    }
    Ok(())
}

/// Refuses jobs that can never run, by what the site says of its queues. Where it does not answer nothing is refused:
/// what was once saved of it is only told.
async fn check_site(folder: &Folder, spec: &Spec, context: &Context) -> Result<(), Problem> {
    if spec.backend == BackendKind::Local {
        return Ok(());
    }
    let answer = site_of(folder, spec).await;
    if let Err(error) = &answer {
        let silent = format!("{} does not say its limits, so none are checked: {error}", spec.backend.title());
        context.printer.note(&silent);
    }
    let live = answer.is_ok();
    let saved = || context.variables.saved_config().and_then(|path| saved_site(&path)).unwrap_or_default();
    let site = answer.unwrap_or_else(|_| saved());
    let named = spec.pools.iter().map(|(name, pool)| (format!("pool {name}: "), pool));
    for (name, pool) in [(String::new(), &spec.pool)].into_iter().chain(named) {
        match fit(pool, &site) {
            Fit::Fits => {}
            Fit::Never(Misfit { what, why, fix }) if live => {
                let problem = Problem::new(Kind::Config, format!("{name}{what}")).done("nothing was started").why(why);
                return Err(problem.fix(fix).fix("dcluster doctor  shows the queues and their limits"));
            }
            Fit::Never(misfit) | Fit::Doubt(misfit) => {
                let Misfit { what, why, fix } = misfit;
                let when = if live { "" } else { " (as `dcluster doctor --save` found it)" };
                context.printer.note(&format!("{name}{what}: {why}{when}; a job may wait for ever: {fix}"));
            }
        }
    }
    Ok(())
}

/// Says what differs between two specifications, `then → now`, by field.
fn differences(then: &Spec, now: &Spec) -> Vec<String> {
    let flat = |spec: &Spec| {
        let mut fields = std::collections::BTreeMap::new();
        if let Ok(serde_json::Value::Object(object)) = serde_json::to_value(spec) {
            for (name, value) in object {
                match value {
                    serde_json::Value::Object(inner) if name == "pool" || name == "adapt" => fields.extend(inner),
                    value => {
                        fields.insert(name, value);
                    }
                }
            }
        }
        fields
    };
    let (then, now) = (flat(then), flat(now));
    let names: std::collections::BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let value = |fields: &std::collections::BTreeMap<String, serde_json::Value>, name: &str| {
        fields.get(name).cloned().unwrap_or_default()
    };
    let pairs = names.into_iter().map(|name| (name, value(&then, name), value(&now, name)));
    let different = pairs.filter(|(_, then, now)| then != now);
    different.map(|(name, then, now)| format!("{name}: {then} is up, {now} was asked")).collect()
}

pub(super) async fn status(client: &mut Client) -> Result<Box<Status>, Problem> {
    match client.ask(Request::Status).await? {
        Reply::Status(status) => Ok(status),
        other => Err(unexpected(&other)),
    }
}

/// Waits until so many jobs are up, telling what it waits for when that changes.
async fn wait_for_jobs(client: &mut Client, jobs: u32, backend: BackendKind, context: &Context) -> Result<(), Problem> {
    let mut told = String::new();
    loop {
        let status = status(client).await?;
        let up = status.jobs.iter().filter(|job| matches!(job.state, JobState::Up | JobState::Draining)).count();
        if up >= jobs as usize {
            return Ok(());
        }
        if status.gave_up
            && let Some(trouble) = &status.trouble
            && status.jobs.iter().all(|job| !job.live())
        {
            let problem = Problem::new(Kind::Unreachable, "no job could be started")
                .says(trouble.clone())
                .done("the server is up; nothing runs");
            let problem = status.advice.iter().fold(problem, |problem, advice| problem.fix(advice.clone()));
            return Err(problem.fix("dcluster down  ends the server; dcluster events says more"));
        }
        let waiting = status.jobs.iter().rev().find(|job| job.live() && !job.reason.is_empty());
        let why = match (&status.trouble, waiting) {
            (Some(trouble), _) => format!(": {}", crate::ui::words::escape(trouble)),
            (None, Some(job)) => {
                let means = super::status::meaning(backend, &job.reason).map(|means| format!(" ({means})"));
                format!(": job {} {}{}", job.seq.0, crate::ui::words::escape(&job.reason), means.unwrap_or_default())
            }
            (None, None) => String::new(),
        };
        let text = format!("{up} of {} up{why}", count(u64::from(jobs), "job"));
        if text != told {
            context.printer.note(&text);
            told = text;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn report(folder: &Folder, spec: &Spec, news: News, status: &Status, context: &Context) {
    let flag = super::connect::cluster_flag(folder);
    let name = folder.name();
    let jobs = match &status.adapt {
        Some(_) => super::adapt::mode(status),
        None => count(u64::from(status.wanted), "job"),
    };
    let cores = count(u64::from(spec.pool.cores), "core");
    let cores = if status.adapt.is_some() { format!(", {cores} each,") } else { format!(" of {cores}") };
    match news {
        News::Running => {
            let up = status.jobs.iter().filter(|job| job.live()).count();
            context.printer.note(&match status.adapt {
                Some(_) => format!("cluster {name} is up already, with the same options: {up} live, {jobs}"),
                None => format!("cluster {name} is up already, with the same options: {up} of {jobs} live"),
            });
        }
        News::Revived => {
            context.printer.note(&format!("the server of cluster {name} was gone and is back; jobs and tasks went on"))
        }
        News::Started => {
            let place = match spec.backend {
                BackendKind::Local => "on this machine".to_owned(),
                queue => format!("asked from {}", queue.title()),
            };
            context.printer.note(&format!("cluster {name} is up: {jobs}{cores} {place}"));
            if status.tasks.unfinished() > 0 {
                context.printer.note(&format!("{} of before go on", count(status.tasks.unfinished(), "task")));
            }
        }
    }
    context.printer.note(&format!(
        "  dcluster map{flag} 'gzip {{}}' ::: *.nc     run a command on every file\n  dcluster status{flag}                     look at it\n  dcluster down{flag}                       end it"
    ));
}
