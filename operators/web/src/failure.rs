//! Failures with their origin: whose doing it is that a request failed.
//!
//! A host that is overloaded fails every URL on it, and a machine that is down every host at its address. Whoever waits, gives
//! up or tries again has to know which of these it was. Promise: after a redirect it is the host or address of that hop.

use std::net::IpAddr;

use faceflow_core::record::{queue_of, twin_queue_of};
use faceflow_core::{Class, Fault, HostFault, HostFaultKind};
use url::Url;

use super::Origin;

/// Why a URL was not asked, or what was wrong with its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub fault: Fault,
    /// Whose doing it is.
    pub at_fault: AtFault,
}

/// Whose doing a failure is, and so what else fails alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AtFault {
    /// The URL's: what it spells, or how its server answers this URL. Other URLs of its host may fare better.
    Url,
    /// The host's, and all its URLs fare alike: its name has no addresses, or private ones; its certificate is bad; its robots.txt
    /// cannot be read; it does not begin to answer; it says 429, or when it wants to be asked again.
    Host(Origin),
    /// The address', and all hosts there fare alike: it is private, or nothing accepts connections. Of a host with several
    /// addresses, of which none accepted, it is the one that politeness goes by.
    Address(IpAddr),
    /// Ours, and nobody is to be judged by it: a bug, or the process is ending.
    Us,
}

impl Failure {
    /// A failure that is the URL's doing, unless the fault is a bug.
    pub fn of_url(fault: Fault) -> Self {
        Self::new(fault, AtFault::Url)
    }

    /// A failure that is a host's doing, unless the fault is a bug.
    pub fn of_host(fault: Fault, host: Origin) -> Self {
        Self::new(fault, AtFault::Host(host))
    }

    /// A failure that is an address' doing, unless the fault is a bug.
    pub fn of_address(fault: Fault, address: IpAddr) -> Self {
        Self::new(fault, AtFault::Address(address))
    }

    /// Has the fault say what it means for the host of `url`, which was asked for: nothing, or that all its URLs fare alike.
    pub(super) fn judge_host(&mut self, url: &Url) {
        let unreachable = matches!(self.fault.class, Class::Dns | Class::Connect | Class::Timeout);
        let kind = match (&self.at_fault, self.fault.host) {
            (AtFault::Url | AtFault::Us, _) => return,
            // What was found out about its robots.txt, or that it was not asked.
            (_, Some(known)) => known.kind,
            (AtFault::Address(_), None) => HostFaultKind::Unreachable,
            (AtFault::Host(_), None) if unreachable => HostFaultKind::Unreachable,
            (AtFault::Host(_), None) => HostFaultKind::Busy,
        };
        self.fault.host = Some(HostFault { queue: queue_of(url), twin: twin_queue_of(url), kind });
    }

    fn new(fault: Fault, at_fault: AtFault) -> Self {
        let at_fault = if fault.class == Class::Panic { AtFault::Us } else { at_fault };
        Self { fault, at_fault }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        failure.fault
    }
}

/// Who answers a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Scheme, host and port.
    pub host: Origin,
    /// The address that politeness goes by.
    pub address: IpAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_its_host_did_and_of_a_url_nothing() {
        let url: Url = "https://a.example/x".parse().expect("a URL");
        let host = |mut failure: Failure| {
            failure.judge_host(&url);
            let host = failure.fault.host?;
            assert_eq!((host.queue, host.twin), (queue_of(&url), twin_queue_of(&url)));
            Some(host.kind)
        };
        let fault = |class| Fault::transient(class, "why", "");
        let (origin, address) = (Origin::of(&url), [9, 9, 9, 9].into());
        for class in [Class::Dns, Class::Connect, Class::Timeout] {
            assert_eq!(host(Failure::of_host(fault(class), origin.clone())), Some(HostFaultKind::Unreachable));
        }
        assert_eq!(host(Failure::of_host(fault(Class::Busy), origin.clone())), Some(HostFaultKind::Busy));
        assert_eq!(host(Failure::of_address(fault(Class::Connect), address)), Some(HostFaultKind::Unreachable));
        assert_eq!(
            (host(Failure::of_url(fault(Class::Busy))), host(Failure::of_host(fault(Class::Panic), origin.clone()))),
            (None, None)
        );
        // What was found out of a robots.txt stays, also where it was behind a redirect.
        let known = fault(Class::Timeout).of_host(7, HostFaultKind::Busy);
        assert_eq!(host(Failure::of_host(known, origin)), Some(HostFaultKind::Busy));
    }

    #[test]
    fn a_bug_is_nobody_elses_doing() {
        let (panic, late) = (
            Fault::transient(Class::Panic, "panic", "a job panicked"),
            Fault::transient(Class::Timeout, "timeout", ""),
        );
        let address = [9, 9, 9, 9].into();
        assert_eq!(Failure::of_address(panic.clone(), address).at_fault, AtFault::Us);
        assert_eq!(Failure::of_url(panic.clone()).at_fault, AtFault::Us);
        assert_eq!(Failure::of_address(late.clone(), address).at_fault, AtFault::Address(address));
        assert_eq!(Fault::from(Failure::of_url(late.clone())), late);
    }
}
