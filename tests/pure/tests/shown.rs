//! What the pages show of the examples is what stands in the examples, and what they quote is what is said.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pollflip_tests_pure::repository;

use nix::libc;

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).expect("a text")
}

/// The blocks of Rust of a page.
fn blocks(page: &str) -> Vec<String> {
    let blocks = page.split("```rust,no_run\n").skip(1).chain(page.split("```no_run\n").skip(1));
    blocks.map(|rest| rest.split("```").next().expect("a block").to_owned()).collect()
}

/// A file of Rust without the comment that opens it.
fn code(example: &str) -> String {
    let text = read(&format!("examples/{example}.rs"));
    text.lines().skip_while(|line| line.starts_with("//!") || line.is_empty()).map(|line| format!("{line}\n")).collect()
}

/// The functions of a block, each from its first line to the brace that ends it.
fn functions(block: &str) -> Vec<&str> {
    let starts = block.match_indices("\nfn ").map(|(at, _)| at + 1);
    starts.map(|start| &block[start..start + block[start..].find("\n}\n").expect("an end") + 3]).collect()
}

#[test]
fn the_readme_shows_the_examples() {
    let readme = read("README.md");
    let blocks = blocks(&readme);
    assert_eq!(blocks.len(), 2);
    assert_eq!(blocks[0], code("hello"));
    let (shown, example) = (functions(&blocks[1]), code("live_connections"));
    assert!(shown.len() >= 3, "{shown:?}");
    for function in shown {
        assert!(example.contains(function), "examples/live_connections.rs does not have this:\n{function}");
    }
}

fn front_page() -> String {
    let lib = read("src/lib.rs");
    let docs = lib.lines().filter_map(|line| line.strip_prefix("//!"));
    docs.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

#[test]
fn each_example_has_a_line_that_says_what_it_teaches() {
    let listed = read("examples/README.md");
    let entries = |path: &str| fs::read_dir(repository().join(path)).expect("a directory");
    let names = entries("examples").chain(entries("examples/integrations"));
    let names = names.map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned());
    let names: Vec<_> = names.filter(|name| !["README", "Cargo", "integrations"].contains(&name.as_str())).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(listed.lines().any(|line| line.starts_with("| `") && line.contains(&format!("`{name}`"))), "{name} is not listed");
    }
}

#[test]
fn the_front_page_shows_the_smallest_server() {
    assert_eq!(blocks(&front_page())[0], code("hello"));
}

/// Which is no doc test: it needs a runtime that the crate does without.
#[test]
fn the_front_page_shows_the_task_in_a_select() {
    let page = front_page();
    let block = page.split("```ignore\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    assert!(block.contains("tokio::select!"), "{block}");
    assert_eq!(code("integrations/tokio_select").split("\nfn main").next(), Some(block));
}

#[test]
fn the_readme_can_be_read_in_a_few_minutes() {
    assert!(read("README.md").lines().count() <= 200);
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// A signal, or the end of a child: `poll` of mio returns then, and there is nothing to end for.
#[test]
fn no_loop_that_is_shown_ends_when_its_poll_is_interrupted() {
    let mut files = ["src", "examples"].map(|directory| sources(&repository().join(directory))).concat();
    files.push(repository().join("README.md"));
    let mut loops = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|ending| ["rs", "md"].iter().any(|known| ending == *known))) {
        let text = fs::read_to_string(file).expect("a text");
        let lines: Vec<_> = text.lines().collect();
        for (at, line) in
            lines.iter().enumerate().filter(|(_, line)| line.contains("poll.poll(&mut ") || line.contains("poll().poll(&mut "))
        {
            let is_in_loop = lines[at.saturating_sub(5)..at].iter().any(|line| line.contains("loop {") || line.contains("while "));
            loops += usize::from(is_in_loop);
            assert!(!is_in_loop || !line.contains(")?;"), "{}:{}: {line}", file.display(), at + 1);
        }
    }
    assert!(loops >= 10, "{loops} loops");
}

