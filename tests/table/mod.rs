//! The tables in the docs of the machines, made from the code: every input is tried in every kind of
//! state, and what is alike is told once.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `layout` | cells to rows, and rows to text |
//! | `restart` | the cells of the machine of the process that is replaced |
//! | `takeover` | the cells of the machine of the process that takes over |
//!
//! Knows: how a table is laid out. Does not know: what must be in it.

#![allow(unreachable_pub, reason = "the test crate has this module as its own")]

pub mod layout;
pub mod restart;
pub mod takeover;
