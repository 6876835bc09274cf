//! What is peculiar to PBS's job scripts. Pure.
//!
//! [`Tongue`]: TORQUE says some things otherwise.

use crate::backends::render::{Dialect, JobHome, RenderError, text};
use crate::backends::said::Said;
use crate::config::spec::PoolSpec;
use serde_json::json;

/// How a PBS is asked for resources and arrays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tongue {
    /// By `-l select` and `-J`: PBS Professional and OpenPBS.
    Professional,
    /// By `-l nodes` and `-t`: TORQUE (qsub(1), 6.1).
    Torque,
}

/// PBS's.
pub static DIALECT: Dialect = Dialect {
    template: include_str!("../../../templates/pbs.sh.hbs"),
    reserved: &[
        ("-J", "-J"),
        ("-N", "-N"),
        ("-o", "-o"),
        ("-e", "-e"),
        ("-j", "-j"),
        ("-k", "-k"),
        ("-r", "-r"),
        ("-S", "-S"),
        ("-t", "-t"),
        // The environment would be in the server's records, for all to read.
        ("-V", "-V"),
        ("-v", "-v"),
        // Without an id on its output a submission is lost, and one that waits is killed.
        ("-z", "-z"),
        ("-I", "-I"),
        ("-C", "-C"),
        ("-W block", "block="),
        ("-W block", "-Wblock="),
    ],
    index_word: "^array_index^",
    first_index: 0,
    log_folder,
    values,
};

fn log_folder(folder: &str) -> Result<String, RenderError> {
    Ok(folder.to_owned())
}

/// Whether PBS can be told to put a file there: it reads a colon as the end of a host and a backslash as
/// an escape, and refuses what is not printable ASCII (`make_argv`, `prepare_path` of OpenPBS 23.06). The job's own log is not
/// concerned.
fn is_deliverable(folder: &str) -> bool {
    folder.bytes().all(|byte| (b' '..0x7f).contains(&byte)) && !folder.contains([':', '\\'])
}

fn values(home: &JobHome) -> Result<serde_json::Value, RenderError> {
    let pool = &home.pool;
    let refused = |what: &str| Err(RenderError::Refused(what.to_owned()));
    if pool.qos.is_some() {
        return refused("PBS knows no QOS: give what the site has instead as a --directive");
    }
    if pool.exclude.is_some() {
        return refused("PBS cannot be told which nodes to avoid: --constraint says which to use (`host=n1`)");
    }
    if pool.gpu_type.is_some() {
        return refused("PBS has no common word for a kind of GPU: give the site's as --constraint (`gpu_type=a100`)");
    }
    if pool.nodelist.as_ref().is_some_and(|nodes| nodes.contains([',', ' '])) {
        return refused("a job is on one node: PBS takes one host as --nodelist");
    }
    let split = |word: &Option<String>| word.as_ref().is_some_and(|word| word.contains([' ', '\t', '\'', '"', '\\']));
    if split(&pool.constraint) || split(&pool.nodelist) {
        return refused("PBS takes a --constraint or --nodelist without spaces, quotes and backslashes only");
    }
    let torque = matches!(home.said, Said::Pbs(Tongue::Torque));
    Ok(json!({
        "array_option": if torque { "-t" } else { "-J" },
        "chunk": if torque { nodes(pool) } else { select(pool) },
        "job_memory": memory(pool).filter(|_| torque).map(|memory| format!("mem={memory}")),
        "time": pool.walltime_seconds.map(time),
        "delivered": is_deliverable(text(&home.folder)?),
    }))
}

/// One chunk, so one node.
fn select(pool: &PoolSpec) -> String {
    let mut chunk = format!("select=1:ncpus={}", pool.cores);
    if let Some(memory) = memory(pool) {
        chunk.push_str(&format!(":mem={memory}"));
    }
    if pool.gpus > 0 {
        chunk.push_str(&format!(":ngpus={}", pool.gpus));
    }
    for (word, value) in [("host=", &pool.nodelist), ("", &pool.constraint)] {
        if let Some(value) = value {
            chunk.push_str(&format!(":{word}{value}"));
        }
    }
    chunk
}

/// TORQUE's way to say it; memory is the job's there (administrator's guide 6.1, "Requesting resources").
fn nodes(pool: &PoolSpec) -> String {
    let mut nodes = format!("nodes={}:ppn={}", pool.nodelist.as_deref().unwrap_or("1"), pool.cores);
    if pool.gpus > 0 {
        nodes.push_str(&format!(":gpus={}", pool.gpus));
    }
    if let Some(feature) = &pool.constraint {
        nodes.push_str(&format!(":{feature}"));
    }
    nodes
}

fn memory(pool: &PoolSpec) -> Option<String> {
    pool.memory_bytes.map(|bytes| format!("{}mb", bytes.div_ceil(1 << 20)))
}

