-- What came to a bad end is tried again by a stream, a file that is replaced is a new one, and a frame that failed says how it
-- was looked at.

-- When a stream tries it nevertheless.
ALTER TABLE entries ADD COLUMN revive_ms INTEGER CHECK (revive_ms IS NULL OR state IN ('rejected', 'dead'));
ALTER TABLE pictures ADD COLUMN revive_ms INTEGER CHECK (revive_ms IS NULL OR state = 'dead');
-- Of a file: when it was changed last and its size, when it was discovered.
ALTER TABLE entries ADD COLUMN version TEXT;
-- The scale of the last detection that failed, in millionths.
ALTER TABLE pictures ADD COLUMN scale_ppm INTEGER;

UPDATE entries SET revive_ms = 0 WHERE state = 'dead' OR state = 'rejected' AND kind = 'page';
UPDATE pictures SET revive_ms = 0 WHERE state = 'dead';

CREATE INDEX entries_revive ON entries (tenant, lane, revive_ms, id) WHERE revive_ms IS NOT NULL;
-- Unless another stands for the picture by now.
CREATE INDEX pictures_revive ON pictures (tenant, revive_ms)
    WHERE revive_ms IS NOT NULL AND (representative IS NULL OR representative = id);
