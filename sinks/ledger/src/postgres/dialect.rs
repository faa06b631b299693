//! From the dialect of SQLite, in which statements are written, to that of PostgreSQL: the whole of the differences that
//! need no thought.

use std::fmt::Write;

/// Which index to use: a server finds out for itself.
const NOT_INDEXED: &str = " NOT INDEXED";
const INDEXED_BY: &str = " INDEXED BY ";

/// The statement as PostgreSQL takes it. No literal of ours contains a question mark.
pub(super) fn translate(sql: &str) -> String {
    let mut sql = sql.replace(NOT_INDEXED, "");
    while let Some(at) = sql.find(INDEXED_BY) {
        let name = &sql[at + INDEXED_BY.len()..];
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
        sql.replace_range(at..at + INDEXED_BY.len() + end, "");
    }
    let mut out = String::with_capacity(sql.len());
    for piece in sql.split_inclusive('?') {
        match piece.strip_suffix('?') {
            Some(before) => write!(out, "{before}$"),
            None => write!(out, "{piece}"),
        }
        .expect("a string takes what is written to it");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_put_right_and_nothing_else() {
        let cases = [
            ("SELECT 1", "SELECT 1"),
            ("SELECT a FROM t WHERE b = ?1 AND c > ?12", "SELECT a FROM t WHERE b = $1 AND c > $12"),
            ("SELECT a FROM t NOT INDEXED WHERE b IN (?1)", "SELECT a FROM t WHERE b IN ($1)"),
            ("FROM entries e INDEXED BY entries_open JOIN x", "FROM entries e JOIN x"),
            ("FROM a INDEXED BY i_a, b INDEXED BY i_b", "FROM a, b"),
        ];
        for (ours, theirs) in cases {
            assert_eq!(translate(ours), theirs);
        }
    }
}
