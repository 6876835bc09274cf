//! What the doctor makes of a probe. Pure.

use super::Check;
use super::probe::{Note, Reached, Started};
use super::visit::Outcome;
use crate::backends::{ErrorClass, Observed};
use crate::config::spec::{BackendKind, Spec};
use crate::error::Kind;
use crate::ui::words::{count, duration, escape, size};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A clock that is so far off shows in the times people read.
const SKEW_MILLISECONDS: u64 = 2_000;

/// Network interfaces and their addresses.
pub type Interfaces = [(String, IpAddr)];

/// Judges a probe.
pub fn checks(outcome: &Outcome, spec: &Spec, interfaces: &Interfaces) -> Vec<Check> {
    let mut checks = vec![submission(outcome)];
    if checks[0].verdict != super::Verdict::Fail {
        checks.extend(life(outcome, spec, interfaces));
    }
    checks.push(match &outcome.left {
        None => Check::ok("clean-up", "job and folder of the probe are gone"),
        Some(left) => {
            let fix = "end the job with the batch system's own command; the next doctor on this host tries again";
            Check::fail(Kind::Unreachable, "clean-up", left.clone(), fix)
        }
    });
    checks
}

fn submission(outcome: &Outcome) -> Check {
    let error = match &outcome.submitted {
        Ok(id) => return Check::ok("permission", format!("a job was accepted: {} (id {id})", outcome.job)),
        Err(error) => error,
    };
    let says = format!("{error}");
    let fix = error.fix.clone();
    let fix = |otherwise: &str| fix.unwrap_or_else(|| otherwise.to_owned());
    match error.class {
        ErrorClass::Permanent => {
            let otherwise = "correct --queue, --account, --qos or the directives; `dcluster render` shows the script";
            Check::fail(Kind::Config, "permission", says, fix(otherwise))
        }
        ErrorClass::Limit => {
            let otherwise = "wait until some of your jobs have ended, and run the doctor again";
            Check::fail(Kind::TryAgain, "permission", says, fix(otherwise))
        }
        ErrorClass::Transient => {
            Check::fail(Kind::Unreachable, "permission", says, fix("try again later: the batch system does not answer"))
        }
        ErrorClass::Ambiguous if outcome.seen.is_some() => {
            Check::warn("permission", format!("a job was accepted, and the answer was lost: {says}"), fix("try again"))
        }
        ErrorClass::Ambiguous => Check::fail(Kind::Unreachable, "permission", says, fix("try again later")),
    }
}

fn life(outcome: &Outcome, spec: &Spec, interfaces: &Interfaces) -> Vec<Check> {
    let started = outcome.notes.iter().find_map(|note| match note {
        Note::Started(started) => Some(started),
        _ => None,
    });
    let Some(started) = started else {
        return vec![no_word(outcome)];
    };
    let reached: Vec<_> = outcome
        .notes
        .iter()
        .filter_map(|note| if let Note::Address(reached) = note { Some(reached) } else { None })
        .collect();
    let node = escape(&started.host);
    let waited = duration(outcome.waited);
    let mut checks = vec![
        Check::ok("start", format!("the job ran on {node} after {waited}")),
        Check::ok("shared folder", format!("{node} sees the state folder under the same path")),
        network(outcome, &reached, spec, interfaces),
        skew(&reached),
        node_check(started),
    ];
    checks.push(signals(outcome, spec.backend));
    checks
}

