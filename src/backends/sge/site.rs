//! What a Grid Engine says of its site: parallel environments, resources, queues. Pure. Nearly all of it is the
//! administrators' choice, so what a job asks for cannot be written without looking.

use crate::backends::Queue;
use crate::backends::batch::bounded;
use std::collections::{BTreeMap, BTreeSet};

/// What a job script must know of the site.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// A parallel environment that keeps a job's cores on one host.
    pub pe: Option<String>,
    /// The resource by which memory is asked for.
    pub memory: Option<Resource>,
    /// The resource by which GPUs are asked for.
    pub gpu: Option<Resource>,
}

impl Found {
    /// Returns what most sites have, for a script that is only looked at.
    pub fn guessed() -> Self {
        let resource = |name: &str| Some(Resource { name: name.to_owned(), per_slot: true });
        Self { pe: Some("smp".to_owned()), memory: resource("h_vmem"), gpu: resource("gpu") }
    }
}

/// What the site was asked, for jobs of any shape.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Offer {
    /// Its parallel environments.
    pub environments: Vec<Pe>,
    /// The resource by which memory is asked for.
    pub memory: Option<Resource>,
    /// The resource by which GPUs are asked for.
    pub gpu: Option<Resource>,
}

impl Offer {
    /// Returns what a job of so many cores must know; `offered` are the environments of its queue.
    pub fn of(&self, cores: u32, offered: &BTreeSet<String>) -> Found {
        let pe = choose_pe(&self.environments, offered, cores);
        Found { pe, memory: self.memory.clone(), gpu: self.gpu.clone() }
    }
}

/// A resource of the site (complex(5)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// The amount asked for is one slot's, not the job's.
    pub per_slot: bool,
}

/// A parallel environment (sge_pe(5)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pe {
    /// Its name.
    pub name: String,
    slots: u32,
    rule: String,
    open: bool,
}

/// A row of `qconf -sc`.
struct Complex<'a> {
    name: &'a str,
    requestable: bool,
    consumable: &'a str,
}

/// Names under which sites know memory, the likeliest first. Of these one that is counted down is taken; else
/// h_vmem, which every Grid Engine has.
const MEMORY: [&str; 8] = ["h_vmem", "m_mem_free", "mem_free", "h_rss", "virtual_free", "s_vmem", "mem", "memory"];
/// Resources that each queue has, with or without a limit (queue_conf(5)).
const QUEUE_RESOURCES: [&str; 6] = ["slots", "h_vmem", "s_vmem", "h_rss", "s_rss", "h_data"];
/// Names under which sites know GPUs.
const GPU: [&str; 5] = ["gpu", "gpus", "ngpus", "gpu_card", "ngpu"];
/// Names that sites like to give to an environment on one host.
const PE: [&str; 6] = ["smp", "threaded", "threads", "shm", "openmp", "onenode"];

/// Returns the settings of `qconf -sp`, `-se`, `-sq` and `-sconf`: a name, blanks, a value; a backslash at the end
/// of a line continues it.
pub fn settings(text: &str) -> BTreeMap<String, String> {
    let joined = text.replace("\\\n", " ");
    let pairs = joined.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once(char::is_whitespace)?;
        Some((name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
    });
    pairs.collect()
}

/// Reads one parallel environment (`qconf -sp`).
pub fn pe(text: &str) -> Option<Pe> {
    let settings = settings(text);
    let open = settings.get("user_lists").is_none_or(|lists| lists == "NONE");
    Some(Pe {
        name: settings.get("pe_name")?.clone(),
        slots: settings.get("slots").and_then(|slots| slots.parse().ok()).unwrap_or(u32::MAX),
        rule: settings.get("allocation_rule")?.clone(),
        open,
    })
}

/// Returns the environment to use for so many cores on one host: of those in `offered` (all when that is empty)
/// one with the rule `$pe_slots`, or with exactly as many slots a host as are wanted.
pub fn choose_pe(all: &[Pe], offered: &BTreeSet<String>, cores: u32) -> Option<String> {
    let fits = |pe: &&Pe| {
        let one_host = pe.rule == "$pe_slots" || pe.rule.parse() == Ok(cores);
        one_host && pe.slots >= cores && (offered.is_empty() || offered.contains(&pe.name))
    };
    let rank = |pe: &&Pe| {
        let by_name = PE.iter().position(|name| pe.name == *name).unwrap_or(PE.len());
        (pe.rule != "$pe_slots", !pe.open, by_name, pe.name.clone())
    };
    all.iter().filter(fits).min_by_key(rank).map(|pe| pe.name.clone())
}

