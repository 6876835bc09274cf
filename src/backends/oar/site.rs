//! What an OAR says of its site: the properties and the nodes of its resources. Pure. Which properties there are is
//! the administrators' choice (`oarproperty`), so what a job asks for cannot be written without looking. Its queues,
//! their limits and its admission rules it tells administrators alone.

use super::parse::{number, text};
use crate::backends::Queue;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Properties by which sites say a node's memory, in MiB.
const MEMORY: [&str; 2] = ["memnode", "mem"];

/// What a job script must know of the site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// What a core is called: `core`, `cpu`, or `resource_id` where resources are of one kind.
    pub core: String,
    /// The property that says a node's memory, in MiB.
    pub memory: Option<String>,
    /// Whether GPUs are resources.
    pub gpu: bool,
    /// Whether the kind of a GPU is a property.
    pub gpu_model: bool,
}

impl Found {
    /// Returns what most sites have, for a script that is only looked at.
    pub fn guessed() -> Self {
        Self { core: "core".to_owned(), memory: Some(MEMORY[0].to_owned()), gpu: true, gpu_model: true }
    }

    /// Returns what the records of `oarnodes -J` show.
    pub fn of(resources: &Map<String, Value>) -> Self {
        let has = |name: &str| resources.values().any(|resource| is_set(resource, name));
        let first = |names: &[&str]| names.iter().find(|name| has(name)).map(|name| (*name).to_owned());
        Self {
            core: first(&["core", "cpu"]).unwrap_or_else(|| "resource_id".to_owned()),
            memory: first(&MEMORY),
            gpu: has("gpu"),
            gpu_model: has("gpu_model"),
        }
    }
}

/// Whether a resource has a value of this property: where it has none that is 0, `null` or empty.
fn is_set(resource: &Value, name: &str) -> bool {
    match number(resource, name) {
        Some(value) => value > 0,
        None => text(resource, name).is_some_and(|value| !value.is_empty()),
    }
}

/// Returns what any queue can give to one job on one node, by the records of `oarnodes -J`.
pub fn any_queue(resources: &Map<String, Value>, found: &Found) -> Queue {
    let mut cores: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    // Licences and the like are resources of other types; of dead ones nothing is given.
    let usable =
        |resource: &&Value| text(resource, "type") == Some("default") && text(resource, "state") != Some("Dead");
    let nodes: Vec<&Value> = resources.values().filter(usable).collect();
    for resource in &nodes {
        if let (Some(node), Some(core)) = (text(resource, "network_address"), resource.get(&found.core)) {
            cores.entry(node).or_default().insert(core.to_string());
        }
    }
    let memory = found.memory.as_ref().and_then(|name| nodes.iter().filter_map(|node| number(node, name)).max());
    Queue {
        name: "default".to_owned(),
        is_default: true,
        max_cores: cores.values().map(BTreeSet::len).max().and_then(|most| u32::try_from(most).ok()),
        max_memory_bytes: memory.and_then(|mib| u64::try_from(mib).ok()).map(|mib| mib.saturating_mul(1 << 20)),
        ..Queue::default()
    }
}

/// Returns name and release by what `oarstat -V` prints: `OAR version : 2.5.9 (Canicule)`.
pub fn version(stdout: &str) -> String {
    let release = stdout.lines().find_map(|line| line.split_once("version :")).map(|(_, rest)| rest.trim());
    release
        .map_or_else(|| "OAR".to_owned(), |release| format!("OAR {}", crate::backends::batch::bounded_to(release, 60)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bed() -> Map<String, Value> {
        super::super::parse::records(include_str!("../../../tests/fixtures/oar/oarnodes_J.out")).unwrap()
    }

    fn of(resources: Value) -> Found {
        Found::of(resources.as_object().unwrap())
    }

    #[test]
    fn a_real_site() {
        let found = Found::of(&bed());
        let expected = Found { core: "core".into(), memory: Some("mem".into()), gpu: false, gpu_model: false };
        assert_eq!(found, expected);
        let queue = any_queue(&bed(), &found);
        assert_eq!((queue.max_cores, queue.max_memory_bytes), (Some(4), Some(16_000 << 20)));
    }

    #[test]
    fn a_site_without_core_uses_what_it_has() {
        assert_eq!(
            of(json!({"1": {"cpu": 1, "core": 0, "memnode": "64000", "gpu": 2, "gpu_model": "A100"}})),
            Found { core: "cpu".into(), memory: Some("memnode".into()), gpu: true, gpu_model: true }
        );
        assert_eq!(of(json!({"1": {"resource_id": 1, "core": null}})).core, "resource_id");
        assert_eq!(of(json!({})).memory, None);
    }

    #[test]
    fn dead_nodes_and_licences_are_no_cores() {
        let one = |id: u32, kind: &str, state: &str| json!({"network_address": "n1", "core": id, "mem": id, "type": kind, "state": state});
        let all = json!({
            "1": one(1, "default", "Alive"), "2": one(2, "default", "Absent"), "3": one(3, "default", "Dead"),
            "4": one(4, "licence", "Alive")
        });
        let all = all.as_object().unwrap();
        let queue = any_queue(all, &Found::of(all));
        assert_eq!((queue.max_cores, queue.max_memory_bytes), (Some(2), Some(2 << 20)));
    }

    #[test]
    fn versions() {
        assert_eq!(version("OAR version : 2.5.9 (Canicule)\n"), "OAR 2.5.9 (Canicule)");
        assert_eq!(version(""), "OAR");
    }
}
