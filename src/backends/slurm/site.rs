//! What Slurm says of its partitions. Pure: the texts of `scontrol -a -o show partition`, of
//! `sinfo -a -h -e -o '%R|%c|%m'` and of `scontrol show config`, checked on 22.05.8.

use super::parse;
use crate::backends::batch::bounded_to;
use crate::backends::{Queue, Site};

/// Format of `sinfo -o` that [`site`] reads: partition, cores and MiB of a kind of node. With `-e` nodes of
/// different sizes are different lines; without, one line says `24+`.
pub(super) const SINFO_FORMAT: &str = "%R|%c|%m";
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
    let sizes = nodes.lines().filter_map(|line| {
        let mut fields = line.rsplitn(3, '|');
        let (memory, cores) = (fields.next()?, fields.next()?);
        let whole = |text: &str| text.trim_end_matches('+').parse::<u64>().ok();
        (fields.next()? == name).then_some((whole(cores)?, whole(memory)?))
    });
    let (cores, memory_mib): (Vec<_>, Vec<_>) = sizes.unzip();
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
        max_jobs: None,
    })
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
        let nodes = "p|24|110000\np|48|200000\nq|96|900000\na|b|8|1000\n";
        let found = queue("PartitionName=p MaxCPUsPerNode=UNLIMITED MaxMemPerNode=UNLIMITED", nodes).unwrap();
        assert_eq!((found.max_cores, found.max_memory_bytes), (Some(48), Some(200_000 << 20)));
        let found = queue("PartitionName=p MaxCPUsPerNode=20 MaxMemPerNode=100000", nodes).unwrap();
        assert_eq!((found.max_cores, found.max_memory_bytes), (Some(20), Some(100_000 << 20)));
        // `sinfo` without -e, as old versions answer.
        assert_eq!(queue("PartitionName=p", "p|24+|110000+\n").unwrap().max_cores, Some(24));
        assert_eq!(queue("PartitionName=a|b", nodes).unwrap().max_cores, Some(8));
    }
}
