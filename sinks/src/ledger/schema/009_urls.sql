-- Results are read in the order of URLs, a page at a time.
CREATE INDEX entries_by_url ON entries (tenant, kind, url);
