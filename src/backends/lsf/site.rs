//! What an LSF says of itself: `lsid`, `bqueues -l`, `bhosts`, `bparams -l`, `lsf.conf`. Pure. Checked on OpenLava
//! 2.2; IBM's MAXIMUM LIMITS, DEFAULT LIMITS and TASKLIMIT by its manual (10.1, bqueues(1), lsf.conf(5)).

use crate::backends::Queue;
use crate::backends::batch::bounded;

/// How a site counts memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Bytes of one unit of `-M`.
    pub limit_unit: u64,
    /// Bytes of one unit of `rusage[mem=]`.
    pub reserve_unit: u64,
    /// A reservation is for each slot, not for the job's share of a host.
    pub reserve_per_slot: bool,
}

impl Memory {
    /// What LSF does where its administrators say nothing: `-M` in KB, `rusage` in MB for each host.
    pub const USUAL: Self = Self { limit_unit: 1 << 10, reserve_unit: 1 << 20, reserve_per_slot: false };

    /// Reads `lsf.conf`: LSF_UNIT_FOR_LIMITS is the unit of both, the last definition counts.
    pub fn of_conf(conf: &str) -> Self {
        let mut memory = Self::USUAL;
        if let Some(unit) = setting(conf, "LSF_UNIT_FOR_LIMITS").and_then(unit) {
            (memory.limit_unit, memory.reserve_unit) = (unit, unit);
        }
        memory.reserve_per_slot = per_slot(conf);
        memory
    }
}

/// `KB`, `M`, `gb`, …
fn unit(word: &str) -> Option<u64> {
    let letter = word.chars().next()?.to_ascii_uppercase();
    let power = "KMGTPE".find(letter)?;
    u32::try_from(power).ok().map(|power| 1 << (10 * (power + 1)))
}

/// RESOURCE_RESERVE_PER_TASK, formerly _PER_SLOT: in `lsf.conf`, or as `bparams -l` prints it.
pub fn per_slot(text: &str) -> bool {
    ["RESOURCE_RESERVE_PER_TASK", "RESOURCE_RESERVE_PER_SLOT"]
        .into_iter()
        .filter_map(|name| setting(text, name))
        .any(|value| value.to_ascii_uppercase().starts_with('Y'))
}

/// MAX_JOB_ARRAY_SIZE of `bparams -l`; its default is 1000.
pub fn array_limit(bparams: &str) -> Option<u32> {
    setting(bparams, "MAX_JOB_ARRAY_SIZE")?.parse().ok().filter(|limit| *limit > 0)
}

/// DEFAULT_QUEUE of `bparams -l`: several are tried in order.
pub fn default_queue(bparams: &str) -> Option<&str> {
    setting(bparams, "DEFAULT_QUEUE")
}

/// The first word of a setting's value.
fn setting<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut values = text.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('"').split_whitespace().next())?
    });
    values.next_back()
}

/// Returns the product of `lsid`'s first line, without its date: `openlava project 2.2`, `IBM Spectrum LSF Standard
/// 10.1.0.12`.
pub fn version(lsid: &str) -> Option<String> {
    let words = ["lsf", "openlava", "platform"];
    let line = lsid.lines().find(|line| words.iter().any(|word| line.to_ascii_lowercase().contains(word)))?;
    Some(bounded(line.split(',').next()?.trim()))
}

/// Whether this is OpenLava, by [`version`]: options of IBM's it reads as others of its own, or as a command to run.
pub fn is_openlava(version: &str) -> bool {
    version.to_ascii_lowercase().contains("openlava")
}

/// Returns the largest MAX of slots in `bhosts -w`; `None` when a host has none (`-`).
pub fn host_slots(bhosts: &str) -> Option<u32> {
    largest(bhosts, "MAX", |word| word.parse().ok())
}

/// Returns the largest `maxmem` of `lshosts -w`, in bytes; `None` when a host does not say it.
pub fn host_memory(lshosts: &str) -> Option<u64> {
    largest(lshosts, "maxmem", size)
}

/// The largest value of a column; `None` when one of the hosts that run jobs has none.
fn largest<T: Ord>(table: &str, name: &str, value: impl Fn(&str) -> Option<T>) -> Option<T> {
    let mut lines = table.lines();
    let header: Vec<&str> = lines.find(|line| line.starts_with("HOST_NAME"))?.split_whitespace().collect();
    let column = |name: &str| header.iter().position(|word| *word == name);
    let (at, server) = (column(name)?, column("server"));
    let mut best = None;
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let submits_only = server.and_then(|server| words.get(server)).is_some_and(|word| *word == "No");
        if !words.is_empty() && !submits_only {
            best = best.max(Some(value(words.get(at)?)?));
        }
    }
    best
}

/// `24105M`, `1.5G`, `500000 K`.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, word) = text.split_at(at);
    let number: f64 = number.parse().ok()?;
    let bytes = number * unit(word.trim())? as f64;
    (bytes.is_finite() && bytes < 1e18).then_some(bytes as u64)
}

