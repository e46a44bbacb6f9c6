//! The rooms of the crate and their order: a file uses only what stands above it in `src/lib.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use pollflip_tests_pure::repository;

/// The names of the rooms in the order in which ARCHITECTURE.md lists them.
fn order() -> Vec<String> {
    let plan = fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("the plan");
    let section = plan.split("\n## ").find(|section| section.starts_with("Rooms, in the order of imports")).expect("the rooms");
    let rooms = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(String::from));
    rooms.collect()
}

/// What is compiled in the place of `sys` where the system is not Linux.
const ELSEWHERE: &str = "elsewhere";

/// One file of the crate, without comments and tests.
struct Source {
    path: PathBuf,
    /// The names from the crate's root to this file's module.
    module: Vec<String>,
    lines: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let root = repository().join("src");
    let mut sources = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&root).expect("a path below src").with_extension("");
                let mut module: Vec<_> = relative.iter().map(|name| name.to_string_lossy().into_owned()).collect();
                if module.last().is_some_and(|name| name == "mod") {
                    module.pop();
                }
                // It stands in the place of that room.
                if module[0] == ELSEWHERE {
                    module[0] = "sys".into();
                }
                let lines = code(&fs::read_to_string(&path).expect("a text"));
                // The program uses the crate as any other program does.
                if module[0] != "bin" {
                    sources.push(Source { path, module, lines });
                }
            }
        }
    }
    assert!(sources.len() > order().len());
    sources
}

/// The lines that are no comments and no tests, with their numbers.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut code = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let indentation = line.len() - line.trim_start().len();
            let end = format!("{}}}", &line[..indentation]);
            // One line, or up to the brace that stands where the attribute does.
            for (_, line) in lines.by_ref() {
                if line.trim_end().ends_with(';') && !line.starts_with(&format!("{} ", &line[..indentation])) || line == end {
                    break;
                }
            }
        } else {
            code.push((index + 1, line.split("//").next().unwrap_or_default().to_owned()));
        }
    }
    code
}

fn is_part_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first names behind each `prefix` in a text, groups in braces included.
fn names_behind(prefix: &str, text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (start, _) in text.match_indices(prefix) {
        if text[..start].ends_with(is_part_of_name) || text[..start].ends_with("::") {
            continue;
        }
        let rest = &text[start + prefix.len()..];
        match rest.strip_prefix('{') {
            None => names.push(rest.chars().take_while(|c| is_part_of_name(*c) || *c == '*').collect()),
            Some(group) => {
                let (mut depth, mut name) = (0, String::new());
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => names.push(std::mem::take(&mut name)),
                        c if depth == 0 => name.push(c),
                        _ => {}
                    }
                }
                names.push(name);
            }
        }
    }
    let first = |name: &String| name.trim().split("::").next().unwrap_or_default().trim().to_owned();
    names.iter().map(first).filter(|name| !name.is_empty()).collect()
}

/// What a file uses of the crate: the names at its root.
fn uses(source: &Source) -> BTreeSet<String> {
    let text: String = source.lines.iter().map(|(_, line)| format!("{line}\n")).collect();
    let mut names = names_behind("crate::", &text);
    // From a file one level down, `super` is the root; from two, `super::super`.
    names.extend(names_behind(&"super::".repeat(source.module.len()), &text));
    names.into_iter().filter(|name| name != "super").collect()
}

#[test]
fn the_modules_stand_in_the_order_of_the_plan() {
    let lib = fs::read_to_string(repository().join("src/lib.rs")).expect("src/lib.rs");
    let name = |line: &str| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';').map(String::from)
    };
    let found: Vec<_> = lib.lines().filter_map(name).collect();
    assert_eq!(found, order());
}

