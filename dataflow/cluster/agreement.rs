//! What the processes of a cluster believe about it, and in what two of them differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What every process must agree on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// The version of faceflow.
    pub version: String,
    /// Every process's address.
    pub addresses: Vec<String>,
    /// Workers in each process.
    pub workers: usize,
    /// Whether only a signal ends the run.
    pub endless: bool,
    /// State, output and tenant, without passwords.
    pub places: String,
    /// A digest of the detector's model.
    pub model: String,
    /// Every setting, as text; a digest of those that are long or secret.
    pub settings: BTreeMap<String, String>,
}

impl Agreement {
    /// The first thing in which two processes do not fit together: what it is, here and there.
    pub(super) fn difference(&self, theirs: &Self) -> Option<(String, String, String)> {
        let command = |endless| if endless { "stream" } else { "run" }.to_owned();
        let rows = [
            ("the version", self.version.clone(), theirs.version.clone()),
            ("the number of processes (-n)", self.addresses.len().to_string(), theirs.addresses.len().to_string()),
            ("the hosts file (-h)", self.addresses.join(" "), theirs.addresses.join(" ")),
            ("the number of workers (-w)", self.workers.to_string(), theirs.workers.to_string()),
            ("the command", command(self.endless), command(theirs.endless)),
            ("--state, --out or --tenant", self.places.clone(), theirs.places.clone()),
            ("the detector's model", self.model.clone(), theirs.model.clone()),
        ];
        let row = rows.into_iter().find(|(_, ours, theirs)| ours != theirs);
        row.map(|(what, ours, theirs)| (what.to_owned(), ours, theirs)).or_else(|| {
            let of =
                |side: &Self, key: &String| side.settings.get(key).cloned().unwrap_or_else(|| "nothing".to_owned());
            let keys = self.settings.keys().chain(theirs.settings.keys());
            let key = keys.into_iter().find(|key| self.settings.get(*key) != theirs.settings.get(*key))?;
            Some((format!("the setting {key}"), of(self, key), of(theirs, key)))
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a process of a small cluster believes.
    pub(in super::super) fn agreement() -> Agreement {
        Agreement {
            version: "1.2.3".to_owned(),
            addresses: vec!["a:1".to_owned(), "b:2".to_owned()],
            workers: 2,
            endless: false,
            places: "state out default".to_owned(),
            model: "abc".to_owned(),
            settings: BTreeMap::from([("fetch.per_host".to_owned(), "2".to_owned())]),
        }
    }

    #[test]
    fn the_setting_that_differs_is_named() {
        let mut theirs = agreement();
        assert_eq!(agreement().difference(&theirs), None);
        theirs.settings.insert("new.setting".to_owned(), "1".to_owned());
        let named = |what: &str, ours: &str, theirs: &str| Some((what.to_owned(), ours.to_owned(), theirs.to_owned()));
        assert_eq!(agreement().difference(&theirs), named("the setting new.setting", "nothing", "1"));
        theirs.settings.insert("fetch.per_host".to_owned(), "8".to_owned());
        assert_eq!(agreement().difference(&theirs), named("the setting fetch.per_host", "2", "8"));
        theirs.model = "other".to_owned();
        assert_eq!(agreement().difference(&theirs), named("the detector's model", "abc", "other"));
    }
}
