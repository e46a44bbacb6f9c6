//! Each promise of the crate, as ARCHITECTURE.md has it, is named by at least one test: `promise_NN_…`, or `promise_NN` in the name of a
//! trial. Its row, and each line of the threat model, name tests that exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pollflip_tests_pure::repository;

/// An example that is a crate of its own, with tests of its own.
const QUIC: &str = "examples/quic/tests";

/// The rows of the table of promises: the number, what is promised, and the tests that are named.
fn promises() -> Vec<(usize, String, Vec<String>)> {
    let plan = fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("the plan");
    let section = plan.split("\n## ").find(|section| section.starts_with("Promises")).expect("the promises");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.trim_end_matches(" |").split(" | ");
        let number = cells.next()?.parse().ok()?;
        let (promise, tests) = (cells.next()?.to_owned(), cells.next()?);
        Some((number, promise, tests.split('`').skip(1).step_by(2).map(String::from).collect()))
    };
    section.lines().filter_map(row).collect()
}

/// As a function, or as the name of a trial.
fn is_test(name: &str, tests: &str) -> bool {
    [format!("fn {name}("), format!("\"{name}\"")].iter().any(|text| tests.contains(text))
}

/// Of the tests of whole processes (`tests`, and those of `QUIC`), or of units (`src`).
fn all_tests(of: &str) -> String {
    let files = files(&repository().join(of));
    files.iter().map(|file| fs::read_to_string(file).expect("a source file")).collect()
}

#[test]
fn each_promise_is_named_by_a_test() {
    let promises = promises();
    let numbers: Vec<_> = promises.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, Vec::from_iter(1..=numbers.len()), "the promises are numbered from 1");
    assert!(numbers.len() >= 12, "{} promises: is the table still what this test reads?", numbers.len());
    let tests = all_tests("tests") + &all_tests(QUIC);
    let mut named: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, _) in tests.match_indices("promise_") {
        let digits: String = tests[at + "promise_".len()..].chars().take_while(char::is_ascii_digit).collect();
        if digits.len() == 2 {
            *named.entry(digits.parse().expect("two digits")).or_default() += 1;
        }
    }
    let missing: Vec<_> = promises.iter().filter(|(number, ..)| !named.contains_key(number)).collect();
    assert!(missing.is_empty(), "no test names promise {missing:?}");
    assert!(named.keys().all(|number| numbers.contains(number)), "a promise that is not made: {named:?}");
    for (number, promise, names) in &promises {
        assert!(!names.is_empty(), "no test holds promise {number}: {promise}");
        for name in names {
            assert!(is_test(name, &tests), "ARCHITECTURE.md names {name} for promise {number}, which is no test");
        }
    }
}

#[test]
fn each_line_of_the_threat_model_names_tests_that_exist() {
    let root = repository();
    let tests = all_tests("tests") + &all_tests(QUIC) + &all_tests("src");
    let model = fs::read_to_string(root.join("SECURITY.md")).expect("the threat model");
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| entrance |") && !line.starts_with("| --- |");
    let mut named = 0;
    for row in model.lines().filter(is_row) {
        let cell = row.trim_end_matches([' ', '|']).rsplit('|').next().expect("a last cell");
        let names: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test holds this: {row}");
        for name in names {
            assert!(is_test(name, &tests), "SECURITY.md names {name}, which is no test");
            named += 1;
        }
    }
    assert!(named >= 50, "{named} names: is the table still what this test reads?");
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let found = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with(file!())).collect()
}
