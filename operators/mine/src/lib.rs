//! What a page leads to: the links and images of HTML pages, sitemaps and feeds.

pub mod feed;
pub mod html;
pub mod url_normalization;
