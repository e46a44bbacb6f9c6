//! Promise 10 for a program that has more rights than its caller: nothing that the caller chose is
//! started, and nothing of it reaches a successor, who may have become root in full.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use pollflip::{Refusal, RequestError};

use crate::callers::{CALLER, Call, MORE, Rights, Wish};
use crate::confine::Confine;
use pollflip_kit::harness::{Service, install, install_copy};
use pollflip_kit::hub::Process;
use pollflip_kit::manager::Manager;
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Listen, Step, at, tcp};

pollflip_kit::trials![
    promise_10_a_program_with_more_rights_does_not_start_what_its_caller_s_link_leads_to,
    promise_10_a_program_with_more_rights_does_not_start_what_its_caller_called_it,
    promise_10_a_program_with_more_rights_does_not_start_what_is_relative_to_its_caller_s_directory,
    promise_10_a_path_relative_to_the_caller_s_directory_is_an_error,
    promise_10_a_program_with_more_rights_that_is_named_is_restarted,
    promise_10_the_caller_s_environment_does_not_reach_a_successor,
    promise_10_the_caller_s_sockets_are_left_alone,
    promise_10_the_caller_of_a_program_with_more_rights_keeps_nothing_of_it,
    promise_10_sockets_without_a_number_are_not_taken,
    promise_10_the_caller_s_socket_is_not_passed_on_in_the_place_of_one_of_root,
    promise_10_a_program_with_capabilities_is_restarted_under_systemd,
    promise_10_sockets_that_a_program_with_more_rights_does_not_touch_are_passed_on,
    promise_10_a_service_manager_of_the_caller_s_directory_is_not_told_anything,
    promise_10_a_program_with_more_rights_tells_nothing_of_what_a_file_holds,
];

/// A program of the caller: it would be seen at the hub.
fn of_the_caller(path: &Path) -> PathBuf {
    install_copy(path);
    chown(path, Some(CALLER), Some(CALLER)).expect("another owner");
    path.into()
}

/// A link of the caller, by rename.
fn switch(link: &Path, target: &Path) {
    let next = link.with_extension("next");
    symlink(target, &next).expect("a link");
    fs::rename(next, link).expect("a rename");
}

/// Each asker is told why there is no restart, and nothing is started.
fn refuses(service: &Service) {
    let first = service.first();
    let refusal = Refusal::Privileged.to_string();
    match service.try_restart() {
        Err(RequestError::Impossible(why)) => assert_eq!(why, refusal),
        other => panic!("the restart ended with {other:?}\n{}", service.hub.story()),
    }
    assert_eq!(first.ask(Act::Request), format!("Privileged :: {refusal}"));
    first.signal(Signal::SIGUSR1);
    let warning = first.says_again("log WARN", 1);
    assert!(warning.contains("the restart signal does nothing") && warning.ends_with(&refusal), "{warning}");
    assert_eq!(first.said("log WARN")[0], format!("every restart of this process will be refused: {refusal}"));
    assert_eq!(service.status().state, pollflip::ServiceState::Serving);
    assert_eq!(service.connect().pid, first.pid);
    assert_eq!(service.hub.pids(), [first.pid]);
    assert_eq!(first.said("log WARN").len(), 2);
}

fn promise_10_a_program_with_more_rights_does_not_start_what_its_caller_s_link_leads_to() {
    for rights in MORE {
        let Some(call) = Call::new("the one of a link of the caller", rights) else { return };
        let link = call.path("link");
        switch(&link, &call.program());
        let service = call.wish(Wish::Path(link.clone())).start();
        switch(&link, &of_the_caller(&service.path("evil")));
        refuses(&service);
    }
}

