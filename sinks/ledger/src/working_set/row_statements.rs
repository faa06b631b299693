//! The columns of a table, and the statements that write its rows: one row or a few at a time to a file, arrays of rows to a server.

use std::fmt::Write;

use crate::new_rows::{Places, places};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Bool,
    Text,
    Blob,
}

impl Kind {
    fn on_server(self) -> &'static str {
        match self {
            Self::Int => "bigint",
            Self::Bool => "boolean",
            Self::Text => "text",
            Self::Blob => "bytea",
        }
    }
}

/// When a column is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It says which row it is.
    Key,
    /// With a new row, and never again.
    Fixed,
    /// With every change of the row.
    Always,
    /// With every change of the row, on a server; a file has no such column.
    Server,
    /// With those changes of the row that set this bit of its mask: it is not read, because it may be long.
    Patch(u32),
}

/// A table as it is written.
pub(crate) struct RowShape {
    pub table: &'static str,
    pub(super) columns: &'static [(&'static str, Kind, Role)],
    /// Whether a new row may replace one of its key that was not read.
    pub(super) replaces: bool,
    /// Where its rows go in a file.
    pub(super) places: Places,
}

/// Which database a statement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

/// A statement, and which values of a row it takes, by their place.
pub(super) struct Statement {
    pub sql: String,
    pub takes: Vec<usize>,
}

impl RowShape {
    fn columns(&self, dialect: Dialect) -> impl Iterator<Item = (usize, &'static str, Kind, Role)> {
        let all = self.columns.iter().enumerate().map(|(n, (name, kind, role))| (n, *name, *kind, *role));
        all.filter(move |(.., role)| dialect == Dialect::Postgres || *role != Role::Server)
    }

    fn keys(&self) -> Vec<&'static str> {
        let keys = self.columns.iter().filter(|(.., role)| *role == Role::Key);
        keys.map(|(name, ..)| *name).collect()
    }

    /// Makes new rows: so many in a file.
    pub(super) fn insert(&self, dialect: Dialect, count: usize) -> Statement {
        let columns: Vec<_> = self.columns(dialect).collect();
        let names = join(&columns, |_, (_, name, ..)| name.to_string());
        let values = match dialect {
            Dialect::Sqlite => format!("VALUES {}", places(columns.len(), count)),
            Dialect::Postgres => rows(&columns),
        };
        let mut sql = format!("INSERT INTO {} ({names}) {values}", self.table);
        if self.replaces {
            let sets: Vec<_> = columns.iter().copied().filter(|(.., role)| *role == Role::Always).collect();
            let sets = join(&sets, |_, (_, name, ..)| format!("{name} = excluded.{name}"));
            let keys = self.keys().join(", ");
            write!(sql, " ON CONFLICT ({keys}) DO UPDATE SET {sets}").expect("a string takes what is written to it");
        }
        Statement { sql, takes: columns.iter().map(|(n, ..)| *n).collect() }
    }

    /// Changes rows. After the values of the row it takes its mask, if it has columns that are written by it.
    pub(super) fn update(&self, dialect: Dialect) -> Statement {
        let mut columns: Vec<_> = self.columns(dialect).filter(|(.., role)| *role != Role::Fixed).collect();
        let masked = self.is_masked();
        if masked {
            columns.push((self.columns.len(), "mask", Kind::Int, Role::Fixed));
        }
        let place = |name: &str| columns.iter().position(|(_, known, ..)| *known == name).map_or(0, |n| n + 1);
        let new = |name: &str| match dialect {
            Dialect::Sqlite => format!("?{}", place(name)),
            Dialect::Postgres => format!("u.{name}"),
        };
        let sets: Vec<_> =
            columns.iter().copied().filter(|(.., role)| !matches!(role, Role::Key | Role::Fixed)).collect();
        let sets = join(&sets, |_, (_, name, _, role)| match role {
            Role::Patch(bit) => {
                let (mask, new, bit) = (new("mask"), new(name), 1_u64 << bit);
                format!("{name} = CASE WHEN {mask} & {bit} <> 0 THEN {new} ELSE t.{name} END")
            }
            _ => format!("{name} = {}", new(name)),
        });
        let keys = self.keys().iter().map(|key| format!("t.{key} = {}", new(key))).collect::<Vec<_>>().join(" AND ");
        let table = self.table;
        let sql = match dialect {
            Dialect::Sqlite => format!("UPDATE {table} AS t SET {sets} WHERE {keys}"),
            Dialect::Postgres => {
                let names = join(&columns, |_, (_, name, ..)| name.to_string());
                format!("UPDATE {table} AS t SET {sets} FROM ({}) AS u ({names}) WHERE {keys}", rows(&columns))
            }
        };
        Statement { sql, takes: columns.iter().map(|(n, ..)| *n).collect() }
    }

    /// Removes rows. It takes the values of their keys alone.
    pub(super) fn delete(&self, dialect: Dialect) -> Statement {
        let columns: Vec<_> = self.columns(dialect).filter(|(.., role)| *role == Role::Key).collect();
        let table = self.table;
        let sql = match dialect {
            Dialect::Sqlite => {
                let keys: Vec<String> =
                    columns.iter().enumerate().map(|(n, (_, name, ..))| format!("{name} = ?{}", n + 1)).collect();
                format!("DELETE FROM {table} WHERE {}", keys.join(" AND "))
            }
            Dialect::Postgres => {
                let names = join(&columns, |_, (_, name, ..)| name.to_string());
                let keys: Vec<String> = columns.iter().map(|(_, name, ..)| format!("t.{name} = u.{name}")).collect();
                let (rows, keys) = (rows(&columns), keys.join(" AND "));
                format!("DELETE FROM {table} AS t USING ({rows}) AS u ({names}) WHERE {keys}")
            }
        };
        Statement { sql, takes: (0..columns.len()).collect() }
    }

    /// Whether some columns are written by a mask.
    pub(super) fn is_masked(&self) -> bool {
        self.columns.iter().any(|(.., role)| matches!(role, Role::Patch(_)))
    }

    /// How many values a row has, the mask included.
    pub(super) fn width(&self) -> usize {
        self.columns.len() + 1
    }
}

