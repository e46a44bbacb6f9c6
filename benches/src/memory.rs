//! Memory that is touched, and whether there is enough of it; the clock that all processes share.

use nix::time::{ClockId, clock_gettime};

use crate::plan::Plan;
use crate::proc::memory_available;
use crate::report::Report;

pub const PAGE: usize = 4096;
pub const GIB: usize = 1 << 30;
/// What is left to the machine.
const SPARE: u64 = 1 << 30;

/// So many bytes, each page of them written; at least a few.
pub fn touched(size: usize) -> Vec<u8> {
    let mut memory = vec![0; size.max(256 * PAGE)];
    memory.chunks_mut(PAGE).for_each(|page| page[0] = 1);
    memory
}

/// State to hand over: so many bytes exactly.
pub fn state(size: usize) -> Vec<u8> {
    vec![1; size]
}

/// Looks at each page.
pub fn see_all(memory: &[u8]) -> u64 {
    memory.chunks(PAGE).map(|page| u64::from(page[0])).sum()
}

/// Nanoseconds since the machine was started.
pub fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// The sizes to measure at, in GiB. What the machine has no memory for is left out, and said.
pub fn sizes(plan: &Plan, report: &mut Report, what: &str) -> Vec<usize> {
    let wanted: &[usize] = plan.choose(&[0, 1], &[0, 1, 4, 8]);
    let (fits, large): (Vec<usize>, Vec<usize>) = wanted.iter().partition(|gib| fits(**gib));
    for gib in large {
        report.note(format!("{what} at {gib} GiB is left out: this machine has too little memory for it"));
    }
    fits
}

/// Whether a process with so many GiB can be had.
pub fn fits(gib: usize) -> bool {
    (gib * GIB) as u64 + SPARE <= memory_available()
}
