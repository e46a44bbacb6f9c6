//! The rule of the ledger — peek, record, take; output from the record — as a model: a peer, the
//! kernel, the memory and a process that is killed at any step, in every order, to a fixed point.
//!
//! It has nothing of the code but the comparison at recovery. The laws are checked in every state;
//! each planted fault is found by one of them, and each law finds one.

use std::collections::{BTreeSet, HashSet, VecDeque};

use pollflip::internals::ledger::{Entry, Standing, compare};

/// So many bytes of input there are. The nth byte of output belongs to the nth byte of input, so
/// that a stream is right if its bytes are 0, 1, 2 and so on.
const INPUT: u8 = 7;
/// So many bytes at most are worked on at a time.
const AT_ONCE: u8 = 3;

/// A record: how far the connection is read and written with it, how much input the state has
/// seen, and the output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Record {
    read: u8,
    written: u8,
    state: u8,
    output: Vec<u8>,
    /// A record is many words: half of it may be that of one time, half of another.
    is_torn: bool,
}

/// What no kill takes away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct World {
    /// What has come from the peer, been read by this side, and been written to the peer.
    came: u8,
    read: u8,
    wire: Vec<u8>,
    records: [Record; 2],
    counts: usize,
    mark: bool,
    process: Process,
    /// Killed while it worked, and the mark was so; asked by the laws in the next state.
    killed_at_work: Option<bool>,
    broken: Option<Law>,
}

/// Where a process is. Each step is what a kill can come before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
enum Process {
    /// None: the next one recovers.
    #[default]
    Dead,
    /// Has recovered, or has done one round: writes what is recorded, then looks at the input.
    Ready(Mind),
    /// Has looked at so much input.
    Peeked(Mind, u8),
    Marked(Mind, u8),
    /// Has computed a record.
    Drafted(Mind, u8, Record),
    /// Has written the first half of it.
    Half(Mind, u8, Record),
    /// Has written all of it, which does not count yet.
    Whole(Mind, u8, Record),
    /// It counts.
    Recorded(Mind, u8),
    /// Has written before it has recorded, which is a fault.
    Written(Mind, u8, Record),
    /// The connection was closed at recovery.
    Closed,
}

/// What a process has in its own memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Mind {
    state: u8,
    output: Vec<u8>,
    unwritten: usize,
    untaken: u8,
    read: u8,
    written: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Law {
    /// What the peer gets is right: no byte twice, none left out.
    RightBytes,
    /// A connection that nobody else uses is never closed at recovery.
    NeverClosed,
    /// What is read is recorded, and what is written as well.
    Recorded,
    /// The record that counts is whole.
    Whole,
    /// In the end, all that has come is answered.
    Answered,
    /// Who is at work when the process is killed is in hand.
    InHand,
    /// Who is not is not.
    NotInHand,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    TakesBeforeItRecords,
    WritesBeforeItRecords,
    WritesOverTheRecordThatCounts,
    CountsBeforeItIsWhole,
    WorksAgainOnWhatIsRecorded,
    WritesAllOfTheOutputAgain,
    ForgetsTheRestOfTheOutput,
    TakesAllThatHasCome,
    ForgetsOutputThatIsNotWritten,
    RecordsNoPosition,
    MarksNothing,
    LeavesTheMark,
    LooksAgainInsteadOfTaking,
}

const FAULTS: [Fault; 13] = [
    Fault::TakesBeforeItRecords,
    Fault::WritesBeforeItRecords,
    Fault::WritesOverTheRecordThatCounts,
    Fault::CountsBeforeItIsWhole,
    Fault::WorksAgainOnWhatIsRecorded,
    Fault::WritesAllOfTheOutputAgain,
    Fault::ForgetsTheRestOfTheOutput,
    Fault::TakesAllThatHasCome,
    Fault::ForgetsOutputThatIsNotWritten,
    Fault::RecordsNoPosition,
    Fault::MarksNothing,
    Fault::LeavesTheMark,
    Fault::LooksAgainInsteadOfTaking,
];

impl World {
    fn take(&mut self, bytes: u8) {
        // Nobody takes more than there is.
        self.read = (self.read + bytes).min(self.came);
    }

    fn recover(&mut self, fault: Option<Fault>) {
        let record = self.records[self.counts].clone();
        let entry = |read: u8, written: u8| Entry { read: read.into(), written: written.into() };
        let unread = u64::from(self.came - self.read);
        let at = entry(self.read, self.wire.len() as u8);
        let (untaken, unwritten) = match compare(entry(record.read, record.written), record.output.len() as u64, at, unread) {
            Standing::Even => (0, 0),
            Standing::Behind { untaken, unwritten } => (untaken as u8, unwritten as usize),
            Standing::Unrecorded { .. } | Standing::Ahead => {
                self.process = Process::Closed;
                return self.violated(Law::NeverClosed);
            }
        };
        let mut mind = Mind { state: record.state, output: record.output, unwritten, untaken, read: record.read, written: record.written };
        match fault {
            Some(Fault::WorksAgainOnWhatIsRecorded) => mind.untaken = 0,
            Some(Fault::WritesAllOfTheOutputAgain) => mind.unwritten = mind.output.len(),
            Some(Fault::ForgetsTheRestOfTheOutput) => mind.unwritten = 0,
            _ => {}
        }
        self.mark = false;
        self.process = Process::Ready(mind);
    }

