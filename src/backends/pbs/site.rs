//! What PBS says of its site: queues with their limits, nodes. Pure.

use super::parse::{Record, bytes, nodes, records, seconds};
use crate::backends::{Queue, batch::bounded};
use std::collections::BTreeMap;

/// Most queues kept.
const QUEUES_LIMIT: usize = 1000;

/// What `qstat -Bf` says that matters to us.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Server {
    /// Its name, as ids have it.
    pub(super) name: String,
    /// Where jobs go that name no queue.
    pub(super) default_queue: Option<String>,
    /// Most elements of an array.
    pub(super) max_array: Option<u32>,
    max_walltime_seconds: Option<u64>,
}

/// Reads `qstat -Bf` (capture qstat_B_json); TORQUE says `max_job_array_size`.
pub(crate) fn server(text: &str) -> Server {
    let all = records("Server", text);
    let Some(record) = all.first() else { return Server::default() };
    let size = record.get("max_array_size").or_else(|| record.get("max_job_array_size"));
    Server {
        name: record.name.clone(),
        default_queue: record.get("default_queue").map(str::to_owned),
        max_array: size.and_then(|size| size.trim().parse().ok()).filter(|size| *size > 0),
        max_walltime_seconds: record.get("resources_max.walltime").and_then(seconds),
    }
}

/// Returns the queues of `qstat -Qf`; `user` is who asks. A limit on cores or memory is that of the queue or of the
/// largest host, whichever is less: a job of ours is on one host.
pub(crate) fn queues(text: &str, server: &Server, node_text: &str, user: &str) -> Vec<Queue> {
    let largest = largest(node_text);
    let queue = |record: Record| {
        let number = |key: &str| record.get(key).and_then(|value| value.trim().parse::<u32>().ok());
        Queue {
            is_default: server.default_queue.as_deref() == Some(record.name.as_str()),
            closed: closed(&record, user),
            max_walltime_seconds: record
                .get("resources_max.walltime")
                .and_then(seconds)
                .or(server.max_walltime_seconds),
            default_walltime_seconds: record.get("resources_default.walltime").and_then(seconds),
            max_cores: least(number("resources_max.ncpus"), largest.cores),
            max_memory_bytes: least(record.get("resources_max.mem").and_then(bytes), largest.memory_bytes),
            max_gpus: least(number("resources_max.ngpus"), largest.gpus),
            max_jobs: max_jobs(&record),
            name: bounded(&record.name),
        }
    };
    records("Queue", text).into_iter().take(QUEUES_LIMIT).map(queue).collect()
}

fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// What a host has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Host {
    cores: Option<u32>,
    memory_bytes: Option<u64>,
    gpus: Option<u32>,
}

/// The most that one host has, of each, by `pbsnodes -av`; TORQUE's by `pbsnodes -a`. A chunk may be taken from several
/// vnodes of a host (PBS Professional's reference guide, "Placing Jobs on Vnodes"), so theirs are added up. A host that
/// is down may come back.
fn largest(text: &str) -> Host {
    let mut hosts: BTreeMap<String, Host> = BTreeMap::new();
    for node in nodes(text) {
        let number =
            |keys: [&str; 2]| -> Option<u32> { keys.iter().find_map(|key| node.get(key))?.trim().parse().ok() };
        let torque = || node.get("status")?.split(',').find_map(|part| part.strip_prefix("physmem="));
        let host = node.get("resources_available.host").unwrap_or(&node.name).trim().to_owned();
        let host = hosts.entry(host).or_default();
        host.cores = sum(host.cores, number(["resources_available.ncpus", "np"]), u32::saturating_add);
        host.gpus = sum(host.gpus, number(["resources_available.ngpus", "gpus"]), u32::saturating_add);
        let memory = node.get("resources_available.mem").or_else(torque).and_then(bytes);
        host.memory_bytes = sum(host.memory_bytes, memory, u64::saturating_add);
    }
    Host {
        cores: hosts.values().filter_map(|host| host.cores).max(),
        memory_bytes: hosts.values().filter_map(|host| host.memory_bytes).max(),
        gpus: hosts.values().filter_map(|host| host.gpus).max(),
    }
}

fn sum<T>(one: Option<T>, other: Option<T>, add: fn(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(add(one, other)),
        (one, other) => one.or(other),
    }
}

