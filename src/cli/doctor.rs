//! `dcluster doctor`.

use super::Context;
use super::context::interrupted;
use crate::backends::Site;
use crate::backends::site::site_of;
use crate::cluster::{Folder, private_umask};
use crate::config::keys::Key;
use crate::config::layers::Origin;
use crate::config::options::{ClusterOption, PoolOptions};
use crate::config::resolve::Resolved;
use crate::config::spec::BackendKind;
use crate::config::units::parse_duration;
use crate::doctor::host::{self, Limits, Place};
use crate::doctor::save::Profile;
use crate::doctor::visit::{Outcome, Visit, sweep};
use crate::doctor::{Check, Verdict, exit_code, findings, greeting, site};
use crate::error::{Kind, Problem};
use crate::server::{clock, listen};
use crate::ui::words::{count, escape};
use clap::Args;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long the probe may wait in the queue, in seconds, when nothing is said.
const WAIT_SECONDS: u64 = 120;
/// Width of the widest name of a check.
const NAME_WIDTH: usize = 13;

/// Check whether this host, its batch system and its nodes are fit for a cluster, and say what to do
///
/// It looks at commands, queues and their limits, the state folder, limits of this host, TLS; then it submits one
/// small job, the probe, which says whether nodes see the state folder, by which addresses they reach this host,
/// how clocks differ and how a job is told to end. The probe is cancelled as soon as it has said so, also at
/// Ctrl-C, and leaves nothing. Exit code 0 when nothing failed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster doctor                                        the batch system of this host
  dcluster doctor --backend slurm --queue debug --save   and keep what works
  dcluster doctor --no-probe --json")]
pub(super) struct DoctorArgs {
    /// Submit no job.
    #[arg(long)]
    no_probe: bool,
    /// How long the probe may wait in the queue (default: 2min).
    #[arg(long, value_name = "TIME", conflicts_with = "no_probe")]
    wait: Option<String>,
    /// Keep what works on this host: later commands use it, below your own settings.
    #[arg(long)]
    save: bool,
    #[command(flatten)]
    pool: PoolOptions,
}

pub(super) fn run(args: &DoctorArgs, context: &Context) -> Result<u8, Problem> {
    let patience = match &args.wait {
        None => WAIT_SECONDS,
        Some(text) => parse_duration(text).map_err(|error| {
            let fix = error.fix();
            Problem::new(Kind::Usage, error.to_string()).location("--wait").fix(fix)
        })?,
    };
    let resolved = context.resolve(&ClusterOption::default(), &args.pool)?;
    let state = context.state()?;
    let umask = host::umask();
    private_umask();
    let made = !state.exists();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::new(Kind::Internal, "cannot start the event loop").says(error.to_string()))?;
    let mut doctor = Doctor { context, resolved: &resolved, checks: Vec::new() };
    let done = runtime.block_on(async {
        doctor.host(&state, umask, !args.no_probe)?;
        doctor.rest(&state, (!args.no_probe).then_some(Duration::from_secs(patience))).await
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    if made {
        // Nothing in it: it was not there before.
        let _ = std::fs::remove_dir(&state);
    }
    let found = done?;
    let checks = doctor.checks;
    // What was found is told even if it cannot be kept.
    let saved = if args.save { save(&checks, &found, &resolved, context) } else { Ok(None) };
    if context.printer.json {
        let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
        context.printer.data_json(&json!({
            "backend": resolved.spec.backend,
            "verdict": worst,
            "checks": checks,
            "site": found.site,
            "saved": saved.as_ref().ok(),
        }))?;
    }
    let number = |verdict| checks.iter().filter(|check| check.verdict == verdict).count() as u64;
    context.printer.note(&match (number(Verdict::Fail), number(Verdict::Warn)) {
        (0, 0) => format!("all is well: {}", count(checks.len() as u64, "check")),
        (0, warned) => format!("nothing failed; {} may surprise you", count(warned, "thing")),
        (failed, _) => format!("{} failed", count(failed, "check")),
    });
    saved?;
    Ok(exit_code(&checks))
}

/// What was learned beside verdicts.
#[derive(Default)]
struct Found {
    site: Option<Site>,
    interface: Option<String>,
}

struct Doctor<'a> {
    context: &'a Context,
    resolved: &'a Resolved,
    checks: Vec<Check>,
}