/// Returns the queues of `bqueues -l`. `default` is the name of the queue that a job gets which names none, `user` who
/// asks.
pub fn queues(bqueues: &str, default: Option<&str>, user: Option<&str>) -> Vec<Queue> {
    let mut queues: Vec<Queue> = Vec::new();
    let mut defaults = false;
    let lines: Vec<&str> = bqueues.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let below = lines.get(at + 1).copied().unwrap_or_default();
        if let Some(name) = line.strip_prefix("QUEUE:") {
            let name = bounded(name.trim());
            queues.push(Queue { is_default: default == Some(name.as_str()), name, ..Queue::default() });
            defaults = false;
            continue;
        }
        let Some(queue) = queues.last_mut() else { continue };
        match line.trim() {
            "DEFAULT LIMITS:" => defaults = true,
            "MAXIMUM LIMITS:" | "SCHEDULING PARAMETERS" => defaults = false,
            text if text.starts_with("PRIO") && text.contains("STATUS") => {
                let status = below.split_whitespace().nth(2).unwrap_or_default();
                // `Open:Inact_Win`: it takes jobs, and runs them at other hours.
                queue.closed = status.starts_with("Closed").then(|| bounded(status));
            }
            text if text.ends_with("This is the default queue.") && default.is_none() => queue.is_default = true,
            text => match text.strip_prefix("USERS:") {
                Some(users) if user.is_some_and(|user| !may_use(users, user)) => {
                    queue.closed = queue.closed.take().or(Some(bounded(&format!("only for {}", users.trim()))));
                }
                _ => limits(queue, text, below, defaults),
            },
        }
    }
    queues
}

/// Whether somebody may be one of the users of a queue: `all users`, or names; who is in a group (`staff/`) or left out
/// of one (`~`) is not known here.
fn may_use(users: &str, user: &str) -> bool {
    let mut names = users.split_whitespace().peekable();
    names.peek().is_none() || names.any(|name| name == user || name == "all" || name.contains(['/', '~']))
}

