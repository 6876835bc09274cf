//! What is peculiar to HTCondor's jobs: beside the script there is a submit description (condor_submit(1)). Pure.
//!
//! A description knows no quotes: a value is the rest of its line, and `$(NAME)` in it is replaced.

use crate::backends::render::{Dialect, JobHome, RenderError, text};
use serde_json::json;

/// HTCondor's.
pub static DIALECT: Dialect = Dialect {
    template: include_str!("../../../templates/condor.sh.hbs"),
    // They are no options: `own_line` looks at them.
    reserved: &[],
    index_word: "$(ProcId)",
    first_index: 0,
    log_folder: |_| Ok(".".to_owned()),
    values,
};
/// The submit description.
pub const DESCRIPTION: &str = include_str!("../../../templates/condor.sub.hbs");

/// What dcluster needs for itself, without case: names, logs and how a job is found again hang on them; `getenv`
/// would show the environment to everybody, late materialization would leave jobs of an array unmade.
const RESERVED: &[&str] = &[
    "allowed_job_duration",
    "args",
    "arguments",
    "batch_name",
    "error",
    "executable",
    "getenv",
    "initialdir",
    "input",
    "jobbatchname",
    "kill_sig",
    "leave_in_queue",
    "max_idle",
    "max_materialize",
    "output",
    "periodic_remove",
    "queue",
    "should_transfer_files",
    "transfer_executable",
    "universe",
    "want_graceful_removal",
];

/// When a job is over although it is in the queue: held by other than a person (HoldReasonCode 1 and 15), or not
/// running after it had started.
const OVER: &str = "(JobStatus == 5 && HoldReasonCode =!= 1 && HoldReasonCode =!= 15) || \
                    ((JobStatus == 1 || JobStatus == 5) && NumJobStarts > 0)";
/// No machine is offered to a job that has started once: a lost one is replaced under a new name.
const ONCE: &str = "MY.NumJobStarts == 0";

fn values(home: &JobHome) -> Result<serde_json::Value, RenderError> {
    let pool = &home.pool;
    let refused = |why: &str| Err(RenderError::Refused(why.to_owned()));
    if pool.queue.is_some() {
        return refused(
            "HTCondor has no queues, so --queue means nothing to it: machines are chosen with --constraint, or with --directive 'requirements = …'",
        );
    }
    if pool.qos.is_some() {
        return refused("HTCondor has no --qos: what a site has in its place is a --directive, like 'priority = 5'");
    }
    if pool.gpu_type.is_some() {
        return refused(
            "HTCondor knows no kind of GPU by name: ask for --gpus NUMBER, and for the kind with --directive 'require_gpus = …'",
        );
    }
    let folder = text(&home.folder)?;
    if folder.ends_with([' ', '\\']) {
        return Err(RenderError::Refused(format!(
            "the path {folder:?} ends in a blank or a backslash, which HTCondor would take away"
        )));
    }
    let mut requirements = Vec::new();
    let mut own_lines = Vec::new();
    for directive in &pool.directives {
        match own_line(directive)? {
            ("requirements", value) => requirements.push(format!("({value})")),
            _ => own_lines.push(directive),
        }
    }
    requirements.extend(pool.constraint.as_ref().map(|features| format!("({features})")));
    requirements.extend(pool.nodelist.as_deref().map(|list| format!("({})", machines(list))));
    requirements.extend(pool.exclude.as_deref().map(|list| format!("!({})", machines(list))));
    requirements.push(ONCE.to_owned());
    Ok(json!({
        "condor_folder": folder.replace('$', "$(DOLLAR)"),
        "walltime": pool.walltime_seconds,
        "requirements": requirements.join(" && "),
        "over": OVER,
        "own_lines": own_lines,
    }))
}

/// Splits a directive into its name, in lower case, and its value.
fn own_line(directive: &str) -> Result<(&'static str, &str), RenderError> {
    let refused = |why: &str| RenderError::Refused(format!("the directive {directive:?} {why}"));
    let Some((name, value)) = directive.split_once('=') else {
        return Err(refused("is no line NAME = VALUE of a submit description"));
    };
    let name = name.trim().to_ascii_lowercase();
    let bare = name.strip_prefix('+').or(name.strip_prefix("my.")).unwrap_or(&name);
    if let Some(option) = RESERVED.iter().find(|reserved| **reserved == bare) {
        return Err(RenderError::Reserved { directive: directive.to_owned(), option });
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
    if bare.is_empty() || !bare.chars().all(plain) {
        return Err(refused("has no name before its ="));
    }
    if directive.ends_with('\\') {
        return Err(refused("ends in a backslash, which would join it with the next line"));
    }
    Ok((if name == "requirements" { "requirements" } else { "" }, value.trim()))
}

/// Any of these machines, by their full names or the first part of them.
fn machines(list: &str) -> String {
    let one = |host: &str| format!("regexp(\"^{}([.]|$)\", TARGET.Machine, \"i\")", host.replace('.', "[.]"));
    list.split(',').map(str::trim).filter(|host| !host.is_empty()).map(one).collect::<Vec<_>>().join(" || ")
}

#[cfg(test)]
mod tests;
