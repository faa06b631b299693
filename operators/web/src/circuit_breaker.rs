//! Circuit breakers of addresses: where nothing takes connections, nobody waits for another one to fail.
//!
//! Many hosts may be at one address, and each request to one that is down costs the time in which connections are made. After a few
//! failures in a row the circuit is open: requests are refused at once. When that is over, one request finds out whether it is to
//! be closed (half-open). Promise: while a circuit is open nobody connects, while it is half-open one does, and memory is bounded.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use faceflow_core::{Fault, HostFaultKind};
use tokio::time::Instant;

use super::failure::Failure;
use super::settings::FetchSettings;

/// The circuits of addresses at which connections failed.
#[derive(Debug)]
pub struct CircuitBreakers {
    circuits: Mutex<HashMap<SocketAddr, Circuit>>,
    /// Circuits that are remembered, at most, except for those that are being tried.
    known_max: usize,
    /// Connections in a row that fail before a circuit opens.
    failures_max: u32,
    /// How long it is open at first, and at most.
    open_ms: [u64; 2],
}

#[derive(Debug)]
struct Circuit {
    /// Connections that failed in a row while it was closed.
    failures: u32,
    /// How often it was opened in a row; 0 while it is closed.
    opened: u32,
    /// Until when it is open.
    until: Instant,
    /// Whether a request finds out now how it is.
    probing: bool,
    /// Why the last connection failed.
    fault: Fault,
}

/// The right to connect to an address. Whoever has it says how that went; dropped without a word, it says nothing.
#[derive(Debug)]
pub struct Connecting {
    breakers: Arc<CircuitBreakers>,
    address: SocketAddr,
    /// Whether others are refused until it is known how this goes.
    probes: bool,
}

impl CircuitBreakers {
    /// All circuits are closed.
    pub fn new(settings: &FetchSettings) -> Self {
        let FetchSettings { hosts_max, circuit_failures_max, circuit_open_ms, circuit_open_max_ms, .. } = *settings;
        Self {
            circuits: Mutex::default(),
            known_max: hosts_max,
            failures_max: circuit_failures_max,
            open_ms: [circuit_open_ms, circuit_open_max_ms],
        }
    }

    /// Refuses whoever may not connect to an address now.
    pub fn check(&self, address: SocketAddr) -> Result<(), Failure> {
        match self.circuits().get(&address) {
            Some(circuit) => self.check_circuit(circuit, address),
            None => Ok(()),
        }
    }

    /// The right to connect to an address, if anybody may.
    pub fn connect(self: &Arc<Self>, address: SocketAddr) -> Result<Connecting, Failure> {
        let mut probes = false;
        if let Some(circuit) = self.circuits().get_mut(&address) {
            self.check_circuit(circuit, address)?;
            probes = circuit.opened > 0;
            circuit.probing = probes;
        }
        Ok(Connecting { breakers: Arc::clone(self), address, probes })
    }

    /// How many circuits are open, or half-open and being tried.
    pub fn open(&self) -> usize {
        let now = Instant::now();
        self.circuits()
            .values()
            .filter(|circuit| circuit.opened > 0 && (circuit.probing || circuit.until > now))
            .count()
    }

    fn circuits(&self) -> MutexGuard<'_, HashMap<SocketAddr, Circuit>> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The circuit of an address. Where there is no room, those that are not open are forgotten, and if need be all but those that
    /// are being tried: then each costs a few connections more.
    fn circuit<'c>(
        &self,
        circuits: &'c mut HashMap<SocketAddr, Circuit>,
        address: SocketAddr,
        fault: &Fault,
    ) -> &'c mut Circuit {
        let now = Instant::now();
        if circuits.len() >= self.known_max && !circuits.contains_key(&address) {
            circuits.retain(|_, circuit| circuit.probing || circuit.until > now);
            if circuits.len() >= self.known_max {
                circuits.retain(|_, circuit| circuit.probing);
            }
        }
        let new = || Circuit { failures: 0, opened: 0, until: now, probing: false, fault: fault.clone() };
        circuits.entry(address).or_insert_with(new)
    }

    fn check_circuit(&self, circuit: &Circuit, address: SocketAddr) -> Result<(), Failure> {
        let now = Instant::now();
        let wait = match circuit.opened {
            0 => return Ok(()),
            _ if circuit.until > now => circuit.until - now,
            // It is being found out: that says nothing against any host there.
            _ if circuit.probing => {
                let detail =
                    format!("not asked, because another request finds out whether {address} takes connections");
                let fault = Fault { detail, ..circuit.fault.clone() }.of_host(0, HostFaultKind::Resting);
                return Err(Failure::of_address(fault.after(self.open_ms[0]), address.ip()));
            }
            _ => return Ok(()),
        };
        let detail = format!("not asked, because nothing at {address} takes connections: {}", circuit.fault.detail);
        let fault = Fault { detail, ..circuit.fault.clone() }.after(whole_ms(wait));
        Err(Failure::of_address(fault, address.ip()))
    }

    /// A circuit is open from now on, twice as long as the last time.
    fn open_circuit(&self, circuit: &mut Circuit) {
        let [first, longest] = self.open_ms;
        let open_ms = first.saturating_mul(1 << circuit.opened.min(20)).min(longest);
        circuit.opened = circuit.opened.saturating_add(1);
        (circuit.until, circuit.probing) = (Instant::now() + Duration::from_millis(open_ms), false);
    }
}