fn promise_10_a_program_with_more_rights_does_not_start_what_its_caller_called_it() {
    let Some(call) = Call::new("the one of a name of the caller's", Rights::User) else { return };
    let (link, script) = (call.path("link"), call.path("script"));
    switch(&link, &call.program());
    let evil = of_the_caller(&call.path("evil"));
    // By then what it was started by is a script, which names an interpreter.
    install(&script, format!("#!{}\n", evil.display()).as_bytes());
    let service =
        call.wish(Wish::Path(link.clone())).wish(Wish::Name(evil.clone())).with(|setup| setup.plan(at(Step::Born, Act::Wait))).launch();
    let first = service.first();
    first.says("waits");
    switch(&link, &script);
    first.go();
    first.says("serving");
    refuses(&service);
}

fn promise_10_a_program_with_more_rights_does_not_start_what_is_relative_to_its_caller_s_directory() {
    for rights in MORE {
        let Some(call) = Call::new("the one of a relative program", rights) else { return };
        of_the_caller(&call.path("server"));
        let directory = call.path(".");
        let service = call.with(|setup| setup.set(Config::Program("server".into()))).wish(Wish::Directory(directory)).start();
        refuses(&service);
    }
}

fn promise_10_a_path_relative_to_the_caller_s_directory_is_an_error() {
    for (setting, what) in [
        (Config::Socket("mine".into()), "the coordination socket"),
        (Config::PidFile("mine".into()), "the pid file"),
        (Config::CurrentDir("mine".into()), "the directory to start in"),
    ] {
        let Some(call) = Call::new("the one of relative paths", Rights::User) else { return };
        let (directory, program) = (call.path("."), call.program());
        let service = call.with(|setup| setup.set(Config::Program(program)).set(setting)).wish(Wish::Directory(directory)).launch();
        let error = service.first().says("build-error");
        assert_eq!(
            error,
            format!(
                "{what} mine is relative to a directory that the caller of this program chose, and this process has rights that its caller need \
                 not have: give it an absolute path"
            )
        );
        assert!(!service.path("mine").exists());
    }
}

/// Its arguments, of which the first is the name.
fn arguments(process: &Process) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{}/cmdline", process.pid)).expect("a live process");
    text.trim_end_matches('\0').split('\0').map(String::from).collect()
}

fn promise_10_a_program_with_more_rights_that_is_named_is_restarted() {
    for rights in MORE {
        let Some(call) = Call::new("the one of a program that is named", rights) else { return };
        let (link, program, mine) = (call.path("link"), call.program(), call.path("."));
        switch(&link, &program);
        let call = call
            .with(|setup| setup.set(Config::Program(program.clone())))
            .wish(Wish::Path(link.clone()))
            .wish(Wish::Name("mine".into()))
            .wish(Wish::Directory(mine));
        let service = call.start();
        switch(&link, &of_the_caller(&service.path("evil")));
        let name = program.to_str().expect("text");
        let ids = |process: &Process| ["Uid", "Gid", "CapEff"].map(|line| procfs::status(process.pid, line).expect("a line"));
        let of_the_first = ids(&service.first());
        for generation in 1..=4 {
            let new = if generation % 2 == 1 {
                service.restart()
            } else {
                service.hub.nth(generation - 1).signal(Signal::SIGUSR1);
                let new = service.hub.nth(generation);
                new.says("event Committed");
                new
            };
            assert!(new.says("built").starts_with(&format!("generation {generation} ")));
            assert_eq!(procfs::executable(new.pid), program.canonicalize().expect("a path"));
            assert_eq!(arguments(&new), [name, "--port", "a b"]);
            assert_eq!(procfs::current_dir(new.pid), Path::new("/"));
            assert_eq!(ids(&new), of_the_first, "of {rights:?}");
            assert_eq!(service.connect().pid, new.pid);
            assert_eq!(service.status().pid, new.pid);
        }
        // Into a process with such rights nobody may look.
        let told = service.first().said("log WARN");
        assert!(told.iter().all(|told| told.contains("oom_score_adj")), "{told:?}");
    }

    // With other arguments, in another directory.
    let Some(call) = Call::new("the one of other arguments", Rights::User) else { return };
    let (program, directory) = (call.program(), call.path("root").canonicalize().expect("a directory"));
    let service = call
        .with(|setup| {
            setup
                .set(Config::Program(program.clone()))
                .set(Config::Args(vec!["--restarted".into()]))
                .set(Config::CurrentDir(directory.clone()))
        })
        .start();
    let new = service.restart();
    assert_eq!(arguments(&new), [program.to_str().expect("text"), "--restarted"]);
    assert_eq!(procfs::current_dir(new.pid), directory);
}

