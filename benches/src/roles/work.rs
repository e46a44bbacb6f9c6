//! What a service does beside restarting: it holds memory, and notices when it is held up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::memory::{PAGE, now, touched};

use super::{Failed, Occupation, Settings, say};

/// Shorter pauses are nothing.
const SHORT: u64 = 20_000;
/// A sixtieth of a second.
const FRAME: Duration = Duration::from_nanos(16_666_667);
/// So many places of the memory are written in a frame.
const WRITES_A_FRAME: usize = 2000;

/// A time in which a thread did not get on. In nanoseconds on the clock that all processes share.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Gap {
    pub begun: u64,
    pub lasted: u64,
}

/// The memory, and the thread that writes to it if there is to be one.
pub struct Work {
    memory: Vec<u8>,
    writer: Option<(Arc<AtomicBool>, JoinHandle<Vec<Gap>>)>,
}

impl Work {
    /// A successor does not touch anything: what is measured is the one that does.
    pub fn begin(settings: &Settings, successor: bool) -> Work {
        let mut memory = touched(if successor { 0 } else { settings.memory });
        let mut writer = None;
        if settings.occupation == Occupation::Writes && !successor {
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = stop.clone();
            let memory = std::mem::take(&mut memory);
            writer = Some((stop, thread::spawn(move || keep_writing(memory, &stopped))));
        }
        if !successor {
            say("warm", "");
        }
        Work { memory, writer }
    }

    /// Frames until the restart is over and a second more. `tick` is called once a frame and says whether it is over.
    pub fn run_frames(&mut self, mut tick: impl FnMut() -> bool) -> Result<(), Failed> {
        let mut places = Places::default();
        let mut starts = Vec::new();
        let mut left = None;
        let mut next = Instant::now();
        while left != Some(0) {
            starts.push(now());
            for _ in 0..WRITES_A_FRAME {
                places.write(&mut self.memory);
            }
            if left.is_none() && tick() {
                left = Some(60);
            }
            left = left.map(|left| left - 1);
            // A frame that is late is not made up for.
            next = (next + FRAME).max(Instant::now());
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let from = starts.len().saturating_sub(600);
        say("frames", &serde_json::to_string(&starts[from..])?);
        Ok(())
    }

    pub fn end(self) -> Result<(), Failed> {
        if let Some((stop, writer)) = self.writer {
            // What comes after the answer counts as well: pages are copied then.
            thread::sleep(Duration::from_millis(100));
            stop.store(true, Ordering::Relaxed);
            let gaps = writer.join().map_err(|_| "the writer panicked")?;
            say("gaps", &serde_json::to_string(&gaps)?);
        }
        Ok(())
    }
}

fn keep_writing(mut memory: Vec<u8>, stop: &AtomicBool) -> Vec<Gap> {
    let mut places = Places::default();
    let mut gaps = Vec::new();
    let mut last = now();
    while !stop.load(Ordering::Relaxed) {
        places.write(&mut memory);
        let time = now();
        if time - last > SHORT {
            gaps.push(Gap { begun: last, lasted: time - last });
        }
        last = time;
    }
    gaps
}

/// Places in no order, the same in each run.
#[derive(Default)]
struct Places(u64);

impl Places {
    fn write(&mut self, memory: &mut [u8]) {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let pages = memory.len() / PAGE;
        let place = (self.0 >> 33) as usize % pages.max(1) * PAGE;
        if let Some(byte) = memory.get_mut(place) {
            *byte = byte.wrapping_add(1);
        }
    }
}
