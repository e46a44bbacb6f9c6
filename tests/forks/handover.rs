//! Copies of what is on its way between two processes.

use std::io::{ErrorKind, Write};

use pollflip::{Arrival, Blob, Failure, Handover};

use crate::child::{BOTH, claim, in_child};

cases![
    a_child_gives_nothing_and_fails_nothing,
    a_child_gives_nothing_ahead,
    a_child_writes_nothing_into_a_blob,
    a_child_has_a_copy_of_what_has_come
];

/// What comes of a handover that a parent fills and sends, and of which children have a copy meanwhile.
fn rehearse(what_children_do: impl Fn(Handover) + Copy) -> Result<Vec<u8>, Failure> {
    let mut inheritance = Handover::rehearse(|handover| {
        let mut handover = Some(handover);
        for how in BOTH {
            in_child(how, || {
                what_children_do(handover.take().ok_or("a handover")?);
                Ok(())
            });
        }
        let mut handover = handover.expect("the parent's own");
        handover.bytes("state", b"the parent's").expect("room");
        handover.send();
    })?;
    Ok(inheritance.bytes("state").expect("a blob").expect("its name"))
}

fn a_child_gives_nothing_and_fails_nothing() {
    let expected = Ok(b"the parent's".to_vec());
    assert_eq!(rehearse(drop), expected);
    assert_eq!(rehearse(Handover::send), expected);
    assert_eq!(rehearse(|handover| handover.fail("not the child's to fail")), expected);
    let fills = |mut handover: Handover| {
        for number in 0..1000 {
            let error = handover.fd(&format!("{number}"), std::io::stdin()).expect_err("a copy");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
        let error = handover.fds((0..1000).map(|number| (number.to_string(), std::io::stdin()))).expect_err("a copy");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        handover.bytes("state", b"the child's").expect_err("a copy");
        handover.send();
    };
    assert_eq!(rehearse(fills), expected);
}

fn a_child_gives_nothing_ahead() {
    let (arrivals, mut inheritance) = Handover::rehearse_precopy(
        |precopy| {
            precopy.bytes("first", b"the parent's").expect("room");
            for how in BOTH {
                in_child(how, || {
                    let error = precopy.fd("second", std::io::stdin()).err().ok_or("an error")?;
                    claim(error.kind() == ErrorKind::Unsupported, "an error that says why")?;
                    claim(precopy.room() == 0, "no room")?;
                    precopy.gone("first");
                    precopy.complete();
                    Ok(())
                });
            }
            precopy.bytes("second", b"also").expect("room");
        },
        |mut handover| {
            for how in BOTH {
                in_child(how, || {
                    handover.gone("first");
                    Ok(())
                });
            }
            handover.bytes("state", b"the parent's").expect("room");
            handover.send();
        },
    )
    .expect("a handover");
    assert!(matches!(&arrivals[..], [Arrival::Given(first, _), Arrival::Given(second, _)] if first == "first" && second == "second"));
    assert!(inheritance.gone().is_empty());
    assert_eq!(inheritance.bytes("state").expect("a blob").expect("its name"), b"the parent's");
}

fn a_child_writes_nothing_into_a_blob() {
    let mut inheritance = Handover::rehearse(|mut handover| {
        let mut blob = Blob::new().expect("memory");
        write!(blob, "one, ").expect("room");
        let mut copy = Some(blob);
        for how in BOTH {
            // What is collected would be written by its drop, to memory that both have.
            in_child(how, || {
                drop(copy.take());
                Ok(())
            });
            in_child(how, || {
                let mut blob = copy.take().ok_or("a blob")?;
                let error = blob.write(b"the child's").err().ok_or("an error")?;
                claim(error.kind() == ErrorKind::Unsupported && error.to_string().contains("copy of a Blob"), "an error that says why")?;
                claim(blob.flush().is_err(), "another")
            });
            // Nor does the child keep the parent from writing it.
            in_child(how, || {
                let blob = copy.take().ok_or("a blob")?;
                let own = Handover::rehearse(|mut handover| {
                    handover.blob("copy", blob).expect_err("a copy");
                    handover.send();
                });
                claim(own.is_err(), "no handover of a copy")
            });
        }
        let mut blob = copy.expect("the parent's own");
        blob.flush().expect("room");
        let mut copy = Some(blob);
        for how in BOTH {
            // Nor when nothing is left to write.
            in_child(how, || {
                let blob = copy.take().ok_or("a blob")?;
                let own = Handover::rehearse(|mut handover| {
                    handover.blob("copy", blob).expect_err("a copy");
                    handover.send();
                });
                claim(own.is_err(), "no handover of a copy that is written")
            });
        }
        let mut blob = copy.expect("the parent's own");
        write!(blob, "two").expect("room");
        handover.blob("state", blob).expect("a name");
        handover.send();
    })
    .expect("nothing to fail");
    assert_eq!(inheritance.bytes("state").expect("a blob").expect("its name"), b"one, two");
}

fn a_child_has_a_copy_of_what_has_come() {
    let mut inheritance = Handover::rehearse(|mut handover| {
        handover.bytes("one", b"1").expect("room");
        handover.bytes("two", b"2").expect("room");
        handover.send();
    })
    .expect("nothing to fail");
    for how in BOTH {
        in_child(how, || {
            claim(inheritance.names() == ["one", "two"], "both names")?;
            let one = inheritance.bytes("one").map_err(|_| "bytes")?;
            claim(one.as_deref() == Some(b"1") && inheritance.drain().count() == 1, "both of them")
        });
    }
    assert_eq!(inheritance.names(), ["one", "two"]);
}
