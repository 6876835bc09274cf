//! Scripts and what stands in them.

use super::*;
use crate::backends::render::{RenderInput, render_job_script};
use crate::config::spec::BackendKind;
use crate::runtime::ids::JobSeq;

fn home() -> JobHome {
    let pool = PoolSpec {
        memory_bytes: Some(8_000_000_000),
        walltime_seconds: Some(1801),
        queue: Some("normal short".into()),
        account: Some("it's".into()),
        nodelist: Some("n1,n2".into()),
        ..PoolSpec::new(4)
    };
    JobHome::new("/home/me/my clusters/d".into(), "/opt/it's/dcluster".into(), "abcd", pool)
}

fn render(home: &JobHome, count: u32) -> Result<String, String> {
    let input = RenderInput { home, backend: BackendKind::Lsf, first: JobSeq(7), count, explain: false, origins: None };
    render_job_script(&input).map_err(|error| error.to_string())
}

fn head(script: &str) -> String {
    script
        .lines()
        .take_while(|line| !line.starts_with("umask 077") || line.is_empty())
        .map(|l| format!("{l}\n"))
        .collect()
}

#[test]
fn a_script_of_an_array() {
    let script = render(&home(), 3).unwrap();
    insta::assert_snapshot!(script.lines().take(28).map(|l| format!("{l}\n")).collect::<String>(), @r###"
    #!/bin/bash
    #BSUB -J "dcabcd-000007[1-3]"
    #BSUB -n 4
    #BSUB -R "span[hosts=1] rusage[mem=7630]"
    #BSUB -M 7812500
    #BSUB -W 31
    #BSUB -q "normal short"
    #BSUB -P "it's"
    #BSUB -m "n1 n2"
    #BSUB -o /dev/null

    unset LSB_NTRIES LSB_JOB_REPORT_MAIL LC_ALL
    umask 077
    if cd '/home/me/my clusters/d' 2>/dev/null && mkdir -p jobs && : >> "jobs/dcabcd-000007-$LSB_JOBINDEX.log"; then
        exec >> "jobs/dcabcd-000007-$LSB_JOBINDEX.log" 2>&1
    fi

    dcluster_index=${LSB_JOBINDEX:-0}
    dcluster_id=$LSB_JOBID
    if [ "$dcluster_index" -gt 0 ]; then
        dcluster_id="$LSB_JOBID[$dcluster_index]"
        dcluster_index=$((dcluster_index - 1))
    fi
    dcluster_restart=0
    [ "${LSB_RESTART:-}" != Y ] || dcluster_restart=1
    dcluster_node=${LSB_HOSTS%% *}
    dcluster_node=${dcluster_node:-$(uname -n)}
    umask 077
    "###);
    let one = render(&home(), 1).unwrap();
    assert!(one.contains("#BSUB -J dcabcd-000007\n") && one.contains("\"jobs/dcabcd-000007.log\""), "{}", head(&one));
}

/// LSF's lists have blanks between their names.
#[test]
fn lists_may_be_given_with_commas() {
    let mut home = home();
    home.pool.queue = Some("normal,short".into());
    assert!(render(&home, 1).unwrap().contains("\n#BSUB -q \"normal short\"\n"));
}

/// Where the script says its log is, `dcluster logs` looks.
#[test]
fn logs_are_where_they_are_looked_for() {
    let name = crate::runtime::ids::JobName::new("abcd", JobSeq(7));
    for (count, index, path) in
        [(1, 0, "jobs/dcabcd-000007.log"), (3, 0, "jobs/dcabcd-000007-1.log"), (3, 2, "jobs/dcabcd-000007-3.log")]
    {
        assert_eq!(DIALECT.log(&name, count, index), std::path::Path::new(path));
    }
}

/// LSF copies the script with a heredoc.
#[test]
fn the_heredoc_word_is_refused() {
    let mut home = home();
    home.pool.prologue = "echo a\n_USER_SCRIPT_\r\necho b".into();
    let error = render(&home, 1).unwrap_err();
    assert!(error.contains("would end the script"), "{error}");
    home.pool.prologue = "echo _USER_SCRIPT_".into();
    render(&home, 1).unwrap();
}

/// A directive counts wherever it stands.
#[test]
fn late_directives_are_refused() {
    for line in ["#BSUB -q other", "  # BSUB -n 3", "#BSUB-W 1"] {
        let mut home = home();
        home.pool.prologue = format!("echo a\n{line}\n");
        let error = render(&home, 1).unwrap_err();
        assert!(error.contains("would be an option of bsub"), "{line}: {error}");
    }
    let mut home = home();
    home.pool.prologue = "# about BSUB\necho '#BSUB -q x'".into();
    render(&home, 1).unwrap();
    home.folder = "/home/me/a\n#BSUB -q x".into();
    assert!(render(&home, 1).unwrap_err().contains("control character"));
}

#[test]
fn refuses_what_would_break_out() {
    let mut home = self::home();
    home.pool.queue = Some("a\n#BSUB -q b".into());
    assert!(render(&home, 1).unwrap_err().contains("control character"));
    home.pool.queue = Some("both ' and \"".into());
    assert!(render(&home, 1).unwrap_err().contains("quotes of both kinds"));
    for directive in ["-Jx", "-J x", "-o x", "-oo x", "-Is", "-K", "-r", "-env all"] {
        let mut home = self::home();
        home.pool.directives = vec![directive.into()];
        let error = render(&home, 1).unwrap_err();
        assert!(error.contains("which dcluster needs for itself"), "{directive}: {error}");
    }
    for directive in ["-q x", "-H", "-R 'select[type==any]'", "-e err", "-app x", "-sla x", "-G group", "-x"] {
        let mut home = self::home();
        home.pool.directives = vec![directive.into()];
        render(&home, 1).unwrap();
    }
}

/// Without `-o` the report of every job is mailed, also where the file cannot be written.
#[test]
fn no_report_is_mailed() {
    assert!(render(&home(), 3).unwrap().contains("\n#BSUB -o /dev/null\n"));
}

#[test]
fn memory_is_in_the_sites_units() {
    let values = |memory| super::values(&JobHome { said: Said::Lsf(memory), ..home() }).unwrap();
    let usual = values(Memory::USUAL);
    assert_eq!((&usual["limit"], &usual["minutes"]), (&json!(7_812_500), &json!(31)));
    assert_eq!(usual["resources"], "\"span[hosts=1] rusage[mem=7630]\"");
    let gigabytes = Memory { limit_unit: 1 << 30, reserve_unit: 1 << 30, reserve_per_slot: false };
    let gb = values(gigabytes);
    assert_eq!((&gb["limit"], &gb["resources"]), (&json!(8), &json!("\"span[hosts=1] rusage[mem=8]\"")));
}

/// RESOURCE_RESERVE_PER_TASK: the site multiplies a reservation by the slots.
#[test]
fn memory_is_per_host_or_per_slot() {
    let per_slot = Memory { reserve_per_slot: true, ..Memory::USUAL };
    let own = super::values(&JobHome { said: Said::Lsf(per_slot), ..home() }).unwrap();
    assert_eq!((&own["limit"], &own["resources"]), (&json!(7_812_500), &json!("\"span[hosts=1] rusage[mem=1908]\"")));
}

/// Of several -R OpenLava takes the last.
#[test]
fn requirements_are_one_string() {
    let mut pool = home().pool;
    pool.directives =
        vec!["-R \"select[type==any] rusage[swp=5] span[ptile=2] order[ut]\"".into(), "-R'mem>9'".into(), "-x".into()];
    pool.constraint = Some("bigmem".into());
    pool.exclude = Some("n7,n8".into());
    let pool = avoiding(&pool, Memory::USUAL, &["n9".to_owned()]);
    let text = resources(&pool, Memory::USUAL);
    assert_eq!(
        text,
        "select[(type==any) && (mem>9) && (bigmem) && (hname!='n7') && (hname!='n8') && (hname!='n9')] \
         order[ut] span[hosts=1] rusage[swp=5:mem=7630]"
    );
    let home = JobHome { pool, ..home() };
    let script = render(&home, 1).unwrap();
    assert_eq!(script.matches("\n#BSUB -R ").count(), 1, "{}", head(&script));
    // More than OpenLava takes.
    let many: Vec<String> = (0..16).map(|n| format!("node-with-a-long-name-{n}.example.org")).collect();
    assert_eq!(avoiding(&home.pool, Memory::USUAL, &many), home.pool);
}
