//! A successor that is no good: it fails when it has everything, or touches a connection before it may.

use crate::protocol::Update;
use crate::world::World;
use pollflip::Restarter;
use std::io::{self, Read, Write};
use std::path::Path;
use std::{fs, process};

/// Does what the file says, if it is there and this process is a successor.
pub(crate) fn fail_if_told(file: &Path, restarter: &Restarter, world: &World) -> io::Result<()> {
    let Some(predecessor) = restarter.predecessor() else { return Ok(()) };
    let Ok(how) = fs::read_to_string(file) else { return Ok(()) };
    fs::remove_file(file)?;
    let mut streams = world.players.iter().map(|(_, player)| player.stream());
    match how.as_str() {
        "refuse" => {
            predecessor.refuse("this version was told to fail");
            return Err(io::Error::other("this version was told to fail"));
        }
        "read" => while !world.players.iter().any(|(_, player)| player.stream().read(&mut [0; 16]).is_ok()) {},
        "write" => streams.try_for_each(|mut stream| stream.write_all(&[0; Update::LENGTH]))?,
        _ => process::exit(3),
    }
    Ok(())
}
