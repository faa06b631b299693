//! What a run says at its end, and `faceflow status` of what there is: counts, why there is less than was asked for, and what to do.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use faceflow::job::Summary;
use faceflow::ledger::QuarantinedFact;
use faceflow::views::failure_summary::{FailureSummary, SiteWithoutResult, WhyNothing};

use crate::advice::advice;

/// Facts of the quarantine that `faceflow status` names, at most.
pub const QUARANTINED_NAMED_MAX: usize = 5;

/// As much of an address or a message as a line takes, in characters.
const SHORT_MAX: usize = 200;

/// Says what a run came to, on standard output.
pub fn print_summary(summary: &Summary) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "pages   {}", summary.pages)?;
    writeln!(out, "images  {}", summary.images)?;
    writeln!(out, "faces   {}", summary.faces)?;
    write_failures(&summary.failures, &mut out)?;
    for host in &summary.given_up {
        writeln!(out, "host    {} was given up: {}: {}", host.host, host.reason, shortened(&host.detail))?;
    }
    if summary.quarantined > 0 {
        write_quarantined(summary.quarantined, &summary.quarantined_facts, &mut out)?;
    }
    if let Some(report) = &summary.report {
        writeln!(out, "report  {report}")?;
    }
    if summary.outcome.bad_input > 0 {
        let skipped = match summary.outcome.bad_input {
            1 => "1 entry of the site list that is no site".to_owned(),
            many => format!("{many} entries of the site list that are no sites"),
        };
        writeln!(out, "skipped {skipped} (named above)")?;
    }
    if summary.outcome.interrupted {
        writeln!(out, "interrupted; the same command goes on from here")?;
    }
    if let Some(due) = summary.outcome.next_due {
        let due = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(due));
        writeln!(out, "the next retry is due at {due}, beyond --patience; the same command goes on then")?;
    }
    out.flush()
}

/// The most frequent reasons of what was rejected or is dead, the sites that gave nothing, and what to do about them.
pub fn write_failures(failures: &FailureSummary, out: &mut impl Write) -> io::Result<()> {
    for reason in &failures.reasons {
        let (one, many) = if reason.pages { ("page", "pages") } else { ("image", "images") };
        writeln!(out, "why     {} {}: {}", counted(reason.count, one, many), reason.status.word(), reason.reason)?;
    }
    if failures.other_reasons > 0 {
        writeln!(out, "        and {} for other reasons", failures.other_reasons)?;
    }
    if !failures.is_complete {
        writeln!(out, "        reasons are those of the latest entries; faceflow results lists all")?;
    }
    write_sites(failures, out)
}

fn write_sites(failures: &FailureSummary, out: &mut impl Write) -> io::Result<()> {
    let FailureSummary { sites, more_sites, all_sites, .. } = failures;
    if sites.is_empty() {
        if !all_sites {
            writeln!(out, "        only the latest sites were looked at for those that gave nothing")?;
        }
        return Ok(());
    }
    let (total, at_least) = (sites.len() as u64 + more_sites, if *all_sites { "" } else { "at least " });
    writeln!(out, "{at_least}{} gave nothing:", counted(total, "site", "sites"))?;
    // Sites about which the same can be done stand together, and that is said once.
    let mut groups: Vec<(Option<String>, Vec<&SiteWithoutResult>)> = Vec::new();
    for site in sites {
        let advice = site_advice(site);
        match groups.iter_mut().find(|(known, _)| *known == advice) {
            Some((_, sites)) => sites.push(site),
            None => groups.push((advice, vec![site])),
        }
    }
    for (advice, sites) in groups {
        for SiteWithoutResult { url, why } in sites {
            writeln!(out, "  {}  {}", shortened(url), shortened(&words(why)))?;
        }
        if let Some(advice) = advice {
            writeln!(out, "    {advice}")?;
        }
    }
    if *more_sites > 0 {
        writeln!(
            out,
            "  and {at_least}{more_sites} more: faceflow results --kind pages lists them, faceflow explain URL tells of one"
        )?;
    }
    if sites.iter().any(|site| !matches!(site.why, WhyNothing::NoImages { .. })) {
        writeln!(
            out,
            "  to try again: faceflow retry URL… (of pages and images; without a URL: all that is dead), then the same command"
        )?;
    }
    Ok(())
}

fn words(why: &WhyNothing) -> String {
    let with = |what: String, detail: &str| if detail.is_empty() { what } else { format!("{what}: {detail}") };
    match why {
        WhyNothing::StartPage { status, reason, detail } => with(format!("{}, {reason}", status.word()), detail),
        WhyNothing::Images { images: 1, reason, detail, url } => {
            with(format!("its only image {} was not taken, {reason}", shortened(url)), detail)
        }
        WhyNothing::Images { images, reason, detail, url } => {
            with(format!("none of its {images} images was taken, such as {}, {reason}", shortened(url)), detail)
        }
        WhyNothing::NoImages { pages } => {
            format!("{} known, and no image on what was read", counted(*pages, "page", "pages"))
        }
    }
}

fn site_advice(site: &SiteWithoutResult) -> Option<String> {
    match &site.why {
        WhyNothing::StartPage { reason, detail, .. } => advice(&site.url, reason, detail),
        WhyNothing::Images { reason, detail, url, .. } => advice(url, reason, detail),
        WhyNothing::NoImages { .. } => {
            let said = "pages are read without their JavaScript; --crawl all, with a new --state, follows more links";
            Some(said.to_owned())
        }
    }
}

/// How many facts are in the quarantine, the latest of them with their reasons, and what to do.
pub fn write_quarantined(count: u64, latest: &[QuarantinedFact], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "quarantined  {count} facts that the ledger could not take; faceflow retry tries them again")?;
    for QuarantinedFact { kind, subject, reason, .. } in latest {
        writeln!(out, "  {kind} {}: {reason}", shortened(subject))?;
    }
    if count > latest.len() as u64 {
        writeln!(out, "  and {} earlier ones", count - latest.len() as u64)?;
    }
    Ok(())
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// As much of an address or a message as a line takes, without what a terminal would obey.
pub fn shortened(text: &str) -> String {
    let is_bidi = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| if c.is_control() || is_bidi(c) { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(SHORT_MAX).map(shown).collect();
    if text.chars().nth(SHORT_MAX).is_some() {
        short.push('…');
    }
    short
}
