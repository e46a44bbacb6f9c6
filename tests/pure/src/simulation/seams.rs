//! The calls that a simulation can have fail, as the source lists them, and lives in which they do.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use pollflip::internals::simulation::Struck;

use super::act::{Act, Kind, Setting};
use super::world::life;

/// One call, with the errors that it can fail with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seam {
    pub file: String,
    pub line: u32,
    pub errors: Vec<String>,
}

/// All of them.
pub fn seams() -> Vec<Seam> {
    const CALL: &str = "may_fail(&[";
    let root = crate::repository();
    let mut seams = Vec::new();
    let mut paths: Vec<PathBuf> = vec![root.join("src")];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path()));
            continue;
        }
        let file = path.strip_prefix(root).expect("it is below").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a text");
        for (line, text) in (1..).zip(text.lines()) {
            if let Some((_, rest)) = text.split_once(CALL) {
                let (errors, _) = rest.split_once(']').expect("the errors are in one line");
                seams.push(Seam { file: file.clone(), line, errors: errors.split(", ").map(str::to_owned).collect() });
            }
        }
    }
    seams.sort();
    seams
}

/// A life, without faults.
pub struct Plan {
    pub name: &'static str,
    pub setting: Setting,
    pub acts: Vec<(Kind, u8)>,
}

impl Plan {
    pub fn to_bytes(&self) -> Vec<u8> {
        let acts = self.acts.iter().flat_map(|&(kind, what)| Act { kind, what }.to_bytes());
        self.setting.to_bytes().into_iter().chain(acts).collect()
    }

    /// Lives it again and again: each of its calls fails once, with each of its errors. Hands back the bytes of each life in which one
    /// did, and which.
    pub fn live_through_all_faults(&self) -> Vec<(Vec<u8>, Struck)> {
        /// How many calls and errors fit into the byte that says which one is to fail.
        const CALLS: u8 = 63;
        let mut lives = Vec::new();
        // Says whether all of the calls that are left have failed.
        let mut each = |with: &dyn Fn(u8, u8) -> Vec<u8>| {
            for calls in 0..CALLS {
                let mut errors = BTreeSet::new();
                for which in 0..4 {
                    let bytes = with(calls, which);
                    let Some(struck) = life(&bytes).struck.first().copied() else { return true };
                    // It has no more than those.
                    if !errors.insert(struck.error) {
                        break;
                    }
                    lives.push((bytes, struck));
                }
            }
            false
        };
        each(&|calls, which| Plan { setting: self.setting.with_fault(calls, which), acts: self.acts.clone(), ..*self }.to_bytes());
        for at in (0..self.acts.len()).step_by(8) {
            let all = each(&|calls, which| {
                let mut acts = self.acts.clone();
                acts.insert(at, (Kind::Fault, calls << 2 | which));
                Plan { acts, ..*self }.to_bytes()
            });
            if all {
                break;
            }
        }
        lives
    }
}