#[test]
fn the_symptoms_are_quoted_as_they_are_said() {
    let files = sources(&repository().join("src"));
    let text: String = files.iter().map(|file| fs::read_to_string(file).expect("a source file")).collect();
    let mut said: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    for error in [libc::EADDRINUSE, libc::EMFILE, libc::EACCES] {
        said += &io::Error::from_raw_os_error(error).to_string();
    }
    let page = read("src/troubleshooting.rs");
    let symptoms = page.lines().filter_map(|line| line.strip_prefix("//! | ")?.split(" | ").next());
    let quotes: Vec<_> = symptoms.flat_map(|symptom| symptom.split('"').skip(1).step_by(2)).collect();
    assert!(quotes.len() >= 10, "{quotes:?}: is the page still what this test reads?");
    for quote in quotes {
        assert!(said.contains(quote), "nothing says {quote:?}");
    }
}

/// Types that a program meets only as what another one takes or returns, and that one.
const MET_AT: [(&str, &str); 15] = [
    ("Advance", "Account"),
    ("ChildSpawnError", "Failure"),
    ("Draft", "Account"),
    ("Ended", "Guard"),
    ("Exit", "Failure"),
    ("InHand", "Account"),
    ("Judgement", "Ledger"),
    ("KeptStream", "Survivors"),
    ("OnShutdown", "ShutdownSignal"),
    ("Outcome", "Status"),
    ("Owner", "UdpGroup"),
    ("Policy", "Guard"),
    ("Recovered", "Ledger"),
    ("Scope", "Ledger"),
    ("ServiceState", "Status"),
];

#[test]
fn every_main_type_is_shown_at_work() {
    let list = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/public_api/list.txt")).expect("a list");
    let name = |line: &str| {
        let rest = ["struct ", "enum ", "trait "].iter().find_map(|kind| line.strip_prefix(kind))?;
        let path = rest.split(['<', ' ']).next()?.trim_end_matches(':');
        Some(path.rsplit("::").next()?.to_owned())
    };
    let files = sources(&repository().join("src"));
    let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file).expect("a source file")).collect();
    let has_example = |name: &str| {
        let definitions = ["struct", "enum", "trait"].map(|kind| format!("pub {kind} {name}"));
        let is_definition = |line: &str| {
            let rest = definitions.iter().find_map(|definition| line.strip_prefix(definition.as_str()));
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        texts.iter().any(|text| {
            let lines: Vec<_> = text.lines().collect();
            let before = |at: usize| lines[..at].iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
            (0..lines.len()).any(|at| is_definition(lines[at]) && before(at).any(|line| line.starts_with("/// ```")))
        })
    };
    let names: Vec<_> = list.lines().filter_map(name).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in &names {
        let is_met = MET_AT.iter().any(|(met, at)| met == name && has_example(at));
        assert!(is_met != has_example(name), "{name}: an example on it, or where it is met, and not both");
    }
    assert!(MET_AT.iter().all(|(met, _)| names.iter().any(|name| name == met)));
}

/// Words that readers have stumbled over.
const LEFT_OUT: [&str; 4] = ["whoever", "for good", "in its turn", "serves on"];

#[test]
fn the_pages_do_without_the_words_that_readers_have_stumbled_over() {
    let mut files = ["src", "examples"].map(|directory| sources(&repository().join(directory))).concat();
    files.push(repository().join("README.md"));
    assert!(files.len() > 100);
    let is_text = |file: &&PathBuf| {
        let ending = file.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| ["rs", "md", "sh", "yaml", "service", "conf"].contains(&ending))
    };
    for file in files.iter().filter(is_text) {
        let text = fs::read_to_string(file).expect("a text");
        let is_of_word = |c: char| c.is_alphanumeric() || c == '_';
        for (at, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            for word in LEFT_OUT {
                let is_whole =
                    |(from, _): (usize, &str)| !line[..from].ends_with(is_of_word) && !line[from + word.len()..].starts_with(is_of_word);
                assert!(!line.match_indices(word).any(is_whole), "{}:{}: {word:?}", file.display(), at + 1);
            }
        }
    }
}
