//! What the commands of batch systems print: whatever it is, what is kept of it is short and moves no cursor.

use super::harmless;
use crate::backends::batch::{Answer, Classify, Exit, Verb, bounded};
use crate::backends::sentinel::Sentinel;
use crate::backends::{Observation, Queue, condor, lsf, oar, pbs, sge, slurm as slurm_commands};
use crate::ui::words::escape;
use std::collections::{BTreeMap, BTreeSet};

/// Most bytes of a word of a batch system that is kept.
const WORDS_LIMIT: usize = 2048;

fn short_and_harmless(text: &str) {
    harmless(text);
    assert!(text.len() <= WORDS_LIMIT, "{} bytes", text.len());
}

fn listed<'a>(observations: impl IntoIterator<Item = &'a Observation>) {
    for observation in observations {
        short_and_harmless(&observation.reason);
        short_and_harmless(observation.node.as_deref().unwrap_or_default());
        short_and_harmless(&observation.id.0);
    }
}

fn offered(queues: &[Queue]) {
    for queue in queues {
        harmless(&queue.name);
        short_and_harmless(queue.closed.as_deref().unwrap_or_default());
    }
}

/// The same words on each stream, after each kind of command.
fn classified(classify: Classify, text: &str) {
    for verb in [Verb::Submit, Verb::List, Verb::Account, Verb::Cancel] {
        let (told, nothing) = (text.to_owned(), String::new());
        classify(verb, &Answer { exit: Exit::Code(1), stdout: nothing.clone(), stderr: told.clone() });
        classify(verb, &Answer { exit: Exit::Code(1), stdout: told, stderr: nothing });
    }
}

/// What Slurm's commands print, and the exit file of a job.
pub fn slurm(data: &[u8]) {
    use slurm_commands::{errors, parse, reasons, site};
    let text = String::from_utf8_lossy(data);
    listed(&parse::listing("abcd", &text));
    listed(&parse::accounting("abcd", &text));
    parse::submitted_id(&text);
    parse::array_limit(&text);
    reasons::meaning(&text);
    classified(errors::classify, &text);
    errors::no_accounting(&text);
    offered(&site::site(&text, &text, &text).queues);
    harmless(&bounded(&text));
    harmless(&escape(&text));
    Sentinel::parse(data);
}

/// What Grid Engine's commands print.
pub fn sge(data: &[u8]) {
    use sge::{errors, parse, reasons, site};
    let text = String::from_utf8_lossy(data);
    let live = parse::listing("abcd", &text, 1_795_449_512).unwrap_or_default();
    listed(&live);
    listed(&parse::accounting("abcd", &text));
    let details = parse::details(&text);
    for observation in &live {
        parse::is_error(&observation.reason);
        details.values().for_each(|told| drop(told.of(&observation.id)));
    }
    parse::ranges(live.iter().map(|observation| &observation.id));
    parse::submitted_id(&text);
    parse::never_runs(&text);
    parse::not_deleted(&text);
    reasons::meaning(&text);
    classified(errors::classify, &text);
    let (memory, gpu) = site::resources(&text);
    let environments: Vec<_> = site::pe(&text).into_iter().collect();
    let queues = site::queues(&text);
    let offers: BTreeSet<String> = queues.iter().flat_map(site::offered).collect();
    site::choose_pe(&environments, &offers, 4);
    let host: BTreeMap<String, String> = site::settings(&text);
    offered(&site::queue_limits(&queues, &[host], (memory.as_ref(), gpu.as_ref()), &text, None));
    site::version(&text);
}

/// What the commands of PBS print.
pub fn pbs(data: &[u8]) {
    use pbs::{errors, observe, parse, reasons, site};
    let text = String::from_utf8_lossy(data);
    listed(&observe::jobs("abcd", &parse::records("Job Id", &text), &BTreeSet::from([3600])));
    parse::submitted_id(&text);
    parse::selected_ids(&text, "server");
    parse::version(&text);
    reasons::meaning(&text);
    classified(errors::classify, &text);
    offered(&site::queues(&text, &site::server(&text), &text, "me"));
}

/// What the commands of LSF print.
pub fn lsf(data: &[u8]) {
    use lsf::parse::{Format, Listing};
    use lsf::{details, errors, kill, parse, reasons, site};
    let text = String::from_utf8_lossy(data);
    let pending = parse::pending_reasons(&text);
    for format in [Format::Json, Format::Columns, Format::Wide] {
        if let Listing::Jobs(mut jobs) = parse::listing("abcd", format, &text) {
            parse::add_reasons(&mut jobs, &pending);
            listed(&jobs);
        }
    }
    listed(&details::ends("abcd", &text));
    parse::submitted_id(&text);
    kill::reply(&[], &text);
    reasons::meaning(&text);
    classified(errors::classify, &text);
    site::per_slot(&text);
    site::array_limit(&text);
    site::version(&text);
    site::host_slots(&text);
    site::host_memory(&text);
    offered(&site::queues(&text, site::default_queue(&text), Some("me")));
}

/// What the commands of OAR print.
pub fn oar(data: &[u8]) {
    use oar::{errors, parse, reasons, site};
    let text = String::from_utf8_lossy(data);
    listed(parse::jobs("abcd", &text, 1_795_449_512).iter().flatten().map(|seen| &seen.job));
    for id in parse::submitted_ids(&text) {
        assert!(parse::is_id(&id.0), "{id:?}");
    }
    parse::not_deleted(&text);
    reasons::meaning(&text);
    classified(errors::classify, &text);
    if let Some(resources) = parse::records(&text) {
        offered(&[site::any_queue(&resources, &site::Found::of(&resources))]);
    }
    short_and_harmless(&site::version(&text));
}

/// What the commands of HTCondor print.
pub fn condor(data: &[u8]) {
    use condor::{errors, parse, reasons};
    let text = String::from_utf8_lossy(data);
    let live = parse::listing("abcd", &text).unwrap_or_default();
    listed(&live.seen);
    parse::constraint(live.stuck.iter());
    listed(parse::history("abcd", &text).iter().flatten());
    parse::analysis(&text).values().for_each(|words| short_and_harmless(words));
    parse::submitted_cluster(&text);
    parse::not_removed(&text);
    reasons::meaning(&text);
    classified(errors::classify, &text);
    short_and_harmless(&parse::version(&text));
}
