//! The promises that tests, simulation and debug assertions all check from here.

use crate::tally::Tally;

/// Conservation: everything discovered is done, a duplicate, rejected, dead or open. Says what is off otherwise.
pub fn conserved(tally: &Tally) -> Result<(), String> {
    let accounted = tally.done + tally.duplicate + tally.rejected + tally.dead + tally.open;
    if tally.discovered == accounted {
        return Ok(());
    }
    Err(format!("{} entries were discovered but {accounted} are accounted for: {tally:?}", tally.discovered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_entry_is_noticed() {
        let tally = Tally { discovered: 3, done: 1, open: 2, ..Tally::default() };
        assert_eq!(conserved(&tally), Ok(()));
        assert!(conserved(&Tally { open: 1, ..tally }).is_err());
    }
}
