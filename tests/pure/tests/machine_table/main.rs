//! The tables in the docs of `State` and `Stage` are made from the code: every input is tried in every kind of state, and what is alike is
//! told once.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `layout` | cells to rows, and rows to text |
//! | `restart` | the cells of the machine of the process that is replaced |
//! | `takeover` | the cells of the machine of the process that takes over |
//!
//! `POLLFLIP_BLESS=1 cargo test --test machine_table` writes them anew.

mod layout;
mod restart;
mod takeover;

#[test]
fn the_table_in_the_docs_of_state_is_what_the_code_does() {
    layout::check("src/machine/state.rs", "table", &restart::restart());
}

#[test]
fn the_table_in_the_docs_of_stage_is_what_the_code_does() {
    layout::check("src/machine/takeover/words.rs", "takeover", &takeover::takeover());
}
