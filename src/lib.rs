//! pollflip
pub mod error;
#[allow(dead_code)]
pub mod machine;
#[doc(hidden)]
pub mod internals {
    pub use crate::machine;
}
