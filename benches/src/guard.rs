//! A restart under a guard, beside one without.

use crate::plan::{Peer, Plan};
use crate::report::{Report, Row, Unit};
use crate::roles::Settings;
use crate::service::Service;
use crate::stats::median;

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let mut alone = Service::start(Peer::Ours, Settings::default())?;
    let mut under = Service::start(Peer::Ours, Settings { guarded: true, ..Settings::default() })?;
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..plan.choose(50, 200) {
        for (service, samples) in [&mut alone, &mut under].into_iter().zip(&mut samples) {
            samples.push(service.restart()?);
        }
    }
    let [without, with] = samples.map(|samples| median(&samples));
    let row = Row::new("guard restart", "a restart under a guard (limit: without one)", Unit::Seconds);
    report.add(row.with(Peer::Limit, without).with(Peer::Ours, with));
    Ok(())
}
