//! Kernels that wipe nothing in a forked child: one that says so, and one that does not.

use std::fs;
use std::process::Command;
use std::ptr;

use nix::libc;
use pollflip::RestartConfig;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::child::{BOTH, Fork, claim, ends, fork, in_child};
use crate::numbers::is_root;
use crate::shutdown::Parent;

cases![
    the_kernel_wipes,
    a_kernel_that_does_not_wipe_and_says_so,
    a_kernel_that_says_yes_to_everything,
    a_kernel_that_does_not_wipe_and_a_process_id_that_two_have,
];

/// Whether the kernel can wipe a page; says aloud if not.
#[allow(unsafe_code, reason = "neither std nor nix offer it")]
pub(crate) fn can_wipe() -> bool {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping touches nothing that exists, and the advice is about that alone.
    let can = unsafe {
        let page = libc::mmap(ptr::null_mut(), 1, access, kind, -1, 0);
        let can = libc::madvise(page, 1, libc::MADV_WIPEONFORK) == 0 && libc::madvise(page, 1, -1) != 0;
        libc::munmap(page, 1);
        can
    };
    if !can {
        println!("skipped: the kernel does not wipe");
    }
    can
}

/// Whether this process has a page that the kernel wipes.
fn wipes() -> bool {
    let maps = fs::read_to_string("/proc/self/smaps").expect("/proc");
    maps.lines().filter_map(|line| line.strip_prefix("VmFlags:")).any(|flags| flags.split(' ').any(|flag| flag == "wf"))
}

/// From now on the kernel answers so when this process gives it advice about memory. `false`: this machine has no filters.
fn advice_is_answered_with(error: i32) -> bool {
    let Ok(machine) = TargetArch::try_from(std::env::consts::ARCH) else {
        println!("skipped: this machine has no system call filters");
        return false;
    };
    let rules = [(libc::SYS_madvise, Vec::new())].into_iter().collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(error as u32), machine).expect("a filter");
    apply_filter(&BpfProgram::try_from(filter).expect("a program")).expect("a filter of this process");
    true
}

/// Where the kernel can, it does: the other tests of copies would not tell.
fn the_kernel_wipes() {
    if !can_wipe() {
        return;
    }
    let parent = Parent::new();
    assert!(wipes());
    parent.goes_on();
}

fn copies_are_told_apart() {
    let mut parent = Parent::new();
    let mut restarter = Some(RestartConfig::new().build().expect("a restarter"));
    assert!(!wipes());
    for how in BOTH {
        in_child(how, || {
            drop(restarter.take());
            parent.is_dropped()?;
            let mut child = Parent::new();
            for again in BOTH {
                let grandchild = fork(again, || parent.is_dropped().and_then(|()| child.is_dropped()));
                ends(grandchild.map_err(|_| "a grandchild")?);
            }
            child.goes_on();
            let mut own = RestartConfig::new().build().map_err(|_| "a restarter of its own")?;
            own.ready().map_err(|_| "that it serves")
        });
    }
    // It shares the memory of its parent until it is executed.
    assert!(Command::new("true").status().expect("a program").success());
    parent.goes_on();
    restarter.expect("the parent's own").ready().expect("the service");
}

fn a_kernel_that_does_not_wipe_and_says_so() {
    if advice_is_answered_with(libc::EINVAL) {
        copies_are_told_apart();
    }
}

/// Old versions of qemu do.
fn a_kernel_that_says_yes_to_everything() {
    if advice_is_answered_with(0) {
        copies_are_told_apart();
    }
}

/// The C library tells of its forks.
fn a_kernel_that_does_not_wipe_and_a_process_id_that_two_have() {
    if !is_root("a process id that two have") || !advice_is_answered_with(libc::EINVAL) {
        return;
    }
    let outer = fork(Fork::KernelIntoNamespace, || {
        let mut parent = Parent::new();
        in_child(Fork::LibraryIntoNamespace, || {
            claim(std::process::id() == 1, "a first process again")?;
            parent.is_dropped()
        });
        parent.goes_on();
        claim(std::process::id() == 1 && !wipes(), "a first process")
    });
    match outer {
        Ok(child) => ends(child),
        Err(error) => println!("skipped: no namespace can be had: {error}"),
    }
}
