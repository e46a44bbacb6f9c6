//! The public interface is the one that is written down in `public_api/list.txt`. Who changes it
//! does so knowingly: `POLLFLIP_BLESS=1 cargo test --test public_api` writes the list anew.

mod list;
mod source;
mod text;

use std::fs;
use std::path::Path;

use pollflip_tests_pure::repository;

use source::Source;

fn of_the_crate() -> Vec<String> {
    list::list(&Source::read(&repository().join("src/lib.rs")))
}

/// The list for a crate of one file.
fn of_text(text: &str) -> Vec<String> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("lib.rs");
    fs::write(&path, text).expect("a file");
    list::list(&Source::read(&path))
}

/// The dependencies of a program that uses the crate, with their versions.
fn dependencies(manifest: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(manifest).expect("a manifest");
    let section = |name: &str| text.split(&format!("\n[{name}]\n")).nth(1).expect("a section").split("\n[").next().unwrap_or_default();
    let version = |name: &str| {
        let rest = section("workspace.dependencies").lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        rest.and_then(|rest| rest.split('"').nth(1)).expect("a version").to_owned()
    };
    let names = section("dependencies").lines().filter_map(|line| line.strip_suffix(".workspace = true"));
    names.map(|name| (name.replace('-', "_"), version(name))).collect()
}

#[test]
fn the_public_interface_changes_only_with_its_list() {
    let blessed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/public_api/list.txt");
    let now = of_the_crate().join("\n") + "\n";
    if std::env::var_os("POLLFLIP_BLESS").is_some() {
        return fs::write(&blessed, now).expect("a list");
    }
    let then = fs::read_to_string(&blessed).expect("a list");
    let missing = |of: &str, from: &str, sign: &str| {
        of.lines().filter(|line| !from.lines().any(|other| other == *line)).map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    let changes = missing(&then, &now, "-") + &missing(&now, &then, "+");
    assert!(then == now, "the public interface is another one; if that is meant, POLLFLIP_BLESS=1 writes its list anew:\n{changes}");
}

#[test]
fn no_name_of_a_crate_before_its_1_0_is_in_the_public_interface() {
    let early: Vec<_> =
        dependencies(&repository().join("Cargo.toml")).into_iter().filter(|(_, version)| version.starts_with("0.")).collect();
    assert!(early.iter().any(|(name, _)| name == "nojson"), "{early:?}");
    for line in of_the_crate() {
        for (name, _) in &early {
            assert!(!line.contains(&format!("{name}::")), "{line}");
        }
    }
}

#[test]
fn whatever_a_program_may_match_can_grow() {
    for line in of_the_crate() {
        assert!(!line.starts_with("enum ") || line.contains("#[non_exhaustive]"), "{line}");
        // A variant with named fields.
        let is_variant = line.starts_with("pollflip::") && line.contains(" { ") && !line.contains('(');
        assert!(!is_variant || line.contains("#[non_exhaustive]"), "{line}");
    }
}

#[test]
fn the_list_has_what_a_program_can_name_and_nothing_else() {
    let listed = of_text(
        "mod inner { use foreign::Strange; pub struct Shown { pub field: u8, hidden: u8 } pub struct Kept; \
         impl Shown { pub fn say<'a>(&'a self, to: &mut [Strange]) -> Option<(u8, &'a str)> { None } pub(crate) fn not(&self) {} } \
         impl Strange for Shown {} impl From<Shown> for Kept {} impl From<Shown> for String {} impl std::fmt::Debug for Kept {} } \
         #[doc(hidden)] pub mod internals { pub struct Hidden; } \
         pub mod outer { #[derive(Clone, Debug)] #[non_exhaustive] pub enum Choice { One, Two(u8), #[non_exhaustive] Three { of: u8 } } \
         pub trait Hooks: Send { /** A doc. */ type Of: Copy; fn hook(&mut self); } pub fn free() {} pub use super::inner::Shown as Other; } \
         pub use inner::Shown;",
    );
    assert_eq!(
        listed,
        [
            "enum pollflip::outer::Choice #[non_exhaustive]",
            "fn pollflip::outer::free()",
            "impl Clone for pollflip::outer::Choice",
            "impl Debug for pollflip::outer::Choice",
            "impl From<Shown> for String",
            "impl foreign::Strange for pollflip::Shown",
            "pollflip::Shown.field: u8",
            "pollflip::Shown::say<'a>(&'a self, to: &mut [foreign::Strange]) -> Option<(u8, &'a str)>",
            "pollflip::outer::Choice::One",
            "pollflip::outer::Choice::Three { of: u8 } #[non_exhaustive]",
            "pollflip::outer::Choice::Two(u8)",
            "pollflip::outer::Hooks::Of (a type): Copy",
            "pollflip::outer::Hooks::hook(&mut self)",
            "struct pollflip::Shown",
            "trait pollflip::outer::Hooks: Send",
            "use pollflip::outer::Other = pollflip::Shown",
        ]
    );
}