type Column = (usize, &'static str, Kind, Role);

fn join(columns: &[Column], text: impl Fn(usize, &Column) -> String) -> String {
    columns.iter().enumerate().map(|(n, column)| text(n, column)).collect::<Vec<_>>().join(", ")
}

/// Arrays of equal length as rows. Functions in the list of what is selected go on together, row by row; as one function in FROM,
/// they would write each array to a store of its own first, which for 30 columns costs four times as much.
fn rows(columns: &[Column]) -> String {
    format!("SELECT {}", join(columns, |n, (_, _, kind, _)| format!("unnest(${}::{}[])", n + 1, kind.on_server())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: RowShape = RowShape {
        table: "things",
        columns: &[
            ("id", Kind::Int, Role::Key),
            ("name", Kind::Text, Role::Fixed),
            ("state", Kind::Text, Role::Always),
            ("run", Kind::Int, Role::Server),
            ("body", Kind::Blob, Role::Patch(3)),
        ],
        replaces: false,
        places: Places::Apart,
    };

    #[test]
    fn statements_take_the_columns_that_they_write() {
        let cases = [
            (
                SHAPE.insert(Dialect::Sqlite, 2),
                "INSERT INTO things (id, name, state, body) VALUES (?1, ?2, ?3, ?4), (?5, ?6, ?7, ?8)",
                vec![0, 1, 2, 4],
            ),
            (
                SHAPE.insert(Dialect::Postgres, 2),
                "INSERT INTO things (id, name, state, run, body) \
                 SELECT unnest($1::bigint[]), unnest($2::text[]), unnest($3::text[]), unnest($4::bigint[]), \
                 unnest($5::bytea[])",
                vec![0, 1, 2, 3, 4],
            ),
            (
                SHAPE.update(Dialect::Sqlite),
                "UPDATE things AS t SET state = ?2, body = CASE WHEN ?4 & 8 <> 0 THEN ?3 ELSE t.body END WHERE t.id = ?1",
                vec![0, 2, 4, 5],
            ),
            (
                SHAPE.update(Dialect::Postgres),
                "UPDATE things AS t SET state = u.state, run = u.run, \
                 body = CASE WHEN u.mask & 8 <> 0 THEN u.body ELSE t.body END \
                 FROM (SELECT unnest($1::bigint[]), unnest($2::text[]), unnest($3::bigint[]), unnest($4::bytea[]), \
                 unnest($5::bigint[])) AS u (id, state, run, body, mask) WHERE t.id = u.id",
                vec![0, 2, 3, 4, 5],
            ),
            (SHAPE.delete(Dialect::Sqlite), "DELETE FROM things WHERE id = ?1", vec![0]),
            (
                SHAPE.delete(Dialect::Postgres),
                "DELETE FROM things AS t USING (SELECT unnest($1::bigint[])) AS u (id) WHERE t.id = u.id",
                vec![0],
            ),
        ];
        for (statement, sql, takes) in cases {
            assert_eq!((statement.sql.as_str(), statement.takes), (sql, takes));
        }
        let replaced = RowShape { replaces: true, ..SHAPE }.insert(Dialect::Sqlite, 1).sql;
        assert!(replaced.ends_with("ON CONFLICT (id) DO UPDATE SET state = excluded.state"), "{replaced}");
    }
}
