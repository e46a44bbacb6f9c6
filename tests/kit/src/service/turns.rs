//! How long the loop was away from its poll at most: the time on the clock without that in which the scheduler had others run.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

pub(super) struct Turns {
    statistics: Option<File>,
    began: (Instant, Duration),
    longest: Duration,
}

impl Turns {
    pub(super) fn new() -> Turns {
        let statistics = File::open("/proc/self/schedstat").ok();
        let mut turns = Turns { statistics, began: (Instant::now(), Duration::ZERO), longest: Duration::ZERO };
        turns.begin();
        turns
    }

    pub(super) fn begin(&mut self) {
        self.began = (Instant::now(), self.waited_for_processor());
    }

    pub(super) fn end(&mut self) {
        let waited = self.waited_for_processor().saturating_sub(self.began.1);
        self.longest = self.longest.max(self.began.0.elapsed().saturating_sub(waited));
    }

    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    fn waited_for_processor(&self) -> Duration {
        let mut text = [0; 128];
        let length = self.statistics.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..length]);
        Duration::from_nanos(text.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0))
    }
}
