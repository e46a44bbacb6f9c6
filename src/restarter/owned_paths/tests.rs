use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixStream;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use temp_dir::TempDir;

use super::*;

/// No process of this system.
const PREDECESSOR: u32 = 1 << 30;
const STRANGER: u32 = PREDECESSOR + 1;

fn directory() -> TempDir {
    TempDir::new().expect("a directory")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("a file")
}

/// A process that keeps no file, and whose predecessor had this one with that number in it.
fn after(path: &Path, pid: u32) -> OwnedPaths {
    fs::write(path, format!("{pid}\n")).expect("a file");
    OwnedPaths::new(None, Some(path), None)
}

#[test]
fn the_pid_file_names_whoever_serves_and_goes_with_the_last_one() {
    let directory = directory();
    let path = directory.path().join("pid");
    let mut paths = OwnedPaths::new(Some(&path), None, None);
    assert_eq!(paths.pid_file(), path.to_str());
    assert!(!path.exists(), "the service is not this process's yet");
    paths.take(None);
    assert_eq!(text(&path), format!("{}\n", process::id()));
    paths.name(STRANGER);
    assert_eq!(text(&path), format!("{STRANGER}\n"));
    paths.remove();
    assert!(path.exists(), "it names another process");
    paths.take(None);
    paths.remove();
    assert!(!path.exists());
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0, "nothing is left beside it");
}

#[test]
fn what_is_no_file_is_left_alone_and_no_path_is_no_file() {
    let directory = directory();
    let path = directory.path().join("pid");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
    let mut paths = OwnedPaths::new(Some(&path), None, None);
    paths.take(None);
    paths.remove();
    assert!(fs::symlink_metadata(&path).expect("a pipe").file_type().is_fifo());
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);

    let mut none = OwnedPaths::new(None, None, None);
    none.take(Some(PREDECESSOR));
    none.remove();
    assert_eq!(none.pid_file(), None);
    // It is handed down as text.
    assert_eq!(OwnedPaths::new(Some(&directory.path().join("a\nb")), None, None).pid_file(), None);
}

#[test]
fn the_file_of_the_predecessor_goes_if_it_names_one_of_the_two() {
    let directory = directory();
    let path = directory.path().join("old");
    for (pid, goes) in [(PREDECESSOR, true), (process::id(), true), (STRANGER, false)] {
        after(&path, pid).take(Some(PREDECESSOR));
        assert_eq!(path.exists(), !goes, "{pid}");
    }
    let mut paths = after(&path, PREDECESSOR);
    paths.take(None);
    assert!(path.exists(), "without a predecessor it is nobody's");
    paths.take(Some(PREDECESSOR));
    assert!(path.exists(), "it is looked at once");
    after(&path, PREDECESSOR);
    fs::hard_link(&path, directory.path().join("other")).expect("a link");
    after(&path, PREDECESSOR).take(Some(PREDECESSOR));
    assert!(path.exists(), "it has another name");
}

#[test]
fn the_file_of_the_predecessor_stays_if_it_is_the_own_one_by_whatever_name() {
    let directory = directory();
    let path = directory.path().join("pid");
    let mut same = OwnedPaths::new(Some(&path), Some(&path), None);
    same.take(Some(PREDECESSOR));
    assert_eq!(text(&path), format!("{}\n", process::id()));

    let link = directory.path().join("link");
    symlink(directory.path(), &link).expect("a link");
    let mut linked = OwnedPaths::new(Some(&path), Some(&link.join("pid")), None);
    linked.take(Some(PREDECESSOR));
    assert_eq!(text(&path), format!("{}\n", process::id()));

    let old = directory.path().join("old");
    fs::write(&old, format!("{PREDECESSOR}\n")).expect("a file");
    OwnedPaths::new(Some(&path), Some(&old), None).take(Some(PREDECESSOR));
    assert!(path.exists() && !old.exists());
}

#[test]
fn the_socket_of_the_predecessor_goes_when_the_service_is_taken_if_it_is_still_that_one() {
    let directory = directory();
    let path = directory.path().join("socket");
    let server = || Server::new(&path, 0).expect("a server");
    let mut paths = OwnedPaths::new(None, None, Some(server()));
    drop(UnixStream::connect(&path).expect("a server"));
    paths.take(Some(PREDECESSOR));
    assert!(!path.exists());

    let mut paths = OwnedPaths::new(None, None, Some(server()));
    fs::remove_file(&path).expect("a socket");
    fs::write(&path, "another's").expect("a file");
    paths.take(Some(PREDECESSOR));
    assert_eq!(text(&path), "another's");
}
