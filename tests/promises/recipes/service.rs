//! The service under test: that of the kit, with the recipe that it is told as a capability.

use std::process::ExitCode;

use pollflip_kit::service::{self, Capability, Settings};
use serde::{Deserialize, Serialize};

use crate::{addresses, helpers, locks, scheduling};

pub use pollflip_kit::service::ROLE;

pollflip_kit::settings![Recipe];

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Recipe {
    Lock(locks::Order),
    /// These addresses.
    Group(Vec<String>),
    /// The same with a probation: what is not there yet is bound when the restart is final.
    LateGroup(Vec<String>),
    /// At this address.
    Multicast(String),
    Helper,
    Pinned(scheduling::Order),
}

pub fn main() -> ExitCode {
    service::main_with(recipe)
}

fn recipe(settings: &Settings) -> Box<dyn Capability> {
    match settings.get().expect("a recipe") {
        Recipe::Lock(order) => Box::new(locks::Lock::new(order)),
        Recipe::Group(addresses) => Box::new(addresses::Group::new(addresses, false)),
        Recipe::LateGroup(addresses) => Box::new(addresses::Group::new(addresses, true)),
        Recipe::Multicast(address) => Box::new(addresses::Multicast(address)),
        Recipe::Helper => Box::new(helpers::Helper::default()),
        Recipe::Pinned(order) => Box::new(scheduling::Pinned(order)),
    }
}
