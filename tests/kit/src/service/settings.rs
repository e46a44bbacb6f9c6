//! What a service is like: settings, from the environment for all generations, or from the plan for one.
//!
//! A setting is a value, and its type says what it is about. What only one test program wants is a type of that program's own, beside
//! what does it: of each type the last one counts.

use std::any::type_name;
use std::path::PathBuf;
use std::time::Duration;

use pollflip::RestartConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::listeners::{Socket, tcp};

crate::settings![Config, Listen, Linger, LeaveFirstThread, GoTo];

/// What can be said of a service.
pub trait Setting: Serialize + DeserializeOwned {
    /// With it the service goes on as another user, who has to be able to execute the program.
    fn becomes_another(&self) -> bool {
        false
    }
}

/// These types are settings, and nothing more: `settings![One, Another]`.
#[macro_export]
macro_rules! settings {
    ($($name:ty),* $(,)?) => {
        $(impl $crate::service::Setting for $name {})*
    };
}

/// How the restarter is built. Unless it is told otherwise it has a coordination socket in the directory of the test, and much time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Config {
    Args(Vec<String>),
    CurrentDir(PathBuf),
    Env(String, String),
    EnvAsExecuted,
    EnvRemove(String),
    FreezeTimeout(Duration),
    InheritDescriptors(bool),
    Keep(bool),
    MaxDraining(usize),
    NoSocket,
    PidFile(PathBuf),
    Probation(Duration),
    Program(PathBuf),
    ReadyTimeout(Duration),
    Signal(Option<i32>),
    Socket(PathBuf),
    TrustParent,
    Version(String),
}

impl Config {
    fn apply(self, config: RestartConfig) -> RestartConfig {
        match self {
            Config::Args(arguments) => config.args(arguments),
            Config::CurrentDir(path) => config.current_dir(path),
            Config::Env(name, value) => config.env(name, value),
            Config::EnvAsExecuted => config.env_as_executed(),
            Config::EnvRemove(name) => config.env_remove(name),
            Config::FreezeTimeout(limit) => config.freeze_timeout(limit),
            Config::InheritDescriptors(inherit) => config.inherit_descriptors(inherit),
            Config::Keep(keeps) => config.keep(keeps),
            Config::MaxDraining(count) => config.max_draining(count),
            Config::PidFile(path) => config.pid_file(path),
            Config::Probation(time) => config.probation(time),
            Config::Program(path) => config.program(path),
            Config::ReadyTimeout(limit) => config.ready_timeout(limit),
            Config::Signal(signal) => config.restart_signal(signal),
            Config::TrustParent => config.trust_parent(true),
            Config::Version(version) => config.version(version),
            // Only the last of these counts.
            Config::Socket(_) | Config::NoSocket => config,
        }
    }
}

/// Which sockets it asks for: one for TCP, if it is told nothing. What comes later goes on from what came before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Listen {
    /// This one too.
    To(Socket),
    /// This one, and none that was named before.
    OnlyTo(Socket),
    Nowhere,
}

/// It does not end when a successor has taken over, but when it is told to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Linger;

/// It goes on in another thread than its first, which ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaveFirstThread;

/// It becomes that user before its restarter is built.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunAs(pub u32);

impl Setting for RunAs {
    fn becomes_another(&self) -> bool {
        true
    }
}

/// It goes there once its restarter is built.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GoTo(pub PathBuf);

pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Each with the name of its type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings(Vec<(String, Value)>);

impl Settings {
    /// Those of all generations.
    pub fn read() -> Settings {
        let text = std::env::var(super::SETTINGS).expect("settings");
        serde_json::from_str(&text).expect("settings")
    }

    /// What is read, for who starts a process without a [`Setup`](crate::harness::Setup).
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("text")
    }

    /// And one more.
    pub fn set(mut self, setting: impl Setting) -> Settings {
        self.add(setting);
        self
    }

    pub(crate) fn add<S: Setting>(&mut self, setting: S) {
        self.0.push((type_name::<S>().into(), serde_json::to_value(setting).expect("a value")));
    }

    pub(super) fn append(&mut self, mut others: Settings) {
        self.0.append(&mut others.0);
    }

    fn all<S: Setting>(&self) -> impl DoubleEndedIterator<Item = S> {
        let of_type = self.0.iter().filter(|(name, _)| name == type_name::<S>());
        of_type.map(|(_, value)| S::deserialize(value).expect("a value of this type"))
    }

    /// The last of that type.
    pub fn get<S: Setting>(&self) -> Option<S> {
        self.all().next_back()
    }

    pub fn has<S: Setting>(&self) -> bool {
        self.get::<S>().is_some()
    }

    /// Takes the last one back.
    pub(super) fn forget(&mut self) -> bool {
        self.0.pop().is_some()
    }

    pub fn sockets(&self) -> Vec<Socket> {
        if !self.has::<Listen>() {
            return vec![tcp("echo", "127.0.0.1:0")];
        }
        self.all().fold(Vec::new(), |mut sockets, listen| match listen {
            Listen::To(socket) => {
                sockets.push(socket);
                sockets
            }
            Listen::OnlyTo(socket) => vec![socket],
            Listen::Nowhere => Vec::new(),
        })
    }

    pub fn config(&self) -> RestartConfig {
        let patience = Duration::from_secs(120);
        let base = RestartConfig::new().ready_timeout(patience).freeze_timeout(patience);
        let socket = self.all().rev().find(|setting| matches!(setting, Config::Socket(_) | Config::NoSocket));
        let base = match socket {
            Some(Config::NoSocket) => base,
            Some(Config::Socket(path)) => base.coordination_socket(path),
            _ => base.coordination_socket(super::directory().join(super::COORDINATION)),
        };
        self.all().fold(base, |config, setting: Config| setting.apply(config))
    }

    /// Runs as another user from here on, if it is to.
    pub fn give_up_rights(&self) {
        if let Some(RunAs(user)) = self.get() {
            nix::unistd::setuid(user.into()).expect("setuid");
        }
    }

    pub(super) fn change_directory(&self) {
        if let Some(GoTo(path)) = self.get() {
            std::env::set_current_dir(path).expect("a directory");
        }
    }
}
