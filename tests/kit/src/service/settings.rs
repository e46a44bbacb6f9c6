//! What a service is like: lines of `key=value`, from the environment for all generations, or from the plan for one. The last one
//! counts, but for keys that may come more than once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pollflip::RestartConfig;

/// The sockets of a service that was not told otherwise.
const DEFAULT_SOCKET: &str = "tcp echo 127.0.0.1:0";

#[derive(Debug)]
pub struct Settings {
    directory: PathBuf,
    lines: Vec<(String, String)>,
}

impl Settings {
    /// Those of all generations, and the changes of this one.
    pub fn read(directory: &Path, changes: Vec<(String, String)>) -> Settings {
        let text = std::env::var(super::SETTINGS).unwrap_or_default();
        let split = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let lines = text.lines().filter_map(split).chain(changes).collect();
        Settings { directory: directory.into(), lines }
    }

    /// Where all files of the test are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.lines.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The last of that key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.all(key).last()
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key).map(|value| value.parse().expect("a number"))
    }

    /// Takes the last line of that key back.
    pub fn forget(&mut self, key: &str) -> bool {
        let last = self.lines.iter().rposition(|(name, _)| name == key);
        last.map(|index| self.lines.remove(index)).is_some()
    }

    fn milliseconds(&self, key: &str) -> Option<Duration> {
        self.get(key).map(|value| Duration::from_millis(value.parse().expect("a number")))
    }

    /// `listen` is `KIND NAME ADDRESS`, any number of them, or `none`; `only` replaces all of them.
    pub fn sockets(&self) -> Vec<&str> {
        let only: Vec<_> = self.all("only").collect();
        let sockets = if only.is_empty() { self.all("listen").collect() } else { only };
        match sockets[..] {
            [] => vec![DEFAULT_SOCKET],
            _ if sockets.contains(&"none") => Vec::new(),
            _ => sockets,
        }
    }

    /// `socket`, `ready_timeout_ms`, `freeze_timeout_ms`, `probation_ms`, `signal`, `trust_parent`, `program`, `arg`, `env`, `env_remove`, `env_as_executed`,
    /// `current_dir`, `inherit_descriptors`.
    pub fn config(&self) -> RestartConfig {
        let limit = |name| self.milliseconds(name).unwrap_or(Duration::from_secs(120));
        let mut config = RestartConfig::new().ready_timeout(limit("ready_timeout_ms")).freeze_timeout(limit("freeze_timeout_ms"));
        match self.get("socket") {
            Some("none") => {}
            Some(path) => config = config.coordination_socket(path),
            None => config = config.coordination_socket(self.directory.join(super::COORDINATION)),
        }
        if let Some(time) = self.milliseconds("probation_ms") {
            config = config.probation(time);
        }
        if let Some(count) = self.get("max_draining") {
            config = config.max_draining(count.parse().expect("a number"));
        }
        if self.get("trust_parent").is_some() {
            config = config.trust_parent(true);
        }
        match self.get("signal") {
            Some("none") => config = config.restart_signal(None),
            Some(number) => config = config.restart_signal(Some(number.parse().expect("a number"))),
            None => {}
        }
        if let Some(path) = self.get("program") {
            config = config.program(path);
        }
        if let Some(path) = self.get("current_dir") {
            config = config.current_dir(path);
        }
        let arguments: Vec<_> = self.all("arg").collect();
        if !arguments.is_empty() {
            config = config.args(arguments);
        }
        for (name, value) in self.all("env").map(|line| line.split_once('=').expect("a name and a value")) {
            config = config.env(name, value);
        }
        for name in self.all("env_remove") {
            config = config.env_remove(name);
        }
        if self.get("env_as_executed").is_some() {
            config = config.env_as_executed();
        }
        if let Some(inherit) = self.get("inherit_descriptors") {
            config = config.inherit_descriptors(inherit.parse().expect("a truth value"));
        }
        config
    }

    /// It does not end when a successor has taken over, but when it is told to.
    pub fn lingers(&self) -> bool {
        self.get("linger").is_some()
    }

    /// It goes on in another thread than its first, which ends.
    pub fn leaves_first_thread(&self) -> bool {
        self.get("leave_first_thread").is_some()
    }

    /// `uid`: runs as that user from here on.
    pub fn give_up_rights(&self) {
        if let Some(uid) = self.get("uid") {
            nix::unistd::setuid(uid.parse::<u32>().expect("a number").into()).expect("setuid");
        }
    }

    /// `chdir`: goes there once the restarter is built.
    pub fn change_directory(&self) {
        if let Some(path) = self.get("chdir") {
            std::env::set_current_dir(path).expect("a directory");
        }
    }
}
