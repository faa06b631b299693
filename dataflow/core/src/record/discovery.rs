//! What was found, by a page that was read or by a source.

use serde::{Deserialize, Serialize};

use super::image::Image;
use super::job::JobId;
use super::key::Key;
use super::page::{Page, PageVersion, Visit};
use crate::clock::Time;

/// What was found: by a page that was read, or, with no visit, by a source.
///
/// The ledger takes it up within the bounds, page by page in the order in which the pages were admitted, so that a budget
/// cuts the same pages and images whatever overtakes whatever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discovery {
    /// The job that found it: what is new is its.
    #[serde(default = "JobId::of_log")]
    pub job: JobId,
    /// The page that was read, without its images.
    pub visit: Option<Visit>,
    /// Pages to fetch, known ones included.
    pub pages: Vec<Page>,
    /// Every image the page shows, known ones included, for the record of who shows what.
    pub images: Vec<Image>,
    /// How much of it is taken up.
    pub bounds: Bounds,
    /// Of a page that was read: what to compare it with, and when it is to be looked at again.
    pub again: Option<(PageVersion, Time)>,
    /// The pages of sites that are no longer wanted: none of their pages are looked at again.
    pub removed: Vec<Key>,
    /// The watched list that names the sites of `pages`.
    #[serde(default)]
    pub list: Option<String>,
}

impl Discovery {
    /// `job` found nothing.
    pub fn nothing(job: JobId, bounds: Bounds) -> Self {
        Self { job, visit: None, pages: vec![], images: vec![], bounds, again: None, removed: vec![], list: None }
    }
}

/// How much of what is found is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Pages admitted per site, at most.
    pub pages_max: u64,
    /// Images admitted per site, at most.
    pub images_max: u64,
    /// Whether a page that is reached on a shorter way than before is read again: from there more is followed.
    pub shorter_ways: bool,
}
