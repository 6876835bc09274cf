use super::*;
use std::fmt::Debug;

fn raw(text: &str) -> RawValue {
    RawValue::Scalar(text.to_owned())
}

fn list(items: &[&str]) -> RawValue {
    RawValue::List(items.iter().map(|item| (*item).to_owned()).collect())
}

fn shown<T: Debug>(result: Parsed<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn names() {
    let long = "x".repeat(64);
    for good in ["default", "a", "_x", "0", "A.b-c_9", long.as_str()] {
        assert_eq!(cluster_name(&raw(good)), Ok(good.to_owned()));
    }
    let too_long = "x".repeat(65);
    for bad in ["", ".", "..", "-x", "a/b", "a b", "é", "a\0", too_long.as_str()] {
        assert!(cluster_name(&raw(bad)).is_err(), "{bad}");
    }
}

#[test]
fn counts_at_their_bounds() {
    let cores = |text: &str| shown(count(&raw(text), "cores", 1, CORES_MAX));
    assert_eq!(cores("1"), "1");
    assert_eq!(cores("65000"), "65000");
    assert_eq!(cores("0"), "0 cores are too few");
    assert_eq!(cores("65001"), "\"65001\" cores are too many");
    assert_eq!(cores("99999999999999"), "\"99999999999999\" cores are too many");
    assert_eq!(cores("1.5"), "\"1.5\" is no number of cores");
    assert_eq!(cores("-1"), "\"-1\" is no number of cores");
    assert_eq!(cores(""), "\"\" is no number of cores");
    let error = count(&raw("0"), "cores", 1, CORES_MAX).expect_err("zero");
    assert_eq!(error.fix.as_deref(), Some("write a whole number from 1 to 65,000"));
}

#[test]
fn gpu_counts_and_kinds() {
    assert_eq!(gpus(&raw("2")), Ok((2, None)));
    assert_eq!(gpus(&raw("a100:2")), Ok((2, Some("a100".into()))));
    assert_eq!(gpus(&raw("1024")), Ok((1024, None)));
    for bad in ["", "a100", ":2", "a b:2", "a100:x", "1025", "a:b:1"] {
        assert!(gpus(&raw(bad)).is_err(), "{bad}");
    }
}

#[test]
fn yes_and_no() {
    assert_eq!(boolean(&raw("true")), Ok(true));
    assert_eq!(boolean(&raw("Off")), Ok(false));
    assert_eq!(shown(boolean(&raw("2"))), "\"2\" is neither true nor false");
}

#[test]
fn a_line_of_shell_is_one_line() {
    assert_eq!(
        shell_line(&raw(" rm -rf \"$TMPDIR\"/x; echo 'a b' ")),
        Ok("rm -rf \"$TMPDIR\"/x; echo 'a b'".to_owned())
    );
    for bad in ["", " ", "a\nb", "a\0", &"x".repeat(4097)] {
        assert!(shell_line(&raw(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn words_cannot_leave_their_line() {
    assert_eq!(word(&raw("[a|b]&c*2")), Ok("[a|b]&c*2".to_owned()));
    assert_eq!(word(&list(&["n1", "n[2-3]"])), Ok("n1,n[2-3]".to_owned()));
    for bad in ["", "a b", "a\nb", "a\u{1b}", "a'", "a\"", "a\\", "a#b", "$(x)", "`x`"] {
        assert!(word(&raw(bad)).is_err(), "{bad:?}");
    }
    assert!(word(&raw(&"x".repeat(4096))).is_ok());
    assert!(word(&raw(&"x".repeat(4097))).is_err());
}

#[test]
fn directive_lines() {
    let directives = |raw: &RawValue| super::directives(raw, BackendKind::Slurm);
    assert_eq!(
        directives(&list(&["--exclusive", "#SBATCH --mail-type=END", " -x a "])),
        Ok(vec!["--exclusive".into(), "--mail-type=END".into(), "-x a".into()])
    );
    assert_eq!(
        shown(directives(&raw("--a\n--b"))),
        "\"--a\\n--b\" is no directive: a directive is one line without control characters"
    );
    assert!(directives(&raw("exclusive")).is_err());
    assert!(directives(&raw("")).is_err());
    assert!(directives(&raw("#PBS -q x")).is_err(), "another system's -q may be something else");
    assert_eq!(super::directives(&raw("#PBS -q x"), BackendKind::Pbs), Ok(vec!["-q x".into()]));
    assert_eq!(super::directives(&raw("#$ -p -5"), BackendKind::Sge), Ok(vec!["-p -5".into()]));
}

#[test]
fn prologues() {
    assert_eq!(prologue(&list(&["module load a", "source b"])), Ok("module load a\nsource b".to_owned()));
    assert_eq!(prologue(&raw("\na\r\n\tb\n")), Ok("a\n\tb".to_owned()));
    assert!(prologue(&raw("a\0")).is_err());
    assert!(prologue(&raw("a\u{1b}[2J")).is_err());
}

#[test]
fn counter_tables() {
    let table = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(n, t)| ((*n).into(), (*t).into()));
        shown(counters(&RawValue::Table(pairs.collect())))
    };
    assert_eq!(table(&[("lic", "2"), ("db", "1")]), "{\"db\": 1, \"lic\": 2}");
    assert_eq!(table(&[("lic", "")]), "counter \"lic\" has no total");
    assert_eq!(table(&[("lic", "0")]), "counter \"lic\" cannot have the total \"0\"");
    assert_eq!(table(&[("cpus", "2")]), "\"cpus\" cannot be a counter: workers have a resource of that name");
    assert_eq!(table(&[("lic", "2"), ("lic", "3")]), "counter \"lic\" stands twice");
    assert!(table(&[("a b", "2")]).contains("begins with a letter"));
    let many = |number: usize| {
        let pairs = (0..number).map(|i| (format!("c{i}"), "1".to_owned()));
        counters(&RawValue::Table(pairs.collect()))
    };
    assert!(many(COUNTERS_MAX).is_ok());
    assert!(many(COUNTERS_MAX + 1).is_err());
}

#[test]
fn networks() {
    assert_eq!(interface(&raw("ib0")), Ok("ib0".to_owned()));
    assert!(interface(&raw("a-very-long-interface")).is_err());
    assert!(interface(&raw("../x")).is_err());
    assert_eq!(shown(address(&raw("10.4.0.13"))), "10.4.0.13");
    assert_eq!(shown(address(&raw("[fe80::1]"))), "fe80::1");
    for bad in ["0.0.0.0", "::", "224.0.0.1", "login1", "10.0.0.1:80", ""] {
        assert!(address(&raw(bad)).is_err(), "{bad}");
    }
}

#[test]
fn sizes_and_times_have_floors() {
    assert!(size(&raw("1MiB")).is_ok());
    assert!(size(&raw("1MB")).is_err());
    assert_eq!(duration(&raw("61s"), 61), Ok(61));
    assert_eq!(shown(duration(&raw("60s"), 61)), "\"60s\" is too short");
    assert!(backend(&raw("slrum")).expect_err("typo").fix == Some("did you mean slurm?".into()));
    assert_eq!(backend(&raw("Slurm")), Ok(BackendKind::Slurm));
}
