//! What Slurm says of its partitions. Pure: the texts of `scontrol -a -o show partition`, of
//! `sinfo -a -h -e -o '%R|%c|%m|%G'` and of `scontrol show config`, checked on 22.05.8.

use super::parse;
use crate::backends::batch::bounded_to;
use crate::backends::{Queue, Site};

/// Format of `sinfo -o` that [`site`] reads: partition, cores, MiB and generic resources of a kind of node. With `-e`
/// nodes of different sizes are different lines; without, one line says `24+`.
pub(super) const SINFO_FORMAT: &str = "%R|%c|%m|%G";
/// Most bytes of a name that is kept.
const NAME_LIMIT_BYTES: usize = 255;

/// Returns the site.
pub(crate) fn site(config: &str, partitions: &str, nodes: &str) -> Site {
    let value = |name: &str| parse::config_value(config, name);
    let version = value("SLURM_VERSION").map_or_else(|| "slurm".to_owned(), |v| format!("slurm {}", bounded_to(v, 40)));
    let accounting = value("AccountingStorageType").map(|kind| kind.ends_with("/slurmdbd"));
    let queues = partitions.lines().filter_map(|line| queue(line, nodes)).collect();
    Site { version, queues, accounting }
}

/// Reads one line of `scontrol -o show partition`; scontrol(1) and slurm.conf(5) tell the fields.
fn queue(line: &str, nodes: &str) -> Option<Queue> {
    let field = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str| field(name)?.parse::<u64>().ok().filter(|number| *number > 0);
    let name = field("PartitionName")?;
    // A partition that is DOWN takes jobs, which wait until it is up.
    let closed = match (field("State"), field("RootOnly")) {
        (Some(state @ ("DRAIN" | "INACTIVE")), _) => Some(format!("State={state}")),
        (_, Some("YES")) => Some("RootOnly=YES".to_owned()),
        _ => None,
    };
    let mut cores = Vec::new();
    let mut memory_mib = Vec::new();
    let mut gpus = Vec::new();
    for line in nodes.lines() {
        let fields: Vec<&str> = line.rsplitn(4, '|').collect();
        let [resources, memory, core, partition] = fields[..] else { continue };
        if partition != name {
            continue;
        }
        let whole = |text: &str| text.trim_end_matches('+').parse::<u64>().ok();
        cores.extend(whole(core));
        memory_mib.extend(whole(memory));
        gpus.push(gpus_of(resources));
    }
    let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
    let max_cores = least(cores.into_iter().max(), number("MaxCPUsPerNode"));
    let max_mib = least(memory_mib.into_iter().max(), number("MaxMemPerNode"));
    Some(Queue {
        name: bounded_to(name, NAME_LIMIT_BYTES),
        is_default: field("Default") == Some("YES"),
        closed,
        max_walltime_seconds: field("MaxTime").and_then(parse::seconds),
        default_walltime_seconds: field("DefaultTime").and_then(parse::seconds),
        max_cores: max_cores.and_then(|cores| u32::try_from(cores).ok()),
        max_memory_bytes: max_mib.and_then(|mib| mib.checked_mul(1 << 20)),
        max_gpus: gpus.into_iter().max(),
        max_jobs: None,
    })
}

/// `gpu:a100:4(S:0-1),gpu:v100:2,shard:8`, `(null)`; sockets stand in brackets (gres.conf(5)).
fn gpus_of(resources: &str) -> u32 {
    let count = |part: &str| {
        let part = part.split('(').next()?;
        let (name, count) = part.split_once(':')?;
        (name == "gpu").then(|| count.rsplit(':').next()?.parse::<u32>().ok())?
    };
    resources.split(',').filter_map(count).fold(0, u32::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = include_str!("../../../tests/fixtures/slurm/scontrol_show_config.out");
    const PARTITIONS: &str = include_str!("../../../tests/fixtures/slurm/scontrol_show_partition.out");
    const NODES: &str = include_str!("../../../tests/fixtures/slurm/sinfo_sizes.out");

    #[test]
    fn a_real_site() {
        let site = site(CONFIG, PARTITIONS, NODES);
        assert_eq!((site.version.as_str(), site.accounting), ("slurm 22.05.8", Some(false)));
        let debug = Queue {
            name: "debug".to_owned(),
            is_default: false,
            closed: None,
            max_walltime_seconds: Some(1800),
            default_walltime_seconds: Some(300),
            max_cores: Some(24),
            max_memory_bytes: Some(110_000 << 20),
            max_gpus: Some(4),
            max_jobs: None,
        };
        assert_eq!(site.queues, [debug]);
    }

    #[test]
    fn fields_of_a_partition() {
        let one = |line: &str| queue(&format!("PartitionName=p {line}"), NODES).unwrap();
        assert_eq!(
            one("Default=YES MaxTime=UNLIMITED DefaultTime=NONE State=UP"),
            Queue { name: "p".into(), is_default: true, ..Queue::default() }
        );
        assert_eq!(one("MaxTime=2-00:00:00").max_walltime_seconds, Some(172_800));
        assert_eq!(one("State=DRAIN").closed.as_deref(), Some("State=DRAIN"));
        assert_eq!(one("State=INACTIVE").closed.as_deref(), Some("State=INACTIVE"));
        assert_eq!(one("State=UP RootOnly=YES").closed.as_deref(), Some("RootOnly=YES"));
        assert_eq!(one("State=DOWN").closed, None, "it takes jobs");
        assert_eq!(queue("No partitions in the system", ""), None);
    }

    #[test]
    fn the_largest_node_counts_and_the_partitions_own_limit() {
        let nodes =
            "p|24|110000|(null)\np|48|200000|gpu:a100:2(S:0-1),gpu:v100:1\nq|96|900000|gpu:8\na|b|8|1000|shard:gpu:4\n";
        let found = queue("PartitionName=p MaxCPUsPerNode=UNLIMITED MaxMemPerNode=UNLIMITED", nodes).unwrap();
        assert_eq!((found.max_cores, found.max_memory_bytes), (Some(48), Some(200_000 << 20)));
        let found = queue("PartitionName=p MaxCPUsPerNode=20 MaxMemPerNode=100000", nodes).unwrap();
        assert_eq!((found.max_cores, found.max_memory_bytes), (Some(20), Some(100_000 << 20)));
        // `sinfo` without -e, as old versions answer.
        assert_eq!(queue("PartitionName=p", "p|24+|110000+|(null)\n").unwrap().max_cores, Some(24));
        let other = queue("PartitionName=a|b", nodes).unwrap();
        assert_eq!((other.max_cores, other.max_gpus), (Some(8), Some(0)));
        assert_eq!((found.max_gpus, queue("PartitionName=q", nodes).unwrap().max_gpus), (Some(3), Some(8)));
        assert_eq!(queue("PartitionName=empty", nodes).unwrap().max_gpus, None, "it has no nodes");
    }
}
