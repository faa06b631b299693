-- The crawl frontier lives here: open work waits in lanes, one for each host of the web, and pages have turns.

ALTER TABLE sites ADD COLUMN images INTEGER NOT NULL DEFAULT 0 CHECK (images >= 0); -- that count towards its budget
ALTER TABLE sites ADD COLUMN turns INTEGER NOT NULL DEFAULT 0 CHECK (turns >= 0);   -- given to its pages so far

-- What was open before waits in one lane: that is slower, and right.
ALTER TABLE entries ADD COLUMN lane INTEGER NOT NULL DEFAULT 1;
-- Of a page that was not tried yet: what it leads to is taken up in this order within its site.
ALTER TABLE entries ADD COLUMN turn INTEGER CHECK (turn IS NULL OR state = 'open');

-- A site that is no longer on its list is not looked at again. Of a page that was read: what it was, as JSON, and when it is
-- due again.
ALTER TABLE sites ADD COLUMN removed INTEGER NOT NULL DEFAULT 0 CHECK (removed IN (0, 1));
ALTER TABLE entries ADD COLUMN reading TEXT;
ALTER TABLE entries ADD COLUMN again_ms INTEGER CHECK (again_ms IS NULL OR state = 'settled');

UPDATE entries SET again_ms = 0 WHERE kind = 'page' AND state = 'settled';
UPDATE entries SET turn = id WHERE kind = 'page' AND state = 'open' AND attempts = 0;
UPDATE sites SET images = (SELECT count(*) FROM shown WHERE site = sites.id),
    turns = (SELECT coalesce(max(id), 0) + 1 FROM entries);

DROP INDEX entries_open;
DROP INDEX entries_pages;
DROP INDEX pictures_waiting;
CREATE INDEX entries_open ON entries (tenant, lane, due_ms, id) WHERE state = 'open';
CREATE INDEX entries_turns ON entries (site, turn) WHERE turn IS NOT NULL;
CREATE INDEX entries_again ON entries (tenant, lane, again_ms, id) WHERE again_ms IS NOT NULL;
CREATE INDEX entries_of_site ON entries (site) WHERE kind = 'page';
CREATE INDEX pictures_waiting ON pictures (tenant, due_ms) WHERE due_ms IS NOT NULL;

-- Pages that were read before their turn, with what they lead to.
CREATE TABLE early (
    site INTEGER NOT NULL REFERENCES sites (id),
    turn INTEGER NOT NULL,
    page INTEGER NOT NULL REFERENCES entries (id),
    body TEXT NOT NULL CHECK (json_valid(body)),
    PRIMARY KEY (site, turn)
) STRICT, WITHOUT ROWID;