    fn violated(&mut self, law: Law) {
        self.broken.get_or_insert(law);
    }

    /// One step of the process, in each way that it can go: the kernel takes as much output as it likes.
    fn step(&self, fault: Option<Fault>) -> Vec<World> {
        let mut next = self.clone();
        next.killed_at_work = None;
        match self.process.clone() {
            Process::Dead => next.recover(fault),
            Process::Closed => return Vec::new(),
            Process::Ready(mind) if mind.untaken > 0 || mind.unwritten > 0 => {
                // In either order.
                let mut all = Vec::new();
                if mind.untaken > 0 {
                    let mut next = next.clone();
                    match fault {
                        Some(Fault::TakesAllThatHasCome) => next.take(next.came),
                        Some(Fault::LooksAgainInsteadOfTaking) => {}
                        _ => next.take(mind.untaken),
                    }
                    next.process = Process::Ready(Mind { untaken: 0, ..mind.clone() });
                    all.push(next);
                }
                for bytes in 1..=mind.unwritten {
                    let mut next = next.clone();
                    let start = mind.output.len() - mind.unwritten;
                    next.wire.extend(&mind.output[start..start + bytes]);
                    next.process = Process::Ready(Mind { unwritten: mind.unwritten - bytes, ..mind.clone() });
                    all.push(next);
                }
                if fault == Some(Fault::ForgetsOutputThatIsNotWritten) && mind.untaken == 0 && next.came > next.read {
                    next.process = Process::Peeked(mind, 1);
                    all.push(next);
                }
                return all;
            }
            Process::Ready(mind) => {
                if next.came == next.read {
                    return Vec::new();
                }
                next.process = Process::Peeked(mind, (next.came - next.read).min(AT_ONCE));
            }
            Process::Peeked(mind, bytes) => {
                next.mark = fault != Some(Fault::MarksNothing);
                next.process = Process::Marked(mind, bytes);
                if fault == Some(Fault::TakesBeforeItRecords) {
                    next.take(bytes);
                }
            }
            Process::Marked(mind, bytes) => {
                let output: Vec<u8> = (mind.state..mind.state + bytes).collect();
                let no_position = fault == Some(Fault::RecordsNoPosition);
                let record = Record {
                    read: if no_position { mind.read } else { mind.read + bytes },
                    written: mind.written + bytes,
                    state: mind.state + bytes,
                    output,
                    is_torn: false,
                };
                next.process = match fault {
                    Some(Fault::WritesBeforeItRecords) => {
                        next.wire.extend(&record.output);
                        Process::Written(mind, bytes, record)
                    }
                    _ => Process::Drafted(mind, bytes, record),
                };
            }
            Process::Written(mind, bytes, record) => next.process = Process::Drafted(mind, bytes, record),
            Process::Drafted(mind, bytes, record) => {
                let place = match fault {
                    Some(Fault::WritesOverTheRecordThatCounts) => next.counts,
                    _ => 1 - next.counts,
                };
                next.records[place] = Record { is_torn: true, ..record.clone() };
                if fault == Some(Fault::CountsBeforeItIsWhole) {
                    next.counts = place;
                }
                next.process = Process::Half(mind, bytes, record);
            }
            Process::Half(mind, bytes, record) => {
                let place = match fault {
                    Some(Fault::WritesOverTheRecordThatCounts | Fault::CountsBeforeItIsWhole) => next.counts,
                    _ => 1 - next.counts,
                };
                next.records[place] = record.clone();
                next.process = Process::Whole(mind, bytes, record);
            }
            Process::Whole(_, bytes, record) => {
                if !matches!(fault, Some(Fault::WritesOverTheRecordThatCounts | Fault::CountsBeforeItIsWhole)) {
                    next.counts = 1 - next.counts;
                }
                let unwritten = if fault == Some(Fault::WritesBeforeItRecords) { 0 } else { record.output.len() };
                let untaken = if fault == Some(Fault::TakesBeforeItRecords) { 0 } else { bytes };
                let Record { read, written, state, output, .. } = record;
                next.process = Process::Recorded(Mind { state, output, unwritten, untaken: 0, read, written }, untaken);
            }
            Process::Recorded(mind, untaken) => {
                next.mark = fault == Some(Fault::LeavesTheMark);
                next.process = Process::Ready(Mind { untaken, ..mind });
            }
        }
        vec![next]
    }

