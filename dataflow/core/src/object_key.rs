//! Where objects lie under the output: `{tenant}/{kind}/{first two hex digits}/{id}…`, as users' scripts rely on.

use crate::record::{Content, ContentId};

/// The kinds of objects: the second folder of their keys.
pub const KINDS: [&str; 4] = ["images", "faces", "thumbs", "meta"];

/// The original bytes of a picture.
pub fn image_key(tenant: &str, content: &Content) -> String {
    format!("{}.{}", key_prefix(tenant, "images", content.id), content.extension())
}

/// The crop of a picture's `n`-th face, from 0, by the answer of a generation. Answers never share a key, so that a later one
/// replaces nothing of an earlier one before it is recorded.
pub fn crop_key(tenant: &str, id: ContentId, generation: u32, n: usize) -> String {
    let folder = crops_folder(tenant, id);
    match generation {
        0 => format!("{folder}/{n}.jpg"),
        later => format!("{folder}/g{later}-{n}.jpg"),
    }
}

/// The name of a report.
pub const REPORT: &str = "report.html";

/// The key of a tenant's report: at the root of the output, where people look, for the tenant `default`.
pub fn report_key(tenant: &str) -> String {
    if tenant == "default" { REPORT.to_owned() } else { format!("{tenant}/{REPORT}") }
}

/// The folder of all crops of a picture.
pub fn crops_folder(tenant: &str, id: ContentId) -> String {
    key_prefix(tenant, "faces", id)
}

/// The generation of a crop by its key; `None` for a key that is none of [`crop_key`].
pub fn crop_generation(key: &str) -> Option<u32> {
    let name = key.rsplit('/').next()?.strip_suffix(".jpg")?;
    let (generation, n) = match name.strip_prefix('g').map(|name| name.split_once('-')) {
        Some(later) => {
            later.and_then(|(generation, n)| Some((generation.parse().ok().filter(|later| *later > 0)?, n)))?
        }
        None => (0, name),
    };
    n.bytes().all(|c| c.is_ascii_digit()).then(|| n.parse::<usize>().ok())?.map(|_| generation)
}

/// The thumbnail of a picture.
pub fn thumb_key(tenant: &str, id: ContentId) -> String {
    format!("{}.jpg", key_prefix(tenant, "thumbs", id))
}

/// The sidecar of a picture.
pub fn meta_key(tenant: &str, id: ContentId) -> String {
    format!("{}.json", key_prefix(tenant, "meta", id))
}

/// The id of a picture's `n`-th face.
pub fn face_id(id: ContentId, n: usize) -> String {
    format!("{id}/{n}")
}

fn key_prefix(tenant: &str, kind: &str, id: ContentId) -> String {
    let hex = id.to_string();
    format!("{tenant}/{kind}/{}/{hex}", &hex[..2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_of_two_answers_never_share_a_key() {
        let id = ContentId::of(b"a");
        let keys = [(0, 0), (0, 11), (1, 0), (1, 11), (11, 1), (23, 0)].map(|(generation, n)| {
            let key = crop_key("default", id, generation, n);
            assert_eq!(crop_generation(&key), Some(generation), "{key}");
            assert!(key.starts_with(&format!("{}/", crops_folder("default", id))), "{key}");
            key
        });
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
        assert_eq!(keys[1], format!("default/faces/{}/{id}/11.jpg", &id.to_string()[..2]));
        for other in ["a/b/x.jpg", "a/b/g0-1.jpg", "a/b/g-1.jpg", "a/b/1.png", "a/b/+1.jpg", "a/b/.jpg", "g1.jpg"] {
            assert_eq!(crop_generation(other), None, "{other}");
        }
    }
}
