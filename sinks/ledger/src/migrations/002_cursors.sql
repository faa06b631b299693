-- How far each view that is written in steps (the sidecars) has followed the log.
CREATE TABLE cursors (
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    name   TEXT NOT NULL,
    seq    INTEGER NOT NULL CHECK (seq >= 0),
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
