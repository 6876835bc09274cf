use super::*;

fn problems(text: &str) -> Vec<String> {
    let (_, problems) = parse(Path::new("/p/dcluster.toml"), text);
    let part = |part: Option<String>| part.unwrap_or_default();
    problems.into_iter().map(|p| format!("{}|{}|{}|{}", p.what, part(p.location), part(p.why), part(p.fix))).collect()
}

#[test]
fn reads_values_with_lines_and_profiles() {
    let text = "cores = 24\npartition = \"regular\"\ndirectives = [\"--exclusive\"]\n\
                counters = { lic = 2 }\nwalltime = 01:30:00\n\n[profile.big]\nmem = \"1TB\"\n";
    let (layer, problems) = parse(Path::new("/p/f.toml"), text);
    assert_eq!(problems, vec![]);
    let scalar = |text: &str| RawValue::Scalar(text.to_owned());
    assert_eq!(layer.values[&Key::Cores].value, scalar("24"));
    assert_eq!(layer.values[&Key::Walltime].value, scalar("01:30:00"));
    assert_eq!(layer.values[&Key::Queue].origin.to_string(), "/p/f.toml:2, key \"partition\"");
    assert_eq!(layer.values[&Key::Counters].value, RawValue::Table(vec![("lic".into(), "2".into())]));
    let big = &layer.profiles["big"][&Key::Memory];
    assert_eq!(big.value, scalar("1TB"));
    assert_eq!(big.origin.to_string(), "/p/f.toml:8, key \"mem\" of profile \"big\"");
}

#[test]
fn says_what_is_wrong_and_where() {
    for (text, expected) in [
        ("\n\nqueu = \"x\"", "unknown key \"queu\"|/p/dcluster.toml:3, key \"queu\"||did you mean queue?"),
        (
            "[profile.big]\ncroes = 2",
            "unknown key \"croes\"|/p/dcluster.toml:2, key \"croes\" of profile \"big\"||did you mean cores?",
        ),
        (
            "frobnicate = 1",
            "unknown key \"frobnicate\"|/p/dcluster.toml:1, key \"frobnicate\"||take it out, or see `dcluster config show` for the keys there are",
        ),
        (
            "[profiles.big]\ncores = 2",
            "unknown key \"profiles\"|/p/dcluster.toml:1, key \"profiles\"||did you mean [profile.NAME]?",
        ),
        ("cores = true", "cores must be text or a number, not true or false|/p/dcluster.toml:1, key \"cores\"||"),
        (
            "queue = \"a\"\npartition = \"b\"",
            "\"partition\" and \"queue\" (line 1) are the same setting|/p/dcluster.toml:2||keep one of them; we call it queue",
        ),
        (
            "counters = 3",
            "counters must be a table, not a number|/p/dcluster.toml:1, key \"counters\"||write counters = { lic = 2 }",
        ),
        (
            "[counters]\nlic = \"x\"",
            "counter \"lic\" must be a whole number, not text|/p/dcluster.toml:1, key \"counters\"||",
        ),
        (
            "directives = [1]",
            "directives must be a list of texts, but one is a number|/p/dcluster.toml:1, key \"directives\"||",
        ),
        (
            "[profile.a]\nprofile = \"b\"",
            "a profile cannot choose a profile|/p/dcluster.toml:2, key \"profile\" of profile \"a\"||take this key out",
        ),
    ] {
        assert_eq!(problems(text), [expected], "{text}");
    }
}

#[test]
fn syntax_errors_keep_their_line() {
    let found = problems("cores = 2\nqueue = regular\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("the file is no TOML|/p/dcluster.toml:2|"), "{found:?}");
    assert!(found[0].ends_with("|write queue = \"regular\": text needs quotes"), "{found:?}");
    let found = problems("profile = \"a\"\n[profile.a]\ncores = 1\n");
    assert!(found[0].contains("write default-profile = "), "{found:?}");
    let found = problems("cores = 2\ncores = 3\n");
    assert!(found[0].contains("duplicate key"), "{found:?}");
    assert!(found[0].contains("/p/dcluster.toml:2|"), "{found:?}");
}

#[test]
fn all_problems_are_found() {
    assert_eq!(problems("a = 1\nqueue = []\n[profile.x]\nb = 1\n").len(), 3);
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "[a-z\\[\\]{}=\"'#.\n 0-9é:-]{0,80}") {
        let _ = problems(&text);
    }
}
