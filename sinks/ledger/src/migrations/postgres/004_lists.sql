-- Which watched list named a site last: what it loses while nobody watches it is noticed.
ALTER TABLE sites ADD COLUMN list TEXT;

-- Images that a server or a rule refused are tried again by a stream, like pages; those whose bytes are no good are not.
UPDATE entries SET revive_ms = 0 WHERE kind = 'image' AND state = 'rejected' AND url NOT LIKE 'data:%' AND reason NOT IN (
    'content_encoding', 'corrupt_image', 'not_an_image', 'svg', 'too_many_pixels', 'too_much_memory', 'too_small',
    'unsupported_format');
-- What is tried again of a site.
CREATE INDEX entries_revive_of_site ON entries (site) WHERE revive_ms IS NOT NULL;

-- Of the attempts, those that count towards no limit: the object store failed, or it was rejected before.
ALTER TABLE entries ADD COLUMN spared BIGINT NOT NULL DEFAULT 0;
ALTER TABLE pictures ADD COLUMN spared BIGINT NOT NULL DEFAULT 0;