impl Doctor<'_> {
    /// Takes a check, and shows it at once: some take a while.
    fn add(&mut self, check: Check) -> Result<(), Problem> {
        if !self.context.printer.json {
            let (verdict, name) = (check.verdict.as_str(), check.name);
            self.context.printer.data(format!("{verdict:<4}  {name:<NAME_WIDTH$}  {}", escape(&check.says)))?;
            let indented = |label: &str, text: &str| format!("{:6}{label:<NAME_WIDTH$}  {}", "", escape(text));
            for line in &check.details {
                self.context.printer.data(indented("", line))?;
            }
            if let Some(fix) = &check.fix {
                self.context.printer.data(indented("  fix", fix))?;
            }
        }
        self.checks.push(check);
        Ok(())
    }

    /// Looks at this host.
    fn host(&mut self, state: &Path, umask: Option<u32>, probe: bool) -> Result<(), Problem> {
        let spec = &self.resolved.spec;
        let shown = self.resolved.values.iter().find(|shown| shown.key == Key::Backend);
        let why = match shown.map(|shown| &shown.origin) {
            Some(Origin::BuiltIn { because: Some(why) }) => why.clone(),
            Some(origin) => format!("says {origin}"),
            None => String::new(),
        };
        self.add(Check::ok("backend", format!("{}: {why}", spec.backend.as_str())))?;
        self.add(site::commands(spec.backend, &self.context.variables))?;
        self.add(match private_state(state) {
            Ok(()) => host::state_folder(&Place::of(state), spec.backend, probe),
            Err(error) => {
                let says = format!("{} cannot be made: {error}", state.display());
                let fix = "set DCLUSTER_STATE to a folder of yours that you can write and all nodes see";
                Check::fail(Kind::Unreachable, "state folder", says, fix)
            }
        })?;
        let home = self.context.variables.home().filter(|home| home.is_dir());
        self.add(host::home(home.as_deref().map(Place::of).as_ref()))?;
        self.add(host::umask_check(umask))?;
        self.add(host::limits(&Limits::of_process()))?;
        self.add(host::logout(host::kills_at_logout(&host::logind_texts())))
    }

    /// Looks at the batch system, and sends the probe.
    async fn rest(&mut self, state: &Path, patience: Option<Duration>) -> Result<Found, Problem> {
        let spec = &self.resolved.spec;
        let mut found = Found::default();
        self.add(greeting::tls().await)?;
        if self.failed("commands") {
            return Ok(found);
        }
        let folder = Folder::of(state, "default");
        let answer = tokio::select! {
            answer = site_of(&folder, spec) => answer,
            () = stop() => return Err(interrupted()),
        };
        for check in site::answer(spec.backend, &spec.pool, &answer) {
            self.add(check)?;
        }
        found.site = answer.ok().filter(|_| spec.backend != BackendKind::Local);
        let useless = ["state folder", "batch system", "queues", "tls"].iter().any(|name| self.failed(name));
        let Some(patience) = patience.filter(|_| !useless) else {
            return Ok(found);
        };
        let (ended, left) = tokio::select! {
            swept = sweep(state) => swept,
            () = stop() => return Err(interrupted()),
        };
        if ended + left.len() > 0 {
            self.add(match left.first() {
                None => Check::ok("leftovers", format!("ended what {} left", count(ended as u64, "killed doctor"))),
                Some(why) => Check::warn("leftovers", why.clone(), "end the job with the batch system's own command"),
            })?;
        }
        let outcome = self.probe(state, patience).await?;
        let interfaces = listen::host_interfaces();
        for check in findings::checks(&outcome, spec, &interfaces) {
            self.add(check)?;
        }
        found.interface = findings::interface(&outcome, &interfaces);
        Ok(found)
    }

    /// Sends the probe, and takes everything of it away again, at Ctrl-C and SIGTERM, too.
    async fn probe(&self, state: &Path, patience: Duration) -> Result<Outcome, Problem> {
        let printer = self.context.printer;
        let mut visit = Visit::prepare(state, &self.resolved.spec, &self.context.environment()).await?;
        printer.note("submitting a small job, the probe (Ctrl-C ends it)");
        let mut stopped = tokio::select! {
            () = visit.watch(patience, |text| printer.note(text)) => false,
            () = stop() => true,
        };
        let ending = "interrupted: ending the probe";
        if stopped {
            printer.note(ending);
        }
        let mut end = std::pin::pin!(visit.end());
        let outcome = loop {
            tokio::select! {
                outcome = &mut end => break outcome,
                () = stop(), if stopped => {
                    return Err(interrupted().done("the probe may still run; the next doctor on this host ends it"));
                }
                // It was being ended already: only who insists leaves it.
                () = stop(), if !stopped => {
                    printer.note(ending);
                    stopped = true;
                }
            }
        };
        match (&outcome.left, stopped) {
            (_, false) => Ok(outcome),
            (None, true) => Err(interrupted().done("the probe is gone")),
            (Some(left), true) => Err(interrupted().done(left.clone())),
        }
    }

    fn failed(&self, name: &str) -> bool {
        self.checks.iter().any(|check| check.name == name && check.verdict == Verdict::Fail)
    }
}

/// Ctrl-C, SIGTERM, or a terminal that is gone.
async fn stop() {
    let (terminate, hangup) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut hangup)) = (terminate, hangup) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// Makes the state folder as `up` would.
fn private_state(state: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state)
}

/// Keeps what works; returns where.
fn save(checks: &[Check], found: &Found, resolved: &Resolved, context: &Context) -> Result<Option<String>, Problem> {
    if exit_code(checks) != 0 {
        context.printer.note("nothing was saved, for something failed");
        return Ok(None);
    }
    let Some(path) = context.variables.saved_config() else {
        return Err(Problem::new(Kind::Config, "there is no place for the site profile")
            .why("you have no home folder here, or this host has no name")
            .fix("set HOME or XDG_CONFIG_HOME"));
    };
    let profile = Profile {
        host: clock::host(),
        date: today(),
        backend: resolved.spec.backend,
        interface: found.interface.clone(),
        site: found.site.clone(),
    };
    profile.write(&path)?;
    context.printer.note(&format!("saved to {}", path.display()));
    Ok(Some(path.display().to_string()))
}

/// The day and minute, for people.
fn today() -> String {
    let now = i64::try_from(clock::now().wall).ok().and_then(|wall| jiff::Timestamp::from_millisecond(wall).ok());
    now.map(|now| now.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
}
