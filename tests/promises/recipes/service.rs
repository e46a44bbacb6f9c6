//! The service under test: that of the kit, with the recipe that its settings name as a capability.

use std::process::ExitCode;

use pollflip_kit::service::settings::Settings;
use pollflip_kit::service::{self, Capability};

use crate::{addresses, helpers, locks, scheduling};

pub use pollflip_kit::service::ROLE;

pub fn main() -> ExitCode {
    service::main_with(recipe)
}

/// `recipe`: its name, and what it must know.
fn recipe(settings: &Settings) -> Box<dyn Capability> {
    let text = settings.get("recipe").expect("a recipe");
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    match name {
        "lock" => Box::new(locks::Lock::new(rest, settings.directory())),
        "group" => Box::new(addresses::Group::new(rest)),
        "multicast" => Box::new(addresses::Multicast::new(rest)),
        "helper" => Box::new(helpers::Helper::default()),
        "pinned" => Box::new(scheduling::Pinned::new(rest)),
        other => panic!("no recipe is called {other}"),
    }
}