fn promise_10_the_caller_s_environment_does_not_reach_a_successor() {
    let Some(call) = Call::new("the one of the environment", Rights::User) else { return };
    let program = call.program();
    let call = call.with(|setup| {
        let setup = setup.set(Config::Program(program.clone())).set(Config::Env("COLOUR".into(), "red".into())).set(Confine::Root);
        // Some of it the C library takes away; what a program of another kind goes by, it does not
        // know.
        let variables =
            [("LD_LIBRARY_PATH", "/mine"), ("PYTHONPATH", "/mine"), ("BASH_ENV", "/mine"), ("COLOUR", "blue"), ("PATH", "/mine")];
        let setup = variables.into_iter().fold(setup, |setup, (name, value)| setup.env(name, value));
        // Not as systemd writes them.
        setup.env("NOTIFY_SOCKET", "mine").env("SYSTEMD_EXEC_PID", "mine").env("INVOCATION_ID", "mine").env("LISTEN_FDNAMES", "mine")
    });
    let service = call.start();
    service.first().says("confined Root");
    for _ in 0..2 {
        let new = service.restart();
        assert_eq!(procfs::status(new.pid, "Uid").expect("a line"), "0\t0\t0\t0");
        let mut expected =
            ["COLOUR", "POLLFLIP_BIRTH", "POLLFLIP_LIFELINE", "POLLFLIP_TEST_DIRECTORY", "POLLFLIP_TEST_ROLE", "POLLFLIP_TEST_SETTINGS"];
        expected.sort();
        assert_eq!(procfs::variable_names(new.pid), expected);
        assert!(procfs::environment(new.pid).contains(&"COLOUR=red".into()));
    }
}

fn inode(listener: &TcpListener) -> String {
    format!("inode {} ", nix::sys::stat::fstat(listener).expect("a socket").st_ino)
}

fn promise_10_the_caller_s_sockets_are_left_alone() {
    for rights in MORE {
        let Some(call) = Call::new("the one of the caller's sockets", rights) else { return };
        let program = call.program();
        let call = call.with(|setup| setup.set(Config::Program(program.clone())).set(Listen::To(tcp("web", "127.0.0.1:0"))));
        let service = call.wish(Wish::Listens).wish(Wish::Systemd(1)).start();
        let first = service.first();
        let passed = procfs::descriptors(first.pid).into_iter().find(|(number, _)| *number == 3).expect("what the caller passes").1;
        let own = first.says("socket web");
        assert!(!own.contains(&format!("inode {} ", passed.trim_start_matches("socket:[").trim_end_matches(']'))), "{own}");
        let warnings = first.said("log WARN");
        assert!(warnings[0].starts_with("socket \"web\" of LISTEN_FDS is left alone: "), "{warnings:?}");
    }
}

fn promise_10_the_caller_of_a_program_with_more_rights_keeps_nothing_of_it() {
    for rights in MORE {
        let Some(call) = Call::new("the one of what a caller keeps", rights) else { return };
        let program = call.program();
        let call = call.with(|setup| {
            let setup = setup.set(Config::Program(program.clone())).set(Listen::To(tcp("web", "127.0.0.1:0"))).set(Config::Keep(true));
            setup.env("NOTIFY_SOCKET", "@nobody-is-here").env("FDSTORE", "10").env("POLLFLIP_LAST_END", "exit:1")
        });
        let service = call.start();
        let warnings = service.first().said("log WARN");
        assert!(warnings.iter().any(|warning| warning.starts_with("nothing outlives this process: ")), "{warnings:?}");
    }
}