/// A job that never noted anything.
fn no_word(outcome: &Outcome) -> Check {
    let reason = outcome.seen.as_ref().map_or_else(|| "not listed".to_owned(), |seen| escape(&seen.reason));
    let reason = if reason.is_empty() { "pending".to_owned() } else { reason };
    let waited = duration(outcome.waited);
    let state = outcome.seen.as_ref().map(|seen| &seen.state);
    if outcome.ended_early {
        let log = match outcome.log.as_str() {
            "" => "no log".to_owned(),
            log => format!("its log ends with: {}", escape(log)),
        };
        let fix = "the nodes must see the state folder and this program under the same path: set DCLUSTER_STATE, put dcluster there";
        let says = format!("the job ended without a word from inside ({reason}; {log})");
        return Check::fail(Kind::Unreachable, "shared folder", says, fix);
    }
    if state == Some(&Observed::Running) {
        let fix = "set DCLUSTER_STATE to a folder that all nodes see under the same path; put this program there, too";
        let says = "the job runs, and nothing of it is seen in the state folder";
        return Check::fail(Kind::Unreachable, "shared folder", says, fix);
    }
    let fix = "--wait 1h waits longer; a --queue or --account that starts sooner; --no-probe leaves this out";
    Check::warn("start", format!("the job has not started within {waited}: {reason}"), fix)
}

/// Returns the interface of an address.
fn interface_of(address: IpAddr, interfaces: &Interfaces) -> Option<&str> {
    interfaces.iter().find(|(_, known)| *known == address.to_canonical()).map(|(name, _)| name.as_str())
}

/// Returns what `up` must be told so that workers reach the server without detours: the interface whose addresses
/// the probe reached, when it did not reach others. The loopback is left out where jobs run on other machines.
pub fn interface(outcome: &Outcome, interfaces: &Interfaces) -> Option<String> {
    let reached =
        outcome.notes.iter().filter_map(|note| if let Note::Address(reached) = note { Some(reached) } else { None });
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for one in reached.filter(|one| !one.address.ip().is_loopback()) {
        if one.refused.is_none() { good.push(one) } else { bad.push(one) }
    }
    let quickest = good.iter().min_by_key(|one| one.milliseconds)?;
    let name = interface_of(quickest.address.ip(), interfaces)?;
    (!bad.is_empty()).then(|| name.to_owned())
}

fn network(outcome: &Outcome, reached: &[&Reached], spec: &Spec, interfaces: &Interfaces) -> Check {
    let word = |address: &SocketAddr| match interface_of(address.ip(), interfaces) {
        Some(name) => format!("{} ({name})", address.ip()),
        None => address.ip().to_string(),
    };
    let details = outcome.addresses.iter().map(|address| {
        let found = reached.iter().find(|reached| reached.address == *address);
        let said = match found.map(|found| (&found.refused, found.milliseconds)) {
            Some((None, milliseconds)) => format!("works, {milliseconds} ms"),
            Some((Some(refused), _)) => format!("does not: {}", escape(refused)),
            None => "no answer".to_owned(),
        };
        format!("{}  {said}", word(address))
    });
    let details: Vec<_> = details.collect();
    let works: Vec<_> =
        reached.iter().filter(|reached| reached.refused.is_none()).map(|reached| reached.address).collect();
    let named = interface(outcome, interfaces);
    let check = match (works.first(), configured(spec, &works, interfaces)) {
        (None, _) => {
            let fix = "ask for ports above 1023 to be opened from the nodes to this host, or bring clusters up on a host that nodes reach";
            Check::fail(Kind::Unreachable, "network", "a job reaches this host at none of its addresses", fix)
        }
        (Some(good), Err(asked)) => {
            let fix = match interface_of(good.ip(), interfaces) {
                Some(name) => format!(
                    "take it out of the configuration (`dcluster config show` says where it stands); what the doctor \
                     saved is replaced by `dcluster doctor --save --interface {name}`"
                ),
                None => "take it out of the configuration: `dcluster config show` says where it stands".to_owned(),
            };
            let says =
                format!("a job does not reach {asked}, which the configuration names; it reaches {}", word(good));
            Check::fail(Kind::Config, "network", says, fix)
        }
        (Some(_), Ok(())) => match named {
            Some(name) if spec.interface.is_none() && spec.address.is_none() => {
                let fix = format!("--interface {name}; `dcluster doctor --save` keeps that");
                Check::warn(
                    "network",
                    format!("a job reaches this host by {name}, and not at all of its addresses"),
                    fix,
                )
            }
            _ => {
                Check::ok("network", format!("a job reaches {}", works.iter().map(word).collect::<Vec<_>>().join(", ")))
            }
        },
    };
    Check { details, ..check }
}

