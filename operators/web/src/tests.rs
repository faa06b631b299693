//! The client against real servers on loopback that write their bytes by hand.

mod connections;
mod gate;
mod hostile;
mod loose;
mod manners;
mod responses;
mod server;

use std::sync::Arc;

use faceflow_core::clock::RuntimeClock;
use faceflow_core::{Class, Fault};
use url::Url;

use super::{Client, FetchSettings, Response, Want, Web};

/// A client that may reach loopback and asks for no robots.txt; `change` sets the rest.
fn client(change: impl FnOnce(&mut FetchSettings)) -> Client {
    let loopback = ["127.0.0.0/8", "::1"].map(|text| text.parse().expect(text));
    let mut settings = FetchSettings { allow_networks: loopback.to_vec(), respect_robots: false, ..Default::default() };
    change(&mut settings);
    let clock = RuntimeClock::starting_at(tokio::runtime::Handle::current(), 784_111_777_000);
    Client::new(settings.into(), Arc::new(clock)).expect("the settings are possible")
}

async fn page(client: &Client, url: &Url) -> Result<Response, Fault> {
    client.get(url, Want::Page).await
}

/// Asserts what kind of fault an answer is.
#[track_caller]
fn assert_fault(answer: Result<Response, Fault>, class: Class, reason: &str, permanent: bool) -> Fault {
    let fault = answer.expect_err("a fault");
    assert_eq!((fault.class, fault.reason.as_str(), fault.permanent), (class, reason, permanent), "{}", fault.detail);
    fault
}