fn complexes(text: &str) -> Vec<Complex<'_>> {
    // name shortcut type relop requestable consumable default urgency
    let rows = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, requestable, consumable) = (words.next()?, words.nth(3)?, words.next()?);
        Some(Complex { name, requestable: requestable != "NO", consumable })
    });
    rows.collect()
}

/// Returns the resources by which memory and GPUs are asked for (`qconf -sc`).
pub fn resources(text: &str) -> (Option<Resource>, Option<Resource>) {
    let all = complexes(text);
    let named = |name: &&str| all.iter().find(|complex| complex.name == *name && complex.requestable);
    let counted = |complex: &&Complex<'_>| complex.consumable != "NO";
    let resource = |complex: &Complex<'_>| Resource {
        name: complex.name.to_owned(),
        // JOB: once a job; HOST: once a host (complex(5), "consumable").
        per_slot: matches!(complex.consumable, "YES" | "NO"),
    };
    let memory = MEMORY.iter().filter_map(named).find(counted).or_else(|| named(&"h_vmem"));
    let gpu = GPU.iter().filter_map(named).find(counted);
    (memory.map(resource), gpu.map(resource))
}

/// Returns the settings of each queue of a `qconf -sq`.
pub fn queues(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut blocks: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with("qname ") {
            blocks.push(String::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks.iter().map(|block| settings(block)).collect()
}

/// Returns the parallel environments that a queue offers, here or there.
pub fn offered(queue: &BTreeMap<String, String>) -> BTreeSet<String> {
    let list = queue.get("pe_list").map_or("", String::as_str);
    // `smp mpi,[n01=smp],[@gpu=smp gpu]`
    let words = list.split([' ', ',', '[', ']']).map(|word| word.rsplit('=').next().unwrap_or_default());
    words.filter(|word| !word.is_empty() && *word != "NONE").map(str::to_owned).collect()
}

/// Returns the queues as the rest of the program sees them. `hosts` are the `qconf -se` of the hosts, `slots` what
/// `qstat -g c` prints, `jobs` the most jobs of one user.
pub fn queue_limits(
    queues: &[BTreeMap<String, String>],
    hosts: &[BTreeMap<String, String>],
    (memory, gpu): (Option<&Resource>, Option<&Resource>),
    summary: &str,
    max_jobs: Option<u32>,
) -> Vec<Queue> {
    let of_hosts = |name: &str| {
        let values = hosts.iter().map(|host| capacity(host, name));
        // A host that does not say bounds nothing; what is no queue's either it does not have.
        match QUEUE_RESOURCES.contains(&name) {
            true => values.collect::<Option<Vec<_>>>()?.into_iter().max(),
            false => values.flatten().max(),
        }
    };
    let host_slots = of_hosts("slots");
    let of_resource = |resource: Option<&Resource>| resource.and_then(|resource| of_hosts(&resource.name));
    let (host_memory, host_gpus) = (of_resource(memory), of_resource(gpu));
    let one = |queue: &BTreeMap<String, String>| {
        let name = queue.get("qname")?.clone();
        let each = |key: &str, read: fn(&str) -> Option<u64>| queue.get(key).and_then(|value| largest(value, read));
        let walltime = [each("h_rt", seconds), each("s_rt", seconds)].into_iter().flatten().min();
        let slots = [each("slots", |text| text.parse().ok()), host_slots].into_iter().flatten().min();
        let alone = offered(queue).is_empty();
        let cores = slots.map(|slots| if alone { slots.min(1) } else { slots });
        Some(Queue {
            // There is no default queue: a job that names none may go to each.
            is_default: true,
            closed: closed(summary, &name),
            max_walltime_seconds: walltime,
            default_walltime_seconds: walltime,
            max_cores: cores.and_then(|cores| u32::try_from(cores).ok()),
            max_memory_bytes: host_memory,
            max_gpus: host_gpus.and_then(|gpus| u32::try_from(gpus).ok()),
            max_jobs,
            name: bounded(&name),
        })
    };
    queues.iter().filter_map(one).collect()
}

/// A resource of `complex_values slots=16,h_vmem=64G`.
fn capacity(host: &BTreeMap<String, String>, name: &str) -> Option<u64> {
    let values = host.get("complex_values")?.split(',');
    values.filter_map(|pair| pair.trim().split_once('=')).find(|(key, _)| *key == name).and_then(|(_, v)| bytes(v))
}

/// Why no slot of a queue can be used, by `qstat -g c`: used, reserved, free, all, … and those that are closed
/// (disabled, suspended, unknown, in error) in the last column.
fn closed(summary: &str, queue: &str) -> Option<String> {
    let line = summary.lines().find(|line| line.split_whitespace().next() == Some(queue))?;
    let columns: Vec<u64> = line.split_whitespace().skip(2).filter_map(|word| word.parse().ok()).collect();
    let [_, _, _, total, _, closed] = columns[..] else { return None };
    (total > 0 && closed >= total)
        .then(|| format!("all its {total} slots are disabled, in error, or on hosts that do not answer"))
}

/// The largest value of `16,[n01=8],[@big=32]`; a value without a limit wins.
fn largest(value: &str, read: fn(&str) -> Option<u64>) -> Option<u64> {
    let parts = value.split(',').map(|part| part.trim_matches(['[', ']', ' ']).rsplit('=').next().unwrap_or_default());
    let mut most = 0;
    for part in parts {
        most = most.max(read(part)?);
    }
    Some(most)
}

/// `hours:minutes:seconds` or seconds; `INFINITY` is no limit.
fn seconds(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    for part in text.split(':') {
        total = total.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    Some(total)
}

/// `64G`, `64.000G`, `16`: capital letters are powers of 1024, small ones of 1000 (sge_types(5)).
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: f64 = match &text[digits.len()..] {
        "" => 1.0,
        "K" => 1024.0,
        "M" => 1_048_576.0,
        "G" => 1_073_741_824.0,
        "T" => 1_099_511_627_776.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        _ => return None,
    };
    let value = digits.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)? * unit;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates, and is not negative")]
    Some(value as u64)
}

/// Returns the version by `qstat -help`, whose first line is `SGE 8.1.9`.
pub fn version(help: &str) -> String {
    let line = help.lines().map(str::trim).find(|line| line.contains("GE ") && line.contains('.'));
    line.map_or_else(|| "Grid Engine".to_owned(), |line| format!("Grid Engine ({line})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SC: &str = include_str!("../../../tests/fixtures/sge/qconf_sc.out");

    fn named(name: &str, slots: &str, rule: &str, lists: &str) -> Pe {
        pe(&format!("pe_name {name}\nslots {slots}\nuser_lists {lists}\nallocation_rule {rule}\n")).unwrap()
    }

    #[test]
    fn an_environment_must_keep_a_job_on_one_host() {
        let smp = pe(include_str!("../../../tests/fixtures/sge/qconf_sp_smp.out")).unwrap();
        let mpi = pe(include_str!("../../../tests/fixtures/sge/qconf_sp_mpi.out")).unwrap();
        let any = BTreeSet::new();
        assert_eq!(choose_pe(&[mpi.clone(), smp.clone()], &any, 4).as_deref(), Some("smp"));
        assert_eq!(choose_pe(std::slice::from_ref(&mpi), &any, 4), None, "round robin spreads it over hosts");
        assert_eq!(choose_pe(std::slice::from_ref(&smp), &any, 1000), None, "it has 999 slots");
        let offered = BTreeSet::from(["mpi".to_owned()]);
        assert_eq!(choose_pe(&[smp, mpi], &offered, 4), None, "the queue does not offer it");
        let full = [named("mpi8", "99", "8", "NONE"), named("fill", "99", "$fill_up", "NONE")];
        assert_eq!(choose_pe(&full, &any, 8).as_deref(), Some("mpi8"), "eight on each host");
        assert_eq!(choose_pe(&full, &any, 4), None);
        let rivals = [named("aaa", "99", "$pe_slots", "NONE"), named("smp", "99", "$pe_slots", "staff")];
        assert_eq!(choose_pe(&rivals, &any, 4).as_deref(), Some("aaa"), "open to all");
    }

    #[test]
    fn memory_is_what_the_site_counts() {
        let (memory, gpu) = resources(SC);
        assert_eq!(memory, Some(Resource { name: "h_vmem".to_owned(), per_slot: true }));
        assert_eq!(gpu, None);
        let with = |rows: &str| {
            let others = SC.lines().filter(|line| !rows.contains(line.split(' ').next().unwrap()));
            others.chain(rows.lines()).collect::<Vec<_>>().join("\n")
        };
        let uncounted = "h_vmem h_vmem MEMORY <= YES NO 0 0\n";
        assert_eq!(resources(&with(uncounted)).0.unwrap().name, "h_vmem", "nothing is counted");
        let once = "mem_free mf MEMORY <= YES JOB 0 0\ngpu gpu INT <= YES YES 0 0\n";
        let (memory, gpu) = resources(&with(&format!("{uncounted}{once}")));
        assert_eq!(memory, Some(Resource { name: "mem_free".to_owned(), per_slot: false }), "JOB is once a job");
        assert_eq!(gpu, Some(Resource { name: "gpu".to_owned(), per_slot: true }));
    }

    #[test]
    fn limits_of_queues() {
        let queues = queues(include_str!("../../../tests/fixtures/sge/qconf_sq.out"));
        assert_eq!(queues.len(), 2);
        assert_eq!(offered(&queues[0]), BTreeSet::from(["smp".to_owned(), "mpi".to_owned()]));
        let host = settings(include_str!("../../../tests/fixtures/sge/qconf_se.out"));
        let memory = Resource { name: "h_vmem".to_owned(), per_slot: true };
        let summary = include_str!("../../../tests/fixtures/sge/qstat_gc.out");
        let all = queue_limits(&queues, &[host], (Some(&memory), None), summary, Some(10));
        let short = Queue {
            name: "short.q".to_owned(),
            is_default: true,
            closed: None,
            max_walltime_seconds: Some(600),
            default_walltime_seconds: Some(600),
            max_cores: Some(16),
            max_memory_bytes: Some(64 << 30),
            max_gpus: None,
            max_jobs: Some(10),
        };
        assert_eq!(all[1], short);
        assert_eq!((all[0].name.as_str(), all[0].max_walltime_seconds), ("all.q", None));
        // A host of which only the queue says how much of it is used.
        let plain = settings("hostname n02\ncomplex_values NONE\n");
        let hosts = [settings(include_str!("../../../tests/fixtures/sge/qconf_se.out")), plain];
        let gpu = Resource { name: "gpu".to_owned(), per_slot: true };
        let with = settings("hostname n03\ncomplex_values gpu=4\n");
        let all = queue_limits(&queues, &[&hosts[..], &[with]].concat(), (Some(&memory), Some(&gpu)), summary, None);
        assert_eq!((all[1].max_memory_bytes, all[1].max_gpus), (None, Some(4)));
        let down = summary.replace("16     16      0      0", "0     16      0     16");
        assert!(closed(&down, "all.q").unwrap().contains("16 slots"), "{down}");
    }

    #[test]
    fn values_of_hosts_and_units() {
        assert_eq!(largest("1,[n01=8],[@big=32]", |text| text.parse().ok()), Some(32));
        assert_eq!(largest("00:10:00,[n01=INFINITY]", seconds), None);
        assert_eq!(largest("00:10:00,[n01=7200]", seconds), Some(7200));
        assert_eq!(settings("a  1 \\\n   2\nb x\n")["a"], "1 2");
        assert_eq!((bytes("1.5G"), bytes("2m"), bytes("x"), bytes("-1")), (Some(3 << 29), Some(2_000_000), None, None));
        assert_eq!(version("SGE 8.1.9\nusage: qstat\n"), "Grid Engine (SGE 8.1.9)");
        let list = BTreeMap::from([("pe_list".to_owned(), "smp,[n01=mpi],[@gpu=smp gpu]".to_owned())]);
        assert_eq!(offered(&list).len(), 3);
    }
}
