-- Which watched list named a site last: what it loses while nobody watches it is noticed.
ALTER TABLE sites ADD COLUMN list TEXT;

-- Images that a server refused are tried again by a stream, like pages.
UPDATE entries SET revive_ms = 0 WHERE kind = 'image' AND state = 'rejected' AND reason LIKE 'http!_%' ESCAPE '!';

-- Of the attempts, those that the object store failed: they count towards no limit.
ALTER TABLE entries ADD COLUMN spared BIGINT NOT NULL DEFAULT 0;
ALTER TABLE pictures ADD COLUMN spared BIGINT NOT NULL DEFAULT 0;
