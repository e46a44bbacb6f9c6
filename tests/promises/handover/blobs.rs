//! Blobs and memory files: sealed or not, mapped or not, and what comes of those that cannot be written.

use crate::giving::Give;
use crate::player::Player;
use crate::service::{Hold, Limit, Thing};
use crate::taking::Take;
use pollflip_kit::harness::Setup;
use pollflip_kit::procfs::Snapshot;

pollflip_kit::trials![
    a_blob_is_sealed_and_arrives_whole,
    an_empty_blob_arrives,
    a_memory_file_of_the_programs_own_is_not_mapped_and_stays_takeable,
    a_blob_beyond_the_file_size_limit_fails_the_attempt_and_kills_nobody,
    bytes_beyond_the_file_size_limit_fail_the_attempt_and_kill_nobody,
    a_blob_for_which_there_is_no_room_fails_the_attempt,
];

fn a_blob_is_sealed_and_arrives_whole() {
    let service = Setup::new().set(Give::Blob(10_000_001)).set(Take::Blob).start();
    let new = service.restart();
    assert_eq!(new.says("sealed"), "Err(PermissionDenied) Err(PermissionDenied)");
    assert_eq!(new.says("size"), "10000001");
}

fn an_empty_blob_arrives() {
    let service = Setup::new().set(Give::Blob(0)).set(Take::Blob).start();
    let new = service.restart();
    assert_eq!(new.says("size"), "0");
}

fn a_memory_file_of_the_programs_own_is_not_mapped_and_stays_takeable() {
    let service = Setup::new().set(Hold(vec![Thing::Memfd])).set(Take::Memfd).start();
    let new = service.restart();
    let why = new.says("map");
    assert!(why.contains("it is no memory file sealed against shrinking and writing"), "{why}");
    assert_eq!(new.says("bytes"), "word");
    assert_eq!(new.says("mapped"), r#"[["memfd",[]]]"#);
}

fn beyond_the_file_size_limit(give: Give) {
    let service = Setup::new().set(give).set(Limit::FileSize(65536)).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let before = Snapshot::of(old.pid);
    service.fail_to_restart();
    let why = service.fail_to_restart();
    assert!(why.starts_with("the handover failed: ") && why.contains("(65536 bytes, RLIMIT_FSIZE)"), "{why}");
    assert_eq!(player.echo("alive"), old.pid);
    service.expect_unchanged(&old, &before);
}

fn a_blob_beyond_the_file_size_limit_fails_the_attempt_and_kills_nobody() {
    beyond_the_file_size_limit(Give::BrokenBlob);
}

fn bytes_beyond_the_file_size_limit_fail_the_attempt_and_kill_nobody() {
    beyond_the_file_size_limit(Give::BrokenBytes);
}

/// As on a full tmpfs, which memory files cannot be put on: the kernel is told to say so.
fn a_blob_for_which_there_is_no_room_fails_the_attempt() {
    let service = Setup::new().set(Give::BlobWithoutRoom).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let before = Snapshot::of(old.pid);
    service.fail_to_restart();
    let why = service.fail_to_restart();
    assert_eq!(why, "the handover failed: a blob could not be written: No space left on device (os error 28)");
    assert_eq!(player.echo("alive"), old.pid);
    service.expect_unchanged(&old, &before);
}
