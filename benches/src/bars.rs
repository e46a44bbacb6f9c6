//! What the figures have to be.

use crate::plan::Peer::{self, Limit, Ours, Shellflip};
use crate::report::Report;

/// Each bar, and whether it holds; those that this run has not measured are left out.
pub fn judge(report: &Report) -> Vec<String> {
    let get = |key: &str, peer: Peer| report.row(key)?.get(peer);
    let ratio = |over: (&str, Peer), under: (&str, Peer)| {
        let (over, under) = (get(over.0, over.1)?, get(under.0, under.1)?);
        (under > 0.0).then_some(over / under)
    };
    let more = |over: (&str, Peer), under: (&str, Peer)| Some((get(over.0, over.1)? - get(under.0, under.1)?) * 1e3);
    let pause = |key: &str| get(key, Ours).map(|seconds| seconds * 1e3);
    let (latency, stall, state) = ("latency 8", "stall 8", "state mapped 1073741824");
    let bars = [
        ("a restart at 8 GiB, times as fast as shellflip's", ratio((latency, Shellflip), (latency, Ours)), AtLeast(100.0)),
        ("a restart at 8 GiB, to our own at 0", ratio((latency, Ours), ("latency 0", Ours)), AtMost(1.2)),
        ("a restart at 0 GiB, to the limit", ratio(("latency 0", Ours), ("latency 0", Limit)), AtMost(1.5)),
        ("a restart at 8 GiB, to the limit", ratio((latency, Ours), (latency, Limit)), AtMost(1.5)),
        ("the longest stall at 8 GiB, to that at 0", ratio((stall, Ours), ("stall 0", Ours)), AtMost(2.0)),
        ("1 GiB of state, times as fast as shellflip's", ratio((state, Shellflip), (state, Ours)), AtLeast(3.0)),
        ("the pause at 10,000 connections, state written, in ms", pause("pause written 10000"), AtMost(2.0)),
        ("the pause at 10,000 connections, state in a shared file, in ms", pause("pause shared 10000"), AtMost(1.0)),
        ("the pause at 19,000 connections, state written, in ms", pause("pause written 19000"), AtMost(3.0)),
        ("the pause at 19,000 connections, state in a shared file, in ms", pause("pause shared 19000"), AtMost(1.0)),
        ("the pause that each connection adds, state written, in µs", pause("pause slope written").map(|each| each * 1e3), AtMost(0.15)),
        (
            "the pause that each connection adds, state in a shared file, in µs",
            pause("pause slope shared").map(|each| each * 1e3),
            AtMost(0.05),
        ),
        ("an inherited listener, to a bare descriptor passed", ratio(("listener each", Ours), ("listener each", Limit)), AtMost(2.0)),
        ("one of 10,000 connections, to the bare calls", ratio(("connection of 10000", Ours), ("connection of 10000", Limit)), AtMost(2.5)),
        ("a restart under a guard, to one without", ratio(("guard restart", Ours), ("guard restart", Limit)), AtMost(1.1)),
        ("a datagram to a UDP group, with a mark, to a plain socket", ratio(("udp marked", Ours), ("udp marked", Limit)), AtMost(1.1)),
        ("a datagram to a UDP group, without one, to a plain socket", ratio(("udp unmarked", Ours), ("udp unmarked", Limit)), AtMost(1.1)),
        ("a grant with a UDP group, more than without, in ms", more(("udp grant", Ours), ("udp grant", Limit)), AtMost(0.3)),
        ("kernel memory of a UDP group of eight, in KiB", get("udp memory", Ours).map(|bytes| bytes / 1024.0), AtMost(32.0)),
        ("a packet that a full relay refuses, in µs", get("udp refused", Ours).map(|seconds| seconds * 1e6), AtMost(1.0)),
        ("crates in the normal tree", get("cost crates", Ours), AtMost(28.0)),
        ("a cold build, to shellflip's", ratio(("cost build", Ours), ("cost build", Shellflip)), AtMost(0.5)),
        ("bytes added, to shellflip's", ratio(("cost bytes", Ours), ("cost bytes", Shellflip)), AtMost(0.5)),
        ("failed requests under keep-alive load", get("load failed", Ours), AtMost(0.0)),
    ];
    let line = |(what, value, bar): (&str, Option<f64>, Bar)| {
        let value = value?;
        let (held, bar) = match bar {
            AtLeast(bar) => (value >= bar, format!("at least {bar}")),
            AtMost(bar) => (value <= bar, format!("at most {bar}")),
        };
        Some(format!("{}: {what}: {value:.2} ({bar})", if held { "held" } else { "NOT HELD" }))
    };
    bars.into_iter().filter_map(line).collect()
}

use Bar::{AtLeast, AtMost};

enum Bar {
    AtLeast(f64),
    AtMost(f64),
}
