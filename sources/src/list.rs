//! Sites given one by one, as on a command line.

use std::collections::VecDeque;

use faceflow_core::Time;
use faceflow_core::source::{Source, SourceItem};
use url::Url;

/// A list of sites in memory.
pub struct List(VecDeque<Url>);

impl List {
    /// These sites, in this order.
    pub fn new(sites: impl IntoIterator<Item = Url>) -> Self {
        Self(sites.into_iter().collect())
    }
}

impl Source for List {
    fn poll(&mut self, _now: Time) -> SourceItem {
        self.0.pop_front().map_or(SourceItem::End, SourceItem::Site)
    }
}