#[test]
fn a_file_uses_only_what_stands_above_it() {
    let order = order();
    let rank = |name: &str| order.iter().position(|room| room == name);
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module != ["lib"]) {
        let room = &source.module[0];
        let own = rank(room).unwrap_or_else(|| panic!("{} is in no room of the plan", source.path.display()));
        for name in uses(source) {
            match rank(&name) {
                Some(other) if other <= own => {}
                Some(_) => wrong.push(format!("{} uses {name}, which stands below {room}", source.path.display())),
                None => {
                    wrong.push(format!("{} uses crate::{name}, which is no module: name the room that it is from", source.path.display()))
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn shutdown_uses_nothing_of_ours_but_a_flag_and_what_tells_a_forked_copy() {
    for source in sources().iter().filter(|source| source.module[0] == "shutdown") {
        let text: String = source.lines.iter().map(|(_, line)| format!("{line}\n")).collect();
        let others: Vec<_> = uses(source).into_iter().filter(|name| name != "shutdown" && name != "sys").collect();
        assert!(others.is_empty(), "{} uses {others:?}", source.path.display());
        let of_sys = text.matches("crate::sys").count();
        let allowed = ["use crate::sys::Origin;", "use crate::sys::Flag;", "use crate::sys::{Flag, Origin};"];
        let used: usize = allowed.iter().map(|line| text.matches(line).count()).sum();
        assert_eq!(of_sys, used, "{}", source.path.display());
    }
}

#[test]
fn unsafe_code_has_one_room() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module[0] != "sys") {
        for (number, line) in &source.lines {
            let mut words = line.split(|c| !is_part_of_name(c));
            if words.any(|word| word == "unsafe") || line.contains("allow(unsafe_code") {
                wrong.push(format!("{}:{number}: {}", source.path.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Words by which code asks for the system that it is compiled for.
const SYSTEMS: [&str; 6] = ["target_os", "target_family", "target_vendor", "target_env", "os::linux", "nix::sys::prctl"];

#[test]
fn which_system_it_is_compiled_for_is_known_by_one_room() {
    let mut wrong = Vec::new();
    let mut switches = Vec::new();
    for source in sources().iter().filter(|source| source.module[0] != "sys") {
        for (number, line) in &source.lines {
            if SYSTEMS.iter().any(|system| line.contains(system)) {
                let place = format!("{}:{number}: {}", source.path.display(), line.trim());
                if source.module == ["lib"] { &mut switches } else { &mut wrong }.push(place);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The one place at which the other is put in.
    assert!(switches.len() == 1 && switches[0].contains(ELSEWHERE), "{switches:#?}");
}

#[test]
fn the_room_and_what_stands_for_it_elsewhere_say_the_same_names() {
    let root = repository().join("src");
    let names = |file: &str| {
        let lines = code(&fs::read_to_string(root.join(file)).expect("a text"));
        let text: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
        let mut names = BTreeSet::new();
        for (kind, end) in [("pub(crate) fn ", '('), ("pub(crate) const ", ':')] {
            names.extend(text.split(kind).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0.to_owned())));
        }
        for group in text.split("pub(crate) use ").skip(1) {
            let group = group.split_once(';').expect("an end").0;
            let group = group.split_once("::").expect("a module").1.trim_matches(['{', '}']);
            names.extend(group.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
        }
        names
    };
    let (here, elsewhere) = (names("sys.rs"), names("elsewhere/mod.rs"));
    assert!(here.len() > 50, "{here:?}");
    assert_eq!(here, elsewhere);
}

#[test]
fn the_checks_above_find_what_they_look_for() {
    assert_eq!(
        names_behind("crate::", "use crate::error::Error;\nuse crate::{machine::{A, B}, wire, sys as s};"),
        ["error", "machine", "wire", "sys as s"]
    );
    assert_eq!(names_behind("super::", "use super::config::X; super::super::exec"), ["config", "super"]);
    assert_eq!(names_behind("super::super::", "super::super::exec::Y"), ["exec"]);
    let text = "use a; // crate::b\n#[cfg(test)]\nmod tests {\n    use crate::c;\n}\nfn d() {}\n#[cfg(test)]\nmod e;\nf";
    let lines: Vec<_> = code(text).into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines, ["use a; ", "fn d() {}", "f"]);
}
