use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::process::Command;

type Pairs = Vec<(OsString, OsString)>;

fn pairs(pairs: &[(&str, &[u8])]) -> Pairs {
    pairs.iter().map(|(name, value)| (name.into(), OsStr::from_bytes(value).to_owned())).collect()
}

/// Sources the file in a bash with nothing else set, and returns what a child of it gets.
fn sourced(file: &[u8], then: &str) -> (BTreeMap<Vec<u8>, Vec<u8>>, Vec<u8>) {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("environment.sh");
    std::fs::write(&path, file).expect("write");
    let env = "/usr/bin/env";
    let output = Command::new("/bin/bash")
        .args(["--norc", "--noprofile", "-euc"])
        .arg(format!("source \"$1\"; {then} {env} -0"))
        .arg("bash")
        .arg(&path)
        .env_clear()
        .output()
        .expect("bash runs");
    let stderr = output.stderr;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&stderr));
    let set_by_bash: [&[u8]; 4] = [b"PWD", b"SHLVL", b"_", b"OLDPWD"];
    let variables = output
        .stdout
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'=')?;
            Some((entry[..at].to_vec(), entry[at + 1..].to_vec()))
        })
        .filter(|(name, _)| !set_by_bash.contains(&name.as_slice()))
        .collect();
    (variables, stderr)
}

#[test]
fn bash_gives_back_what_was_taken() {
    let taken = pairs(&[
        ("CONDA_PREFIX", b"/home/ann/miniforge3/envs/x y"),
        ("EMPTY", b""),
        ("HOSTILE", b"'; touch /tmp/evil; $(reboot) `x` \\ \" ! ~ * #"),
        ("LINES", b"one\ntwo\n\n"),
        ("NO_UTF8", b"\xff\xfe\xc3'\x80\x01\x1b"),
        ("QUOTES", b"''''"),
        ("TABS", b"\ta\r\n"),
        ("_x1", b"a=b=c"),
    ]);
    let (found, stderr) = sourced(&render(taken.clone()), "");
    let expected: BTreeMap<Vec<u8>, Vec<u8>> =
        taken.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
    assert_eq!(found, expected);
    assert_eq!(stderr, b"");
}

#[test]
fn what_belongs_to_the_session_stays_there() {
    let dropped = pairs(&[
        ("BSUB_QUIET", b"1"),
        ("CUDA_VISIBLE_DEVICES", b"0"),
        ("DBUS_SESSION_BUS_ADDRESS", b"x"),
        ("DCLUSTER_CORES", b"1"),
        ("DISPLAY", b":0"),
        ("HOSTNAME", b"login1"),
        ("JOB_ID", b"1"),
        ("LSB_JOBID", b"1"),
        ("LSB_JOBINDEX", b"3"),
        ("LS_SUBCWD", b"/x"),
        ("OAR_JOB_ID", b"1"),
        ("PBS_JOBID", b"1"),
        ("PE_HOSTFILE", b"/x"),
        ("PWD", b"/x"),
        ("SBATCH_ACCOUNT", b"x"),
        ("SGE_TASK_ID", b"1"),
        ("SLURM_JOB_ID", b"1"),
        ("SSH_AUTH_SOCK", b"/x"),
        ("TMPDIR", b"/x"),
        ("UID", b"1"),
        ("XDG_RUNTIME_DIR", b"/x"),
        ("XDG_SESSION_ID", b"1"),
        ("_CONDOR_JOB_AD", b"/x"),
        ("a-b", b"no identifier"),
        ("1x", b"no identifier"),
        ("", b"no identifier"),
        ("x;reboot", b"no identifier"),
    ]);
    assert_eq!(render(dropped), b"# The environment of `dcluster up`.\n");
}

/// A shell in a job has variables of that job; where the batch system is installed and what colours `ls` has is not of it.
#[test]
fn names_of_the_installation_go_along() {
    for name in ["LSF_ENVDIR", "LSF_BINDIR", "LS_COLORS", "EGO_TOP", "SGE_ROOT", "SGE_CELL", "_CONDOR_SCHEDD_HOST"] {
        assert!(is_taken(OsStr::new(name)), "{name}");
    }
}

#[test]
fn functions_come_along() {
    let functions = pairs(&[
        ("BASH_FUNC_ml%%", b"() {  echo \"it's $1\"\n}"),
        ("BASH_FUNC_a-b::c%%", b"() {  :\n}"),
        ("BASH_FUNC_broken%%", b"() {  if\n}"),
        ("BASH_FUNC_x;reboot%%", b"() {  :\n}"),
        ("BASH_FUNC_zz_broken%%", b"() {  if\n}"),
        ("BASH_FUNC_none%%", b"reboot"),
        ("BASH_FUNC_%%", b"() {  :\n}"),
    ]);
    let file = render(functions);
    let (found, stderr) = sourced(&file, "ml() { :; }; A=$(bash -c 'ml x') ");
    let names: Vec<&[u8]> = found.keys().map(Vec::as_slice).collect();
    let expected: [&[u8]; 3] = [b"A", b"BASH_FUNC_a-b::c%%", b"BASH_FUNC_ml%%"];
    assert_eq!(names, expected);
    assert!(String::from_utf8_lossy(&stderr).contains("syntax error"));

    let (found, _) = sourced(&file, "A=$(ml x) ");
    assert_eq!(found[b"A".as_slice()], b"it's x");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn any_bytes_survive(values in prop::collection::vec(prop::collection::vec(1_u8.., 0..50), 1..20)) {
        let named = values.iter().enumerate().map(|(number, value)| {
            (format!("V{number}").into(), OsString::from_vec(value.clone()))
        });
        let (found, _) = sourced(&render(named), "");
        for (number, value) in values.iter().enumerate() {
            prop_assert_eq!(&found[format!("V{number}").as_bytes()], value);
        }
    }
}
