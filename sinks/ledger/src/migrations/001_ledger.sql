-- The ledger of one state directory: what was discovered, what became of it, and the log of how.
-- `facts` is only ever appended to; every other table is what the facts add up to.

CREATE TABLE tenants (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE CHECK (name <> '')
) STRICT;

-- Entries of the site lists, with the budget they have used.
CREATE TABLE sites (
    id     INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    url    TEXT NOT NULL,
    pages  INTEGER NOT NULL DEFAULT 0 CHECK (pages >= 0),
    images INTEGER NOT NULL DEFAULT 0 CHECK (images >= 0),
    UNIQUE (tenant, url)
) STRICT;

-- One row per distinct picture: SHA-256 of its bytes.
CREATE TABLE pictures (
    id             INTEGER PRIMARY KEY,
    tenant         INTEGER NOT NULL REFERENCES tenants (id),
    content        BLOB NOT NULL CHECK (length(content) = 32),
    state          TEXT NOT NULL CHECK (state IN ('open', 'settled', 'rejected', 'dead')),
    bytes          INTEGER NOT NULL CHECK (bytes >= 0),
    format         TEXT NOT NULL,
    width          INTEGER NOT NULL CHECK (width >= 0),
    height         INTEGER NOT NULL CHECK (height >= 0),
    phash          INTEGER NOT NULL,
    distinctive    INTEGER NOT NULL CHECK (distinctive IN (0, 1)),
    attempts       INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0), -- detections that failed
    due_ms         INTEGER CHECK (due_ms IS NULL OR state = 'open'), -- of a scheduled retry
    reason         TEXT,                                             -- the last fault
    detail         TEXT,
    representative INTEGER REFERENCES pictures (id),                 -- by the last ruling; itself or NULL: itself
    distance       INTEGER CHECK ((distance IS NULL) = (representative IS NULL)),
    main           INTEGER REFERENCES entries (id),                  -- the smallest URL that leads to it
    urls           INTEGER NOT NULL DEFAULT 0 CHECK (urls >= 0),     -- image URLs that lead to it
    behind         INTEGER NOT NULL DEFAULT 0 CHECK (behind >= 0),   -- alternates of those URLs
    UNIQUE (tenant, content),
    CHECK ((urls = 0) = (main IS NULL))
) STRICT;

CREATE INDEX pictures_represented ON pictures (representative) WHERE representative <> id;
CREATE INDEX pictures_waiting ON pictures (tenant) WHERE due_ms IS NOT NULL;

-- What an engine answered; apart, so that the table above stays narrow.
CREATE TABLE detections (
    picture INTEGER PRIMARY KEY REFERENCES pictures (id),
    faces   INTEGER NOT NULL CHECK (faces >= 0),
    body    TEXT NOT NULL
) STRICT;

-- One row per discovered URL.
CREATE TABLE entries (
    id            INTEGER PRIMARY KEY,
    tenant        INTEGER NOT NULL REFERENCES tenants (id),
    key           BLOB NOT NULL CHECK (length(key) = 16),
    kind          TEXT NOT NULL CHECK (kind IN ('page', 'image')),
    state         TEXT NOT NULL CHECK (state IN ('alternate', 'open', 'settled', 'rejected', 'dead')),
    depth         INTEGER CHECK ((depth IS NOT NULL) = (kind = 'page')),
    attempts      INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),   -- tries that failed
    due_ms        INTEGER CHECK (due_ms IS NULL OR state = 'open'),
    picture       INTEGER REFERENCES pictures (id) CHECK ((picture IS NOT NULL) = (kind = 'image' AND state = 'settled')),
    primary_entry INTEGER REFERENCES entries (id),  -- of an alternate: what it stands behind
    rank          INTEGER,                          -- of an alternate: 0 is the best
    site          INTEGER NOT NULL REFERENCES sites (id),
    url           TEXT NOT NULL,
    final_url     TEXT,                             -- once settled; NULL: as url
    http_status   INTEGER,
    links         INTEGER,                          -- of a page that was read
    images        INTEGER,
    reason        TEXT,                             -- the last fault
    detail        TEXT,
    headers       TEXT,                             -- evidence, as a JSON list of pairs
    skip          BLOB,                             -- of a page: 16 bytes of key for each page its links must not choose
    inline        BLOB,                             -- bytes of a data: URI while they are needed
    UNIQUE (tenant, key),
    CHECK (state <> 'alternate' OR (kind = 'image' AND primary_entry IS NOT NULL AND rank IS NOT NULL))
) STRICT;

CREATE INDEX entries_open ON entries (tenant) WHERE state = 'open';
CREATE INDEX entries_pages ON entries (tenant, key, depth) WHERE kind = 'page';
CREATE INDEX entries_behind ON entries (primary_entry, rank) WHERE primary_entry IS NOT NULL;
CREATE INDEX entries_of_picture ON entries (picture) WHERE picture IS NOT NULL;

-- Which page shows which image.
CREATE TABLE sightings (
    image INTEGER NOT NULL REFERENCES entries (id),
    page  INTEGER NOT NULL REFERENCES entries (id),
    PRIMARY KEY (image, page)
) STRICT, WITHOUT ROWID;

-- How many entries are in each state, as users see them.
CREATE TABLE tallies (
    tenant     INTEGER NOT NULL REFERENCES tenants (id),
    kind       TEXT NOT NULL CHECK (kind IN ('page', 'image')),
    discovered INTEGER NOT NULL CHECK (discovered >= 0),
    done       INTEGER NOT NULL CHECK (done >= 0),
    duplicate  INTEGER NOT NULL CHECK (duplicate >= 0),
    rejected   INTEGER NOT NULL CHECK (rejected >= 0),
    dead       INTEGER NOT NULL CHECK (dead >= 0),
    open       INTEGER NOT NULL CHECK (open >= 0),
    PRIMARY KEY (tenant, kind)
) STRICT, WITHOUT ROWID;

-- The log. It holds what the other tables do not keep: when, in which order, and every fault.
CREATE TABLE facts (
    seq     INTEGER PRIMARY KEY,
    tenant  INTEGER NOT NULL REFERENCES tenants (id),
    at_ms   INTEGER NOT NULL,
    kind    TEXT NOT NULL CHECK (kind IN (
        'admitted', 'offered', 'opened', 'sighted', 'visited', 'kept', 'delivered', 'ruled',
        'retry', 'rejected', 'dead', 'redriven')),
    entry   INTEGER,    -- the URL it is about
    picture INTEGER,    -- the picture it is about
    other   INTEGER,    -- the page that led there, the entry stood behind, or the representative
    body    TEXT CHECK (body IS NULL OR json_valid(body)),  -- the fault
    CHECK (entry IS NOT NULL OR picture IS NOT NULL)
) STRICT;

CREATE TRIGGER facts_are_not_changed BEFORE UPDATE ON facts
BEGIN
    SELECT RAISE(ABORT, 'facts are never changed');
END;

CREATE TRIGGER facts_are_not_deleted BEFORE DELETE ON facts
BEGIN
    SELECT RAISE(ABORT, 'facts are never deleted');
END;
