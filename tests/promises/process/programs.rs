//! Promise 3 where it is the program that cannot be started, or is none of ours: the reason says what stands at its path.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use pollflip::RequestError;

use pollflip_kit::harness::{Service, Setup, install, own_program};
use pollflip_kit::procfs::Snapshot;
use pollflip_kit::service::{Config, ms};

pollflip_kit::trials![
    promise_03_a_program_that_does_not_exist_is_reported,
    promise_03_a_dangling_link_is_reported_with_its_target,
    promise_03_a_program_that_is_not_executable_is_reported_with_its_mode,
    promise_03_a_directory_is_reported,
    promise_03_a_fifo_is_reported,
    promise_03_a_script_without_its_interpreter_is_reported,
    promise_03_what_is_wrong_with_the_first_line_of_a_script_is_said,
    promise_03_an_interpreter_that_is_no_program_is_named,
    promise_03_a_file_of_garbage_is_quoted,
    promise_03_an_empty_file_is_reported,
    promise_03_a_program_for_another_machine_is_reported,
    promise_03_a_directory_to_start_in_that_is_gone_is_reported,
    promise_03_a_program_that_only_exits_is_reported,
    promise_03_a_program_that_knows_nothing_of_us_is_killed_at_the_deadline,
    promise_03_a_program_that_is_being_written_is_waited_for,
    promise_03_a_program_that_stays_being_written_is_reported,
];

/// A service whose program is a link that a test can replace.
fn with_program(setup: Setup) -> Service {
    let program = setup.path("program");
    symlink(own_program(), &program).expect("a link");
    setup.set(Config::Program(program)).start()
}

/// Puts something in the place of the program, fails to restart with it, and restarts when the program is back.
fn fails(setup: Setup, replace: impl FnOnce(&Path), failure: &str, words: &[&str]) {
    let service = with_program(setup);
    let old = service.first();
    let before = Snapshot::of(old.pid);
    let program = service.path("program");
    fs::remove_file(&program).expect("the link");
    replace(&program);

    let reason = service.fail_to_restart();
    for word in words {
        assert!(reason.contains(word), "{word:?} is not in: {reason}");
    }
    let told = old.says("event Failed");
    assert!(told.contains(failure), "{failure} expected: {told}");
    assert!(told.ends_with(&reason), "the asker was told {reason:?} and the program {told:?}");
    assert_eq!(service.connect().pid, old.pid);
    service.expect_unchanged(&old, &before);

    deploy(&service, &program);
    let new = service.restart_some_time();
    assert_eq!(service.connect().pid, new.pid);
}

/// Puts the program back.
fn deploy(service: &Service, program: &Path) {
    if program.is_dir() && !program.is_symlink() {
        fs::remove_dir(program).expect("a directory");
    }
    let next = service.path("program.next");
    symlink(own_program(), &next).expect("a link");
    fs::rename(next, program).expect("a rename");
}

fn promise_03_a_program_that_does_not_exist_is_reported() {
    fails(Setup::new(), |_| {}, "Os { code: 2,", &["could not start", "/program", "there is no such file"]);
}

fn promise_03_a_dangling_link_is_reported_with_its_target() {
    let replace = |path: &Path| symlink("releases/7/server", path).expect("a link");
    fails(Setup::new(), replace, "Os { code: 2,", &["symbolic link to releases/7/server"]);
}

fn promise_03_a_program_that_is_not_executable_is_reported_with_its_mode() {
    let replace = |path: &Path| {
        install(path, b"#!/bin/sh\n");
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("a mode");
    };
    fails(Setup::new(), replace, "Os { code: 13,", &["not executable (mode 644)"]);
}

fn promise_03_a_directory_is_reported() {
    fails(Setup::new(), |path| fs::create_dir(path).expect("a directory"), "Os { code: 13,", &["it is a directory"]);
}

fn promise_03_a_fifo_is_reported() {
    let replace = |path: &Path| nix::unistd::mkfifo(path, Mode::S_IRWXU).expect("a fifo");
    fails(Setup::new(), replace, "Os { code: 13,", &["no regular file"]);
}

fn promise_03_a_script_without_its_interpreter_is_reported() {
    let replace = |path: &Path| install(path, b"#!/there/is/no/shell -e\n");
    fails(Setup::new(), replace, "Os { code: 2,", &["its interpreter /there/is/no/shell is not there"]);
    // With the ends of lines of another system.
    let replace = |path: &Path| install(path, b"#!/bin/sh\r\n");
    fails(Setup::new(), replace, "Os { code: 2,", &["its interpreter /bin/sh\\r is not there"]);
    let replace = |path: &Path| {
        let interpreter = path.with_file_name("interpreter");
        install(&interpreter, b"#!/there/is/no/shell\n");
        install(path, format!("#!{}\n", interpreter.display()).as_bytes());
    };
    fails(Setup::new(), replace, "Os { code: 2,", &["/interpreter is there, but what that needs is not"]);
}

