//! Something to keep busy with: balls in a box.

use std::io::{self, Write};
use std::time::Duration;

const BALLS: usize = 10_000;

/// Place and speed, in two dimensions each.
type Ball = [f32; 4];

pub(crate) struct World {
    balls: Vec<Ball>,
}

impl World {
    pub(crate) fn new() -> World {
        let ball = |number: usize| {
            let angle = number as f32;
            [angle.sin().abs(), angle.cos().abs(), (3.0 * angle).sin(), (5.0 * angle).cos()]
        };
        World { balls: (0..BALLS).map(ball).collect() }
    }

    pub(crate) fn step(&mut self, time: Duration) {
        let time = time.as_secs_f32();
        for [x, y, right, up] in &mut self.balls {
            for (place, speed) in [(x, right), (y, up)] {
                *place += *speed * time;
                if !(0.0..=1.0).contains(place) {
                    *speed = -*speed;
                    *place = place.clamp(0.0, 1.0);
                }
            }
        }
    }

    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let bytes: Vec<u8> = self.balls.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
        to.write_all(&bytes)
    }

    pub(crate) fn read(bytes: &[u8]) -> io::Result<World> {
        let (balls, rest) = bytes.as_chunks::<16>();
        if balls.len() != BALLS || !rest.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "that is no world"));
        }
        let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Ok(World { balls: balls.iter().map(|ball| std::array::from_fn(|index| number(&ball[4 * index..]))).collect() })
    }
}
