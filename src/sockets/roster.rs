//! What the next start has to know of a UDP group when no process is left that could tell it: a line for each fact, in a memory file.
//!
//! Knows: how that is written and read. Does not know: who holds the file, or whether a process that is named in it lives.
//!
//! A process that serves writes it, whenever it has told the kernel who reads what: when it is granted the service, when the service comes back
//! to it, and when an earlier generation has ended. It is written in one piece, so a kill leaves the one or the other whole.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::steering::{Layout, MOST};

/// The first line: what it is.
const HEADING: &str = "pollflip UDP group 1";
/// So long it is, and the rest is filled with line ends. It is less than a page of memory.
const LENGTH: usize = 2048;

/// Who reads which slot, and which one gets what is unmarked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Roster {
    pub(super) layout: Layout,
    /// The slot of the process that serves.
    pub(super) serving: u8,
    /// One for each slot.
    pub(super) readers: Vec<Option<Reader>>,
}

/// A process that reads a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reader {
    pub(super) pid: u32,
    /// When it was born: `None` where that could not be seen. Its number can be another process's later.
    pub(super) born: Option<u64>,
}

impl Roster {
    pub(super) fn write_to(&self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.to_bytes(), 0)
    }

    /// An error says what is wrong with it.
    pub(super) fn read_from(file: &File) -> Result<Roster, String> {
        let mut bytes = [0; LENGTH];
        file.read_exact_at(&mut bytes, 0).map_err(|error| format!("its memory file cannot be read: {error}"))?;
        Roster::parse(&bytes).ok_or_else(|| "its memory file has something else in it than this version writes".into())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{HEADING}\nmark {}\nserves {}\n", self.layout, self.serving);
        for (slot, reader) in (0..MOST).zip(&self.readers) {
            let Some(Reader { pid, born }) = reader else { continue };
            // A text takes what it is given.
            let _ = writeln!(text, "reads {slot} {pid} {}", born.map_or("-".into(), |born| born.to_string()));
        }
        let mut bytes = text.into_bytes();
        bytes.resize(LENGTH, b'\n');
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Roster> {
        let mut lines = std::str::from_utf8(bytes).ok()?.trim_end_matches('\n').split('\n');
        if lines.next()? != HEADING {
            return None;
        }
        let layout = Layout::parse(lines.next()?.strip_prefix("mark ")?)?;
        let serving = lines.next()?.strip_prefix("serves ")?.parse().ok().filter(|slot| *slot < layout.generations())?;
        let mut readers = vec![None; layout.generations().into()];
        for line in lines {
            let mut words = line.strip_prefix("reads ")?.split(' ');
            let (slot, pid, born) = (words.next()?, words.next()?, words.next()?);
            let born = if born == "-" { None } else { Some(born.parse().ok()?) };
            let pid = pid.parse().ok().filter(|pid| *pid != 0)?;
            let reader @ None = readers.get_mut(slot.parse::<usize>().ok()?)? else { return None };
            *reader = Some(Reader { pid, born });
            if words.next().is_some() {
                return None;
            }
        }
        Some(Roster { layout, serving, readers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::{Mark, layout};
    use crate::sys;

    fn roster(mark: Mark, readers: impl IntoIterator<Item = (usize, Reader)>) -> Roster {
        let layout = layout(mark).expect("a mark");
        let mut all = vec![None; layout.generations().into()];
        readers.into_iter().for_each(|(slot, reader)| all[slot] = Some(reader));
        Roster { layout, serving: layout.generations() - 1, readers: all }
    }

    #[test]
    fn it_is_read_as_it_was_written_and_written_over() {
        let most = Reader { pid: u32::MAX, born: Some(u64::MAX) };
        let file = sys::memory_file().expect("memory");
        for written in [
            roster(Mark::byte(65_506, 0xff).generations(32), (0..32).map(|slot| (slot, most))),
            roster(Mark::quic(20), [(0, Reader { pid: 7, born: None }), (5, most)]),
            roster(Mark::byte(0, 0x03).generations(2), []),
        ] {
            written.write_to(&file).expect("room");
            assert_eq!(Roster::read_from(&file), Ok(written));
            assert_eq!(file.metadata().expect("a file").len(), LENGTH as u64);
        }
    }

    #[test]
    fn what_is_none_is_said_to_be_none() {
        let empty = sys::memory_file().expect("memory");
        assert!(Roster::read_from(&empty).is_err_and(|why| why.contains("cannot be read")));
        let heading = format!("{HEADING}\nmark byte:0:240/8\nserves 7\n");
        assert!(Roster::parse(heading.as_bytes()).is_some());
        for wrong in [
            "",
            "\n\n\n",
            "pollflip UDP group 2\nmark byte:0:240/8\nserves 7\n",
            &heading.replace("byte:0:240/8", "byte:0:240/16"),
            &heading.replace("serves 7", "serves 8"),
            &heading.replace("serves 7", "serves"),
            &format!("{heading}reads 8 1 -"),
            &format!("{heading}reads 1 0 -"),
            &format!("{heading}reads 1 4294967296 -"),
            &format!("{heading}reads 1 1 -1"),
            &format!("{heading}reads 1 1"),
            &format!("{heading}reads 1 1 1 1"),
            &format!("{heading}reads 1 1 -\nreads 1 2 -"),
            &format!("{heading}writes 1 1 -"),
        ] {
            assert_eq!(Roster::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Roster::parse(&[0xff; LENGTH]), None);
    }
}
