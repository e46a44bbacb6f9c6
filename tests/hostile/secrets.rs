//! Promise 10 for the reason of a start that has failed, which goes to those who ask, to the log
//! and to systemd: it shows no byte of a file that not everybody may read.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pollflip_kit::harness::{Service, Setup, install, own_program};
use pollflip_kit::service::Config;

pollflip_kit::trials![
    promise_10_what_only_the_service_may_read_is_not_shown,
    promise_10_what_lies_in_a_directory_that_only_the_service_may_search_is_not_shown,
    promise_10_the_interpreter_that_only_the_service_may_read_is_not_shown,
    promise_10_a_link_in_a_directory_that_only_the_service_may_search_is_not_shown,
    promise_10_what_everybody_may_read_is_shown,
];

const SECRET: &str = "SECRET";

/// A service whose program lies in a directory of its own, below the one of the test.
fn with_program() -> (Service, PathBuf) {
    let setup = Setup::new();
    let directory = setup.path("place");
    fs::create_dir(&directory).expect("a directory");
    let program = directory.join("program");
    symlink(own_program(), &program).expect("a link");
    (setup.set(Config::Program(program.clone())).start(), program)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

fn replace(program: &Path, content: &[u8], mode: u32) {
    fs::remove_file(program).expect("a program");
    install(program, content);
    set_mode(program, mode);
}

/// Why it cannot be started, which all are told in the same words.
fn reason(service: &Service) -> String {
    let before = service.first().said("event Failed").len();
    let reason = service.fail_to_restart();
    let told = service.first().says_again("event Failed", before);
    assert!(told.ends_with(&reason), "the asker was told {reason:?} and the program {told:?}");
    assert_eq!(service.status().last_failure.as_deref(), Some(&*reason));
    reason
}

fn is_hidden(service: &Service, words: &str) {
    let reason = reason(service);
    assert!(!reason.contains(SECRET) && reason.contains(words), "{words:?} expected: {reason}");
}

fn is_shown(service: &Service, words: &str) {
    let reason = reason(service);
    assert!(reason.contains(SECRET) && reason.contains(words), "{words:?} expected: {reason}");
}

/// What the kernel will not execute, and what it says then.
const CONTENTS: [(&[u8], &str); 4] = [
    (b"SECRET garbage", "it is no program that this machine can execute; what is in it is not told"),
    (b"#!/SECRET/interpreter -x\n", "the interpreter or the loader that it names is not; what is in it is not told"),
    // An interpreter that is no program.
    (b"#!/etc/passwd SECRET\n", "(this process's) may not execute it or its interpreter"),
    (b"", "it is no program that this machine can execute; what is in it is not told"),
];

fn promise_10_what_only_the_service_may_read_is_not_shown() {
    let (service, program) = with_program();
    for (content, words) in CONTENTS {
        // It is enough that some may not: the group, or all but the owner, or all others.
        for mode in [0o700, 0o711, 0o715, 0o751] {
            replace(&program, content, mode);
            is_hidden(&service, words);
        }
    }
    replace(&program, b"#!/SECRET/interpreter\n", 0o600);
    is_hidden(&service, "it is not executable (mode 600)");
    // Which machine it is for is told by its bytes too.
    let mut other = fs::read(own_program()).expect("this program");
    other.truncate(4096);
    other[18..20].copy_from_slice(&[0, 77]);
    replace(&program, &other, 0o700);
    is_hidden(&service, "it is no program that this machine can execute; what is in it is not told");
}

fn promise_10_what_lies_in_a_directory_that_only_the_service_may_search_is_not_shown() {
    let (service, program) = with_program();
    let directory = program.parent().expect("a directory").to_owned();
    for (content, words) in CONTENTS {
        replace(&program, content, 0o755);
        set_mode(&directory, 0o700);
        is_hidden(&service, words);
        set_mode(&directory, 0o755);
    }
    // Nor is it where a link leads that everybody sees.
    let shut = service.path("shut");
    fs::create_dir(&shut).expect("a directory");
    install(&shut.join("file"), b"SECRET garbage");
    set_mode(&shut, 0o700);
    fs::remove_file(&program).expect("a program");
    symlink(shut.join("file"), &program).expect("a link");
    is_hidden(&service, "what is in it is not told");
    // All can read what is elsewhere, by another path than the one that leads there.
    fs::rename(shut.join("file"), directory.join("file")).expect("a rename");
    fs::remove_file(&program).expect("a link");
    symlink(directory.join("file"), &program).expect("a link");
    is_shown(&service, "it begins with");
}

fn promise_10_the_interpreter_that_only_the_service_may_read_is_not_shown() {
    let (service, program) = with_program();
    let interpreter = service.path("interpreter");
    install(&interpreter, b"SECRET garbage");
    set_mode(&interpreter, 0o700);
    replace(&program, format!("#!{}\n", interpreter.display()).as_bytes(), 0o755);
    let words = format!("its interpreter {} is no program: it is no program that this machine can execute", interpreter.display());
    is_hidden(&service, &words);
    set_mode(&interpreter, 0o755);
    is_shown(&service, "it begins with \"SECRET garbage\"");
}

fn promise_10_a_link_in_a_directory_that_only_the_service_may_search_is_not_shown() {
    let (service, program) = with_program();
    let directory = program.parent().expect("a directory").to_owned();
    fs::remove_file(&program).expect("a program");
    symlink("/there/is/no/SECRET", &program).expect("a link");
    is_shown(&service, "it is a symbolic link to /there/is/no/SECRET, which is not there");
    set_mode(&directory, 0o700);
    is_hidden(&service, "it is a broken symbolic link");
}

fn promise_10_what_everybody_may_read_is_shown() {
    let (service, program) = with_program();
    let shown = [
        (&b"SECRET garbage"[..], "it begins with \"SECRET garbage\""),
        (b"#!/SECRET/interpreter -x\n", "its interpreter /SECRET/interpreter is not there"),
    ];
    for (content, words) in shown {
        for mode in [0o755, 0o555] {
            replace(&program, content, mode);
            is_shown(&service, words);
        }
    }
}
