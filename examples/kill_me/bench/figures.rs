//! What the clients' answers tell of the kills. All times are in milliseconds.

use std::time::Instant;

/// A server that was killed, and the one that came after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    pub(crate) at: Instant,
    /// When the next one executed its first instruction, and when it served.
    pub(crate) next_began: Instant,
    pub(crate) next_served: Instant,
}

/// A message: when it was sent, and when the whole answer had come.
pub(crate) type Answer = (Instant, Instant);

/// How long clients waited for answers that a kill has held up, in rising order: from the kill, or
/// from when the client sent, if that was while the server was dead.
pub(crate) fn pauses(deaths: &[Death], answers: &[Answer]) -> Vec<f64> {
    let mut pauses = Vec::new();
    for death in deaths {
        let held_up = answers.iter().filter(|(sent, answered)| *sent <= death.next_served && *answered >= death.at);
        pauses.extend(held_up.map(|(sent, answered)| milliseconds(*sent.max(&death.at), *answered)));
    }
    sorted(pauses)
}

/// From each kill to the first answer of the next server, in rising order.
pub(crate) fn first_answers(deaths: &[Death], answers: &[Answer]) -> Vec<f64> {
    let first = |death: &Death| answers.iter().map(|(_, answered)| *answered).filter(|answered| *answered >= death.next_began).min();
    sorted(deaths.iter().filter_map(|death| Some(milliseconds(death.at, first(death)?))).collect())
}

/// How long each server took from its first instruction until it served, in rising order.
pub(crate) fn recoveries(deaths: &[Death]) -> Vec<f64> {
    sorted(deaths.iter().map(|death| milliseconds(death.next_began, death.next_served)).collect())
}

/// The figure below which so many of a hundred are; 0 of none.
pub(crate) fn percentile(sorted: &[f64], part: usize) -> f64 {
    sorted.get((sorted.len() * part / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.duration_since(from).as_secs_f64() * 1e3
}

fn sorted(mut times: Vec<f64>) -> Vec<f64> {
    times.sort_by(f64::total_cmp);
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// One death at 100 ms; the next server begins at 110 ms and serves at 120 ms.
    fn death(at: impl Fn(u64) -> Instant) -> [Death; 1] {
        [Death { at: at(100), next_began: at(110), next_served: at(120) }]
    }

    #[test]
    fn only_answers_that_a_kill_has_held_up_count() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let answers = [(at(50), at(60)), (at(90), at(130)), (at(110), at(125)), (at(121), at(122))];
        assert_eq!(pauses(&death(at), &answers), [15.0, 30.0]);
    }

    #[test]
    fn what_a_dead_server_has_sent_is_not_the_first_answer() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let answers = [(at(90), at(101)), (at(91), at(117)), (at(92), at(116))];
        assert_eq!(first_answers(&death(at), &answers), [16.0]);
        assert_eq!(recoveries(&death(at)), [10.0]);
        assert_eq!(first_answers(&death(at), &answers[..1]), [0.0; 0]);
    }

    #[test]
    fn a_percentile_is_one_of_the_figures() {
        assert_eq!([0, 50, 100].map(|part| percentile(&[1.0, 2.0, 3.0], part)), [1.0, 2.0, 3.0]);
        assert_eq!(percentile(&[], 50), 0.0);
    }
}
