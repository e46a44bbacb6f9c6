//! The rules of what a service does not go on with: their table, which is made from the code, and
//! what holds for all of them.
//!
//! `POLLFLIP_BLESS=1 cargo test --test poison_table` writes the table anew.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use pollflip_tests_pure::repository;

use nix::libc::{SIGABRT, SIGBUS, SIGKILL, SIGSEGV, SIGTERM};
use pollflip::Exit;
use pollflip::internals::machine::poison::{Doing, Poison, Ruling, Scope, Suspects, WINDOW};

const BEGIN: &str = "// table:begin\n";
const END: &str = "// table:end\n";

const DOINGS: [Doing; 4] = [Doing::Own, Doing::Memory, Doing::Outside, Doing::Unknown];
const SUSPECTS: [Suspects; 4] = [Suspects::None, Suspects::New, Suspects::Again, Suspects::Unjudged];
const NOW: Duration = Duration::from_secs(1_000);

fn ruling(strikes: u32, doing: Doing, suspects: Suspects, served: bool) -> (Ruling, u32) {
    let mut poison = Poison::new(strikes, NOW);
    let ruling = poison.judge(NOW, doing, suspects, served);
    (ruling, poison.strikes())
}

/// What an end comes to: the strike, what is kept at the first, second and later ones, and whether
/// suspects are remembered.
fn effect(doing: Doing, suspects: Suspects, served: bool) -> [String; 3] {
    let ruled = [0, 1, 2, 3].map(|strikes| ruling(strikes, doing, suspects, served));
    let mut kept: Vec<_> = ruled.iter().map(|(ruling, _)| format!("{:?}", ruling.scope)).collect();
    kept.dedup();
    let strike = match ruled[0].0.is_strike {
        true => "one more",
        false if ruled[2].1 == 0 => "begin anew",
        false => "",
    };
    let remember = if ruled[0].0.remember { "yes" } else { "" };
    [strike.into(), kept.join(", then "), remember.into()]
}

fn table() -> String {
    let head = ["whose doing", "in hand", "had served", "strikes", "goes on with", "remembered"].map(str::to_owned);
    let mut lines = vec![head, ["---"; 6].map(str::to_owned)];
    for doing in DOINGS {
        for suspects in SUSPECTS {
            let [not, served] = [false, true].map(|served| effect(doing, suspects, served));
            let of = [format!("{doing:?}"), format!("{suspects:?}")];
            let mut line = |word: &str, [a, b, c]: [String; 3]| lines.push([of[0].clone(), of[1].clone(), word.into(), a, b, c]);
            if not == served {
                line("", not);
            } else {
                line("no", not);
                line("yes", served);
            }
        }
    }
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    let row = |line: &[String; 6]| {
        let cells: String = line.iter().zip(widths).map(|(cell, width)| format!("| {cell:width$} ")).collect();
        format!("/// {cells}| {} |\n", line[5]).replace("|  |", "| |")
    };
    lines.iter().map(row).collect()
}

#[test]
fn the_table_in_the_docs_is_what_the_code_does() {
    let file = repository().join("src/machine/poison.rs");
    let source = fs::read_to_string(&file).expect("the rules");
    let (head, rest) = source.split_once(BEGIN).expect("a line that begins the table");
    let (documented, tail) = rest.split_once(END).expect("a line that ends it");
    let table = table();
    if std::env::var_os("POLLFLIP_BLESS").is_some() {
        fs::write(&file, [head, BEGIN, &table, END, tail].concat()).expect("a file");
    } else {
        assert_eq!(documented, table, "the table in {} is out of date: POLLFLIP_BLESS=1 writes it anew", file.display());
    }
}

