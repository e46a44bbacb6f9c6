//! The examples of the crate, as the programs that they are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds an example if it is out of date, and finds it.
pub fn build(name: &str) -> Result<PathBuf, String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--quiet", "--package", "pollflip", "--message-format", "json-render-diagnostics"]);
    command.args(["--example", name, "--manifest-path"]).arg(manifest);
    let output = command.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("the example {name} cannot be built: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut paths =
        messages.filter(|message| message["target"]["name"] == name).filter_map(|message| Some(message["executable"].as_str()?.into()));
    paths.next_back().ok_or_else(|| format!("cargo does not say where the example {name} is"))
}
