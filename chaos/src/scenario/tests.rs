use super::*;

fn parse(text: &str) -> Result<Scenario, String> {
    Scenario::parse(text, Path::new("s.toml")).map_err(|error| error.to_string())
}

#[test]
fn a_scenario_is_read_and_its_places_are_numbered() {
    let scenario = parse(SAMPLE).unwrap();
    assert_eq!(
        scenario.places(),
        [(1, "eu"), (2, "eu"), (3, "eu"), (4, "us"), (5, "us")]
    );
    assert_eq!(scenario.invariants(), [1, 2, 3, 4, 5, 6, 7, 8, 11]);
    assert_eq!(scenario.workload.deadline, Span::from_ms(5_000));
}

#[test]
fn a_scenario_is_written_as_it_can_be_read() {
    let text = format!("{SAMPLE}\n[[fault]]\nkind = \"kill\"\nselect = \"leader:g1\"\nat = \"3s\"\n");
    let scenario = parse(&text).unwrap();
    let again = parse(&toml::to_string(&scenario).unwrap()).unwrap();
    assert_eq!(format!("{again:?}"), format!("{scenario:?}"));
}

#[test]
fn an_unknown_field_is_refused_with_its_line() {
    let error = parse(&SAMPLE.replace("rate = 100", "rate = 100\nrtae = 100")).unwrap_err();
    assert!(error.contains("line 18") && error.contains("rtae"), "{error}");
}

#[test]
fn what_makes_no_sense_is_refused_with_its_line() {
    for (from, to, line, what) in [
        ("schema = 1", "schema = 2", 2, "this is schema 1"),
        ("groups = 4", "groups = 4\nvoters = 6", 12, "6 voters on 5 nodes"),
        ("\"I11\"", "\"I17\"", 25, "no invariant"),
        ("[\"eu\", \"us\"", "[\"eu\", \"ap\"", 10, "\"ap\""),
        ("clients = 4", "clients = 0", 14, "above 0"),
    ] {
        let error = parse(&SAMPLE.replace(from, to)).unwrap_err();
        assert!(
            error.contains(&format!("s.toml:{line}:")) && error.contains(what),
            "{error}"
        );
    }
}

#[test]
fn every_scenario_of_the_catalogue_is_valid_and_guards_a_promise_that_is_written_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let promises = std::fs::read_to_string(root.join("../docs/consistency.md")).unwrap();
    let headings: Vec<&str> = promises
        .lines()
        .filter_map(|line| line.strip_prefix("### ").or_else(|| line.strip_prefix("## ")))
        .collect();
    let mut count = 0;
    for entry in std::fs::read_dir(root.join("scenarios")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let scenario = Scenario::read(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(path.file_stem().unwrap().to_str(), Some(scenario.name.as_str()));
        for guard in &scenario.guards {
            assert!(
                headings.contains(&guard.as_str()),
                "{}: {guard:?} is no heading of consistency.md",
                scenario.name
            );
        }
        let steps = crate::plan::plan(&scenario, 1).unwrap();
        assert!(!steps.is_empty(), "{} attacks nothing", scenario.name);
        count += 1;
    }
    assert!(count >= 25, "{count} scenarios");
}

#[test]
fn a_fault_takes_what_its_kind_takes() {
    let fault = |fields: &str| parse(&format!("{SAMPLE}\n[[fault]]\nat = \"1s\"\n{fields}"));
    assert!(fault("kind = \"kill\"\nselect = \"all\"").is_ok());
    for (fields, what) in [
        ("kind = \"bomb\"\nselect = \"all\"", "no kind of fault"),
        ("kind = \"kill\"\nselect = \"all\"\nshape = \"ring\"", "takes no shape"),
        ("kind = \"kill\"", "selects nobody"),
        ("kind = \"kill\"\nselect = \"node:6\"", "does not have"),
        ("kind = \"kill\"\nselect = \"leader:g5\"", "does not have"),
        ("kind = \"partition\"\nselect = \"all\"", "needs shape"),
        ("kind = \"disk\"\nwhat = \"slow\"\nselect = \"all\"", "delay_ms"),
        ("kind = \"net\"\nloss_pct = 120.0\nselect = \"all\"", "no percentage"),
        (
            "kind = \"kill\"\nselect = \"all\"\nfor = \"1s\"\nrestart_after = \"1s\"",
            "say the same",
        ),
        ("kind = \"kill\"\nselect = \"all\"\ntimes = 3", "belong to every"),
    ] {
        let error = fault(fields).unwrap_err();
        assert!(error.contains(what) && error.contains("s.toml:27:"), "{error}");
    }
}

#[test]
fn a_line_has_all_that_is_wrong_with_it() {
    let slow = Quality {
        delay_us: 5,
        loss_per_mille: 600,
        rate_kbit: 80,
        ..Quality::default()
    };
    let worse = slow.and(Quality {
        jitter_us: 7,
        loss_per_mille: 600,
        rate_kbit: 8,
        ..Quality::default()
    });
    assert_eq!((worse.delay_us, worse.jitter_us), (5, 7));
    assert_eq!((worse.loss_per_mille, worse.rate_kbit), (1000, 8));
    assert_eq!(slow.and(Quality::default()), slow);
}