/// `hours:minutes:seconds`; hours may be more than a day's.
fn time(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::render::{RenderInput, render_job_script};
    use crate::config::spec::BackendKind;
    use crate::runtime::ids::JobSeq;

    fn home() -> JobHome {
        let pool = PoolSpec {
            memory_bytes: Some(100_000_000_001),
            walltime_seconds: Some(90_061),
            queue: Some("regular".into()),
            ..PoolSpec::new(24)
        };
        JobHome::new("/home/me/my clusters/d".into(), "/opt/dcluster".into(), "abcd", pool)
    }

    fn render(home: &JobHome, count: u32) -> Result<String, String> {
        let backend = BackendKind::Pbs;
        render_job_script(&RenderInput { home, backend, first: JobSeq(7), count, explain: false, origins: None })
            .map_err(|error| error.to_string())
    }

    fn head(script: &str) -> String {
        script.lines().take_while(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn an_array() {
        insta::assert_snapshot!(head(&render(&home(), 3).unwrap()), @r"
        #!/bin/bash
        #PBS -N dcabcd-000007
        #PBS -J 0-2
        #PBS -l select=1:ncpus=24:mem=95368mb
        #PBS -l walltime=25:01:01
        #PBS -q regular
        #PBS -o '/home/me/my clusters/d/jobs/dcabcd-000007-''^array_index''^.log'
        #PBS -j oe
        #PBS -W umask=077
        #PBS -S /bin/bash
        #PBS -m n
        ");
    }

    /// qsub refuses both: `-J` needs X < Y (capture qsub_array_single).
    #[test]
    fn one_job_is_no_array() {
        let script = render(&home(), 1).unwrap();
        assert!(!script.contains("-J "), "{script}");
        assert!(script.contains("#PBS -r n\n"));
    }

    /// "cannot submit non-rerunable Array Job" (qsub.c of OpenPBS 23.06).
    #[test]
    fn an_array_must_be_rerunnable() {
        assert!(!render(&home(), 2).unwrap().contains("-r n"));
    }

    /// TORQUE and older PBS Pro take 15 characters and a letter first; a name like `1e5` is a number in JSON.
    #[test]
    fn names_have_15_characters() {
        let name =
            render(&home(), 1).unwrap().lines().find_map(|line| line.strip_prefix("#PBS -N ").map(str::to_owned));
        let name = name.unwrap();
        assert!(name.len() <= 15 && name.starts_with(|c: char| c.is_ascii_alphabetic()), "{name}");
        let most = crate::runtime::ids::JobName::new("abcd", JobSeq(9_999_999));
        assert!(most.as_str().len() <= 15, "{most}");
    }

    #[test]
    fn all_a_chunk_can_have() {
        let mut home = home();
        home.pool.gpus = 2;
        home.pool.nodelist = Some("n7".into());
        home.pool.constraint = Some("model=ivy".into());
        let script = render(&home, 1).unwrap();
        assert!(script.contains("#PBS -l select=1:ncpus=24:mem=95368mb:ngpus=2:host=n7:model=ivy\n"), "{script}");
    }

    #[test]
    fn in_torques_language() {
        let mut home = home();
        home.pool.gpus = 1;
        home.pool.constraint = Some("fast".into());
        home.said = Said::Pbs(Tongue::Torque);
        let script = render(&home, 3).unwrap();
        insta::assert_snapshot!(head(&script), @r"
        #!/bin/bash
        #PBS -N dcabcd-000007
        #PBS -t 0-2
        #PBS -l nodes=1:ppn=24:gpus=1:fast
        #PBS -l mem=95368mb
        #PBS -l walltime=25:01:01
        #PBS -q regular
        #PBS -o '/home/me/my clusters/d/jobs/dcabcd-000007-''^array_index''^.log'
        #PBS -j oe
        #PBS -W umask=077
        #PBS -S /bin/bash
        #PBS -m n
        ");
    }

    /// The job writes its own log; only PBS's copy is not had.
    #[test]
    fn paths_that_pbs_cannot_be_told() {
        for folder in ["/home/a:b", "/home/jürgen", "/home/a\\b"] {
            let mut home = home();
            home.folder = folder.into();
            let script = render(&home, 1).unwrap();
            assert!(script.contains("#PBS -o /dev/null\n"), "{script}");
        }
        let mut home = home();
        home.folder = "/home/it's".into();
        assert!(render(&home, 1).unwrap().contains("#PBS -o \"/home/it's/jobs/dcabcd-000007.log\"\n"));
    }

    #[test]
    fn refuses_what_pbs_cannot_be_told() {
        let with = |change: fn(&mut JobHome)| {
            let mut home = home();
            change(&mut home);
            render(&home, 1).unwrap_err()
        };
        assert!(with(|home| home.pool.qos = Some("high".into())).contains("QOS"));
        assert!(with(|home| home.pool.exclude = Some("n1".into())).contains("avoid"));
        assert!(with(|home| home.pool.gpu_type = Some("a100".into())).contains("kind of GPU"));
        assert!(with(|home| home.pool.nodelist = Some("n1,n2".into())).contains("one host"));
        assert!(with(|home| home.pool.constraint = Some("a b".into())).contains("without spaces"));
        for directive in ["-N x", "-J 0-3", "-V", "-v A=1", "-W block=true", "-Wblock=true", "-k oed", "-I"] {
            let mut home = home();
            home.pool.directives = vec![directive.to_owned()];
            assert!(render(&home, 1).unwrap_err().contains("needs for itself"), "{directive}");
        }
        let mut home = home();
        home.pool.directives = ["-l place=excl", "-W group_list=staff", "-P project"].map(str::to_owned).to_vec();
        assert!(render(&home, 1).unwrap().contains("#PBS -l place=excl\n#PBS -W group_list=staff\n#PBS -P project\n"));
    }
}
