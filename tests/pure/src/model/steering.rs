//! What must hold of marks and the program that reads them, for any bytes: the body of the fuzz target `steering`.

use pollflip::Mark;
use pollflip::internals::steering::{Instruction, Layout, Steering, layout, owner, program};

/// The first bytes are a mark, who is alive and who serves; the rest is a datagram. Hands back the layout, if the mark makes sense.
pub fn steering(data: &[u8]) -> Option<Layout> {
    let ([kind, one, two, three, generations, serving, live @ ..], datagram) = data.split_first_chunk::<10>()?;
    let mark = match kind % 2 {
        0 => Mark::byte(u16::from_le_bytes([*one, *two]), *three),
        _ => Mark::quic(*one),
    };
    let mark = if *generations == 0 { mark } else { mark.generations(*generations) };
    let layout = layout(mark).inspect_err(|why| assert!(!why.is_empty(), "what is wrong is said")).ok()?;
    assert_eq!(Layout::parse(&layout.to_string()), Some(layout), "what is written is read again");
    let steering = Steering { live: u32::from_le_bytes(*live), serving: serving % layout.generations() };
    decides(layout, steering, datagram);
    for slot in 0..layout.generations() {
        decides(layout, steering, &marked(layout, slot, datagram));
    }
    Some(layout)
}

fn decides(layout: Layout, steering: Steering, datagram: &[u8]) {
    let decided = owner(layout, steering, datagram);
    assert_eq!(run(&program(layout, steering), datagram), Some(decided.into()), "{layout:?} {steering:?} {datagram:?}");
    match layout.marked(datagram) {
        Some(slot) if steering.live >> slot & 1 == 1 => assert_eq!(decided, slot, "a living owner gets its own"),
        Some(_) | None => assert_eq!(decided, steering.serving, "the rest is for the one that serves"),
    }
    assert!(decided < layout.generations(), "there is such a socket");
}

/// The same datagram with a mark in it, if it is long enough to bear one.
pub fn marked(layout: Layout, slot: u8, datagram: &[u8]) -> Vec<u8> {
    let mut marked = datagram.to_vec();
    let text = layout.to_string();
    let numbers: Vec<usize> = text.split([':', '/']).filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [offset, bits, _] => {
            if let Some(byte) = marked.get_mut(offset) {
                *byte = *byte & !(bits as u8) | layout.mark(slot);
            }
        }
        [length, _] => {
            let at = if marked.first().is_some_and(|first| *first >= 0x80) { 6 } else { 1 };
            if let (6, Some(claimed)) = (at, marked.get_mut(5)) {
                *claimed = length as u8;
            }
            if let Some(cid) = marked.get_mut(at..at + length) {
                assert!(layout.stamp(slot, cid));
            }
        }
        _ => panic!("{text}"),
    }
    if marked.len() > datagram.len() || layout.marked(&marked).is_some() {
        assert_eq!(layout.marked(&marked), Some(slot), "a mark is found again");
    }
    marked
}

/// Classic BPF as its description has it, where a load beyond the end ends the program with 0. `None`: the program is none.
pub fn run(program: &[Instruction], datagram: &[u8]) -> Option<u32> {
    let (mut a, mut x, mut at) = (0_u32, 0_u32, 0_usize);
    loop {
        let Instruction { code, then, otherwise, k } = *program.get(at)?;
        at += 1;
        let operand = if code & 0x08 != 0 { x } else { k };
        match code & 0x07 {
            // Loads: of a number, of the length, of one byte.
            0x00 => match code {
                0x00 => a = k,
                0x80 => a = datagram.len() as u32,
                0x30 => match datagram.get(k as usize) {
                    Some(byte) => a = (*byte).into(),
                    None => return Some(0),
                },
                _ => return None,
            },
            0x04 => {
                a = match code & 0xf0 {
                    0x00 => a.wrapping_add(operand),
                    0x10 => a.wrapping_sub(operand),
                    0x40 => a | operand,
                    0x50 => a & operand,
                    0x60 => a.checked_shl(operand)?,
                    0x70 => a.checked_shr(operand)?,
                    0xa0 => a ^ operand,
                    _ => return None,
                }
            }
            0x05 => {
                let holds = match code & 0xf0 {
                    0x00 => {
                        at = at.checked_add(k as usize)?;
                        continue;
                    }
                    0x10 => a == operand,
                    0x20 => a > operand,
                    0x30 => a >= operand,
                    0x40 => a & operand != 0,
                    _ => return None,
                };
                at += usize::from(if holds { then } else { otherwise });
            }
            0x06 => return Some(if code & 0x18 == 0x10 { a } else { k }),
            0x07 => match code & 0xf8 {
                0x00 => x = a,
                0x80 => a = x,
                _ => return None,
            },
            _ => return None,
        }
    }
}