/// Whether the address or interface that is configured is among those that work.
fn configured(spec: &Spec, works: &[SocketAddr], interfaces: &Interfaces) -> Result<(), String> {
    if let Some(address) = spec.address {
        let good = address.is_unspecified() || works.iter().any(|good| good.ip() == address);
        return if good { Ok(()) } else { Err(address.to_string()) };
    }
    match &spec.interface {
        Some(name) if !works.iter().any(|good| interface_of(good.ip(), interfaces) == Some(name)) => Err(name.clone()),
        _ => Ok(()),
    }
}

fn skew(reached: &[&Reached]) -> Check {
    // The quickest answer is the most exact one.
    let best = reached.iter().filter(|one| one.skew_milliseconds.is_some()).min_by_key(|one| one.milliseconds);
    let Some(skew) = best.and_then(|one| one.skew_milliseconds) else {
        return Check::warn("clock", "not compared: no connection from the job", "see network");
    };
    let ahead = if skew < 0 { "ahead of" } else { "behind" };
    let off = skew.unsigned_abs();
    if off > SKEW_MILLISECONDS {
        let says = format!("the node's clock is {} {ahead} this host's", duration(Duration::from_millis(off)));
        let fix =
            "tell the administrators: times in logs and files will not agree; dcluster itself does not compare clocks";
        return Check::warn("clock", says, fix);
    }
    Check::ok("clock", format!("node and this host differ by {}", duration(Duration::from_millis(off))))
}

fn node_check(started: &Started) -> Check {
    let mut trouble = started.limits.trouble(true);
    match &started.home {
        None => trouble.push("there is no home folder on the node".to_owned()),
        Some(home) => trouble.extend(
            home.refused
                .as_ref()
                .map(|refused| format!("the home folder cannot be written on the node: {}", escape(refused))),
        ),
    }
    if let Some(refused) = &started.temporary.refused {
        let folder = started.temporary.path.display();
        trouble.push(format!("{folder} cannot be written on the node: {}", escape(refused)));
    }
    if !trouble.is_empty() {
        let fix = "correct it in the prologue (`--prologue 'ulimit …'`, `--prologue 'export TMPDIR=…'`), or ask the administrators";
        return Check::warn("in a job", trouble.join("; "), fix);
    }
    let memory = started.memory_bytes.map_or_else(String::new, |bytes| format!(", {} of memory", size(bytes)));
    Check::ok(
        "in a job",
        format!(
            "{}{memory}, home and {} can be written",
            count(started.cores.into(), "core"),
            started.temporary.path.display()
        ),
    )
}

fn signals(outcome: &Outcome, backend: BackendKind) -> Check {
    let mut names: Vec<&str> = Vec::new();
    for note in &outcome.notes {
        if let Note::Signal { name } = note
            && !names.contains(&name.as_str())
        {
            names.push(name);
        }
    }
    let ready = outcome.notes.contains(&Note::Ready);
    let took = duration(outcome.end_took);
    match (names.as_slice(), ready) {
        ([], false) => Check::warn("signals", "not seen: the probe was not done when it ended", "run the doctor again"),
        ([], true) => {
            let fix = match backend {
                BackendKind::Sge => "--directive=-notify asks for a signal before the kill",
                _ => "tasks cannot clean up when a job is cancelled: keep what matters on the shared file system",
            };
            Check::warn("signals", format!("a cancelled job is killed without a warning (over after {took})"), fix)
        }
        // That it is not seen to be over is said elsewhere.
        (names, _) if outcome.left.is_some() => {
            Check::ok("signals", format!("a cancelled job gets {}", names.join(", ")))
        }
        (names, _) => {
            Check::ok("signals", format!("a cancelled job gets {}, and was over after {took}", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests;
