//! What every command has at hand: the printer, the environment as it was at the start, the settings.

use super::Global;
use crate::backends::detect;
use crate::cluster::Folder;
use crate::config::environment;
use crate::config::host::Facts;
use crate::config::layers::Layers;
use crate::config::options::{ClusterOption, PoolOptions};
use crate::config::paths::Variables;
use crate::config::problem::ConfigError;
use crate::config::resolve::{Resolved, resolve};
use crate::config::sources::Sources;
use crate::error::{Kind, Problem};
use crate::selection::Selection;
use crate::ui::printer::{Printer, Verbosity};
use crate::ui::progress::{Choice, Face, Surroundings, face};
use anstream::ColorChoice;
use nix::sys::resource::{Resource, getrlimit};
use std::future::Future;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// What every command has at hand.
pub struct Context {
    /// Prints.
    pub printer: Printer,
    /// The environment variables.
    pub variables: Variables,
    progress: Choice,
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        let mut problem = Self::new(Kind::Config, error.what);
        if let Some(location) = error.location {
            problem = problem.location(location);
        }
        if let Some(why) = error.why {
            problem = problem.why(why);
        }
        match error.fix {
            Some(fix) => problem.fix(fix),
            None => problem,
        }
    }
}

impl Context {
    pub(super) fn new(global: &Global) -> Self {
        let verbosity = match (global.quiet, global.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        };
        let color = match global.color {
            super::Color::Auto => ColorChoice::Auto,
            super::Color::Always => ColorChoice::Always,
            super::Color::Never => ColorChoice::Never,
        };
        Self {
            printer: Printer { json: global.json, verbosity, color },
            variables: Variables::of_process(),
            progress: global.progress.into(),
        }
    }

    /// Returns the same context that says only errors.
    pub fn hushed(&self) -> Self {
        Self {
            printer: Printer { verbosity: Verbosity::Quiet, ..self.printer },
            variables: self.variables.clone(),
            progress: self.progress,
        }
    }

    /// Returns all layers of settings, with the flags of a command.
    pub fn layers(&self, cluster: &ClusterOption, pool: &PoolOptions) -> Result<Layers, Problem> {
        let mut layers = Sources::of_process(self.variables.clone())?.layers();
        cluster.add_to(&mut layers.flags);
        pool.add_to(&mut layers.flags);
        Ok(layers)
    }

    /// Returns the settings, resolved.
    pub fn resolve(&self, cluster: &ClusterOption, pool: &PoolOptions) -> Result<Resolved, Problem> {
        let settings = self.layers(cluster, pool)?.settings()?;
        Ok(resolve(&settings, &Facts::of_host(detect::unless_named(&settings, &self.variables)))?)
    }

    /// Returns the folder of all clusters.
    pub fn state(&self) -> Result<PathBuf, Problem> {
        Ok(self.variables.state_dir()?)
    }

    /// Returns the folder of the cluster a command is about.
    pub fn folder(&self, cluster: &ClusterOption) -> Result<Folder, Problem> {
        let resolved = self.resolve(cluster, &PoolOptions::default())?;
        Ok(Folder::of(&self.state()?, &resolved.name))
    }

    /// Returns the environment that jobs get, as a shell file: the variables of now, and the limits which the
    /// server changes for itself (core dumps, descriptors).
    pub fn environment(&self) -> Vec<u8> {
        let variables = self.variables.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut file = environment::render(variables);
        for (resource, option, unit) in [(Resource::RLIMIT_CORE, 'c', 1024), (Resource::RLIMIT_NOFILE, 'n', 1)] {
            if let Ok((soft, _)) = getrlimit(resource) {
                let limit = match soft {
                    nix::sys::resource::RLIM_INFINITY => "unlimited".to_owned(),
                    soft => (soft / unit).to_string(),
                };
                // A node may have lower hard limits than this host; then those hold.
                file.extend_from_slice(format!("ulimit -S -{option} {limit} 2>/dev/null || :\n").as_bytes());
            }
        }
        file
    }

    /// Decides how progress looks.
    pub fn face(&self) -> (Face, bool) {
        let around = Surroundings::of(&self.variables);
        (face(self.printer, self.progress, around), around.unicode)
    }

    /// Runs an asynchronous command; Ctrl-C or SIGTERM ends it with `interrupted`, and with it the batch system's
    /// commands that it has started.
    pub fn block_on<T>(
        &self,
        work: impl Future<Output = Result<T, Problem>>,
        interrupted: impl FnOnce() -> Problem,
    ) -> Result<T, Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Problem::new(Kind::Internal, "cannot start the event loop").says(error.to_string()))?;
        let result = runtime.block_on(async {
            let terminate = signal(SignalKind::terminate());
            let terminated = async {
                match terminate {
                    Ok(mut terminate) => terminate.recv().await,
                    Err(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                done = work => done,
                _ = tokio::signal::ctrl_c() => Err(interrupted()),
                _ = terminated => Err(interrupted()),
            }
        });
        runtime.shutdown_background();
        result
    }

    /// Says what this is and what to type, for somebody who typed only the name.
    pub(super) fn welcome(&self) -> Result<u8, Problem> {
        let resolved = self.resolve(&ClusterOption::default(), &PoolOptions::default())?;
        let place = match resolved.spec.backend {
            crate::config::spec::BackendKind::Local => "no batch system found: jobs run on this machine".to_owned(),
            queue => format!("jobs go to {}", queue.title()),
        };
        self.printer.data(format!(
            "dcluster starts clusters and runs commands on them ({place}).\n\
             \n  dcluster map 'gzip {{}}' ::: *.nc   run a command on every file\
             \n  dcluster up                       start a cluster that stays\
             \n  dcluster status                   look at it\
             \n  dcluster --help                   all commands"
        ))?;
        Ok(0)
    }
}

/// Parses the task ids of a command line.
pub(super) fn selections(words: &[String]) -> Result<Vec<Selection>, Problem> {
    let mut all = Vec::new();
    for word in words {
        let some = Selection::parse(word).map_err(|error| {
            Problem::new(Kind::Usage, error.to_string()).fix("an id is what submit printed: 3, 3.7 or 3.1-5")
        })?;
        all.extend(some);
    }
    Ok(all)
}

/// The problem of a command that Ctrl-C ended and that changed nothing.
pub(super) fn interrupted() -> Problem {
    Problem::new(Kind::Interrupted, "interrupted")
}
