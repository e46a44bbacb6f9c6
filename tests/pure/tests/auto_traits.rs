//! Which threads the public types can go to, and be shared between: a promise, of which the compiler
//! warns nobody who breaks it.

#![allow(dead_code, reason = "of each type one constant is asked for, and another one not")]

use std::collections::BTreeSet;
use std::fs;

/// What a type is, whatever it is.
macro_rules! traits {
    ($type:ty) => {{
        trait Otherwise {
            const SEND: bool = false;
            const SYNC: bool = false;
            const UNPIN: bool = false;
        }
        // Where a type is one, the constant of its own is found before that of the trait.
        struct Send_<T: ?Sized>(std::marker::PhantomData<T>);
        struct Sync_<T: ?Sized>(std::marker::PhantomData<T>);
        struct Unpin_<T: ?Sized>(std::marker::PhantomData<T>);
        impl<T: ?Sized> Otherwise for Send_<T> {}
        impl<T: ?Sized> Otherwise for Sync_<T> {}
        impl<T: ?Sized> Otherwise for Unpin_<T> {}
        impl<T: ?Sized + Send> Send_<T> {
            const SEND: bool = true;
        }
        impl<T: ?Sized + Sync> Sync_<T> {
            const SYNC: bool = true;
        }
        impl<T: ?Sized + Unpin> Unpin_<T> {
            const UNPIN: bool = true;
        }
        [(<Send_<$type>>::SEND, "Send"), (<Sync_<$type>>::SYNC, "Sync"), (<Unpin_<$type>>::UNPIN, "Unpin")]
    }};
}

/// One line for each type.
macro_rules! pinned {
    ($($type:ty),* $(,)?) => {
        [$((stringify!($type), traits!($type).iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect::<Vec<_>>().join(" "))),*]
    };
}

fn all() -> Vec<(String, String)> {
    pinned![
        pollflip::Arrival,
        pollflip::Blob,
        pollflip::ChildSpawnError,
        pollflip::Error,
        pollflip::Event,
        pollflip::Exit,
        pollflip::Failure,
        pollflip::Gate<mio::net::TcpListener>,
        pollflip::Handover,
        pollflip::Inheritance,
        pollflip::Keeper,
        pollflip::Map,
        pollflip::Mark,
        pollflip::Owner,
        pollflip::OnShutdown<'static>,
        pollflip::Outcome,
        pollflip::Ledger,
        pollflip::Position,
        pollflip::Precopy,
        pollflip::Predecessor,
        pollflip::Refusal,
        pollflip::RequestError,
        pollflip::RestartConfig,
        pollflip::RestartTask,
        pollflip::Restarter,
        pollflip::ServiceState,
        pollflip::Shutdown,
        pollflip::ShutdownCoordinator,
        pollflip::ShutdownHandle,
        pollflip::ShutdownMoment,
        pollflip::ShutdownSignal,
        pollflip::Sockets,
        pollflip::Status,
        pollflip::Successor,
        pollflip::KeptStream,
        pollflip::Survivors,
        pollflip::Sweep,
        pollflip::UdpGroup,
        pollflip::WeakShutdownHandle,
        pollflip::guard::Ended,
        pollflip::guard::Guard,
        pollflip::guard::Policy,
        pollflip::ledger::Account<std::net::TcpStream>,
        pollflip::ledger::Advance,
        pollflip::ledger::Draft<'static>,
        pollflip::ledger::InHand,
        pollflip::ledger::Judgement,
        pollflip::ledger::NoAccount<std::net::TcpStream>,
        pollflip::ledger::Recovered<std::net::TcpStream>,
        pollflip::ledger::Scope,
        pollflip::restart_coordination_socket::RestartCoordinationSocket,
    ]
    .map(|(name, traits)| (name.split('<').next().unwrap_or_default().replace(' ', ""), traits))
    .into()
}

/// Those that stay with one thread at a time.
const NOT_SHARED: [&str; 1] = ["pollflip::RestartTask"];

#[test]
fn every_public_type_can_go_to_another_thread_and_all_but_few_can_be_shared() {
    for (name, traits) in all() {
        let wanted = if NOT_SHARED.contains(&&*name) { "Send Unpin" } else { "Send Sync Unpin" };
        assert_eq!(traits, wanted, "{name}");
    }
    // The question itself: what is none of these is not said to be.
    assert_eq!(pinned![std::rc::Rc<u8>, std::cell::Cell<u8>].map(|(_, traits)| traits), ["Unpin", "Send Unpin"]);
}

#[test]
fn no_public_type_is_left_out() {
    let list = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/public_api/list.txt")).expect("a list");
    let name = |line: &str| {
        let rest = line.strip_prefix("struct ").or_else(|| line.strip_prefix("enum "))?;
        Some(rest.split(['<', ' ']).next()?.to_owned())
    };
    let listed: BTreeSet<_> = list.lines().filter_map(name).collect();
    assert_eq!(listed, all().into_iter().map(|(name, _)| name).collect());
}
