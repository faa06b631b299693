-- Which images count towards which site's budget: each once, however many of the site's pages show it.
CREATE TABLE shown (
    site  INTEGER NOT NULL REFERENCES sites (id),
    image INTEGER NOT NULL REFERENCES entries (id),
    PRIMARY KEY (site, image)
) STRICT, WITHOUT ROWID;

INSERT OR IGNORE INTO shown (site, image)
    SELECT p.site, s.image FROM sightings s JOIN entries p ON p.id = s.page JOIN entries e ON e.id = s.image
    WHERE e.state <> 'alternate';

ALTER TABLE sites DROP COLUMN images;
