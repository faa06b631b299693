//! Where objects lie under the output: `{tenant}/{kind}/{first two hex digits}/{id}…`, as users' scripts rely on.

use crate::record::{Content, ContentId};

/// The original bytes of a picture.
pub fn image_key(tenant: &str, content: &Content) -> String {
    format!("{}.{}", place(tenant, "images", content.id), content.extension())
}

/// The crop of a picture's `n`-th face, from 0.
pub fn crop_key(tenant: &str, id: ContentId, n: usize) -> String {
    format!("{}/{n}.jpg", place(tenant, "faces", id))
}

/// The thumbnail of a picture.
pub fn thumb_key(tenant: &str, id: ContentId) -> String {
    format!("{}.jpg", place(tenant, "thumbs", id))
}

/// The sidecar of a picture.
pub fn meta_key(tenant: &str, id: ContentId) -> String {
    format!("{}.json", place(tenant, "meta", id))
}

/// The id of a picture's `n`-th face.
pub fn face_id(id: ContentId, n: usize) -> String {
    format!("{id}/{n}")
}

fn place(tenant: &str, kind: &str, id: ContentId) -> String {
    let hex = id.to_string();
    format!("{tenant}/{kind}/{}/{hex}", &hex[..2])
}