/// A line of names, each at the column of its value in the line below it: ` RUNLIMIT                 PROCLIMIT`.
fn limits(queue: &mut Queue, names: &str, values: &str, defaults: bool) {
    let mut values = values.trim_start();
    for name in names.split_whitespace() {
        match name {
            "RUNLIMIT" => {
                // ` 5.0 min of vm`
                let Some((number, rest)) = values.split_once(" min") else { return };
                let seconds = number.trim().parse::<f64>().ok().map(|minutes| (minutes * 60.0) as u64);
                match defaults {
                    true => queue.default_walltime_seconds = seconds,
                    false => queue.max_walltime_seconds = seconds,
                }
                values = rest.trim_start();
                if let Some(rest) = values.strip_prefix("of ") {
                    values = rest.split_once(' ').map_or("", |(_, rest)| rest).trim_start();
                }
            }
            // Minimum, default and maximum, or less of them; the last is the most.
            "PROCLIMIT" | "TASKLIMIT" => {
                let numbers = values.split_whitespace().map_while(|word| word.parse::<u32>().ok());
                queue.max_cores = numbers.last().or(queue.max_cores);
            }
            "MEMLIMIT" if !defaults => {
                let mut words = values.split_whitespace();
                let text = format!("{}{}", words.next().unwrap_or_default(), words.next().unwrap_or_default());
                queue.max_memory_bytes = size(&text);
                return;
            }
            // Other limits stand beside these; their values are not told apart.
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_memory_are_the_sites() {
        assert_eq!(Memory::of_conf(""), Memory::USUAL);
        let gb = Memory::of_conf("# x\nLSF_UNIT_FOR_LIMITS=MB\nLSF_UNIT_FOR_LIMITS = \"GB\"   # new\n");
        assert_eq!((gb.limit_unit, gb.reserve_unit), (1 << 30, 1 << 30));
        assert_eq!(Memory::of_conf("LSF_UNIT_FOR_LIMITS=elephants").limit_unit, 1 << 60, "E is exabytes");
        assert_eq!(Memory::of_conf("LSF_UNIT_FOR_LIMITS=x"), Memory::USUAL);
    }

    #[test]
    fn reservations_are_per_host_or_per_slot() {
        assert!(Memory::of_conf("RESOURCE_RESERVE_PER_TASK=Y\n").reserve_per_slot);
        assert!(per_slot("Resources are reserved per slot:\n    RESOURCE_RESERVE_PER_SLOT = Y\n"));
        assert!(!per_slot("    RESOURCE_RESERVE_PER_TASK = N\n"));
        assert!(!per_slot(include_str!("../../../tests/fixtures/lsf/bparams.out")));
    }

    #[test]
    fn openlava_says_of_itself() {
        let bparams = include_str!("../../../tests/fixtures/lsf/bparams.out");
        assert_eq!((array_limit(bparams), default_queue(bparams)), (Some(1000), Some("normal")));
        let version = version(include_str!("../../../tests/fixtures/lsf/lsid.out")).unwrap();
        assert_eq!((version.as_str(), is_openlava(&version)), ("openlava project 2.2", true));
        assert_eq!(host_slots(include_str!("../../../tests/fixtures/lsf/bhosts.out")), Some(16));
        assert_eq!(host_memory(include_str!("../../../tests/fixtures/lsf/lshosts.out")), Some(24105 << 20));
        let ibm = super::version("IBM Spectrum LSF Standard 10.1.0.12, Jun 10 2021\nCopyright …\n").unwrap();
        assert_eq!((ibm.as_str(), is_openlava(&ibm)), ("IBM Spectrum LSF Standard 10.1.0.12", false));
        assert_eq!(super::version("bash: lsid"), None);
    }

    #[test]
    fn queues_with_limits() {
        let all = queues(include_str!("../../../tests/fixtures/lsf/bqueues_l_all.out"), Some("normal"), Some("me"));
        insta::assert_debug_snapshot!(all.iter().map(line).collect::<Vec<_>>(), @r###"
        [
            "short closed None walltime Some(300) default None cores Some(4) memory Some(512000000)",
            "normal* closed None walltime None default None cores None memory None",
            "nobody closed Some(\"only for openlava\") walltime None default None cores None memory None",
            "night closed None walltime None default None cores None memory None",
        ]
        "###);
        let ibm = "\nQUEUE: long\n  -- for long jobs\n\nPARAMETERS/STATISTICS\n\
            PRIO NICE STATUS          MAX JL/U JL/P JL/H NJOBS  PEND   RUN SSUSP USUSP  RSV PJOBS\n \
            30    0  Closed:Active    -    -    -    -     0     0     0     0     0    0     0\n\n\
            DEFAULT LIMITS:\n RUNLIMIT\n 60.0 min\n\nMAXIMUM LIMITS:\n RUNLIMIT\n 720.5 min of hostA\n\n \
            TASKLIMIT\n 1 4 64\n\n MEMLIMIT\n 1.5 G\n\nSCHEDULING PARAMETERS\n";
        insta::assert_debug_snapshot!(queues(ibm, None, None).iter().map(line).collect::<Vec<_>>(), @r###"
        [
            "long closed Some(\"Closed:Active\") walltime Some(43230) default Some(3600) cores Some(64) memory Some(1610612736)",
        ]
        "###);
        let said = queues(include_str!("../../../tests/fixtures/lsf/bqueues_l_all.out"), None, Some("openlava"));
        assert_eq!(said.iter().filter(|queue| queue.is_default).count(), 1);
        assert!(said.iter().all(|queue| queue.closed.is_none()), "its own user");
        assert!(may_use("staff/", "me") && may_use("", "me") && !may_use("you", "me"));
    }

    #[test]
    fn a_host_that_does_not_say_its_size_may_be_the_largest() {
        let hosts = "HOST_NAME STATUS JL/U MAX\na ok - 16\nb ok - 64\n";
        assert_eq!(host_slots(hosts), Some(64));
        assert_eq!(host_slots(&format!("{hosts}c ok - -\n")), None);
        let memory = "HOST_NAME type model cpuf ncpus maxmem maxswp server RESOURCES\na x y 1 2 100M - Yes ()\n";
        assert_eq!(host_memory(&format!("{memory}login x y - - - - No ()\n")), Some(100 << 20));
        assert_eq!(host_memory(&format!("{memory}down x y 1 - - - Yes ()\n")), None);
        assert_eq!(host_memory("HOST_NAME maxmem\n"), None);
    }

    #[test]
    fn openlava_4_says_the_same() {
        let bparams = include_str!("../../../tests/fixtures/lsf/openlava4_bparams_l.out");
        assert_eq!(
            (array_limit(bparams), default_queue(bparams), per_slot(bparams)),
            (Some(1000), Some("normal"), false)
        );
        let queues = queues(
            include_str!("../../../tests/fixtures/lsf/openlava4_bqueues_l.out"),
            default_queue(bparams),
            Some("me"),
        );
        let lines: Vec<String> = queues.iter().map(line).collect();
        assert_eq!(lines[0], "short closed None walltime Some(300) default None cores Some(4) memory Some(512000000)");
        assert!(lines.iter().any(|line| line.starts_with("normal* closed None walltime None")), "{lines:?}");
        assert_eq!(host_slots(include_str!("../../../tests/fixtures/lsf/openlava4_bhosts_w.out")), Some(16));
        assert_eq!(host_memory(include_str!("../../../tests/fixtures/lsf/openlava4_lshosts_w.out")), Some(24152 << 20));
    }

    fn line(queue: &Queue) -> String {
        format!(
            "{}{} closed {:?} walltime {:?} default {:?} cores {:?} memory {:?}",
            queue.name,
            if queue.is_default { "*" } else { "" },
            queue.closed,
            queue.max_walltime_seconds,
            queue.default_walltime_seconds,
            queue.max_cores,
            queue.max_memory_bytes
        )
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            queues(&text, None, Some("me"));
            queues(&format!("QUEUE: x\n{text}\n RUNLIMIT PROCLIMIT\n{text}\n MEMLIMIT\n{text}"), None, Some("me"));
            version(&text);
            host_slots(&format!("HOST_NAME MAX\n{text}"));
            host_memory(&format!("HOST_NAME maxmem\n{text}"));
            array_limit(&text);
            Memory::of_conf(&text);
        }
    }
}
