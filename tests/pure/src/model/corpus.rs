//! The committed files that a fuzz target starts from, and the seeds among them.

use std::fs;
use std::path::{Path, PathBuf};

/// A name and what is in the file.
pub type Seed = (String, Vec<u8>);

/// Compares the seeds with what is committed (`POLLFLIP_BLESS=1` writes them), and hands back all that is in the corpus.
pub fn corpus(target: &str, seeds: &[Seed]) -> Vec<(PathBuf, Vec<u8>)> {
    bless(target, seeds);
    let directory = directory(target);
    for (name, bytes) in seeds {
        let committed = fs::read(directory.join(format!("{name}.seed"))).unwrap_or_default();
        assert_eq!(&committed, bytes, "{name}.seed is out of date: POLLFLIP_BLESS=1 writes it anew");
    }
    let files = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Writes seeds if `POLLFLIP_BLESS=1` asks for it: all that is to be done with those that are found by looking, which are others on another
/// machine.
pub fn bless(target: &str, seeds: &[Seed]) {
    if std::env::var_os("POLLFLIP_BLESS").is_some() {
        let directory = directory(target);
        fs::create_dir_all(&directory).unwrap();
        seeds.iter().for_each(|(name, bytes)| fs::write(directory.join(format!("{name}.seed")), bytes).unwrap());
    }
}

fn directory(target: &str) -> PathBuf {
    crate::repository().join("fuzz/corpus").join(target)
}

/// Whether a file is a seed, and not what fuzzing has added.
pub fn is_seed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seed")
}