/// Every end in every state, to a fixed point: strikes only grow where they are seen to, and stop.
#[test]
fn what_holds_for_every_end_in_every_state() {
    let mut seen = BTreeSet::from([0]);
    let mut new = vec![0];
    while let Some(strikes) = new.pop() {
        for doing in DOINGS {
            for suspects in SUSPECTS {
                for served in [false, true] {
                    let (ruling, then) = ruling(strikes, doing, suspects, served);
                    let what = format!("{strikes} strikes, {doing:?}, {suspects:?}, served {served}: {ruling:?}, {then} strikes");
                    assert!(doing != Doing::Outside || (ruling.scope, then) == (Scope::All, strikes), "outside strikes nobody: {what}");
                    assert!(
                        matches!(suspects, Suspects::None | Suspects::Unjudged)
                            || doing != Doing::Own
                            || ruling.scope == Scope::NotSuspects,
                        "suspects first: {what}"
                    );
                    assert!(
                        ruling.scope != Scope::NotSuspects || !matches!(suspects, Suspects::None | Suspects::Unjudged),
                        "nobody to drop: {what}"
                    );
                    assert!(ruling.scope != Scope::NotSuspects || !ruling.is_strike, "one who is blamed is no strike: {what}");
                    assert!(ruling.is_strike == (then > strikes), "a strike is counted: {what}");
                    assert!(ruling.is_strike || matches!(ruling.scope, Scope::All | Scope::NotSuspects), "strikes lead on: {what}");
                    assert!(!ruling.remember || matches!(suspects, Suspects::New | Suspects::Unjudged), "{what}");
                    // More strikes than there are stages are all alike.
                    let then = then.min(4);
                    if seen.insert(then) {
                        new.push(then);
                    }
                }
            }
        }
    }
    assert_eq!(seen.len(), 5);
}

#[test]
fn a_service_that_dies_of_what_it_keeps_comes_to_a_clean_start_before_a_guard_gives_it_up() {
    for doing in [Doing::Own, Doing::Memory, Doing::Unknown] {
        let mut poison = Poison::default();
        let scopes: Vec<_> =
            (1..=5).map(|second| poison.judge(NOW + Duration::from_secs(second), doing, Suspects::None, false).scope).collect();
        // The guard's default: the fifth is the last.
        assert_eq!(scopes, [Scope::All, Scope::NotStreams, Scope::Listeners, Scope::Listeners, Scope::Listeners], "{doing:?}");
    }
}

#[test]
fn a_hundred_poisonous_connections_are_dropped_one_by_one_and_count_for_nothing() {
    let mut poison = Poison::default();
    for second in 0..100 {
        let ruling = poison.judge(NOW + Duration::from_secs(second), Doing::Own, Suspects::New, true);
        assert_eq!((ruling.scope, ruling.is_strike, poison.strikes()), (Scope::NotSuspects, false, 0));
    }
}

#[test]
fn strikes_far_apart_begin_anew() {
    let mut poison = Poison::default();
    for n in 1..10 {
        assert_eq!(poison.judge(NOW + WINDOW * n, Doing::Own, Suspects::None, true).scope, Scope::All);
        assert_eq!(poison.strikes(), 1);
    }
    // Nor does a clock that goes back do harm.
    assert_eq!(poison.judge(Duration::ZERO, Doing::Own, Suspects::None, true).scope, Scope::NotStreams);
}

#[test]
fn whose_doing_an_end_was_is_told_by_how_it_came() {
    for exit in [Exit::Signal(SIGSEGV), Exit::Signal(SIGABRT), Exit::Signal(SIGBUS), Exit::Code(101), Exit::Code(1), Exit::NotReady] {
        assert_eq!(Doing::from(exit), Doing::Own, "{exit:?}");
    }
    for exit in [Exit::Signal(SIGKILL), Exit::Signal(SIGTERM), Exit::Code(0)] {
        assert_eq!(Doing::from(exit), Doing::Outside, "{exit:?}");
    }
    assert_eq!([Exit::OutOfMemory, Exit::Unknown].map(Doing::from), [Doing::Memory, Doing::Unknown]);
}
