//! What a user pays to depend on it: for each, a program that uses it is made, its tree counted, built cold and stripped.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::plan::{Peer, Plan};
use crate::report::{Report, Row, Unit};
use crate::stats::quantile;

/// The smallest that can be restarted, as each one's documentation has it.
const OURS: &str = r#"
use pollflip::{Event, RestartConfig};
fn main() {
    let mut restarter = RestartConfig::new().coordination_socket("hello.sock").build().unwrap();
    restarter.ready().unwrap();
    println!("hello, world");
    while !matches!(restarter.wait(std::time::Duration::MAX), Some(Event::Completed(_))) {}
}
"#;
const SHELLFLIP: &str = r#"
use shellflip::RestartConfig;
fn main() {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let config = RestartConfig { enabled: true, coordination_socket_path: "hello.sock".into(), ..RestartConfig::default() };
        println!("hello, world");
        config.try_into_restart_task().unwrap().await.unwrap();
    });
}
"#;
const ECDYSIS: &str = r#"
use ecdysis::tokio_ecdysis::{SignalKind, TokioEcdysisBuilder};
fn main() {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let builder = TokioEcdysisBuilder::new(SignalKind::hangup()).unwrap();
        let (_ecdysis, upgraded) = builder.ready().unwrap();
        println!("hello, world");
        upgraded.await.unwrap();
    });
}
"#;
const HELLO: &str = "fn main() {\n    println!(\"hello, world\");\n}\n";
const TOKIO: &str = "tokio = { version = \"1\", features = [\"rt\", \"net\", \"time\"] }";

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let ours = format!("pollflip = {{ path = {:?} }}", root.canonicalize().unwrap_or(root));
    let programs = [
        (Peer::Ours, ours, OURS),
        (Peer::Shellflip, format!("shellflip = \"=2.1.3\"\n{TOKIO}"), SHELLFLIP),
        (Peer::Ecdysis, format!("ecdysis = \"=1.1.1\"\n{TOKIO}"), ECDYSIS),
    ];
    let mut crates = Row::new("cost crates", "crates in the normal tree", Unit::Count);
    let mut built = Vec::new();
    for (peer, dependencies, source) in programs {
        let made =
            Program::new(directory.path().join(peer.name()), &dependencies, source).and_then(|program| Ok((program.crates()?, program)));
        match made {
            Ok((count, program)) => {
                crates = crates.with(peer, count as f64);
                built.push((peer, program, Vec::new(), 0.0));
            }
            Err(error) => report.note(format!("what {} costs is left out: {error}", peer.name())),
        }
    }
    report.add(crates);
    if plan.quick {
        report.note("cold builds are left out of --quick");
        return Ok(());
    }
    let mut seconds = Row::new("cost build", "cold release build, the quicker of two", Unit::Seconds);
    let mut bytes = Row::new("cost bytes", "bytes added to a stripped hello-world", Unit::Bytes);
    let hello = Program::new(directory.path().join("hello"), "", HELLO)?.build()?.1;
    for _ in 0..2 {
        built.retain_mut(|(peer, program, times, size)| match program.build() {
            Ok((time, bytes)) => {
                times.push(time);
                *size = bytes - hello;
                true
            }
            Err(error) => {
                report.note(format!("what {} costs to build is left out: {error}", peer.name()));
                false
            }
        });
    }
    for (peer, _, times, size) in built {
        seconds = seconds.with(peer, quantile(&times, 0.0));
        bytes = bytes.with(peer, size);
    }
    report.add_all([seconds, bytes]);
    report.note("cost: the program without anything else; crates that only build scripts and macros need are not counted");
    Ok(())
}

struct Program {
    directory: PathBuf,
}

impl Program {
    /// A crate with nothing but this, all it needs downloaded.
    fn new(directory: PathBuf, dependencies: &str, source: &str) -> Result<Program, String> {
        let manifest = format!(
            "[package]\nname = \"hello\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n[dependencies]\n{dependencies}\n[profile.release]\nstrip = true\n"
        );
        let write = || {
            fs::create_dir_all(directory.join("src"))?;
            fs::write(directory.join("Cargo.toml"), manifest)?;
            fs::write(directory.join("src/main.rs"), source)
        };
        write().map_err(|error: std::io::Error| error.to_string())?;
        let program = Program { directory };
        program.cargo(&["fetch", "--quiet"])?;
        Ok(program)
    }

    fn cargo(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Not as this program was built, but as a user builds.
        for name in ["RUSTC_WRAPPER", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
            command.env_remove(name);
        }
        let output = command.args(arguments).current_dir(&self.directory).env("CARGO_TARGET_DIR", self.directory.join("target")).output();
        let output = output.map_err(|error| format!("cannot run cargo: {error}"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(text.lines().find(|line| line.starts_with("error")).unwrap_or("cargo failed").to_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// How many are in the tree, the library itself counted and the program not.
    fn crates(&self) -> Result<usize, String> {
        let text = self.cargo(&["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"])?;
        let names: BTreeSet<_> = text.lines().map(|line| line.split(" (").next().unwrap_or(line)).filter(|line| !line.is_empty()).collect();
        Ok(names.len() - 1)
    }

    /// Seconds of a build from nothing, and the size of what comes out.
    fn build(&self) -> Result<(f64, f64), String> {
        // There is none the first time.
        let _ = fs::remove_dir_all(self.directory.join("target"));
        let begun = Instant::now();
        self.cargo(&["build", "--release", "--offline", "--quiet"])?;
        let lasted = begun.elapsed().as_secs_f64();
        let size = fs::metadata(self.directory.join("target/release/hello")).map_err(|error| error.to_string())?.len();
        Ok((lasted, size as f64))
    }
}
