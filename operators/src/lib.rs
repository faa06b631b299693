//! The operators of the pipeline: one file per operator, each an extension trait on exactly one flow, so that a wrong
//! chain does not compile. What they run (web client, miner, pixels, duplicates, engines) lies in crates of its own below.

pub mod append_facts;
pub mod branch;
pub mod decide_retry;
pub mod decode;
pub mod dedupe_exact;
pub mod dedupe_near;
pub mod detect;
pub mod detector_pool;
pub mod dispatch;
pub mod download;
pub mod evict;
pub mod fetch;
pub mod found_pages;
pub mod give_up;
pub mod jobs;
pub mod mine;
pub mod picture_decoder;
pub mod pixel_cache;
pub mod read_sources;
pub mod recrawl;
pub mod rehydrate;
pub mod route;
pub mod select_links;
pub mod source_set;
pub mod store_crops;
pub mod store_original;
pub mod stored_contents;
pub mod tenant_store;
pub mod to_owner;
pub mod view_batcher;
pub mod write_sinks;
