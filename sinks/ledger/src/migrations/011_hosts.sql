-- What a host did concerns all its URLs: while it fails, nothing of its queue is dispatched before a time, and then one by one.
CREATE TABLE hosts (
    tenant        INTEGER NOT NULL REFERENCES tenants (id),
    job           INTEGER NOT NULL CHECK (job >= 0),
    queue         INTEGER NOT NULL,
    name          TEXT NOT NULL,                                     -- and port, for people
    failures      INTEGER NOT NULL CHECK (failures >= 0),            -- in a row; 0: it was not asked since it asked for rest
    since_ms      INTEGER NOT NULL,                                  -- when the first of them was
    not_before_ms INTEGER NOT NULL,                                  -- when it may be asked again
    given_up      INTEGER NOT NULL CHECK (given_up IN (0, 1)),       -- until then its work ends without being asked
    class         TEXT NOT NULL,                                     -- the last fault
    reason        TEXT NOT NULL,
    detail        TEXT NOT NULL,
    PRIMARY KEY (tenant, job, queue)
) STRICT, WITHOUT ROWID;

INSERT INTO migrations (format, reader_min, writer_min) VALUES (11, 11, 11);