impl Connecting {
    /// There was no connection.
    pub fn failed(&self, fault: &Fault) {
        let mut circuits = self.breakers.circuits();
        let circuit = self.breakers.circuit(&mut circuits, self.address, fault);
        circuit.fault = fault.clone();
        match circuit.opened {
            0 => {
                circuit.failures += 1;
                if circuit.failures >= self.breakers.failures_max {
                    self.breakers.open_circuit(circuit);
                }
            }
            // Those that were under way when it was opened say nothing new.
            _ if self.probes => self.breakers.open_circuit(circuit),
            _ => {}
        }
    }

    /// There was a connection.
    pub fn succeeded(&self) {
        self.breakers.circuits().remove(&self.address);
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if self.probes
            && let Some(circuit) = self.breakers.circuits().get_mut(&self.address)
        {
            circuit.probing = false;
        }
    }
}

/// A time in milliseconds, none of it left out.
pub fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use faceflow_core::Class;
    use tokio::time::sleep;

    use super::*;
    use crate::AtFault;

    fn address(n: u8) -> SocketAddr {
        ([9, 9, 9, n], 80).into()
    }

    fn breakers(known_max: usize) -> Arc<CircuitBreakers> {
        Arc::new(CircuitBreakers::new(&FetchSettings { hosts_max: known_max, ..FetchSettings::default() }))
    }

    fn refused() -> Fault {
        Fault::transient(Class::Connect, "connect", "refused")
    }

    fn fail(breakers: &Arc<CircuitBreakers>, n: u8) {
        breakers.connect(address(n)).expect("may connect").failed(&refused());
    }

    /// After how many milliseconds an address may be asked again.
    fn wait(breakers: &Arc<CircuitBreakers>, n: u8) -> Option<u64> {
        let failure = breakers.check(address(n)).err()?;
        assert_eq!((failure.fault.reason.as_str(), failure.at_fault), ("connect", AtFault::Address(address(n).ip())));
        failure.fault.retry_after_ms
    }

    #[tokio::test(start_paused = true)]
    async fn a_circuit_opens_after_three_failures_in_a_row_and_for_longer_each_time() {
        let breakers = breakers(9);
        fail(&breakers, 1);
        fail(&breakers, 1);
        breakers.connect(address(1)).expect("may connect").succeeded();
        fail(&breakers, 1);
        fail(&breakers, 1);
        assert_eq!((wait(&breakers, 1), breakers.open()), (None, 0));
        fail(&breakers, 1);
        for open_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            assert_eq!((wait(&breakers, 1), breakers.open()), (Some(open_ms), 1));
            sleep(Duration::from_millis(open_ms)).await;
            fail(&breakers, 1);
        }
        assert_eq!(wait(&breakers, 2), None, "another address has a circuit of its own");
        sleep(Duration::from_secs(60)).await;
        breakers.connect(address(1)).expect("may connect").succeeded();
        assert_eq!((wait(&breakers, 1), breakers.open()), (None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_finds_out_and_whoever_gives_up_lets_another_one() {
        let breakers = breakers(9);
        let late: Vec<_> = (0..4).map(|_| breakers.connect(address(1)).expect("may connect")).collect();
        late.iter().for_each(|connecting| connecting.failed(&refused()));
        assert_eq!(wait(&breakers, 1), Some(1_000), "the fourth was under way already");
        sleep(Duration::from_secs(1)).await;
        let probe = breakers.connect(address(1)).expect("may connect");
        assert_eq!(wait(&breakers, 1), Some(1_000), "no other beside it");
        let refused_beside = breakers.check(address(1)).expect_err("is refused").fault.host;
        assert_eq!(
            refused_beside.map(|host| host.kind),
            Some(HostFaultKind::Resting),
            "and no host has failed by that"
        );
        late[0].failed(&refused());
        drop(late);
        assert_eq!(wait(&breakers, 1), Some(1_000), "only the probe counts");
        drop(probe);
        assert_eq!(wait(&breakers, 1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_what_is_open_is_forgotten_last() {
        let breakers = breakers(10);
        (0..3).for_each(|_| fail(&breakers, 255));
        (0..200).for_each(|n| fail(&breakers, n));
        assert!(breakers.circuits().len() <= 10 && wait(&breakers, 255).is_some());
        for n in 0..200 {
            (0..3).for_each(|_| drop(breakers.connect(address(n)).map(|connecting| connecting.failed(&refused()))));
            assert!(breakers.circuits().len() <= 10);
        }
    }
}