    /// `None`: it has recorded, and is about to take its mark away. Either is right.
    fn is_at_work(&self) -> Option<bool> {
        match self.process {
            Process::Recorded(..) => None,
            Process::Marked(..) | Process::Drafted(..) | Process::Half(..) | Process::Whole(..) | Process::Written(..) => Some(true),
            _ => Some(false),
        }
    }

    /// Everything that can come next.
    fn next(&self, fault: Option<Fault>) -> Vec<World> {
        if self.broken.is_some() {
            return Vec::new();
        }
        let mut all = self.step(fault);
        // All that has come is answered when nothing is left to do.
        if all.is_empty() && self.came == INPUT && self.wire.len() < usize::from(INPUT) && self.process != Process::Closed {
            let mut stuck = self.clone();
            stuck.violated(Law::Answered);
            all.push(stuck);
        }
        for came in self.came + 1..=INPUT {
            all.push(World { came, killed_at_work: None, ..self.clone() });
        }
        if self.process != Process::Dead && self.process != Process::Closed {
            let killed_at_work = self.is_at_work();
            all.push(World { process: Process::Dead, killed_at_work, ..self.clone() });
        }
        all.iter_mut().for_each(World::check);
        all
    }

    fn check(&mut self) {
        let record = &self.records[self.counts];
        if record.is_torn {
            return self.violated(Law::Whole);
        }
        let is_answer = |(place, byte): (usize, &u8)| place == usize::from(*byte) && *byte < self.came;
        if !self.wire.iter().enumerate().all(is_answer) {
            return self.violated(Law::RightBytes);
        }
        if self.read > record.read || self.wire.len() > usize::from(record.written) {
            return self.violated(Law::Recorded);
        }
        match self.killed_at_work {
            Some(true) if !self.mark => self.violated(Law::InHand),
            Some(false) if self.mark => self.violated(Law::NotInHand),
            _ => {}
        }
    }
}

/// All states that can be reached, and the laws that are broken in one of them.
fn search(fault: Option<Fault>) -> (usize, BTreeSet<Law>) {
    let start = World::default();
    let mut seen = HashSet::from([start.clone()]);
    let mut new = VecDeque::from([start]);
    let mut broken = BTreeSet::new();
    while let Some(world) = new.pop_front() {
        broken.extend(world.broken);
        for next in world.next(fault) {
            if seen.insert(next.clone()) {
                new.push_back(next);
            }
        }
    }
    (seen.len(), broken)
}

#[test]
fn killed_at_any_step_in_any_order_the_rule_breaks_no_law() {
    let (states, broken) = search(None);
    println!("{states} states");
    assert!(broken.is_empty(), "{broken:?}");
    assert!(states > 1_000, "{states} states");
}

#[test]
fn each_fault_breaks_a_law_and_each_law_is_broken_by_a_fault() {
    let mut found = BTreeSet::new();
    for fault in FAULTS {
        let (states, broken) = search(Some(fault));
        println!("{fault:?}: {broken:?} of {states} states");
        assert!(!broken.is_empty(), "{fault:?} is not found");
        found.extend(broken);
    }
    let all = [Law::RightBytes, Law::NeverClosed, Law::Recorded, Law::Whole, Law::Answered, Law::InHand, Law::NotInHand];
    assert_eq!(found, BTreeSet::from(all), "a law that finds nothing");
}

/// Each pair of a record and a connection, by an independent rule: what is possible without another
/// reader or writer, and what is not.
#[test]
fn a_record_and_its_connection_stand_to_each_other_as_the_numbers_say() {
    let numbers = || 0..5_u64;
    for (recorded, written, read, sent) in
        numbers().flat_map(|a| numbers().flat_map(move |b| numbers().flat_map(move |c| numbers().map(move |d| (a, b, c, d)))))
    {
        for (output, unread) in numbers().flat_map(|a| numbers().map(move |b| (a, b))) {
            let standing = compare(Entry { read: recorded, written }, output, Entry { read, written: sent }, unread);
            let is_right = match standing {
                Standing::Even => recorded == read && written == sent,
                Standing::Behind { untaken, unwritten } => {
                    read + untaken == recorded
                        && sent + unwritten == written
                        && untaken + unwritten > 0
                        && untaken <= unread
                        && unwritten <= output
                }
                Standing::Unrecorded { read: more, written: sent_more } => {
                    (read > recorded || sent > written)
                        && more == read.saturating_sub(recorded)
                        && sent_more == sent.saturating_sub(written)
                }
                Standing::Ahead => recorded >= read && written >= sent && (recorded - read > unread || written - sent > output),
            };
            assert!(is_right, "{recorded} {written} {read} {sent} {output} {unread}: {standing:?}");
        }
    }
}
