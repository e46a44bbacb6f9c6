//! What tests without processes are made of, and the bodies of the fuzz targets.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`model`] | a second account of the machines and of the wire, with laws and a driver |
//! | [`pair`] | both machines over one lifeline |
//! | [`supervision`] | the guard's machine in a small world |
//! | [`ledger`] | any bytes in the place of a ledger |
//! | [`simulation`] | the real restarter on a simulated system, which only a debug build has |

pub mod ledger;
pub mod model;
pub mod pair;
pub mod simulation;
pub mod supervision;

use std::path::Path;

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
