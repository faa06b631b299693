//! The client: gets pages and pictures through the gate. No cookies, no credentials, no proxies.

use std::sync::Arc;

use faceflow_core::record::PageVersion;
use faceflow_core::{Clock, Fault, Future, Reloadable};
use url::Url;

use super::gate::{Gate, GateError};
use super::http::{self, Resource};
use super::settings::FetchSettings;
use super::{HeldBack, Response, Want, Web};

/// The web client. Clones share its gate.
#[derive(Clone)]
pub struct Client(Gate);

impl Client {
    /// A client with a gate of its own; see [`Gate::new`].
    pub fn new(live: Reloadable<FetchSettings>, clock: Arc<dyn Clock>) -> Result<Self, GateError> {
        Ok(Self::through(Gate::new(live, clock)?))
    }

    /// A client that goes through this gate, as others do.
    pub fn through(gate: Gate) -> Self {
        Self(gate)
    }

    /// Its gate, for others to go through.
    pub fn gate(&self) -> &Gate {
        &self.0
    }
}

impl Web for Client {
    fn get(&self, url: &Url, want: Want) -> Future<Result<Response, Fault>> {
        let (gate, url) = (self.0.clone(), url.clone());
        Box::pin(async move {
            let resource = match want {
                Want::Page => Resource::Page(None),
                Want::Image => Resource::Image,
            };
            Ok(http::modified(gate.http().follow(&gate, url, resource).await?)?)
        })
    }

    fn get_again(&self, url: &Url, last: &PageVersion) -> Future<Result<Option<Response>, Fault>> {
        let (gate, url, last) = (self.0.clone(), url.clone(), last.clone());
        Box::pin(async move { Ok(gate.http().follow(&gate, url, Resource::Page(Some(&last))).await?) })
    }

    fn held_back(&self) -> HeldBack {
        self.0.held_back()
    }

    fn address_hash(&self, url: &Url) -> Future<Option<u64>> {
        let (gate, url) = (self.0.clone(), url.clone());
        Box::pin(async move { gate.address_hash(&url).await })
    }
}
