//! What the kernel has more for a UDP group of eight, or for eight plain UDP sockets: so many of them are made that the rest of the machine does not count.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};

use pollflip::{Mark, RestartConfig};

use super::{Failed, Settings, Udp, say};

const EIGHT: u8 = 8;

/// As many as `listeners` says. Says the bytes of each.
pub fn measure(settings: &Settings) -> Result<(), Failed> {
    let count = settings.listeners;
    let mut restarter = RestartConfig::new().build()?;
    restarter.ready()?;
    let sockets = restarter.sockets();
    let (mut plain, mut groups) = (Vec::with_capacity(count * usize::from(EIGHT)), Vec::with_capacity(count));
    let before = kernel_memory()?;
    for number in 0..count {
        match settings.udp {
            Udp::Group => groups.push(sockets.udp_group(
                &format!("group {number}"),
                (Ipv4Addr::LOCALHOST, 0),
                Mark::byte(0, 0x0f).generations(EIGHT),
            )?),
            _ => {
                for _ in 0..EIGHT {
                    plain.push(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
                }
            }
        }
    }
    let more = kernel_memory()? - before;
    say("memory", &(more / count as f64).to_string());
    Ok(())
}

/// What holds sockets and programs: small objects, what is mapped page by page, and what each processor has of its own.
fn kernel_memory() -> Result<f64, Failed> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let field = |name: &str| -> Result<f64, Failed> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("/proc/meminfo has no {name}"))?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse::<f64>()? * 1024.0)
    };
    Ok(field("Slab:")? + field("VmallocUsed:")? + field("Percpu:")?)
}
