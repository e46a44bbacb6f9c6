//! pollflip and shellflip speak one wire: each one's client restarts the other's service, and is told why if it cannot.
//!
//! Both crates are the real ones. The services are this crate's program in its roles, as real processes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pollflip::RequestError;
use pollflip::restart_coordination_socket::request_restart;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

/// A service, whose successors end before they are ready as long as a file is there.
struct Service {
    lines: Receiver<String>,
    pids: Vec<u32>,
    directory: TempDir,
}

impl Service {
    fn start(role: &str) -> Service {
        let directory = tempfile::tempdir().unwrap();
        let settings = serde_json::json!({
            "role": role,
            "socket": directory.path().join("restart.sock"),
            "fails": directory.path().join("fail"),
        });
        let mut child = Command::new(env!("CARGO_BIN_EXE_pollflip-benches"))
            .env("POLLFLIP_BENCH_ROLE", settings.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
            // Its output ends with the last generation; the first one is reaped then.
            let _ = child.wait();
        });
        let mut service = Service { lines, pids: Vec::new(), directory };
        service.wait_until_ready();
        service
    }

    /// The process id of the next generation that says that it is ready.
    fn wait_until_ready(&mut self) -> u32 {
        loop {
            let line = self.lines.recv_timeout(LIMIT).expect("no generation becomes ready");
            if let Some(rest) = line.strip_prefix("ready ") {
                let pid = rest.split(' ').next().unwrap().parse().unwrap();
                self.pids.push(pid);
                return pid;
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("restart.sock")
    }

    fn successors_fail(&self, fail: bool) {
        let path = self.directory.path().join("fail");
        if fail { fs::write(path, "").unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The last is the one that serves; those before it have ended or are about to.
        if let Some(pid) = self.pids.last() {
            let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
        }
    }
}

fn ask_as_shellflip(service: &Service) -> Result<u32, String> {
    let config = shellflip::RestartConfig { enabled: true, coordination_socket_path: service.socket(), ..Default::default() };
    let (sender, answer) = channel();
    thread::spawn(move || sender.send(config.request_restart_sync().map_err(|error| error.to_string())));
    answer.recv_timeout(LIMIT).expect("no answer in time")
}

/// Asks again where nothing has been tried: a service of shellflip's that takes a second to hang up is not known for one.
fn ask_as_pollflip(ask: impl Fn() -> Result<u32, RequestError>) -> Result<u32, RequestError> {
    (0..5).map(|_| ask()).find(|answer| !matches!(answer, Err(RequestError::HungUp(_)))).expect("an answer")
}

fn restart(service: &Service) -> Result<u32, RequestError> {
    ask_as_pollflip(|| request_restart(service.socket(), LIMIT, |_| {}))
}

#[test]
fn shellflips_client_restarts_a_pollflip_service_again_and_again() {
    let mut service = Service::start("Ours");
    for _ in 0..3 {
        assert_eq!(ask_as_shellflip(&service), Ok(service.wait_until_ready()));
    }
}

#[test]
fn shellflips_client_is_told_why_a_pollflip_service_did_not_restart() {
    let mut service = Service::start("Ours");
    service.successors_fail(true);
    let why = ask_as_shellflip(&service).unwrap_err();
    assert!(why.contains("exited with status 3"), "{why}");

    // It serves on, and the next restart works.
    service.successors_fail(false);
    assert_eq!(ask_as_shellflip(&service), Ok(service.wait_until_ready()));
}

#[test]
fn pollflips_client_restarts_a_shellflip_service_again_and_again() {
    let mut service = Service::start("Shellflip");
    for _ in 0..3 {
        let pid = restart(&service).unwrap();
        assert_eq!(pid, service.wait_until_ready());
    }
}

#[test]
fn pollflips_configuration_restarts_a_shellflip_service() {
    let mut service = Service::start("Shellflip");
    let config = pollflip::RestartConfig::new().coordination_socket(service.socket());
    let pid = ask_as_pollflip(|| config.request_restart()).unwrap();
    assert_eq!(pid, service.wait_until_ready());
}

#[test]
fn pollflips_client_is_told_that_a_shellflip_service_did_not_restart() {
    let mut service = Service::start("Shellflip");
    service.successors_fail(true);
    match restart(&service) {
        Err(RequestError::Failed(why)) => assert!(why.contains("child failed to notify parent"), "{why}"),
        other => panic!("{other:?}"),
    }

    service.successors_fail(false);
    assert_eq!(restart(&service).unwrap(), service.wait_until_ready());
}
