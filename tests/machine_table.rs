//! The tables in the docs of `State` and `Stage` are made from the code: every input is tried in every kind of state, and what is alike is
//! told once.
//!
//! `POLLFLIP_BLESS=1 cargo test --test machine_table` writes them anew.

mod model;
mod table;

#[test]
fn the_table_in_the_docs_of_state_is_what_the_code_does() {
    table::layout::check("src/machine/state.rs", "table", &table::restart::restart());
}

#[test]
fn the_table_in_the_docs_of_stage_is_what_the_code_does() {
    table::layout::check("src/machine/takeover/words.rs", "takeover", &table::takeover::takeover());
}
