//! What can stand at the path of the program after a deploy: the new release runs, or the error says exactly what is there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use pollflip_kit::harness::{Service, Setup, install, install_copy, own_program};
use pollflip_kit::hub::wait_for;
use pollflip_kit::procfs;
use pollflip_kit::service::{Config, GoTo};

pollflip_kit::trials![
    a_program_that_runs_cannot_be_written_over_and_a_rename_replaces_it,
    a_release_that_is_a_script_replaces_a_program,
    a_chain_of_releases_by_a_switched_link_and_a_relative_name,
    a_release_that_was_deleted_while_it_ran_is_reported_and_the_next_one_runs,
    programs_for_other_machines_are_named,
    a_program_of_this_machine_that_was_cut_off_is_not_called_another_machine_s,
];

/// A copy of this program that nobody else has: it can be written to.
pub fn copy(path: &Path) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    install_copy(path);
}

fn write(path: &Path, bytes: &[u8]) {
    // Beside it, and renamed: a program that runs must not be written to.
    let next = path.with_extension("next");
    install(&next, bytes);
    fs::rename(&next, path).expect("a rename");
}

fn with_copy() -> (Service, PathBuf) {
    let setup = Setup::new();
    let program = setup.path("server");
    copy(&program);
    (setup.program(program.clone()).start(), program)
}

fn serves_on(service: &Service) {
    assert_eq!(service.connect().pid, service.first().pid);
}

fn a_program_that_runs_cannot_be_written_over_and_a_rename_replaces_it() {
    let (service, program) = with_copy();
    // What `cp new server` meets.
    let error = fs::OpenOptions::new().write(true).truncate(true).open(&program).expect_err("it runs");
    assert_eq!(error.raw_os_error(), Some(Errno::ETXTBSY as i32));
    let old = fs::metadata(format!("/proc/{}/exe", service.first().pid)).expect("a program");
    let next = service.path("server.next");
    copy(&next);
    fs::rename(&next, &program).expect("a rename");
    let new = service.restart();
    assert_eq!(procfs::executable(new.pid), program.canonicalize().expect("a path"));
    let identity = |found: &fs::Metadata| std::os::unix::fs::MetadataExt::ino(found);
    assert_ne!(identity(&fs::metadata(&program).expect("a program")), identity(&old));
    // The old inode is free once nobody runs it; the new one is not.
    let writable = wait_for("an answer", || {
        fs::OpenOptions::new().append(true).open(&program).map_or_else(|error| Some(error.raw_os_error()), |_| None)
    });
    assert_eq!(writable, Some(Errno::ETXTBSY as i32));
}

fn a_release_that_is_a_script_replaces_a_program() {
    let setup = Setup::new();
    let program = setup.path("server");
    copy(&program);
    // Named, since a program that a script executes has its own path.
    let service = setup.program(program.clone()).set(Config::Program(program.clone())).start();
    let script = |release: u32| format!("#!/bin/sh\nRELEASE={release}\nexport RELEASE\nexec '{}' \"$@\"\n", own_program().display());
    for release in [2, 3] {
        write(&program, script(release).as_bytes());
        let new = service.restart();
        assert_eq!(new.says("variable RELEASE"), release.to_string());
        assert_eq!(service.connect().pid, new.pid);
    }
    // One that runs the program instead of becoming it.
    write(&program, format!("#!/bin/sh\n'{}' \"$@\"\n", own_program().display()).as_bytes());
    let pid = service.connect().pid;
    let reason = service.fail_to_restart();
    assert!(reason.contains("a wrapper must exec the program"), "{reason}");
    assert_eq!(service.connect().pid, pid);
}

fn a_chain_of_releases_by_a_switched_link_and_a_relative_name() {
    let setup = Setup::new();
    let directory = setup.path(".").canonicalize().expect("a directory");
    (1..=4).for_each(|release| copy(&directory.join(format!("releases/{release}/bin/server"))));
    symlink("releases/1", directory.join("current")).expect("a link");
    let shell = "cd \"$WHERE\" && exec current/bin/server";
    let service = setup.env("WHERE", &directory).set(GoTo("/".into())).shell(shell).start();
    for release in 2..=4 {
        symlink(format!("releases/{release}"), directory.join("next")).expect("a link");
        fs::rename(directory.join("next"), directory.join("current")).expect("a rename");
        fs::remove_dir_all(directory.join(format!("releases/{}", release - 1))).expect("an old release");
        let new = service.restart();
        assert!(procfs::executable(new.pid).ends_with(format!("releases/{release}/bin/server")));
        assert_eq!(procfs::current_dir(new.pid), Path::new("/"));
    }
    // A link to nothing.
    symlink("releases/5", directory.join("next")).expect("a link");
    fs::rename(directory.join("next"), directory.join("current")).expect("a rename");
    let reason = service.fail_to_restart();
    assert!(reason.contains("current/bin/server") && reason.contains("there is no such file"), "{reason}");
}

fn a_release_that_was_deleted_while_it_ran_is_reported_and_the_next_one_runs() {
    let (service, program) = with_copy();
    fs::remove_file(&program).expect("a file");
    for _ in 0..2 {
        let reason = service.fail_to_restart();
        assert!(reason.contains(program.to_str().expect("text")) && reason.contains("there is no such file"), "{reason}");
    }
    serves_on(&service);
    copy(&program);
    let new = service.restart();
    assert_eq!(service.connect().pid, new.pid);
}

/// The header of a program for some machine: 64 or 32 bits, little- or big-endian.
fn header(bits: u8, big: bool, machine: u16) -> Vec<u8> {
    let word = |number: u16| if big { number.to_be_bytes() } else { number.to_le_bytes() };
    let mut header = vec![0x7f, b'E', b'L', b'F', if bits == 64 { 2 } else { 1 }, if big { 2 } else { 1 }, 1, 0];
    header.resize(16, 0);
    header.extend(word(2));
    header.extend(word(machine));
    header.resize(64, 0);
    header
}

fn programs_for_other_machines_are_named() {
    let (service, program) = with_copy();
    let mut machines = vec![(64, false, 243, "riscv"), (32, false, 40, "arm"), (64, false, 258, "number 258"), (64, true, 22, "number 22")];
    machines.push(if cfg!(target_arch = "aarch64") { (64, false, 62, "x86-64") } else { (64, false, 183, "aarch64") });
    let mut wrong = Vec::new();
    for (bits, big, machine, name) in machines {
        write(&program, &header(bits, big, machine));
        let reason = service.fail_to_restart();
        if !reason.contains(&format!("an ELF program for another machine ({name})")) {
            wrong.push(format!("{name}: {reason}"));
        }
        serves_on(&service);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn a_program_of_this_machine_that_was_cut_off_is_not_called_another_machine_s() {
    let (service, program) = with_copy();
    let whole = fs::read(own_program()).expect("the program");
    let mut wrong = Vec::new();
    // Within the header, right after it, within the table of segments, and within the program itself.
    for length in [10, 64, 100, 4096] {
        write(&program, &whole[..length]);
        let reason = service.fail_to_restart();
        println!("cut off after {length} bytes: {reason}");
        if reason.contains("another machine") {
            wrong.push(format!("{length}: {reason}"));
        }
        serves_on(&service);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
