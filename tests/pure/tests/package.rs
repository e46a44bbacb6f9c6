//! What reaches a user: the package depends on little, and nothing of what tests need is built into it.

use std::fs;

use pollflip_tests_pure::repository;

/// The names in a section of the manifest of the crate.
fn names(section: &str) -> Vec<String> {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).expect("a manifest");
    let Some((_, rest)) = manifest.split_once(&format!("\n[{section}]\n")) else { return Vec::new() };
    let lines = rest.lines().take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| Some(line.split_once([' ', '.'])?.0.to_owned())).filter(|name| name != "#").collect()
}

/// Cargo builds a crate with all features that anything in the workspace wants of it.
#[test]
#[should_panic(expected = "this build has no simulations")]
fn the_crate_has_no_simulated_system_in_whatever_is_built_beside_it() {
    drop(published::internals::simulation::Simulation::new(None, None));
}

#[test]
fn the_crate_has_no_features() {
    assert!(names("dependencies").len() >= 5, "{:?}", names("dependencies"));
    assert_eq!(names("features"), [""; 0]);
}

/// All of them are built for each example. What else a test or an example needs is for a package below `tests/` or `examples/`.
#[test]
fn an_example_is_built_with_little() {
    let wanted = ["env_logger", "httparse", "lexopt", "nix", "signal-hook", "temp-dir"];
    assert_eq!(names("dev-dependencies"), wanted);
}
