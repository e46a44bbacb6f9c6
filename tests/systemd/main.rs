//! Runs `tests/systemd/run`: the examples as services of a real systemd, in a box of their own.
//!
//! What the machine must have for it the script says when it is not there, and then skips, which is no failure. Arguments go to the
//! script: `cargo test --test systemd -- reload_under_load`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

fn main() -> ExitCode {
    // What every test harness can be asked.
    if env::args().any(|argument| argument == "--list") {
        println!("cases: test");
        return ExitCode::SUCCESS;
    }
    if env::var_os("POLLFLIP_SYSTEMD").is_none() {
        println!("SKIPPED: the cases boot a systemd, which takes some minutes; POLLFLIP_SYSTEMD=all cargo test --test systemd runs them");
        return ExitCode::SUCCESS;
    }
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let examples = examples();
    // `cargo test` has built them, unless it was asked for this test alone.
    let target = examples.ancestors().nth(2).expect("it lies in target/PROFILE");
    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "--quiet", "--locked", "--bins", "--examples", "--target-dir"])
        .arg(target)
        .args(release(&examples))
        .current_dir(root);
    let built = build.status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("the examples cannot be built");
        return ExitCode::FAILURE;
    }
    let mut script = Command::new(root.join("tests/systemd/run"));
    script.args(env::args_os().skip(1).filter(|argument| !argument.to_string_lossy().starts_with('-'))).env("PROGRAMS", &examples);
    match script.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tests/systemd/run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Beside the directory of this program.
fn examples() -> PathBuf {
    let own = env::current_exe().and_then(fs::canonicalize).expect("this program has a path");
    own.ancestors().nth(2).expect("it lies in target/PROFILE/deps").join("examples")
}

fn release(examples: &Path) -> Option<&'static str> {
    examples.parent().is_some_and(|profile| profile.ends_with("release")).then_some("--release")
}
