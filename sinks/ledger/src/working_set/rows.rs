//! The rows that facts change, as they are in memory, and the columns in which they are written.

mod entry;
mod host;
mod picture;

use std::rc::Rc;

use faceflow_core::record::{HashBits, HashKind};

pub(super) use self::entry::ENTRY_COLUMNS;
pub(crate) use self::entry::EntryRow;
pub(crate) use self::host::{HOST_COLUMNS, HostKey, HostRow};
pub(super) use self::picture::PICTURE_COLUMNS;
pub(crate) use self::picture::PictureRow;

use super::row_statements::Kind::{Blob, Bool, Int, Text};
use super::row_statements::Role::{Always, Fixed, Key as Identity};
use super::row_statements::RowShape;
use crate::error::TransactionError;
use crate::new_rows::Places;
use crate::value::{Row, Value};

/// A row that can be written.
pub(crate) trait Stored<K> {
    const SHAPE: RowShape;

    /// The values of the row with key `key`, one for each column.
    fn values<'v>(&'v self, key: &'v K, tenant: i64, out: &mut Vec<Value<'v>>);

    /// Which of the columns that are not read are set.
    fn mask(&self) -> i64 {
        0
    }

    /// It was written: what is not read need not be kept.
    fn clean(&mut self) {}
}

fn mask(set: &[bool]) -> i64 {
    set.iter().enumerate().map(|(bit, set)| i64::from(*set) << bit).sum()
}

/// An entry of the site lists.
#[derive(Clone, Debug)]
pub(crate) struct SiteRow {
    pub url: Rc<str>,
    pub pages: i64,
    pub images: i64,
    pub sequences: i64,
    pub removed: bool,
    pub list: Option<Rc<str>>,
}

/// What is read of a site, in the order of [`SiteRow::read`].
pub(super) const SITE_COLUMNS: &str = "id, url, pages, images, sequences, removed, list";

impl SiteRow {
    pub(super) fn read(row: &Row<'_>) -> Result<(i64, Self), TransactionError> {
        let site = Self {
            url: row.get::<String>(1)?.into(),
            pages: row.get(2)?,
            images: row.get(3)?,
            sequences: row.get(4)?,
            removed: row.get(5)?,
            list: row.get::<Option<String>>(6)?.map(Into::into),
        };
        Ok((row.get(0)?, site))
    }
}

impl Stored<i64> for SiteRow {
    const SHAPE: RowShape = RowShape {
        table: "sites",
        columns: &[
            ("id", Int, Identity),
            ("tenant", Int, Fixed),
            ("url", Text, Fixed),
            ("pages", Int, Always),
            ("images", Int, Always),
            ("sequences", Int, Always),
            ("removed", Bool, Always),
            ("list", Text, Always),
        ],
        replaces: false,
        places: Places::Together,
    };

    fn values<'v>(&'v self, id: &'v i64, tenant: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[
            (*id).into(),
            tenant.into(),
            self.url.as_ref().into(),
            self.pages.into(),
            self.images.into(),
            self.sequences.into(),
            self.removed.into(),
            self.list.as_deref().into(),
        ]);
    }
}

/// That a page shows an image: `(image, page)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageImage;

impl Stored<(i64, i64)> for PageImage {
    const SHAPE: RowShape = RowShape {
        table: "page_images",
        columns: &[("image", Int, Identity), ("page", Int, Identity)],
        replaces: false,
        places: Places::Together,
    };

    fn values<'v>(&'v self, (image, page): &'v (i64, i64), _: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[(*image).into(), (*page).into()]);
    }
}

/// That an image counts towards a site's budget: `(site, image)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SiteImage;

impl Stored<(i64, i64)> for SiteImage {
    const SHAPE: RowShape = RowShape {
        table: "site_images",
        columns: &[("site", Int, Identity), ("image", Int, Identity)],
        replaces: false,
        places: Places::Together,
    };

    fn values<'v>(&'v self, (site, image): &'v (i64, i64), _: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[(*site).into(), (*image).into()]);
    }
}

/// That an image offers another address of its picture, and how good that is: `(image, alternate)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub rank: i64,
}

impl Stored<(i64, i64)> for Offer {
    const SHAPE: RowShape = RowShape {
        table: "offers",
        columns: &[("image", Int, Identity), ("alternate", Int, Identity), ("rank", Int, Always)],
        replaces: false,
        places: Places::Together,
    };

    fn values<'v>(&'v self, (image, alternate): &'v (i64, i64), _: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[(*image).into(), (*alternate).into(), self.rank.into()]);
    }
}

/// What a page that was read before its turn leads to: `(site, sequence)`.
#[derive(Clone, Debug)]
pub(crate) struct Buffered {
    pub page: i64,
    pub body: Rc<str>,
}

impl Stored<(i64, i64)> for Buffered {
    const SHAPE: RowShape = RowShape {
        table: "reorder_buffer",
        columns: &[("site", Int, Identity), ("sequence", Int, Identity), ("page", Int, Fixed), ("body", Text, Fixed)],
        replaces: false,
        places: Places::Together,
    };

    fn values<'v>(&'v self, (site, sequence): &'v (i64, i64), _: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[(*site).into(), (*sequence).into(), self.page.into(), self.body.as_ref().into()]);
    }
}

/// A perceptual hash of a picture: `(picture, kind, version)`. It is not read, and made with its picture.
pub(crate) type HashId = (i64, HashKind, u16);

#[derive(Clone, Copy, Debug)]
pub(crate) struct HashRow {
    pub bits: HashBits,
    pub distinctive: bool,
}

impl Stored<HashId> for HashRow {
    const SHAPE: RowShape = RowShape {
        table: "hashes",
        columns: &[
            ("picture", Int, Identity),
            ("kind", Text, Identity),
            ("version", Int, Identity),
            ("bits", Blob, Fixed),
            ("distinctive", Bool, Fixed),
        ],
        replaces: false,
        places: Places::Together,
    };

    fn values<'v>(&'v self, (picture, kind, version): &'v HashId, _: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[
            (*picture).into(),
            kind.name().into(),
            (*version).into(),
            self.bits.as_bytes().into(),
            self.distinctive.into(),
        ]);
    }
}

/// What an engine answered. It is not read: a new answer replaces the one before.
#[derive(Clone, Debug)]
pub(crate) struct DetectionRow {
    pub faces: i64,
    pub body: Rc<str>,
}

impl Stored<i64> for DetectionRow {
    const SHAPE: RowShape = RowShape {
        table: "detections",
        columns: &[("picture", Int, Identity), ("faces", Int, Always), ("body", Text, Always)],
        replaces: true,
        places: Places::Together,
    };

    fn values<'v>(&'v self, picture: &'v i64, _: i64, out: &mut Vec<Value<'v>>) {
        out.extend_from_slice(&[(*picture).into(), self.faces.into(), self.body.as_ref().into()]);
    }
}
