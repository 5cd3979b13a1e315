use super::{builtin::BUILT_IN, *};

const LEAST: &str = "name = \"a\"\nsummary = \"b\"\n";
const PHASE: &str = "[[phase]]\nname = \"only\"\nseconds = 1\n";

fn refused(text: &str) -> String {
    let failure = Scenario::parse(text, "day.toml").expect_err(text);
    assert_eq!(failure.exit, crate::cli::EXIT_USAGE);
    failure.message
}

#[test]
fn built_in_scenarios_are_sound_and_named_by_their_file() {
    for (name, text) in BUILT_IN {
        let scenario = Scenario::parse(text, name).expect(name);
        assert_eq!(scenario.name, name);
        assert!(!scenario.summary.is_empty() && scenario.summary.len() < 90);
    }
}

#[test]
fn every_key_of_the_built_in_scenarios_is_explained() {
    for (name, text) in BUILT_IN {
        let keys = text.lines().filter(|line| line.contains(" = "));
        for key in keys.filter(|line| !line.starts_with('#')) {
            let known = include_str!("../../README.md").contains(&format!(
                "`{}`",
                key.split(" = ").next().unwrap_or_default().trim()
            ));
            assert!(known, "{name}: {key}: not in the README");
        }
    }
}

#[test]
fn unknown_keys_are_named_with_their_line() {
    let message = refused(&format!("{LEAST}{PHASE}querries = 5\n"));
    assert!(message.starts_with("day.toml: "), "{message}");
    assert!(message.contains("line 6"), "{message}");
    assert!(message.contains("querries"), "{message}");
    let message = refused(&format!("{LEAST}[catalogue]\ncolour = 1\n{PHASE}"));
    assert!(
        message.contains("line 4") && message.contains("colour"),
        "{message}"
    );
}

#[test]
fn values_out_of_range_are_named_with_their_key() {
    for (text, says) in [
        (
            format!("{LEAST}[catalogue]\nskus = 0\n{PHASE}"),
            "catalogue.skus: 0",
        ),
        (
            format!("{LEAST}[shopping]\nconfirm_percent = 80\nrelease_percent = 21\n{PHASE}"),
            "shopping.release_percent: 21 is not from 0 to 20",
        ),
        (
            format!("{LEAST}{PHASE}reserves = -1\n"),
            "phase 1 (only): reserves: -1",
        ),
        (
            format!("{LEAST}{PHASE}{PHASE}warm_up = true\n"),
            "phase 2 (only): warm_up comes after",
        ),
        (LEAST.to_owned(), "there is no [[phase]]"),
    ] {
        let message = refused(&text);
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn rates_and_spans_may_be_one_number_or_two() {
    let scenario = Scenario::parse(
        &format!(
            "{LEAST}[shopping]\ncart_lines = 3\nthink_ms = [5, 9]\n{PHASE}queries = {{ from = 1, to = 2.5 }}\nreserves = 7\n"
        ),
        "day.toml",
    )
    .expect("sound");
    assert_eq!(scenario.shopping.cart_lines, Span::new(3, 3));
    assert_eq!(scenario.shopping.think_ms, Span::new(5, 9));
    assert_eq!(scenario.phases[0].queries, Rate { from: 1.0, to: 2.5 });
    assert_eq!(scenario.phases[0].reserves, Rate::constant(7.0));
    let message = refused(&format!("{LEAST}[shopping]\nthink_ms = [9, 5]\n{PHASE}"));
    assert!(message.contains("write the least first"), "{message}");
    let message = refused(&format!("{LEAST}{PHASE}queries = {{ from = 1 }}\n"));
    assert!(message.contains("to"), "{message}");
}
