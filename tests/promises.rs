//! Each promise of the crate is named by at least one test: `promise_NN_…`, or `promise_NN` in the name of a trial. Each line of the threat
//! model names tests that exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What this crate promises, in short.
const PROMISES: [&str; 12] = [
    "under load, no connection attempt is refused and no accepted request is lost by a restart that succeeds",
    "hundreds of restarts leave descriptors, threads, zombies, environment and memory constant",
    "a successor that fails leaves the predecessor serving and the asker with the true reason",
    "one restart at a time; whoever else asks is refused at once and told what is going on",
    "the loop of the predecessor is never held up",
    "a restart signal at any moment kills nothing and starts at most one successor at a time",
    "whoever of the two dies at whatever step, the service remains or the death is reported",
    "the cost of a restart does not grow with the memory of the process, nor with the size of a blob",
    "flags of shared descriptions are never changed; a unix socket path stays connectable",
    "what comes from outside is checked; nonsense is an error that names what was wrong",
    "the restart thread keeps the right to exec after other threads have given theirs up",
    "no unsafe, no panic, no exit, nothing printed, no foreign types in the public API",
];

#[test]
fn each_promise_is_named_by_a_test() {
    let mut names: BTreeMap<usize, usize> = BTreeMap::new();
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")) {
        let text = fs::read_to_string(&file).expect("a source file");
        for (at, _) in text.match_indices("promise_") {
            let digits: String = text[at + "promise_".len()..].chars().take_while(char::is_ascii_digit).collect();
            if digits.len() == 2 {
                *names.entry(digits.parse().expect("two digits")).or_default() += 1;
            }
        }
    }
    let missing: Vec<_> = PROMISES.iter().enumerate().filter(|(index, _)| !names.contains_key(&(index + 1))).collect();
    assert!(missing.is_empty(), "no test names promise {missing:?} (counted from 0)");
    assert!(names.keys().all(|number| (1..=PROMISES.len()).contains(number)), "a promise that is not made: {names:?}");
}

#[test]
fn each_line_of_the_threat_model_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests: String = files(&root.join("tests")).iter().map(|file| fs::read_to_string(file).expect("a source file")).collect();
    let model = fs::read_to_string(root.join("SECURITY.md")).expect("the threat model");
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| entrance |") && !line.starts_with("| --- |");
    let mut named = 0;
    for row in model.lines().filter(is_row) {
        let cell = row.trim_end_matches([' ', '|']).rsplit('|').next().expect("a last cell");
        let names: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test holds this: {row}");
        for name in names {
            // As a function, or as the name of a trial.
            let exists = [format!("fn {name}("), format!("\"{name}\"")].iter().any(|text| tests.contains(text));
            assert!(exists, "SECURITY.md names {name}, which is no test");
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
