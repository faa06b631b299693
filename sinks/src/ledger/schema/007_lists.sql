-- Which watched list named a site last: what it loses while nobody watches it is noticed.
ALTER TABLE sites ADD COLUMN list TEXT;

-- Images that a server refused are tried again by a stream, like pages.
UPDATE entries SET revive_ms = 0 WHERE kind = 'image' AND state = 'rejected' AND reason LIKE 'http!_%' ESCAPE '!';
