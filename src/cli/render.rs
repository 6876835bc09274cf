//! `dcluster render`.

use super::Context;
use super::context::interrupted;
use crate::backends::render::{RenderError, RenderInput, render_description, render_job_script};
use crate::backends::said::Said;
use crate::backends::site::site_of;
use crate::backends::{Site, fit};
use crate::cluster::Folder;
use crate::config::options::{ClusterOption, PoolOptions};
use crate::config::resolve::Shown;
use crate::config::spec::{BackendKind, Spec};
use crate::config::units::{clock_duration, human_size};
use crate::doctor::save::saved_site;
use crate::doctor::site::queue_lines;
use crate::error::{Kind, Problem};
use crate::runtime::ids::JobSeq;
use crate::ui::words::escape;
use clap::Args;
use std::collections::BTreeMap;

/// Print the job script and the submit command that `up` would use; nothing is submitted
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster render --backend slurm --cores 24 --memory 100GB --queue regular --walltime 4h
  dcluster render --profile big --jobs 10 --explain")]
pub(super) struct RenderArgs {
    #[command(flatten)]
    cluster: ClusterOption,
    #[command(flatten)]
    pool: PoolOptions,
    /// Say with every directive what it is and where its value came from, and what the queues allow.
    #[arg(long)]
    explain: bool,
}

pub(super) fn run(args: &RenderArgs, context: &Context) -> Result<u8, Problem> {
    let resolved = context.resolve(&args.cluster, &args.pool)?;
    let folder = Folder::of(&context.state()?, &resolved.name);
    // A cluster that was never up has no letters yet; `up` draws them.
    let letters = if folder.exists() { folder.open()?.letters } else { "wxyz".to_owned() };
    let mut home = crate::backends::job_home(&folder, &letters, &resolved.spec)?;
    let backend = resolved.spec.backend;
    let work = async { Ok(crate::backends::complete(backend, &mut home).await) };
    if let Err(error) = context.block_on(work, super::context::interrupted)? {
        context.printer.note(&format!("{error}; what it would have said is guessed"));
        home.said = Said::guessed(backend);
    }
    let mut origins = origins(&resolved.values);
    let site = if args.explain { limits(&folder, &resolved.spec, context)? } else { None };
    if let Some(site) = &site {
        with_limits(&mut origins, resolved.spec.pool.queue.as_deref(), site);
    }
    let jobs = resolved.spec.jobs.max(1);
    let input = RenderInput {
        home: &home,
        backend: resolved.spec.backend,
        first: JobSeq(1),
        count: jobs,
        explain: args.explain,
        origins: Some(&origins),
    };
    let refused =
        |error: RenderError| Problem::new(Kind::Config, "cannot render the job script").says(error.to_string());
    let script = render_job_script(&input).map_err(refused)?;
    let description = render_description(&input).map_err(refused)?;
    let command = crate::backends::submit_line(resolved.spec.backend, &home);
    if context.printer.json {
        context.printer.data_json(&serde_json::json!({ "backend": resolved.spec.backend, "jobs": jobs, "command": command, "script": script, "description": description, "site": site }))?;
        return Ok(0);
    }
    context.printer.note(&format!("submit command: {command}"));
    if let Some(description) = description {
        context.printer.note("the submit description:");
        context.printer.data(description.trim_end())?;
        context.printer.note("the script that it names:");
    }
    context.printer.data(script.trim_end())?;
    if let Some(site) = site.filter(|site| !site.queues.is_empty()) {
        context.printer.note(&format!("queues of {}:", escape(&site.version)));
        for line in queue_lines(&site) {
            context.printer.note(&format!("  {}", escape(&line)));
        }
    }
    Ok(0)
}

/// Asks the site for its limits, else takes what was saved; `None` where nothing is known. Scripts are also looked at
/// where no batch system is.
fn limits(folder: &Folder, spec: &Spec, context: &Context) -> Result<Option<Site>, Problem> {
    let here = spec.backend.commands().iter().all(|program| context.variables.has_program(program));
    if spec.backend == BackendKind::Local || !here {
        return Ok(None);
    }
    let ask = async { Ok(site_of(folder, spec).await) };
    match context.block_on(ask, interrupted)? {
        Ok(site) => Ok(Some(site)),
        Err(error) => {
            let saved = context.variables.saved_config().and_then(|path| saved_site(&path));
            let instead = if saved.is_some() { "; these are as `dcluster doctor --save` found them" } else { "" };
            context.printer.note(&format!("{} does not say its limits: {error}{instead}", spec.backend.title()));
            Ok(saved)
        }
    }
}

/// Adds the limits of the queue to what is said of the directives they bound.
fn with_limits(origins: &mut BTreeMap<String, String>, asked: Option<&str>, site: &Site) {
    let queue = site.queues.iter().find(|queue| match asked {
        Some(name) => queue.name == name,
        None => queue.is_default,
    });
    let Some(queue) = queue else { return };
    let name = escape(&queue.name);
    let mut add = |topic: &str, limit: String| {
        origins.entry(topic.to_owned()).and_modify(|origin| origin.push_str(&format!("; queue {name}: {limit}")));
    };
    add("queue", fit::limits(queue));
    if let Some(seconds) = queue.max_walltime_seconds {
        add("walltime_seconds", format!("at most {}", clock_duration(seconds)));
    }
    if let Some(cores) = queue.max_cores {
        add("cores", format!("at most {cores}"));
    }
    if let Some(bytes) = queue.max_memory_bytes {
        add("memory_bytes", format!("at most {}", human_size(bytes)));
    }
    if let Some(gpus) = queue.max_gpus {
        add("gpus", format!("at most {gpus}"));
    }
}

/// Says of every field of a pool where it came from, and of sizes and times what they became. The
/// templates' names say the unit.
fn origins(values: &[Shown]) -> BTreeMap<String, String> {
    let one = |shown: &Shown| {
        let detailed = || format!("{}, {}", shown.origin, shown.text);
        match shown.key.name() {
            "memory" => ("memory_bytes".to_owned(), detailed()),
            "walltime" => ("walltime_seconds".to_owned(), detailed()),
            "drain-lead" => ("drain_lead_seconds".to_owned(), detailed()),
            // The templates' `name` is the job's; ours is the cluster's.
            "name" => ("cluster".to_owned(), shown.origin.to_string()),
            name => (name.replace('-', "_"), shown.origin.to_string()),
        }
    };
    values.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::Queue;

    #[test]
    fn limits_stand_beside_the_directives_they_bound() {
        let debug = Queue {
            name: "debug".into(),
            is_default: true,
            max_walltime_seconds: Some(1800),
            max_cores: Some(24),
            ..Queue::default()
        };
        let site = Site { queues: vec![debug, Queue { name: "long".into(), ..Queue::default() }], ..Site::default() };
        let origins = || ["cores", "walltime_seconds", "queue", "account"].map(|n| (n.to_owned(), "--x".to_owned()));
        let mut named = BTreeMap::from(origins());
        with_limits(&mut named, Some("debug"), &site);
        assert_eq!(named["queue"], "--x; queue debug: at most 00:30:00, 24 cores");
        assert_eq!(named["walltime_seconds"], "--x; queue debug: at most 00:30:00");
        assert_eq!((named["cores"].as_str(), named["account"].as_str()), ("--x; queue debug: at most 24", "--x"));
        let mut default = BTreeMap::from(origins());
        with_limits(&mut default, None, &site);
        assert_eq!(default, named);
        let mut other = BTreeMap::from(origins());
        with_limits(&mut other, Some("nosuch"), &site);
        assert_eq!(other, BTreeMap::from(origins()));
    }
}