fn closed(record: &Record, user: &str) -> Option<String> {
    let is = |key: &str, word: &str| record.get(key).is_some_and(|value| value.eq_ignore_ascii_case(word));
    if is("enabled", "False") {
        return Some("it is not enabled".to_owned());
    }
    if is("from_route_only", "True") {
        return Some("it takes jobs from other queues only".to_owned());
    }
    let listed = || {
        let mut users = record.get("acl_users").unwrap_or_default().split(',');
        users.any(|entry| {
            let name = entry.trim().trim_start_matches('+').split('@').next();
            name == Some(user) || name == Some("*")
        })
    };
    (is("acl_user_enable", "True") && !listed()).then(|| bounded("you are not on its list of users (acl_users)"))
}

/// `[u:PBS_GENERIC=2], [u:me=5]`: the limit for users in general (PBS Professional's administrator's guide, "Limit
/// attributes"); before version 10, and in TORQUE, `max_user_queuable`.
fn max_jobs(record: &Record) -> Option<u32> {
    let generic = |text: &str| text.split("u:PBS_GENERIC=").nth(1)?.split(']').next()?.trim().parse().ok();
    let old = || record.get("max_user_queuable")?.trim().parse().ok();
    record.get("max_queued").and_then(generic).or_else(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUES: &str = "Queue: workq\n    queue_type = Execution\n    enabled = True\n    started = True\n\n\
        Queue: short\n    queue_type = Execution\n    max_queued = [u:PBS_GENERIC=2]\n    resources_max.mem = 4gb\n    \
        resources_max.ncpus = 4\n    resources_max.walltime = 00:30:00\n    resources_default.walltime = 00:10:00\n    \
        enabled = True\n    started = True\n\nQueue: off\n    enabled = False\n    started = True\n\n\
        Queue: private\n    acl_user_enable = True\n    acl_users = boss@*,+me@pbsvm\n    enabled = True\n";
    const NODES: &str = "n1\n     Mom = n1\n     state = free\n     resources_available.mem = 1048576kb\n     \
        resources_available.ncpus = 16\n\nn2\n     state = down\n     resources_available.ncpus = 64\n";

    #[test]
    fn limits_of_queues_and_nodes() {
        let text = "Server: pbsvm\n    server_state = Active\n    default_queue = workq\n    max_array_size = 10000\n    \
            resources_max.walltime = 24:00:00\n";
        let server = server(text);
        assert_eq!((server.default_queue.as_deref(), server.max_array), (Some("workq"), Some(10_000)));
        let queues = queues(QUEUES, &server, NODES, "me");
        let workq = &queues[0];
        assert!(workq.is_default && workq.closed.is_none());
        assert_eq!((workq.max_cores, workq.max_memory_bytes), (Some(64), Some(1 << 30)));
        assert_eq!((workq.max_walltime_seconds, workq.max_jobs), (Some(86_400), None));
        let short = &queues[1];
        assert_eq!((short.max_cores, short.max_memory_bytes), (Some(4), Some(1 << 30)));
        assert_eq!((short.max_walltime_seconds, short.default_walltime_seconds), (Some(1800), Some(600)));
        assert_eq!((short.max_jobs, short.is_default), (Some(2), false));
        assert!(queues[2].closed.is_some());
        assert_eq!(queues[3].closed, None);
        assert!(super::queues(QUEUES, &server, NODES, "you")[3].closed.is_some());
        assert_eq!(super::queues(QUEUES, &server, "", "me")[0].max_cores, None, "nodes are not shown everywhere");
    }

    /// A chunk may be taken from all vnodes of its host.
    #[test]
    fn vnodes_of_a_host_are_added_up() {
        let vnode = |name: &str, host: &str, cores: u32, gpus: u32| {
            format!(
                "{name}\n     state = free\n     resources_available.host = {host}\n     \
                 resources_available.mem = 1gb\n     resources_available.ncpus = {cores}\n     \
                 resources_available.ngpus = {gpus}\n\n"
            )
        };
        let text =
            [vnode("a", "a", 0, 0), vnode("a[0]", "a", 64, 2), vnode("a[1]", "a", 64, 2), vnode("b", "b", 96, 0)];
        let most = Host { cores: Some(128), memory_bytes: Some(3 << 30), gpus: Some(4) };
        assert_eq!(largest(&text.concat()), most);
    }

    #[test]
    fn torque() {
        let nodes = "n1\n     state = free\n     np = 8\n     status = opsys=linux,physmem=2048kb,ncpus=8\n";
        assert_eq!(largest(nodes), Host { cores: Some(8), memory_bytes: Some(2 << 20), gpus: None });
        assert_eq!(server("Server: a\n    max_job_array_size = 50\n").max_array, Some(50));
        assert_eq!(server("").max_array, None);
    }
}
