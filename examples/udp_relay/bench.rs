//! The clients: an old flow, new ones, and floods while the old process runs and while it is stopped.

use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::protocol::{BEGIN, DATA, REPORT};
use crate::service::Service;

const LIMIT: Duration = Duration::from_secs(20);
/// Floods of each kind, by turns, so that both see the same machine.
const ROUNDS: usize = 5;
/// Datagrams of one flood: more than the pair takes.
const FLOOD: u64 = 10_000;
/// So many are sent before the client waits until the server has read them: they have room in its socket.
const BURST: u64 = 50;

type Failed = Box<dyn Error>;

pub(crate) fn run() -> Result<(), Failed> {
    let mut service = Service::start(&[])?;
    // Answers to floods may be lost for want of room in a socket. Those to questions must not be, so they have a socket of their own.
    let (mut flow, questions) = (Flow::begin(service.address)?, Client::connect(service.address, LIMIT)?);
    let pid = Pid::from_raw(i32::try_from(flow.process)?);
    service.restart()?;
    let mut new = 0;
    for number in 2..102 {
        flow.send()?;
        flow.hear(1);
        new += u32::from(questions.ask(BEGIN, number)? != [flow.process]);
    }
    let stayed = flow.answered;
    let (mut running, mut stopped) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        report(&questions)?;
        new += flood(&mut flow, &questions)?;
        running.push(report(&questions)?);
        kill(pid, Signal::SIGSTOP)?;
        new += flood(&mut flow, &questions)?;
        stopped.push(report(&questions)?);
        kill(pid, Signal::SIGCONT)?;
        flow.catch_up(&questions)?;
    }
    let last = report(&questions)?;
    let median = |reports: &[Report], of: fn(&Report) -> u64| {
        let mut values: Vec<u64> = reports.iter().map(of).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    let (turn, worked) = (|one: &Report| one.longest_us, |one: &Report| one.worked_us);
    println!(
        "old_flow_stayed={stayed} new_flows={new} sent={} answered={} dropped={} unaccounted={} refused_send_ns={} \
         longest_turn_us={} longest_turn_us_stopped={} longest_turn_cpu_us={} longest_turn_cpu_us_stopped={}",
        flow.sent,
        flow.answered,
        last.dropped,
        flow.sent - flow.answered - last.dropped,
        last.refusal_ns,
        median(&running, turn),
        median(&stopped, turn),
        median(&running, worked),
        median(&stopped, worked),
    );
    kill(pid, Signal::SIGKILL)?;
    let expected = 100 + 2 * ROUNDS as u64 * FLOOD / BURST;
    if stayed != 100 || u64::from(new) != expected || flow.sent != flow.answered + last.dropped {
        return Err("datagrams are missing".into());
    }
    if last.dropped == 0 { Err("the pair took all: the floods were too small".into()) } else { Ok(()) }
}

/// The old flow's datagrams, faster than one by one; and meanwhile a new flow, which must get on. How often that was answered by the new
/// process.
fn flood(flow: &mut Flow, questions: &Client) -> Result<u32, Failed> {
    let mut new = 0;
    for _ in 0..FLOOD / BURST {
        for _ in 0..BURST {
            flow.send()?;
        }
        // It has read all before this.
        new += u32::from(questions.ask(BEGIN, 200)? != [flow.process]);
    }
    Ok(new)
}

/// What the server says of its relay and its loop.
struct Report {
    /// Since it began.
    dropped: u64,
    refusal_ns: u64,
    /// The longest turn since it was last asked, by the clock and by the processor.
    longest_us: u64,
    worked_us: u64,
}

fn report(questions: &Client) -> Result<Report, Failed> {
    match questions.ask(REPORT, 0)?[..] {
        [dropped, refusal_ns, longest_us, worked_us] => Ok(Report { dropped, refusal_ns, longest_us, worked_us }),
        _ => Err("a report of four numbers was expected".into()),
    }
}

/// The flow that the old process has.
struct Flow {
    client: Client,
    process: u64,
    sent: u64,
    /// As its process says.
    answered: u64,
}

impl Flow {
    fn begin(server: SocketAddr) -> Result<Flow, Failed> {
        let client = Client::connect(server, Duration::from_millis(200))?;
        let process = *client.ask(BEGIN, 1)?.first().ok_or("no process")?;
        Ok(Flow { client, process, sent: 0, answered: 0 })
    }

    fn send(&mut self) -> Result<(), Failed> {
        self.client.0.send(&[DATA, 1])?;
        self.sent += 1;
        Ok(())
    }

    /// Takes in so many answers, or fewer if no more come.
    fn hear(&mut self, most: usize) {
        for _ in 0..most {
            match self.client.hear(DATA).as_deref() {
                Ok([process, answered]) if *process == self.process => self.answered = self.answered.max(*answered),
                _ => return,
            }
        }
    }

    /// Until each datagram was answered or dropped. The last answer may be lost, so one more is sent until one says that.
    fn catch_up(&mut self, questions: &Client) -> Result<(), Failed> {
        let deadline = Instant::now() + LIMIT;
        while self.answered + report(questions)?.dropped != self.sent {
            if Instant::now() > deadline {
                return Err(format!("{} datagrams were sent, and {} answered", self.sent, self.answered).into());
            }
            self.send()?;
            self.hear(usize::MAX);
        }
        Ok(())
    }
}

struct Client(UdpSocket);

impl Client {
    fn connect(server: SocketAddr, patience: Duration) -> Result<Client, Failed> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(patience))?;
        Ok(Client(socket))
    }

    fn ask(&self, kind: u8, flow: u8) -> Result<Vec<u64>, Failed> {
        self.0.send(&[kind, flow])?;
        self.hear(kind)
    }

    /// The next answer.
    fn hear(&self, kind: u8) -> Result<Vec<u64>, Failed> {
        let mut buffer = [0; 64];
        let length = self.0.recv(&mut buffer)?;
        match &buffer[..length] {
            [first, numbers @ ..] if *first == kind => {
                Ok(std::str::from_utf8(numbers)?.split(' ').map(str::parse).collect::<Result<_, _>>()?)
            }
            other => Err(format!("to {:?} the answer is {:?}", char::from(kind), String::from_utf8_lossy(other)).into()),
        }
    }
}
