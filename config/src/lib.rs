//! Settings: one annotated reference file, and layers that override each other: file < environment < flags.
//!
//! Every component keeps its settings, defaults and limits beside its code; this crate only joins, merges and checks them.
//! It promises that a mistake is named with its key, its origin, its value and what is allowed instead.

pub mod check;
pub mod load;
pub mod memory;
pub mod reloadable;
mod renamed_keys;
pub mod work;

use faceflow_core::peer_liveness::ClusterSettings;
use faceflow_core::retry_policy::RetrySettings;
use faceflow_duplicates::settings::DedupeSettings;
use faceflow_engine::DetectSettings;
use faceflow_ledger::LedgerSettings;
use faceflow_mine::html::MineSettings;
use faceflow_operators::recrawl::RecrawlSettings;
use faceflow_operators::select_links::CrawlSettings;
use faceflow_pixels::{DeliverSettings, ImageSettings};
use faceflow_sources::submit::SubmitSettings;
use faceflow_store::partial_files::StoreSettings;
use faceflow_views::report::ReportSettings;
use faceflow_web::FetchSettings;
use serde::{Deserialize, Serialize};

use crate::memory::MemorySettings;

pub use load::{Layers, SettingsError};

/// Every setting, by section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The memory of the process.
    pub memory: MemorySettings,
    /// The web client.
    pub fetch: FetchSettings,
    /// How far sites are crawled.
    pub crawl: CrawlSettings,
    /// When pages are looked at again.
    pub recrawl: RecrawlSettings,
    /// What is read out of pages.
    pub mine: MineSettings,
    /// Which images are decoded.
    pub image: ImageSettings,
    /// Near-duplicates.
    pub dedupe: DedupeSettings,
    /// The detector.
    pub detect: DetectSettings,
    /// Crops and thumbnails.
    pub deliver: DeliverSettings,
    /// Retries.
    pub retry: RetrySettings,
    /// The ledger.
    pub ledger: LedgerSettings,
    /// The object store.
    pub store: StoreSettings,
    /// The report.
    pub report: ReportSettings,
    /// Submissions over HTTP.
    pub submit: SubmitSettings,
    /// Clusters of processes.
    pub cluster: ClusterSettings,
}

/// The annotated reference file: every key with its default.
pub const REFERENCE: &str = include_str!("../faceflow.toml");
