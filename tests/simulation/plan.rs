//! What a seed has in store besides failures and kills: how many workers, and which of the pipeline's features are at work.

use crate::script::dice;

/// A seed's plan.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Workers of the process.
    pub workers: usize,
    /// Pages and images of a site, at most, where that binds.
    pub budget: Option<(u64, u64)>,
    /// Whether what is dead is driven again at the end, in a world that was mended.
    pub redrive: bool,
    /// Whether a stream follows that looks at everything again, in a world that has grown.
    pub recrawl: bool,
    /// Whether hosts fail as a whole, for a while or for ever.
    pub outages: bool,
    /// Whether the database refuses that one page or image is settled, until the world is mended.
    pub refused: bool,
}

impl Plan {
    /// That of `seed`.
    pub fn of(seed: u64) -> Self {
        let feature = dice((seed, "plan")) % 8;
        Self {
            workers: if dice((seed, "workers")).is_multiple_of(4) { 2 } else { 1 },
            budget: (feature < 2).then(|| (1 + dice((seed, "max pages")) % 5, 1 + dice((seed, "max images")) % 6)),
            redrive: (2..4).contains(&feature),
            recrawl: (4..6).contains(&feature),
            // Where a budget binds and pages fail for a while, what is cut depends on when they recover; and what is looked at again is
            // asked for at its time only where its host answers.
            outages: matches!(feature, 2 | 3 | 6 | 7) && dice((seed, "outages")).is_multiple_of(2),
            refused: [3, 6].contains(&feature),
        }
    }

    /// The settings of the process.
    pub fn settings(&self) -> Vec<String> {
        let mut settings = vec![
            "image.min_side_px=16".to_owned(),
            "deliver.thumb_px=32".to_owned(),
            "detect.batch_max=3".to_owned(),
            "fetch.per_host=1000".to_owned(),
            "retry.web.jitter=0".to_owned(),
            "retry.host.jitter=0".to_owned(),
            "crawl.shape=3x3".to_owned(),
            // What pages that were read early lead to is taken up in many small transactions.
            "ledger.transaction_max=3".to_owned(),
        ];
        if let Some((pages, images)) = self.budget {
            settings.extend([format!("crawl.max_pages={pages}"), format!("crawl.max_images={images}")]);
        }
        settings
    }
}