/// Where no number says whose they are, they are nobody's.
fn promise_10_sockets_without_a_number_are_not_taken() {
    for rights in MORE {
        let Some(call) = Call::new("the one of sockets without a number", rights) else { return };
        let program = call.program();
        let call = call.with(|setup| setup.set(Config::Program(program.clone())).set(Listen::To(tcp("web", "127.0.0.1:0"))));
        let service = call.wish(Wish::Listens).wish(Wish::Unaddressed(1)).start();
        let first = service.first();
        let passed = procfs::descriptors(first.pid).into_iter().find(|(number, _)| *number == 3).expect("what the caller passes").1;
        let own = first.says("socket web");
        assert!(!own.contains(&format!("inode {} ", passed.trim_start_matches("socket:[").trim_end_matches(']'))), "{own}");
        let warnings = first.said("log WARN");
        assert!(warnings[0].contains("there is no LISTEN_PID, and this process has rights"), "{warnings:?}");
    }
}

/// The first process leaves the caller's alone, which is at the number where a successor looks first.
fn promise_10_the_caller_s_socket_is_not_passed_on_in_the_place_of_one_of_root() {
    for rights in MORE {
        let Some(call) = Call::new("the one of the caller's socket before one of root", rights) else { return };
        let (program, pid_file) = (call.program(), call.path("pid"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let call = call.with(|setup| {
            let setup = setup.set(Config::Program(program.clone())).set(Listen::Nowhere).stdin(listener.try_clone().expect("a descriptor"));
            setup.set(Config::PidFile(pid_file.clone())).shell("exec 4<&0 </dev/null; exec \"$0\"")
        });
        let service = call.wish(Wish::Listens).wish(Wish::Systemd(2)).start();
        let warnings = service.first().said("log WARN");
        assert_eq!(warnings.iter().filter(|warning| warning.contains("of LISTEN_FDS is left alone: ")).count(), 1, "{warnings:?}");
        // What a successor takes by that name.
        let passed = (3, format!("socket:[{}]", nix::sys::stat::fstat(&listener).expect("a socket").st_ino));
        for _ in 0..2 {
            let new = service.restart();
            for (name, value) in [("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "web")] {
                assert_eq!(new.says(&format!("variable {name}")), value);
            }
            let descriptors = procfs::descriptors(new.pid);
            assert!(descriptors.contains(&passed), "{rights:?}: {descriptors:?}, and not {passed:?}");
        }
    }
}

fn promise_10_a_program_with_capabilities_is_restarted_under_systemd() {
    let Some(call) = Call::new("the one of capabilities under systemd", Rights::Capabilities) else { return };
    let program = call.program();
    // systemd is root, and so is this test.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let id = "0123456789abcdef0123456789abcdef";
    let mut manager = None;
    let call = call.with(|setup| {
        let setup = setup.set(Config::Program(program.clone())).set(Listen::To(tcp("web", address))).env("INVOCATION_ID", id);
        let (made, setup) = Manager::new(setup.stdin(listener.try_clone().expect("a descriptor")));
        manager = Some(made);
        setup.shell("chmod 666 \"$NOTIFY\"; exec 3<&0 </dev/null; exec \"$0\"")
    });
    let notify = call.path("notify");
    let service = call.with(|setup| setup.env("NOTIFY", &notify)).wish(Wish::Systemd(1)).start();
    let manager = manager.expect("a manager");
    manager.expect(&["READY=1"]);
    assert!(service.first().says("socket web").contains(&inode(&listener)));
    for generation in 1..=2 {
        let asker = service.restart_meanwhile();
        manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
        let told = manager.expect(&["MAINPID=", "READY=1", "STATUS="]).lines[0].clone();
        Manager::answer(manager.expect_barrier());
        let new = service.hub.process(asker.join().expect("a thread").expect("a restart"));
        assert_eq!(told, format!("MAINPID={}", new.pid));
        assert!(new.says("socket web").contains(&inode(&listener)));
        let environment = procfs::environment(new.pid);
        let handed_down = [format!("INVOCATION_ID={id}"), format!("NOTIFY_SOCKET={}", notify.display())];
        assert!(handed_down.iter().all(|variable| environment.contains(variable)), "{:?}", procfs::variable_names(new.pid));
        assert!(environment.contains(&format!("SYSTEMD_EXEC_PID={}", service.first().pid)));
        assert!(!environment.iter().any(|variable| variable.starts_with("LISTEN_") || variable.starts_with("NOTIFY=")));
        assert_eq!(service.hub.nth(generation).pid, new.pid);
    }
    assert!(service.first().said("log WARN").is_empty());
}

fn promise_10_sockets_that_a_program_with_more_rights_does_not_touch_are_passed_on() {
    let Some(call) = Call::new("the one of sockets that are not touched", Rights::Capabilities) else { return };
    let (program, pid_file) = (call.program(), call.path("pid"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let call = call.with(|setup| {
        let setup = setup.set(Config::Program(program.clone())).set(Listen::Nowhere).stdin(listener.try_clone().expect("a descriptor"));
        setup.set(Config::PidFile(pid_file.clone())).shell("exec 3<&0 </dev/null; exec \"$0\"")
    });
    let service = call.wish(Wish::Systemd(1)).start();
    let passed = (3, format!("socket:[{}]", nix::sys::stat::fstat(&listener).expect("a socket").st_ino));
    for _ in 0..2 {
        let new = service.restart();
        assert!(procfs::descriptors(new.pid).contains(&passed));
        for (name, value) in [("LISTEN_PID", "auto"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "web")] {
            assert_eq!(new.says(&format!("variable {name}")), value);
        }
    }
}

fn promise_10_a_service_manager_of_the_caller_s_directory_is_not_told_anything() {
    let Some(call) = Call::new("the one of a relative NOTIFY_SOCKET", Rights::User) else { return };
    let (program, directory) = (call.program(), call.path("."));
    let mut manager = None;
    let call = call.with(|setup| {
        let (made, setup) = Manager::new(setup.set(Config::Program(program.clone())));
        manager = Some(made);
        setup.env("NOTIFY_SOCKET", "notify")
    });
    let service = call.wish(Wish::Directory(directory)).start();
    let new = service.restart();
    assert!(!procfs::variable_names(new.pid).contains(&"NOTIFY_SOCKET".into()));
    manager.expect("a manager").expect_nothing();
}

fn promise_10_a_program_with_more_rights_tells_nothing_of_what_a_file_holds() {
    for rights in MORE {
        let Some(call) = Call::new("the one of what a file holds", rights) else { return };
        let named = call.path("root/named");
        let program = call.program();
        fs::hard_link(&program, &named).expect("a link");
        let service = call.with(|setup| setup.set(Config::Program(named.clone()))).start();
        let replace = |content: &[u8]| {
            fs::remove_file(&named).expect("a program");
            install(&named, content);
        };
        // Everybody may read it, and what is there is the caller's to choose if a directory on the
        // way is.
        for content in [&b"SECRET garbage"[..], b"#!/SECRET/interpreter\n", b""] {
            replace(content);
            let reason = service.fail_to_restart();
            assert!(reason.contains("what is in it is not told") && !reason.contains("SECRET"), "{reason}");
        }
        fs::remove_file(&named).expect("a program");
        symlink("/SECRET", &named).expect("a link");
        let reason = service.fail_to_restart();
        assert!(reason.contains("it is a broken symbolic link") && !reason.contains("SECRET"), "{reason}");
        fs::remove_file(&named).expect("a link");
        fs::hard_link(&program, &named).expect("a link");
        service.restart();
    }
}
