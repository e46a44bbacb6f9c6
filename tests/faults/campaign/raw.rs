//! A successor that reads the first message by hand and goes no further.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};

use crate::strike;
use pollflip_kit::service::report::say;

/// Reads `Hello`, and waits for whatever strikes it.
pub fn hears_hello() -> ! {
    let line = strike::lifeline(strike::Line::Up);
    let mut bytes = [0; 4096];
    loop {
        match recv(line, &mut bytes, MsgFlags::empty()) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&bytes[..length]);
                assert!(text.contains("\"hello\""), "{text}");
                break;
            }
            // The inherited end does not block.
            Err(_) => drop(poll(&mut [PollFd::new(strike::borrow(line), PollFlags::POLLIN)], PollTimeout::NONE)),
        }
    }
    say("hello");
    loop {
        std::thread::park();
    }
}
