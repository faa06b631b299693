//! What a page leads to: the links and images of HTML pages, sitemaps and feeds.

pub mod address;
pub mod html;
pub mod listing;
