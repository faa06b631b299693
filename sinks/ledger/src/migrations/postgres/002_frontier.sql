-- The crawl frontier lives here: open work waits in lanes, one for each host of the web, and pages have turns.

ALTER TABLE sites ADD COLUMN images BIGINT NOT NULL DEFAULT 0 CHECK (images >= 0); -- that count towards its budget
ALTER TABLE sites ADD COLUMN turns BIGINT NOT NULL DEFAULT 0 CHECK (turns >= 0);   -- given to its pages so far

-- What was open before waits in one lane: that is slower, and right.
ALTER TABLE entries ADD COLUMN lane BIGINT NOT NULL DEFAULT 1;
-- Of a page that was not tried yet: what it leads to is taken up in this order within its site.
ALTER TABLE entries ADD COLUMN turn BIGINT CHECK (turn IS NULL OR state = 'open');

-- A site that is no longer on its list is not looked at again. Of a page that was read: what it was, as JSON, and when it is
-- due again.
ALTER TABLE sites ADD COLUMN removed BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE entries ADD COLUMN reading TEXT;
ALTER TABLE entries ADD COLUMN again_ms BIGINT CHECK (again_ms IS NULL OR state = 'settled');

UPDATE entries SET again_ms = 0 WHERE kind = 'page' AND state = 'settled';
UPDATE entries SET turn = id WHERE kind = 'page' AND state = 'open' AND attempts = 0;
UPDATE sites SET images = (SELECT count(*) FROM shown WHERE site = sites.id),
    turns = (SELECT coalesce(max(id), 0) + 1 FROM entries);

DROP INDEX entries_open;
DROP INDEX entries_pages;
CREATE INDEX entries_open ON entries (tenant, lane, due_ms, id) WHERE state = 'open';
CREATE INDEX entries_turns ON entries (site, turn) WHERE turn IS NOT NULL;
CREATE INDEX entries_again ON entries (tenant, lane, again_ms, id) WHERE again_ms IS NOT NULL;
CREATE INDEX entries_of_site ON entries (site) WHERE kind = 'page';
CREATE INDEX pictures_waiting ON pictures (tenant, due_ms) WHERE due_ms IS NOT NULL;

-- Pages that were read before their turn, with what they lead to.
CREATE TABLE early (
    site BIGINT NOT NULL REFERENCES sites (id),
    turn BIGINT NOT NULL,
    page BIGINT NOT NULL REFERENCES entries (id),
    body TEXT NOT NULL CHECK (body::json IS NOT NULL),
    PRIMARY KEY (site, turn)
);

-- A run that is over leaves what it has to another, which speaks for it from then on.
ALTER TABLE runs ADD COLUMN tenant BIGINT REFERENCES tenants (id);
UPDATE runs SET tenant = held.tenant FROM (
    SELECT DISTINCT run, tenant FROM entries WHERE run IS NOT NULL
    UNION SELECT DISTINCT run, tenant FROM pictures WHERE run IS NOT NULL) held
    WHERE runs.id = held.run;
ALTER TABLE runs ADD COLUMN heir BIGINT REFERENCES runs (id) CHECK (heir IS NULL OR ended_at IS NOT NULL);
CREATE INDEX runs_left ON runs (heir) WHERE heir IS NOT NULL;

-- Whether a living run other than this connection's is the holder, or has what the holder left.
CREATE OR REPLACE FUNCTION held_elsewhere(holder BIGINT) RETURNS BOOLEAN LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT 1 FROM runs held JOIN runs holding ON holding.id = coalesce(held.heir, held.id)
        WHERE held.id = holder AND holding.id IS DISTINCT FROM this_run() AND holding.ended_at IS NULL
            AND holding.beat_at + holding.lease_ms * interval '1 millisecond' > clock_timestamp())
$$;