fn promise_03_what_is_wrong_with_the_first_line_of_a_script_is_said() {
    let lines = [(8, &b"#!\n"[..]), (8, b"#! \t\nexec true\n"), (13, b"#!")];
    for (errno, line) in lines {
        let errno = format!("Os {{ code: {errno},");
        fails(Setup::new(), |path| install(path, line), &errno, &["it begins with #!, and no interpreter is named after that"]);
    }
    // The kernel reads 256 bytes, and must see the end of the name. What follows it may be longer.
    let of_length = |name: usize| format!("#!/{}", "a".repeat(name - 1));
    for name in [254, 5000] {
        let replace = |path: &Path| install(path, format!("{}\n", of_length(name)).as_bytes());
        fails(Setup::new(), replace, "Os { code: 8,", &["the name of its interpreter is too long: it must end within 255 bytes"]);
    }
    for line in [of_length(253) + "\n", format!("#!/aaa {}\n", "a".repeat(5000))] {
        fails(Setup::new(), |path| install(path, line.as_bytes()), "Os { code: 2,", &["its interpreter /aaa", "a is not there"]);
    }
}

fn promise_03_an_interpreter_that_is_no_program_is_named() {
    let with_interpreter = |make: &dyn Fn(&Path), errno: &str, what: &str| {
        let replace = |path: &Path| {
            let interpreter = path.with_file_name("interpreter");
            make(&interpreter);
            install(path, format!("#!{} -x\n", interpreter.display()).as_bytes());
        };
        fails(Setup::new(), replace, errno, &["it is a script, and its interpreter /", what]);
    };
    let fifo = |path: &Path| nix::unistd::mkfifo(path, Mode::S_IRWXU).expect("a fifo");
    with_interpreter(&fifo, "Os { code: 13,", "/interpreter is no program: it is no regular file");
    with_interpreter(&|path| fs::create_dir(path).expect("a directory"), "Os { code: 13,", "is no program: it is a directory");
    let plain = |path: &Path| fs::write(path, "exec true\n").expect("a file");
    with_interpreter(&plain, "Os { code: 13,", "is no program: it is not executable (mode 644)");
    with_interpreter(&|path| install(path, b""), "Os { code: 8,", "is no program: it is empty");
    with_interpreter(&|path| install(path, b"#!\n"), "Os { code: 8,", "is no program: it begins with #!, and no interpreter is named");
}

fn promise_03_a_file_of_garbage_is_quoted() {
    fails(Setup::new(), |path| install(path, b"MZ, a program"), "Os { code: 8,", &["neither a program nor a script", "MZ, a program"]);
}

fn promise_03_an_empty_file_is_reported() {
    fails(Setup::new(), |path| install(path, b""), "Os { code: 8,", &["it is empty"]);
}

fn promise_03_a_program_for_another_machine_is_reported() {
    let replace = |path: &Path| {
        let mut bytes = fs::read(own_program()).expect("the program");
        bytes.truncate(4096);
        bytes[18..20].copy_from_slice(&243u16.to_ne_bytes());
        if cfg!(target_arch = "riscv64") {
            bytes[18..20].copy_from_slice(&62u16.to_ne_bytes());
        }
        install(path, &bytes);
    };
    fails(Setup::new(), replace, "Os { code: 8,", &["an ELF program for another machine"]);
}

fn promise_03_a_directory_to_start_in_that_is_gone_is_reported() {
    let setup = Setup::new();
    let directory = setup.path("release");
    fs::create_dir(&directory).expect("a directory");
    let service = setup.set(Config::CurrentDir(directory.clone())).start();
    fs::remove_dir(&directory).expect("a directory");
    let reason = service.fail_to_restart();
    assert!(reason.contains("the directory to start it in") && reason.contains("is gone"), "{reason}");
    fs::create_dir(&directory).expect("a directory");
    service.restart();
}

fn promise_03_a_program_that_only_exits_is_reported() {
    fails(
        Setup::new(),
        |path| install(path, b"#!/bin/sh\nexit 0\n"),
        "Exited { exit: Code(0)",
        &["exited with status 0 before it was ready"],
    );
}

fn promise_03_a_program_that_knows_nothing_of_us_is_killed_at_the_deadline() {
    let setup = Setup::new().set(Config::ReadyTimeout(ms(2500)));
    fails(setup, |path| install(path, b"#!/bin/sh\nexec sleep 1000\n"), "TimedOut { limit: 2.5s", &["was not ready within 2.5 s"]);
}

/// A program that somebody has open for writing.
fn being_written(path: &Path) -> fs::File {
    fs::remove_file(path).expect("the link");
    install(path, format!("#!/bin/sh\nexec '{}' \"$@\"\n", own_program().display()).as_bytes());
    fs::OpenOptions::new().append(true).open(path).expect("a file")
}

fn promise_03_a_program_that_is_being_written_is_waited_for() {
    let service = with_program(Setup::new());
    let writer = being_written(&service.path("program"));
    let begun = Instant::now();
    let asker = service.restart_meanwhile();
    service.first().says("event Restarting");
    drop(writer);
    let held = begun.elapsed();
    let pid = match asker.join().expect("a thread") {
        // It is waited for two seconds at the most, more than which a busy machine may take to come here.
        Err(RequestError::Failed(why)) if held >= Duration::from_millis(1500) && why.contains("it is still being written") => {
            service.restart().pid
        }
        other => other.expect("a restart"),
    };
    assert_eq!(service.connect().pid, pid);
}

fn promise_03_a_program_that_stays_being_written_is_reported() {
    let service = with_program(Setup::new());
    let old = service.first();
    let before = Snapshot::of(old.pid);
    let writer = being_written(&service.path("program"));
    let reason = service.fail_to_restart();
    assert!(reason.contains("it is still being written"), "{reason}");
    assert!(old.says("event Failed").contains("Os { code: 26,"));
    service.expect_unchanged(&old, &before);
    drop(writer);
    let new = service.restart();
    assert_eq!(service.connect().pid, new.pid);
}
