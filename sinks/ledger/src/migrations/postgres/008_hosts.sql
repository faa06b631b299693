-- What a host did concerns all its URLs: while it fails, nothing of its queue is dispatched before a time, and then one by one.
CREATE TABLE hosts (
    tenant        BIGINT NOT NULL REFERENCES tenants (id),
    job           BIGINT NOT NULL CHECK (job >= 0),
    queue         BIGINT NOT NULL,
    name          TEXT NOT NULL,                                     -- and port, for people
    failures      BIGINT NOT NULL CHECK (failures >= 0),             -- in a row; 0: it was not asked since it asked for rest
    since_ms      BIGINT NOT NULL,                                   -- when the first of them was
    not_before_ms BIGINT NOT NULL,                                   -- when it may be asked again
    given_up      BOOLEAN NOT NULL,                                  -- until then its work ends without being asked
    class         TEXT NOT NULL,                                     -- the last fault
    reason        TEXT NOT NULL,
    detail        TEXT NOT NULL,
    PRIMARY KEY (tenant, job, queue)
);
